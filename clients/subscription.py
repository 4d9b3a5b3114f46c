"""Keeps every partition of a consumer where it belongs: known, placed with its leader, at an offset.

One task works in rounds; whoever notices that something is adrift wakes it. Partitions that are there at the
start begin at the group's committed offset, else as `start` says; those that appear later (a topic that
gains partitions, is created, or is deleted and made again) begin at their first record, since all that is
in them is newer than the consumer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, cast

from frieda.clients.dialer import backoff_s
from frieda.clients.fetch_state import UNKNOWN_OFFSET, PartitionFetch
from frieda.config import StartAt
from frieda.errors import BrokerError, ClientClosedError, ErrorCode, FriedaError
from frieda.model import EARLIEST_TIMESTAMP, LATEST_TIMESTAMP, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Callable

    from frieda.clients.fetch_state import FetchState
    from frieda.clients.fetcher import Fetcher
    from frieda.clients.network import Network
    from frieda.clients.positions import Positions
    from frieda.config import ConsumerConfig

MISSING_TOPIC_LOOK_S: Final = 1.0
"""How often a topic that is not there is asked for again."""


class Subscription:
    """What one consumer reads: whole topics, or the partitions it was assigned."""

    def __init__(
        self,
        topics: tuple[str, ...],
        config: ConsumerConfig,
        network: Network,
        state: FetchState,
        fetcher: Fetcher,
        positions: Positions,
        on_failure: Callable[[], None],
    ) -> None:
        self.topics = topics
        self.failure: FriedaError | None = None
        """What ended the work for good."""
        self.last_error = ""
        self._assigned: dict[TopicPartition, None] = {}
        self._config = config
        self._network = network
        self._state = state
        self._fetcher = fetcher
        self._positions = positions
        self._on_failure = on_failure
        self._begun = False
        self._refresh_wanted = True
        self._wanted = asyncio.Event()
        self._settled = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self, timeout_s: float) -> None:
        """Place what is there. Raises the error that stood in the way for all of `timeout_s`; a topic that does
        not exist yet is waited for and is no error."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        attempt = 0
        while True:
            try:
                await self._round()
                break
            except FriedaError as error:
                pause_s = backoff_s(self._config.retry_backoff_s, attempt)
                missing = (
                    isinstance(error, BrokerError)
                    and error.code is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
                )
                if not error.retriable or missing or loop.time() + pause_s >= deadline:
                    raise
                self._refresh_wanted = True
                attempt += 1
                await asyncio.sleep(pause_s)
        self._begun = True
        self._task = loop.create_task(self._work())

    async def close(self) -> None:
        """End the task. May be repeated."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def wake(self, *, refresh: bool = False) -> None:
        """Something is adrift, or may have changed."""
        self._refresh_wanted |= refresh
        self._wanted.set()

    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        """Read these partitions and no others; those that were read before keep their position."""
        self._assigned = dict.fromkeys(TopicPartition(*key) for key in partitions)
        for key in [key for key in self._state.partitions if key not in self._assigned]:
            self._state.remove(key)
        for key in self._assigned:
            if key not in self._state.partitions:
                self._state.add(key, b"", cast(StartAt, self._config.start))
        self.wake(refresh=True)

    @property
    def missing(self) -> list[str]:
        """Topics that are not there."""
        return [name for name in self._names() if self._network.metadata.topic(name) is None]

    # --- inside -------------------------------------------------------------------------------------------

    def _names(self) -> tuple[str, ...]:
        return self.topics or tuple(dict.fromkeys(key.topic for key in self._assigned))

    async def _work(self) -> None:
        attempt = answers = 0
        while True:
            try:
                async with asyncio.timeout(MISSING_TOPIC_LOOK_S if self.missing else None):
                    await self._wanted.wait()
            except TimeoutError:
                self._refresh_wanted = True
            self._wanted.clear()
            if self._fetcher.answers != answers:
                answers, attempt = self._fetcher.answers, 0
            if self._fetcher.troubled:
                self._fetcher.troubled = False
                self._refresh_wanted = True
                await asyncio.sleep(backoff_s(self._config.retry_backoff_s, attempt))
                attempt += 1
            try:
                await self._round()
            except ClientClosedError:
                return
            except FriedaError as error:
                self.last_error = str(error)
                if not error.retriable:
                    self.failure = error
                    self._on_failure()
                    return
                self._fetcher.troubled = True
                self._wanted.set()

    async def _round(self) -> None:
        """Bring everything adrift to where it belongs. Raises the first error that prevents it."""
        names = self._names()
        if self._refresh_wanted and names:
            self._refresh_wanted = False
            await self._network.refresh(names)
        for name in names:
            self._reconcile(name)
        await self._find_offsets()
        await self._find_leaders()
        self._fetcher.pump()

    def _reconcile(self, name: str) -> None:
        """Make the partitions of one topic what the metadata says."""
        state = self._state
        topic = self._network.metadata.topic(name)
        if topic is None:
            error = self._network.metadata.error(name)
            if error is not None and error.code is not ErrorCode.UNKNOWN_TOPIC_OR_PARTITION:
                raise error
            return
        start = cast(StartAt, "earliest" if self._begun else self._config.start)
        for index in range(topic.partition_count):
            key = TopicPartition(name, index)
            partition = state.partitions.get(key)
            if partition is None:
                if not self.topics:
                    continue
                partition = state.add(key, topic.topic_id, start)
            elif not partition.topic_id:
                partition.topic_id = topic.topic_id
            elif partition.topic_id != topic.topic_id:
                # The topic was made again: offsets of the old one mean nothing.
                partition.topic_id = topic.topic_id
                partition.start, partition.use_committed = "earliest", False
                state.seek(partition, UNKNOWN_OFFSET, explicit=False)
        for key in [key for key in state.partitions if key.topic == name]:
            if key.partition >= topic.partition_count:
                if key in self._assigned:
                    raise BrokerError(
                        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
                        f"topic {name!r} has partitions 0 to {topic.partition_count - 1}, not {key.partition}",
                    )
                state.remove(key)

    async def _find_offsets(self) -> None:
        asked = {
            partition: partition.generation
            for partition in self._state.adrift
            if partition.fetch_offset == UNKNOWN_OFFSET and self._is_there(partition)
        }
        if not asked:
            return
        found: dict[TopicPartition, int] = {}
        committed_by = [partition.key for partition in asked if partition.use_committed]
        if self._config.group is not None and committed_by:
            committed = await self._positions.committed(committed_by)
            found = {key: offset for key, offset in committed.items() if offset is not None}
        queries = {
            partition.key: EARLIEST_TIMESTAMP if partition.start == "earliest" else LATEST_TIMESTAMP
            for partition in asked
            if partition.key not in found
        }
        found |= await self._positions.listed_once(queries)
        for partition, generation in asked.items():
            # A seek in the meantime has the last word.
            if partition.generation == generation and partition.fetch_offset == UNKNOWN_OFFSET:
                self._state.begin(partition, found[partition.key])
                # Should that offset ever be out of range, the setting decides.
                partition.use_committed = False
                partition.start = cast(StartAt, self._config.start)

    async def _find_leaders(self) -> None:
        failed: FriedaError | None = None
        for partition in list(self._state.adrift):
            if partition.leader is not None or not self._is_there(partition):
                continue
            try:
                connection = await self._network.connection_for(*partition.key)
            except FriedaError as error:
                # The others shall not wait for this one.
                failed = failed or error
                continue
            if self._state.partitions.get(partition.key) is partition:
                self._state.place(partition, connection if connection.is_open else None)
        if failed is not None:
            raise failed

    def _is_there(self, partition: PartitionFetch) -> bool:
        return bool(partition.topic_id) and (
            self._network.metadata.topic(partition.key.topic) is not None
        )
