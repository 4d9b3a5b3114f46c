"""What a benchmark needs of a client library, whichever system it talks to: a producer, a consumer, a topic.

The load generator of `frieda.bench.drive` and the pipeline of `frieda.ysb` know only this, so every system is
driven by the same code, at the same times, and read by the same clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from frieda.errors import FriedaError

Done = Callable[[int, int, FriedaError | None], None]
"""`done(count, ended_ns, error)`: so many records were acknowledged, or failed with `error`.

`ended_ns` (monotonic clock) is when the answer was first visible to a user of the library: in its own callback,
also where that runs in another thread. `done` itself is always called on the event loop.
"""
Position = int | str
"""Where a consumer stands in a partition, in the terms of the system: an offset, a sequence, a stream id."""
Start = Literal["earliest", "latest"] | Mapping[int, Position]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerOptions:
    """What a producer is asked for. A driver says in `settings` what it made of it."""

    address: str
    topic: str
    acks: int = 1
    """0, 1 or -1 (all), as Kafka's; a system without the choice says so in its settings."""
    linger_ms: float = 0.0
    batch_bytes: int = 64 * 1024
    compression: str = "none"
    polling: str = "adaptive"
    """Of Frieda's client only."""
    max_in_flight: int = 1
    """How many records the load will have under way at most, for libraries whose buffers are counted in records."""
    delivery_timeout_s: float = 10.0
    extra: Mapping[str, object] = field(default_factory=dict)
    """Settings of the library itself, under its own names."""


class ProducerDriver(Protocol):
    """One producer: its own client, its own connections."""

    @property
    def settings(self) -> Mapping[str, object]:
        """Every setting that shapes its figures, under the library's own names, and the library's version."""
        ...

    async def start(self) -> None:
        """Connect and learn of the topic, so that the first record pays for neither. Raises FriedaError."""
        ...

    def submit(self, value: bytes, key: bytes | None, done: Done) -> bool:
        """Send one record now, without waiting; False when the library's buffer is full: nothing was taken."""
        ...

    async def submit_many(self, values: Sequence[bytes], done: Done) -> None:
        """Send all in the library's fastest manner, waiting while its buffer is full.

        `done` is called for one or several records at a time until all are told of.
        """
        ...

    async def close(self, timeout_s: float = 5.0) -> None:
        """Give up what is under way and free everything."""
        ...


class Taken(NamedTuple):
    """Consecutive records of one partition, `next_position` being where to go on after them."""

    partition: int
    values: Sequence[bytes]
    next_position: Position


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerOptions:
    """What a consumer reads. `partitions` None: all of the topic."""

    address: str
    topic: str
    partitions: tuple[int, ...] | None = None
    start: Start = "earliest"
    max_bytes: int = 1024 * 1024
    polling: str = "adaptive"
    extra: Mapping[str, object] = field(default_factory=dict)


class ConsumerDriver(Protocol):
    """One consumer, which belongs to no group: who reads what, and from where, is the caller's."""

    @property
    def settings(self) -> Mapping[str, object]: ...

    async def start(self) -> None:
        """Connect and find the positions to begin at: records sent from here on are seen. Raises FriedaError."""
        ...

    async def take(self, timeout_s: float, max_records: int = 10_000) -> Sequence[Taken]:
        """What has come, as soon as anything has; empty after `timeout_s`. Raises FriedaError."""
        ...

    async def close(self) -> None: ...


class Driver(Protocol):
    """A client library as the benchmarks use it."""

    @property
    def name(self) -> str:
        """As in a result: "frieda", "confluent-kafka", "aiokafka", "redis", "nats"."""
        ...

    @property
    def system(self) -> str:
        """What it talks to: "frieda", "kafka", "redis" or "nats"."""
        ...

    def missing(self) -> str | None:
        """None when it can be used here, else a sentence that says how to get it."""
        ...

    async def make_topic(
        self, address: str, topic: str, partitions: int = 1, replication_factor: int = 1
    ) -> None:
        """Make the topic; nothing when it is there. Raises FriedaError."""
        ...

    def producer(self, options: ProducerOptions) -> ProducerDriver: ...

    def consumer(self, options: ConsumerOptions) -> ConsumerDriver: ...
