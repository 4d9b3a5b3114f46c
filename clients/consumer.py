"""The Consumer: records of topics or partitions, in offset order for each partition.

    async with Consumer("tcp://127.0.0.1:9500", "orders", start="earliest") as consumer:
        async for record in consumer:
            ...

What happens beneath: `subscription` keeps every partition at a leader and an offset, `fetcher` keeps fetches under
way, `fetch_state` holds what has come; this module hands it out and remembers what was handed out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Self, Unpack

from frieda.clients.fetch_state import UNKNOWN_OFFSET, FetchState, PartitionFetch
from frieda.clients.fetcher import Fetcher
from frieda.clients.health import ClientHealth
from frieda.clients.network import Network
from frieda.clients.positions import Positions
from frieda.clients.reader import Reader
from frieda.clients.settings import ConsumerSettings, make_config
from frieda.clients.subscription import Subscription
from frieda.config import ConsumerConfig
from frieda.errors import ClientClosedError, ConfigError
from frieda.model import (
    EARLIEST_TIMESTAMP,
    LATEST_TIMESTAMP,
    Record,
    TopicPartition,
    illegal_topic_name,
)
from frieda.wire.batch import decode_batch


class Consumer:
    """Reads `topics`, or after `assign` some partitions, from the brokers at `bootstrap`.

    `bootstrap` is an address, several separated by commas, or a sequence of them. Raises ConfigError for a setting
    that is unknown or out of range and for a topic name that is not legal. To be used as `async with`, or between
    `start` and `close`, on one event loop. A group only names its committed offsets: partitions are not shared out
    among consumers.

    A partition starts at the group's committed offset, else where `start` says; one that appears after the
    consumer starts at its first record. Reading goes on by itself after a lost connection or a restart of the
    broker. When stored bytes are damaged, CorruptLogError says where; every read raises it until the partition
    is sought elsewhere (to its `next_readable_offset`) or paused.
    """

    def __init__(
        self,
        bootstrap: str | Iterable[str],
        /,
        *topics: str,
        **settings: Unpack[ConsumerSettings],
    ) -> None:
        self.config = make_config(ConsumerConfig, bootstrap, settings)
        for name in topics:
            if (why := illegal_topic_name(name)) is not None:
                raise ConfigError(why)
        self._topics = tuple(dict.fromkeys(topics))
        check = self.config.check_crcs

        def decode(batch: memoryview, topic: str, partition: int, from_offset: int) -> list[Record]:
            return decode_batch(batch, topic, partition, from_offset, check_crc=check)

        self._state = FetchState(
            decode, prefetch_bytes=self.config.prefetch_bytes, max_bytes=self.config.max_bytes
        )
        self._network = Network(
            self.config,
            allow_auto_create=False,
            on_metadata=self._wake_subscription,
            on_lost=self._connection_lost,
        )
        self._positions = Positions(self._network, self.config.group)
        self._subscription: Subscription | None = None
        self._fetcher: Fetcher | None = None
        self._assigned: tuple[TopicPartition, ...] = ()
        self._reader = Reader(
            self._state, self.config.max_bytes, before_read=self._before_read, pump=self._pump
        )
        self._committed: dict[TopicPartition, int] = {}
        self._next_commit_ns = 0
        self._started = False
        self._closed = False

    # --- life ---------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect and find every partition's leader and offset, so that with start="latest" all that is sent from
        now on is read. Raises ConnectError when no broker is reached within connect_timeout_s, BrokerError when the
        rest fails for request_timeout_s; nothing is left open then."""
        if self._closed:
            raise ClientClosedError("this consumer was closed; make a new one")
        if self._started:
            return
        self._network.start()
        self._fetcher = Fetcher(
            self._state,
            self.config,
            self._network.runtime.pool,
            on_news=self._reader.wake,
            on_drift=self._wake_subscription,
        )
        self._subscription = Subscription(
            self._topics,
            self.config,
            self._network,
            self._state,
            self._fetcher,
            self._positions,
            self._reader.wake,
        )
        if self._assigned:
            self._subscription.assign(self._assigned)
        try:
            await self._network.reach(self.config.connect_timeout_s)
            await self._subscription.start(self.config.request_timeout_s)
        except BaseException:
            await self.close()
            raise
        self._started = True
        interval_ns = int(self.config.auto_commit_interval_s * 1e9)
        self._next_commit_ns = time.monotonic_ns() + interval_ns

    async def close(self, timeout_s: float = 10.0) -> None:
        """Commit the positions when the consumer commits by itself, then end. May be repeated.

        Raises the error of that commit, after all else is closed. Cancellation closes without it.
        """
        if self._closed:
            return
        self._closed = True
        self._reader.wake()
        try:
            if self._started and self._commits_by_itself:
                async with asyncio.timeout(timeout_s):
                    await self._positions.commit(self._uncommitted())
        finally:
            self._reader.drop()
            if self._fetcher is not None:
                self._fetcher.close()
            if self._subscription is not None:
                await self._subscription.close()
            self._state.clear()
            await self._network.close(timeout_s)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def health(self) -> ClientHealth:
        """How the connections are, and how many fetched bytes wait to be read."""
        health = self._network.health(self._state.buffered_bytes)
        beneath = (self._fetcher, self._subscription)
        errors = [each.last_error for each in beneath if each is not None and each.last_error]
        return replace(health, last_error=health.last_error or next(iter(errors), ""))

    # --- reading ------------------------------------------------------------------------------------------

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Record:
        # The usual case ends here: a record of the batch in hand, without a look at anything else.
        for record in self._reader.iterator:
            return record
        return await self._reader.next_record()

    async def getone(self) -> Record:
        """The next record; waits for it. Raises CorruptLogError, BrokerError or ClientClosedError.

        Cancellation loses no record.
        """
        return await self.__anext__()

    async def getmany(
        self, timeout_ms: float = 0, max_records: int | None = None
    ) -> dict[TopicPartition, list[Record]]:
        """What has arrived, by partition, at most `max_records` (None: about max_bytes of them).

        Waits up to `timeout_ms` for the first; an empty dict when nothing came. Raises CorruptLogError, BrokerError or
        ClientClosedError. Cancellation loses no record.
        """
        if max_records is not None and max_records < 1:
            raise ConfigError(f"getmany: max_records = {max_records}: must be at least 1")
        return await self._reader.next_records(timeout_ms, max_records)

    def put_back(self, records: Mapping[TopicPartition, list[Record]]) -> None:
        """Records that `getmany` gave last, and that were not used: they come first again."""
        self._require_started()
        self._reader.put_back(records)

    # --- where it reads -----------------------------------------------------------------------------------

    @property
    def assignment(self) -> tuple[TopicPartition, ...]:
        """The partitions that are read."""
        return tuple(self._state.partitions)

    def assign(self, partitions: Iterable[TopicPartition | tuple[str, int]]) -> None:
        """Read these partitions and no others, for a consumer that was made without topics.

        Before `start` or after; a partition that was read before keeps its position. Raises ConfigError.
        """
        if self._topics:
            raise ConfigError(
                f"assign: this consumer reads whole topics ({', '.join(self._topics)}); make one without"
            )
        self._assigned = tuple(dict.fromkeys(TopicPartition(*key) for key in partitions))
        for key in self._assigned:
            if (why := illegal_topic_name(key.topic)) is not None or key.partition < 0:
                raise ConfigError(why or f"assign: {key}: a partition must not be negative")
        if self._closed:
            raise ClientClosedError("this consumer is closed")
        if self._subscription is not None:
            self._reader.give_back()
            self._subscription.assign(self._assigned)

    async def partitions_for(self, topic: str) -> tuple[TopicPartition, ...]:
        """The partitions of a topic. Raises BrokerError(UNKNOWN_TOPIC_OR_PARTITION) when there is no such topic."""
        self._require_started()
        if self._network.metadata.topic(topic) is None:
            await self._network.refresh((topic,))
        count = self._network.metadata.require(topic).partition_count
        return tuple(TopicPartition(topic, index) for index in range(count))

    def seek(self, partition: TopicPartition | tuple[str, int], offset: int) -> None:
        """Read on at `offset`; what was fetched from elsewhere is dropped.

        An offset that the partition does not hold is an error of the next read: BrokerError(OFFSET_OUT_OF_RANGE).
        """
        if offset < 0:
            raise ConfigError(f"seek: {offset} is not an offset; it must be at least 0")
        (state,) = self._owned((partition,))
        self._seek({state.key: offset})

    async def seek_to_beginning(self, *partitions: TopicPartition) -> None:
        """Read on at the first record of these partitions (none given: of all)."""
        self._seek(await self.beginning_offsets(*partitions))

    async def seek_to_end(self, *partitions: TopicPartition) -> None:
        """Read on behind the last record of these partitions (none given: of all)."""
        self._seek(await self.end_offsets(*partitions))

    async def seek_to_timestamp(self, timestamp_ms: int, *partitions: TopicPartition) -> None:
        """Read on at the first record of `timestamp_ms` (since the Unix epoch) or later,
        or at the end where all is older."""
        found = await self.offsets_for_timestamp(timestamp_ms, *partitions)
        late = [key for key, offset in found.items() if offset is None]
        ends = await self.end_offsets(*late) if late else {}
        self._seek({key: ends[key] if offset is None else offset for key, offset in found.items()})

    def pause(self, *partitions: TopicPartition) -> None:
        """Fetch and hand out nothing of these until `resume`; nothing is lost."""
        self._reader.give_back()
        for partition in self._owned(partitions):
            self._state.pause(partition)

    def resume(self, *partitions: TopicPartition) -> None:
        """Go on with these."""
        for partition in self._owned(partitions):
            self._state.resume(partition)
        self._pump()
        self._reader.wake()

    @property
    def paused(self) -> tuple[TopicPartition, ...]:
        return tuple(key for key, partition in self._state.partitions.items() if partition.paused)

    # --- offsets ------------------------------------------------------------------------------------------

    def position(self, partition: TopicPartition | tuple[str, int]) -> int | None:
        """The offset of the next record that this consumer will hand out; None while it is not known."""
        (state,) = self._owned((partition,))
        position = self._reader.position(state)
        return None if position == UNKNOWN_OFFSET else position

    async def committed(self, *partitions: TopicPartition) -> dict[TopicPartition, int | None]:
        """What the group has committed (none given: for all that is read). Raises ConfigError without a group."""
        self._require_started()
        return await self._positions.committed(self._keys(partitions))

    async def commit(self, offsets: Mapping[TopicPartition, int] | None = None) -> None:
        """Keep these offsets, or all positions, under the group's name: the offset to read next, not the last read.

        Raises ConfigError without a group, BrokerError naming what was refused. Cancellation may leave it done.
        """
        self._require_started()
        if offsets is None:
            offsets = self._reader.positions()
        offsets = {TopicPartition(*key): offset for key, offset in offsets.items()}
        await self._positions.commit(offsets)
        self._committed.update(offsets)

    async def beginning_offsets(self, *partitions: TopicPartition) -> dict[TopicPartition, int]:
        """The offset of the first record that each partition holds."""
        return await self._listed(partitions, EARLIEST_TIMESTAMP)

    async def end_offsets(self, *partitions: TopicPartition) -> dict[TopicPartition, int]:
        """The offset that the next record of each partition will have."""
        return await self._listed(partitions, LATEST_TIMESTAMP)

    async def offsets_for_timestamp(
        self, timestamp_ms: int, *partitions: TopicPartition
    ) -> dict[TopicPartition, int | None]:
        """The offset of the first record of that time or later; None where all is older."""
        if timestamp_ms < 0:
            raise ConfigError(f"{timestamp_ms} is not a time in milliseconds since the Unix epoch")
        found = await self._listed(partitions, timestamp_ms)
        return {key: None if offset < 0 else offset for key, offset in found.items()}

    async def lag(self, *partitions: TopicPartition) -> dict[TopicPartition, int]:
        """How many offsets lie between each partition's position and its end at this moment."""
        ends = await self.end_offsets(*partitions)
        positions = self._reader.positions()
        return {key: max(0, end - positions[key]) for key, end in ends.items() if key in positions}

    # --- inside -------------------------------------------------------------------------------------------

    def _before_read(self, now_ns: int) -> int | None:
        """What every read does first: raise what there is to raise, fetch on, commit when that is due."""
        self._require_started()
        assert self._subscription is not None
        if self._subscription.failure is not None:
            raise self._subscription.failure.with_traceback(None)
        state = self._state
        if state.freed:
            self._pump()
        for partition in state.failed:
            if partition.error is not None and not (partition.paused or partition.has_data):
                raise partition.error.with_traceback(None)
        if not (self._commits_by_itself and self._reader.moved):
            return None
        if now_ns >= self._next_commit_ns:
            # All that was handed out before this read counts as processed.
            self._next_commit_ns = now_ns + int(self.config.auto_commit_interval_s * 1e9)
            self._reader.moved = False
            self._network.spawn(self.commit(self._uncommitted()))
            return None
        return self._next_commit_ns

    @property
    def _commits_by_itself(self) -> bool:
        return self.config.group is not None and self.config.auto_commit_interval_s > 0

    def _uncommitted(self) -> dict[TopicPartition, int]:
        return {
            key: offset
            for key, offset in self._reader.positions().items()
            if self._committed.get(key) != offset
        }

    def _seek(self, offsets: Mapping[TopicPartition, int]) -> None:
        self._reader.give_back()
        for key, offset in offsets.items():
            partition = self._state.partitions.get(key)
            if partition is not None:
                self._state.seek(partition, offset)
        self._pump()
        self._wake_subscription()

    def _pump(self) -> None:
        if self._fetcher is not None:
            self._fetcher.pump()

    def _owned(
        self, partitions: Iterable[TopicPartition | tuple[str, int]]
    ) -> list[PartitionFetch]:
        self._require_started()
        owned = []
        for given in partitions:
            key = TopicPartition(*given)
            partition = self._state.partitions.get(key)
            if partition is None:
                raise ConfigError(
                    f"{key} is not read by this consumer; it reads "
                    + (", ".join(map(str, list(self._state.partitions)[:20])) or "nothing")
                )
            owned.append(partition)
        return owned

    def _keys(self, partitions: Iterable[TopicPartition]) -> list[TopicPartition]:
        return [TopicPartition(*key) for key in partitions] or list(self._state.partitions)

    async def _listed(
        self, partitions: Iterable[TopicPartition], timestamp_ms: int
    ) -> dict[TopicPartition, int]:
        self._require_started()
        return await self._positions.listed(dict.fromkeys(self._keys(partitions), timestamp_ms))

    def _require_started(self) -> None:
        if self._closed:
            raise ClientClosedError("this consumer is closed")
        if not self._started:
            raise ClientClosedError(
                "this consumer is not started: use 'async with', or 'await start()'"
            )

    def _wake_subscription(self) -> None:
        if self._subscription is not None:
            self._subscription.wake()

    def _connection_lost(self, connection: object) -> None:
        if not self._closed:
            self._state.forget_leader(connection)
            if self._fetcher is not None:
                self._fetcher.troubled = True
            self._wake_subscription()
