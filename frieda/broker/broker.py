"""The broker as a service: its data folder, topics, committed offsets and producer ids.

It knows nothing of connections; `frieda.broker.server` brings requests to it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from frieda import __version__
from frieda.broker.counters import Counters
from frieda.broker.offsets import OFFSETS_TOPIC, GroupOffsets
from frieda.broker.partition import Partition, PartitionSettings
from frieda.broker.to_its_end import to_its_end
from frieda.broker.topics import Topic, Topics
from frieda.cluster.embedded import MAX_PARTITIONS, EmbeddedStore, TopicRecord
from frieda.config import BrokerConfig, TopicConfig
from frieda.errors import BrokerError, ConfigError, ErrorCode
from frieda.model import illegal_topic_name
from frieda.storage.flusher import Flusher
from frieda.storage.folder import DataFolder
from frieda.wire.messages import HealthResponse

if TYPE_CHECKING:
    from frieda.clock import Clock
    from frieda.storage.filesystem import FileSystem
    from frieda.storage.log import PartitionLog
    from frieda.transports.buffers import BufferPool
    from frieda.transports.polling import PollingEngine

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

_MAX_CONFIG_LENGTH = 200
_PARKING_SWEEP_S = 0.05
_THREADS = 4


class Broker:
    """Owns everything under the data folder. `open` first, `close` last; both on the event loop."""

    def __init__(
        self,
        config: BrokerConfig,
        *,
        filesystem: FileSystem,
        clock: Clock,
        pool: BufferPool,
        engine: PollingEngine,
    ) -> None:
        self.config = config
        self.clock = clock
        self.pool = pool
        self.engine = engine
        self.topics = Topics()
        self.counters = Counters()
        self.software = f"frieda/{__version__}"
        self.cluster_id = ""
        self.instance = uuid4().hex
        """This life of this broker: nobody else says it, and after a restart it is another."""
        self.listeners: tuple[str, ...] = ()
        """What clients are told."""
        self.connections: Counter[str] = Counter()
        """How many are open, by the scheme of the transport."""
        self.offsets: GroupOffsets
        self._filesystem = filesystem
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="frieda-disk")
        self._folder: DataFolder | None = None
        self._store: EmbeddedStore
        self._flusher: Flusher
        self._tasks: set[asyncio.Task[Any]] = set()
        self._changes = asyncio.Lock()
        self._storing = asyncio.Lock()
        self._parking: set[Partition] = set()
        self._started_ns = clock.monotonic_ns()
        self._opening_ms = 0
        self._scanned_segments = 0
        self._stopping = False

    # --- life -------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Lock the folder, recover every log, begin the background work.

        Raises StorageError; the folder is then unlocked again.
        """
        began_ns = self.clock.monotonic_ns()
        try:
            self._folder = await self.in_thread(
                lambda: DataFolder.open(self._filesystem, self.config.data, self.config.broker_id)
            )
            self._store = await self.in_thread(
                lambda: EmbeddedStore(self._filesystem, self._open_folder())
            )
            self.cluster_id = self._store.cluster_id
            self._flusher = Flusher(
                asyncio.get_running_loop(),
                work_started=self.engine.thread_work_started,
                work_finished=self.engine.thread_work_finished,
                interval_s=self.config.flush_interval_ms / 1000,
            )
            gone = self._store.deleted_topic_ids
            await self.in_thread(lambda: self._open_folder().remove_leftovers(gone))
            await self._stored(lambda: self._store.forget_deleted(gone))
            for record in self._store.topics:
                self.topics.add(await self._open_topic(record))
            if self.topics.get(OFFSETS_TOPIC) is None:
                record = await self._stored(lambda: self._store.create_topic(OFFSETS_TOPIC, 1, {}))
                self.topics.add(await self._open_topic(record))
            partition = self.topics.named(OFFSETS_TOPIC).partitions[0]
            self.offsets = await self.in_thread(lambda: GroupOffsets(partition, self.clock))
        except BaseException:
            self._threads.shutdown()
            if self._folder is not None:
                self._folder.close(clean=False)
            raise
        # Now, since a log that is made later is "scanned" too, empty.
        self._scanned_segments = sum(
            partition.log.scanned_segments
            for partition in self.topics.all_partitions()
            if not partition.internal
        )
        self._opening_ms = (self.clock.monotonic_ns() - began_ns) // 1_000_000
        self.hold_task(asyncio.get_running_loop().create_task(self._apply_retention_now_and_then()))

    async def close(self) -> None:
        """Flush and close every log, mark the folder as cleanly closed, unlock it."""
        self._stopping = True
        for partition in self.topics.all_partitions():
            partition.stop(_stopping())
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._flusher.close()
        clean = True
        for partition in self.topics.all_partitions():
            try:
                clean = await self.in_thread(partition.log.close) and clean
            except BrokerError as error:
                clean = False
                logger.error("closing %s: %s", partition, error)
        try:
            self._open_folder().close(clean=clean)
        except BrokerError as error:
            logger.error("the next start will read the last segments through: %s", error)
        self._threads.shutdown()

    def hold_task(self, task: asyncio.Task[Any]) -> None:
        """Keep a background task alive until it ends or the broker closes."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def in_thread(self, work: Callable[[], Result]) -> asyncio.Future[Result]:
        """Run blocking work in a thread; the polling engine lets the loop sleep meanwhile."""
        self.engine.thread_work_started()
        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        future.add_done_callback(lambda _: self.engine.thread_work_finished())
        return future

    @property
    def parking_limit(self) -> int:
        """Batches of a producer and partition that may wait for an earlier one. None without overlapped
        processing: the earlier one, if it came by the same connection, would wait for their answers."""
        return self.config.max_parked_batches if self.config.overlapped else 0

    async def _stored(self, change: Callable[[], Result]) -> Result:
        """Make one change to the metadata, in a thread, since it waits for the disk."""
        async with self._storing:
            return await self.in_thread(change)

    # --- topics -----------------------------------------------------------------------------------------

    @to_its_end
    async def create_topic(
        self,
        name: str,
        partitions: int,
        replication_factor: int,
        configs: dict[str, str],
        *,
        validate_only: bool,
    ) -> Topic | None:
        """Make a topic; durable when this returns. Raises BrokerError. None after a mere validation."""
        problem = illegal_topic_name(name)
        if problem is None and name.startswith("__"):
            problem = f"{name!r}: names that begin with two underscores are the broker's own"
        if problem is not None:
            raise BrokerError(ErrorCode.INVALID_TOPIC, problem)
        if partitions == -1:
            partitions = self.config.default_partitions
        if not 1 <= partitions <= MAX_PARTITIONS:
            raise BrokerError(
                ErrorCode.INVALID_PARTITIONS,
                f"{partitions} partitions for {name!r}; from 1 to {MAX_PARTITIONS} are possible",
            )
        if replication_factor not in (-1, 1):
            raise BrokerError(
                ErrorCode.INVALID_REPLICATION_FACTOR,
                f"replication factor {replication_factor} for {name!r}; this cluster has one broker",
            )
        self._topic_config(configs)
        async with self._changes:
            if self.topics.get(name) is not None:
                raise BrokerError(ErrorCode.TOPIC_ALREADY_EXISTS, f"topic {name!r} exists already")
            if validate_only:
                return None
            record = await self._stored(lambda: self._store.create_topic(name, partitions, configs))
            try:
                topic = await self._open_topic(record)
            except BaseException:
                await self._take_back(record)
                raise
            self.topics.add(topic)
            return topic

    async def _take_back(self, record: TopicRecord) -> None:
        """Undo what there is of a topic that could not be made whole, so that its name is free again."""
        try:
            # The folders first: on a full disk that is what makes room for the rest.
            await self.in_thread(lambda: self._open_folder().remove_leftovers((record.topic_id,)))
            await self._stored(lambda: self._store.delete_topic(record.name))
            await self._stored(lambda: self._store.forget_deleted((record.topic_id,)))
        except BrokerError as error:
            logger.error("topic %r was not made, and not all of it is gone: %s", record.name, error)

    @to_its_end
    async def delete_topic(self, name: str) -> None:
        """Forget a topic and delete its log. Raises BrokerError."""
        async with self._changes:
            topic = self._changeable(name)
            await self._stored(lambda: self._store.delete_topic(name))
            self.topics.remove(topic)
            reason = BrokerError(
                ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"topic {name!r} was deleted"
            )
            for partition in topic.partitions:
                partition.stop(reason)
                self._parking.discard(partition)
            # From here on the topic is gone for good. What cannot be removed now is removed at the next start.
            try:
                for partition in topic.partitions:
                    await self._flusher.forget(partition.log)
                    await self.in_thread(partition.log.delete)
                self.offsets.forget_topic(name)  # on a full disk, there is room for it now
                await self._stored(lambda: self._store.forget_deleted((topic.topic_id,)))
            except BrokerError as error:
                logger.error("topic %r was deleted, but not all of it is gone: %s", name, error)

    @to_its_end
    async def alter_topic(self, name: str, configs: dict[str, str]) -> Topic:
        """Change some of a topic's settings; durable when this returns. Raises BrokerError."""
        async with self._changes:
            topic = self._changeable(name)
            current = {record.name: record for record in self._store.topics}[name]
            configs = current.configs | configs
            config = self._topic_config(configs)
            await self._stored(lambda: self._store.alter_topic(name, configs))
            topic.config = config
            for partition in topic.partitions:
                partition.settings = self._partition_settings(config)
                partition.log.config = config
            return topic

    def _changeable(self, name: str) -> Topic:
        topic = self.topics.named(name)
        if name.startswith("__"):
            raise BrokerError(ErrorCode.INVALID_TOPIC, f"topic {name!r} is the broker's own")
        return topic

    def _topic_config(self, configs: dict[str, str]) -> TopicConfig:
        for key, value in configs.items():
            if max(len(key), len(value)) > _MAX_CONFIG_LENGTH:
                raise BrokerError(
                    ErrorCode.INVALID_CONFIG,
                    f"the topic setting {key[:20]!r} or its value has more than "
                    f"{_MAX_CONFIG_LENGTH} characters",
                )
        try:
            config = self.config.topic.altered(configs)
        except ConfigError as error:
            raise BrokerError(ErrorCode.INVALID_CONFIG, str(error)) from None
        if config.max_message_bytes > self.config.max_frame_bytes - 4096:
            raise BrokerError(
                ErrorCode.INVALID_CONFIG,
                f"max.message.bytes = {config.max_message_bytes} does not fit in this broker's frames of "
                f"{self.config.max_frame_bytes} bytes",
            )
        return config

    def _partition_settings(self, config: TopicConfig) -> PartitionSettings:
        return PartitionSettings(
            flush=config.flush or self.config.flush,
            deep_validation=config.validate == "deep",
            max_message_bytes=config.max_message_bytes,
            park_timeout_ms=self.config.park_timeout_ms,
        )

    async def _open_topic(self, record: TopicRecord) -> Topic:
        config = self._topic_config(record.configs)
        logs = await self.in_thread(
            lambda: [self._open_log(record, config, index) for index in range(record.partitions)]
        )
        partitions = [
            Partition(
                topic_name=record.name,
                topic_id=record.topic_id,
                index=index,
                log=log,
                settings=self._partition_settings(config),
                flusher=self._flusher,
                pool=self.pool,
                clock=self.clock,
                parking_limit=self.parking_limit,
                parking_began=self._parking_began,
            )
            for index, log in enumerate(logs)
        ]
        return Topic(record.name, record.topic_id, config, partitions)

    def _open_log(self, record: TopicRecord, config: TopicConfig, index: int) -> PartitionLog:
        return self._open_folder().open_log(
            record.name,
            index,
            record.topic_id,
            config,
            self.clock,
            self.config,
            background=self._in_background,
        )

    def _in_background(self, work: Callable[[], None]) -> None:
        """Slow work of a log. It tells the log itself when it fails."""
        self.in_thread(work)

    def _open_folder(self) -> DataFolder:
        if self._folder is None:
            raise BrokerError(ErrorCode.BROKER_STOPPING, "the broker is not open")
        return self._folder

    # --- producers, parked batches, retention -------------------------------------------------------------

    async def next_producer_id(self) -> int:
        """A producer id that nobody has had. Raises BrokerError."""
        return await self._stored(self._store.next_producer_id)

    def _parking_began(self, partition: Partition) -> None:
        if not self._parking:
            asyncio.get_running_loop().call_later(_PARKING_SWEEP_S, self._sweep_parking)
        self._parking.add(partition)

    def refuse_parked(self) -> None:
        """No request comes any more that a parked batch could wait for."""
        for partition in tuple(self._parking):
            partition.refuse_parked(_stopping())

    def _sweep_parking(self) -> None:
        now_ns = self.clock.monotonic_ns()
        for partition in tuple(self._parking):
            partition.expire_parked(now_ns)
            if not partition.parking.by_producer:
                self._parking.discard(partition)
        if self._parking and not self._stopping:
            asyncio.get_running_loop().call_later(_PARKING_SWEEP_S, self._sweep_parking)

    async def _apply_retention_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(self.config.retention_check_interval_ms / 1000)
            try:
                await self.apply_retention()
            except Exception:
                logger.exception("retention failed; it is tried again in its time")

    async def apply_retention(self) -> int:
        """Delete what every topic's settings say is over; how many segments that were."""
        deleted = 0
        now_ms = self.clock.time_ms()
        for partition in self.topics.all_partitions():
            if partition.internal:
                continue
            try:
                deleted += partition.log.apply_retention(now_ms)
                partition.log.producers.expire(now_ms - self.config.producer_expiry_ms)
            except BrokerError as error:
                logger.error("retention of %s: %s", partition, error)
        return deleted

    # --- health -----------------------------------------------------------------------------------------

    def health(self) -> HealthResponse:
        """How the broker is: ok, degraded when a log could not be written, or stopping."""
        problems = tuple(
            f"{partition}: {partition.trouble}"
            for partition in self.topics.all_partitions()
            if partition.trouble
        )
        status = "stopping" if self._stopping else "degraded" if problems else "ok"
        facts = self.counters.as_facts()
        facts["uptime_s"] = (self.clock.monotonic_ns() - self._started_ns) // 1_000_000_000
        facts["opening_ms"] = self._opening_ms
        facts["scanned_segments"] = self._scanned_segments
        facts["topics"] = len(self.topics)
        facts["partitions"] = sum(len(topic.partitions) for topic in self.topics)
        facts |= {f"connections_{name}": count for name, count in self.connections.items()}
        facts |= _pool_facts(self.pool)
        polling = self.engine.statistics
        for reason, count in polling.fallbacks.items():
            facts[f"polling_fallbacks_{reason}"] = count
        facts["polling_active_processes"] = polling.active_processes
        settings = {
            "listeners": " ".join(self.listeners),
            "flush": self.config.flush,
            "polling": polling.mode,
            "polling_state": polling.state,
            "polling_census": polling.census,
        }
        return HealthResponse(status, problems, self.software, facts, settings)


def _pool_facts(pool: BufferPool) -> dict[str, int]:
    """What the pool of receive buffers has counted: in all, and the most that were ever out of each class."""
    classes = pool.statistics
    facts = {
        "buffers_in_use": pool.in_use,
        "buffers_arriving_bytes": pool.arriving_bytes,
        "buffers_late_messages": pool.late_messages,
        "buffers_hits": sum(each.hits for each in classes),
        "buffers_misses": sum(each.misses for each in classes),
        "buffers_exhausted": sum(each.exhausted for each in classes),
        "buffers_waits": sum(each.waits for each in classes),
    }
    return facts | {f"buffers_high_water_{each.size_bytes}": each.high_water for each in classes}


def _stopping() -> BrokerError:
    return BrokerError(ErrorCode.BROKER_STOPPING, "the broker is shutting down")
