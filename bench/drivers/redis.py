"""Redis Streams under the benchmarks: a stream `topic:N` for each partition, XADD, XREAD.

A record is an entry with the field v, and k when it has a key. How many partitions a topic has stands under
`topic:partitions`, since Redis knows streams only.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, Final

from frieda.bench.drivers.base import (
    ConsumerOptions,
    Done,
    Position,
    ProducerOptions,
    Taken,
)
from frieda.bench.drivers.pipeline import Pipeline
from frieda.bench.drivers.read_size import ReadSize
from frieda.bench.drivers.redis_connection import (
    RedisConnection,
    command_bytes,
    error_in,
    missing_library,
)
from frieda.bench.drivers.wire import require_address
from frieda.clients.partitioner import Partitioner
from frieda.errors import (
    BrokerError,
    ClientClosedError,
    ConfigError,
    ErrorCode,
    FriedaError,
)

MAX_IN_FLIGHT: Final = 10_000
"""Commands that may be unanswered; Redis's own manual advises pipelines of about this length."""
_SCHEMES: Final = ("redis", "unix")
_ENTRY_ID: Final = re.compile(r"[0-9]+-[0-9]+")


class RedisDriver:
    """Redis Streams over hiredis, on a connection of its own for each producer and consumer."""

    name = "redis"
    system = "redis"

    def missing(self) -> str | None:
        """None when hiredis is there, else how to get it."""
        return missing_library()

    async def make_topic(
        self, address: str, topic: str, partitions: int = 1, replication_factor: int = 1
    ) -> None:
        """Say how many streams the topic has, unless that is said already. Raises FriedaError."""
        if replication_factor != 1:
            raise ConfigError(
                f"replication_factor = {replication_factor}: streams of one Redis server have one replica"
            )
        if partitions < 1:
            raise ConfigError(f"partitions = {partitions}: must be at least 1")
        connection = RedisConnection()
        await connection.connect(address)
        try:
            await connection.ask("SET", _partitions_key(topic), partitions, "NX")
        finally:
            await connection.close()

    def producer(self, options: ProducerOptions) -> RedisProducer:
        """A producer, not started. Raises ConfigError."""
        return RedisProducer(options)

    def consumer(self, options: ConsumerOptions) -> RedisConsumer:
        """A consumer, not started. Raises ConfigError."""
        return RedisConsumer(options)


class RedisProducer:
    """ProducerDriver: one XADD for each record, written at once; submit_many writes many with one call."""

    def __init__(self, options: ProducerOptions) -> None:
        require_address(options.address, *_SCHEMES)
        if options.compression != "none":
            raise ConfigError(f"compression = {options.compression!r}: Redis Streams have none")
        _no_extra(options.extra)
        self._options = options
        self._connection: RedisConnection | None = None
        self._pipeline: Pipeline | None = None
        self._answers = 0

    @property
    def settings(self) -> Mapping[str, object]:
        """What shapes its figures."""
        return {
            **_client_settings(self._options.address),
            "acks": "every command is answered",
            "linger_ms": 0.0,
            "max_in_flight": MAX_IN_FLIGHT,
            "delivery_timeout_s": self._options.delivery_timeout_s,
        }

    async def start(self) -> None:
        """Connect and learn of the topic. Raises FriedaError; nothing is left open then."""
        options = self._options
        connection = RedisConnection(self._answered, self._lost, self._has_room)
        await connection.connect(options.address)
        try:
            count = await _partition_count(connection, options.topic)
        except BaseException:
            await connection.close()
            raise
        streams = _streams(options.topic, range(count))
        partitioner = Partitioner(count, options.batch_bytes)

        def encode(_: int, value: bytes, key: bytes | None) -> bytes:
            if key is None:
                stream = streams[partitioner.next_sticky(len(value))]
                return command_bytes(b"XADD", stream, b"*", b"v", value)
            stream = streams[partitioner.for_key(key)]
            return command_bytes(b"XADD", stream, b"*", b"v", value, b"k", key)

        timeout_s = options.delivery_timeout_s
        self._pipeline = Pipeline(connection.wire, encode, MAX_IN_FLIGHT, timeout_s, "redis")
        self._connection = connection

    def submit(self, value: bytes, key: bytes | None, done: Done) -> bool:
        """Write one XADD; False while MAX_IN_FLIGHT are unanswered. Raises ClientClosedError."""
        return self._running.submit(value, key, done)

    async def submit_many(self, values: Sequence[bytes], done: Done) -> None:
        """Write them all, about 256 KiB at once. Raises ClientClosedError."""
        await self._running.submit_many(values, done)

    async def close(self, timeout_s: float = 5.0) -> None:
        """End the connection; what is not answered fails with ClientClosedError. May be repeated."""
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is not None:
            pipeline.close()
        if self._connection is not None:
            await self._connection.close()

    @property
    def _running(self) -> Pipeline:
        if self._pipeline is None:
            raise ClientClosedError("this producer is not started, or closed")
        return self._pipeline

    def _answered(self, replies: list[Any]) -> None:
        pipeline = self._pipeline
        if pipeline is None:
            return
        for reply in replies:
            # The answer to an XADD is the id of the entry, in bytes.
            pipeline.answered(self._answers, None if type(reply) is bytes else error_in(reply))
            self._answers += 1
        pipeline.answered_all()

    def _lost(self, error: FriedaError) -> None:
        if self._pipeline is not None:
            self._pipeline.fail(error)

    def _has_room(self) -> None:
        if self._pipeline is not None:
            self._pipeline.make_room()


class RedisConsumer:
    """ConsumerDriver: one XREAD over all its streams is always under way. A position is the id of the last entry."""

    def __init__(self, options: ConsumerOptions) -> None:
        require_address(options.address, *_SCHEMES)
        _no_extra(options.extra)
        self._options = options
        self._connection: RedisConnection | None = None
        self._positions: dict[bytes, tuple[int, bytes]] = {}
        """Stream -> its partition, and the id of the last entry that was read."""
        self._reading: asyncio.Future[Any] | None = None
        self._held: deque[tuple[int, list[Any]]] = deque()
        """Partitions and entries that were read and not handed out yet."""
        self._read_size = ReadSize(options.max_bytes)

    @property
    def settings(self) -> Mapping[str, object]:
        """What shapes its figures."""
        return {**_client_settings(self._options.address), "max_bytes": self._options.max_bytes}

    async def start(self) -> None:
        """Connect and find the last entry of each stream. Raises FriedaError; nothing is left open then."""
        options = self._options
        connection = RedisConnection()
        await connection.connect(options.address)
        try:
            count = await _partition_count(connection, options.topic)
            partitions = range(count) if options.partitions is None else options.partitions
            for partition in partitions:
                if not 0 <= partition < count:
                    raise BrokerError(
                        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
                        f"topic {options.topic!r} has partitions 0 to {count - 1}, not {partition}",
                    )
                (stream,) = _streams(options.topic, (partition,))
                place = b"0-0"
                if options.start == "latest":
                    last = await connection.ask("XREVRANGE", stream, "+", "-", "COUNT", 1)
                    place = last[0][0] if last else place
                elif isinstance(options.start, Mapping) and partition in options.start:
                    place = _entry_id(options.start[partition])
                self._positions[stream] = (partition, place)
        except BaseException:
            await connection.close()
            raise
        self._connection = connection

    async def take(self, timeout_s: float, max_records: int = 10_000) -> Sequence[Taken]:
        """What the XREAD has brought. Raises FriedaError."""
        if max_records < 1:
            raise ConfigError(f"max_records = {max_records}: must be at least 1")
        if not self._held:
            if self._reading is None:
                self._read()
            assert self._reading is not None
            await asyncio.wait((self._reading,), timeout=timeout_s)
            if not self._reading.done():
                return ()
            reply, self._reading = self._reading.result(), None
            self._hold(reply)
            # The next is under way while the application works on this.
            self._read()
        return self._handed_out(max_records)

    async def close(self) -> None:
        """End the connection. May be repeated."""
        connection, self._connection = self._connection, None
        reading, self._reading = self._reading, None
        if connection is not None:
            await connection.close()
        if reading is not None and reading.done() and not reading.cancelled():
            reading.exception()  # nobody asks for it any more

    def _read(self) -> None:
        if self._connection is None:
            raise ClientClosedError("this consumer is not started, or closed")
        streams = list(self._positions)
        count = max(1, self._read_size.records // max(1, len(streams)))  # of each stream
        ids = [place for _, place in self._positions.values()]
        self._reading = self._connection.asked(
            "XREAD", "COUNT", count, "BLOCK", 0, "STREAMS", *streams, *ids
        )

    def _hold(self, reply: Any) -> None:
        size_bytes = records = 0
        try:
            for stream, entries in reply:
                partition, _ = self._positions[stream]
                self._positions[stream] = (partition, entries[-1][0])
                self._held.append((partition, entries))
                records += len(entries)
                size_bytes += sum(len(fields[1]) for _, fields in entries)
        except (TypeError, ValueError, KeyError, IndexError):
            raise error_in(reply) from None
        self._read_size.note(records, size_bytes)

    def _handed_out(self, max_records: int) -> list[Taken]:
        found: list[Taken] = []
        left = max_records
        while self._held and left > 0:
            partition, entries = self._held.popleft()
            if len(entries) > left:
                self._held.appendleft((partition, entries[left:]))
                entries = entries[:left]
            left -= len(entries)
            values = [fields[1] for _, fields in entries]
            found.append(Taken(partition, values, entries[-1][0].decode()))
        return found


def _partitions_key(topic: str) -> str:
    return f"{topic}:partitions"


def _streams(topic: str, partitions: Sequence[int]) -> list[bytes]:
    return [f"{topic}:{partition}".encode() for partition in partitions]


async def _partition_count(connection: RedisConnection, topic: str) -> int:
    """How many streams a topic has. Raises BrokerError when it was not made."""
    found = await connection.ask("GET", _partitions_key(topic))
    if found is None:
        raise BrokerError(
            ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
            f"this Redis has no topic {topic!r}: make it first",
        )
    return int(found)


def _entry_id(position: Position) -> bytes:
    if not isinstance(position, str) or not _ENTRY_ID.fullmatch(position):
        raise ConfigError(
            f"position {position!r}: Redis's are ids of entries, like '1526919030474-55'"
        )
    return position.encode()


def _no_extra(extra: Mapping[str, object]) -> None:
    if extra:
        raise ConfigError(f"{next(iter(extra))!r}: the redis driver has no settings of its own")


def _client_settings(address: str) -> dict[str, object]:
    return {
        "client": "hiredis on a connection of the event loop",
        "version": version("hiredis"),
        "socket": "unix" if address.startswith("unix:") else "tcp",
    }
