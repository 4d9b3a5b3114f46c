"""Producer, Consumer and Admin for scripts that are not asynchronous.

    from frieda.sync import Consumer, Producer

    with Producer("tcp://127.0.0.1:9500") as producer:
        producer.send("orders", b"value", key=b"key")
    with Consumer("tcp://127.0.0.1:9500", "orders", start="earliest") as consumer:
        for record in consumer:
            ...

The methods are those of the asynchronous clients, which do the work on one background thread; what each raises
is said there. One thread at a time may use a client. Ctrl-C in a waiting call cancels the call; no record is
lost by that. Polling is "event" unless told otherwise, since a spinning loop would take the interpreter
away from the script.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Final, Self, Unpack

from frieda.clients import admin as asynchronous_admin
from frieda.clients import consumer as asynchronous_consumer
from frieda.clients import producer as asynchronous_producer
from frieda.clients.admin import BrokerHealth, CommittedInfo, OffsetInfo, TopicInfo
from frieda.clients.bridge import Bridge
from frieda.clients.health import ClientHealth
from frieda.clients.producer import BatchItem
from frieda.clients.settings import ClientSettings, ConsumerSettings, ProducerSettings
from frieda.errors import FriedaError
from frieda.model import Header, Record, RecordMetadata, TopicPartition

RECORDS_AT_ONCE: Final = 1000
"""How many records an iteration takes over from the background thread in one go."""


class Producer:
    """Sends records to topics: `frieda.Producer` without await."""

    def __init__(
        self,
        bootstrap: str | Iterable[str] = "tcp://127.0.0.1:9500",
        **settings: Unpack[ProducerSettings],
    ) -> None:
        settings.setdefault("polling", "event")
        client = asynchronous_producer.Producer(bootstrap, **settings)
        self._bridge = Bridge(client)

    def start(self) -> None:
        """Connect; `with` does it."""
        self._bridge.start()

    def close(self, timeout_s: float | None = None) -> None:
        """Wait until all is acknowledged, then end. May be repeated."""
        self._bridge.close(lambda client: client.close(timeout_s))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # After an exception in the block its records get a moment, not the whole delivery timeout.
        self.close(None if kind is None else 1.0)

    def send(
        self,
        topic: str,
        value: bytes | None = None,
        key: bytes | None = None,
        *,
        partition: int | None = None,
        headers: Sequence[Header] = (),
        timestamp_ms: int | None = None,
    ) -> RecordMetadata:
        """Send a record and wait for its acknowledgement."""
        return self._bridge.call(
            lambda client: client.send(
                topic, value, key, partition=partition, headers=headers, timestamp_ms=timestamp_ms
            )
        )

    def send_nowait(
        self,
        topic: str,
        value: bytes | None = None,
        key: bytes | None = None,
        *,
        partition: int | None = None,
        headers: Sequence[Header] = (),
        timestamp_ms: int | None = None,
    ) -> Future[RecordMetadata]:
        """Send a record; the future has its acknowledgement. Raises BufferFullError when the buffer is full."""

        def send(client: asynchronous_producer.Producer) -> Future[RecordMetadata]:
            told: Future[RecordMetadata] = Future()
            told.set_running_or_notify_cancel()
            inner = client.send_nowait(
                topic, value, key, partition=partition, headers=headers, timestamp_ms=timestamp_ms
            )
            inner.add_done_callback(lambda done: _tell(told, done))
            return told

        return self._bridge.ask(send)

    def send_batch(
        self, topic: str, records: Sequence[BatchItem], *, partition: int | None = None
    ) -> list[RecordMetadata | FriedaError]:
        """Send many and wait for all: the result of each, in order, an error where it failed."""
        return self._bridge.call(
            lambda client: client.send_batch(topic, records, partition=partition)
        )

    def flush(self, timeout_s: float | None = None) -> None:
        """Wait until every record sent before has its result."""
        self._bridge.call(lambda client: client.flush(timeout_s))

    def partitions_for(self, topic: str) -> int:
        """How many partitions a topic has."""
        return self._bridge.call(lambda client: client.partitions_for(topic))

    def health(self) -> ClientHealth:
        """How the connections are."""
        return self._bridge.ask(lambda client: client.health())


class Consumer:
    """Reads topics or partitions: `frieda.Consumer` without await. Iterating waits for records and never ends."""

    def __init__(
        self,
        bootstrap: str | Iterable[str],
        /,
        *topics: str,
        **settings: Unpack[ConsumerSettings],
    ) -> None:
        settings.setdefault("polling", "event")
        self._client = asynchronous_consumer.Consumer(bootstrap, *topics, **settings)
        self._bridge = Bridge(self._client)
        # Taken over for an iteration and not used yet, in reverse order for pop().
        self._ahead: list[Record] = []

    def start(self) -> None:
        """Connect and find where to begin; `with` does it."""
        self._bridge.start()

    def close(self, timeout_s: float = 10.0) -> None:
        """End, after a commit when the consumer commits by itself. May be repeated."""
        self._give_back()
        self._bridge.close(lambda client: client.close(timeout_s))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Record:
        while not self._ahead:
            self._bridge.call(self._take_ahead)
        return self._ahead.pop()

    def getone(self) -> Record:
        """The next record; waits for it."""
        return self.__next__()

    def getmany(
        self, timeout_ms: float = 0, max_records: int | None = None
    ) -> dict[TopicPartition, list[Record]]:
        """What has arrived, by partition; waits up to `timeout_ms` for the first."""
        self._give_back()
        found: list[dict[TopicPartition, list[Record]]] = []

        async def take(client: asynchronous_consumer.Consumer) -> None:
            found.append(await client.getmany(timeout_ms, max_records))

        try:
            self._bridge.call(take)
        except BaseException:
            # Interrupted here while it was done there: what it found comes first again.
            if found:
                self._bridge.ask(lambda client: client.put_back(found[0]))
            raise
        return found[0]

    @property
    def assignment(self) -> tuple[TopicPartition, ...]:
        """The partitions that are read."""
        return self._bridge.ask(lambda client: client.assignment)

    @property
    def paused(self) -> tuple[TopicPartition, ...]:
        return self._bridge.ask(lambda client: client.paused)

    def assign(self, partitions: Iterable[TopicPartition | tuple[str, int]]) -> None:
        """Read these partitions and no others; before `start` or after."""
        if not self._bridge.started:
            self._client.assign(partitions)
            return
        self._give_back()
        self._bridge.ask(lambda client: client.assign(partitions))

    def partitions_for(self, topic: str) -> tuple[TopicPartition, ...]:
        """The partitions of a topic."""
        return self._bridge.call(lambda client: client.partitions_for(topic))

    def seek(self, partition: TopicPartition | tuple[str, int], offset: int) -> None:
        """Read on at `offset`."""
        self._give_back()
        self._bridge.ask(lambda client: client.seek(partition, offset))

    def seek_to_beginning(self, *partitions: TopicPartition) -> None:
        """Read on at the first record (no partition given: of all)."""
        self._give_back()
        self._bridge.call(lambda client: client.seek_to_beginning(*partitions))

    def seek_to_end(self, *partitions: TopicPartition) -> None:
        """Read on behind the last record (no partition given: of all)."""
        self._give_back()
        self._bridge.call(lambda client: client.seek_to_end(*partitions))

    def seek_to_timestamp(self, timestamp_ms: int, *partitions: TopicPartition) -> None:
        """Read on at the first record of that time or later."""
        self._give_back()
        self._bridge.call(lambda client: client.seek_to_timestamp(timestamp_ms, *partitions))

    def pause(self, *partitions: TopicPartition) -> None:
        """Fetch and hand out nothing of these until `resume`."""
        self._give_back()
        self._bridge.ask(lambda client: client.pause(*partitions))

    def resume(self, *partitions: TopicPartition) -> None:
        """Go on with these."""
        self._bridge.ask(lambda client: client.resume(*partitions))

    def position(self, partition: TopicPartition | tuple[str, int]) -> int | None:
        """The offset of the next record that will be handed out; None while it is not known."""
        self._give_back()
        return self._bridge.ask(lambda client: client.position(partition))

    def committed(self, *partitions: TopicPartition) -> dict[TopicPartition, int | None]:
        """What the group has committed."""
        return self._bridge.call(lambda client: client.committed(*partitions))

    def commit(self, offsets: Mapping[TopicPartition, int] | None = None) -> None:
        """Keep these offsets, or all positions, under the group's name."""
        self._give_back()
        self._bridge.call(lambda client: client.commit(offsets))

    def beginning_offsets(self, *partitions: TopicPartition) -> dict[TopicPartition, int]:
        """The offset of the first record that each partition holds."""
        return self._bridge.call(lambda client: client.beginning_offsets(*partitions))

    def end_offsets(self, *partitions: TopicPartition) -> dict[TopicPartition, int]:
        """The offset that the next record of each partition will have."""
        return self._bridge.call(lambda client: client.end_offsets(*partitions))

    def offsets_for_timestamp(
        self, timestamp_ms: int, *partitions: TopicPartition
    ) -> dict[TopicPartition, int | None]:
        """The offset of the first record of that time or later; None where all is older."""
        return self._bridge.call(
            lambda client: client.offsets_for_timestamp(timestamp_ms, *partitions)
        )

    def lag(self, *partitions: TopicPartition) -> dict[TopicPartition, int]:
        """How many offsets lie between each partition's position and its end."""
        self._give_back()
        return self._bridge.call(lambda client: client.lag(*partitions))

    def health(self) -> ClientHealth:
        """How the connections are."""
        return self._bridge.ask(lambda client: client.health())

    async def _take_ahead(self, client: asynchronous_consumer.Consumer) -> None:
        # Stored here, on the background thread: a call that is interrupted at this moment loses nothing.
        found = await client.getmany(timeout_ms=60_000, max_records=RECORDS_AT_ONCE)
        self._ahead = [record for records in found.values() for record in records][::-1]

    def _give_back(self) -> None:
        """What an iteration has taken over and not used comes first again."""
        if not self._ahead:
            return
        rest: dict[TopicPartition, list[Record]] = {}
        for record in reversed(self._ahead):
            rest.setdefault(TopicPartition(record.topic, record.partition), []).append(record)
        self._ahead = []
        self._bridge.ask(lambda client: client.put_back(rest))


class Admin:
    """Administers a cluster: `frieda.clients.admin.Admin` without await."""

    def __init__(
        self,
        bootstrap: str | Iterable[str] = "tcp://127.0.0.1:9500",
        **settings: Unpack[ClientSettings],
    ) -> None:
        settings.setdefault("polling", "event")
        self._bridge = Bridge(asynchronous_admin.Admin(bootstrap, **settings))

    def start(self) -> None:
        """Connect; `with` does it."""
        self._bridge.start()

    def close(self, timeout_s: float = 5.0) -> None:
        """End the connections. May be repeated."""
        self._bridge.close(lambda client: client.close(timeout_s))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def create_topic(
        self,
        name: str,
        partitions: int = -1,
        replication_factor: int = -1,
        config: Mapping[str, str] | None = None,
        *,
        validate_only: bool = False,
    ) -> bytes:
        """Make a topic and return its id. -1: as the broker is set. `config` has dotted names."""
        return self._bridge.call(
            lambda client: client.create_topic(
                name, partitions, replication_factor, config, validate_only=validate_only
            )
        )

    def delete_topic(self, name: str) -> None:
        """Delete a topic and all its records."""
        self._bridge.call(lambda client: client.delete_topic(name))

    def alter_topic(self, name: str, config: Mapping[str, str]) -> None:
        """Change settings of a topic; those not named stay."""
        self._bridge.call(lambda client: client.alter_topic(name, config))

    def list_topics(self) -> tuple[str, ...]:
        """The names of all topics, sorted."""
        return self._bridge.call(lambda client: client.list_topics())

    def describe_topic(self, name: str) -> TopicInfo:
        """One topic in full."""
        return self._bridge.call(lambda client: client.describe_topic(name))

    def describe_topics(self, names: Iterable[str] | None = None) -> tuple[TopicInfo, ...]:
        """Topics in full; all when not told which."""
        return self._bridge.call(lambda client: client.describe_topics(names))

    def list_offsets(
        self, queries: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, OffsetInfo]:
        """For each partition the offset of a time in ms, or of EARLIEST_TIMESTAMP or LATEST_TIMESTAMP."""
        return self._bridge.call(lambda client: client.list_offsets(queries))

    def beginning_offsets(self, topic: str) -> dict[TopicPartition, int]:
        """The first offset of each partition of a topic."""
        return self._bridge.call(lambda client: client.beginning_offsets(topic))

    def end_offsets(self, topic: str) -> dict[TopicPartition, int]:
        """The offset behind the last record of each partition of a topic."""
        return self._bridge.call(lambda client: client.end_offsets(topic))

    def committed(
        self, group: str, partitions: Iterable[TopicPartition] | None = None
    ) -> dict[TopicPartition, CommittedInfo]:
        """What a group has committed; partitions without a commit are left out."""
        return self._bridge.call(lambda client: client.committed(group, partitions))

    def broker_health(self) -> BrokerHealth:
        """What the broker says of itself."""
        return self._bridge.call(lambda client: client.broker_health())

    def health(self) -> ClientHealth:
        """How this client's connections are."""
        return self._bridge.ask(lambda client: client.health())


def _tell(told: Future[RecordMetadata], done: asyncio.Future[RecordMetadata]) -> None:
    if done.cancelled():
        told.set_exception(asyncio.CancelledError())
    elif (error := done.exception()) is not None:
        told.set_exception(error)
    else:
        told.set_result(done.result())
