"""confluent-kafka's consumer under the benchmarks: partitions assigned, no group, no commits.

What librdkafka has fetched already is taken on the event loop without waiting. When there is nothing, one thread
waits in the library's `poll`, so that a record is there as soon as the library has it.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from frieda.bench.drivers import confluent_library as library
from frieda.bench.drivers.base import ConsumerOptions, Start, Taken
from frieda.bench.drivers.kafka_errors import REQUEST_TIMEOUT_S, kafka_offset
from frieda.errors import ClientClosedError, ConfigError, FriedaError

_POLL_S: Final = 0.1


class ConfluentConsumer:
    """ConsumerDriver: `poll` and `consume`. A position is an offset."""

    def __init__(self, options: ConsumerOptions) -> None:
        self._options = options
        self._config: dict[str, Any] = {
            **library.library_settings(options.address),
            "group.id": f"frieda-bench-{uuid.uuid4()}",  # the library wants one; nothing joins it
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "fetch.min.bytes": 1,
            "fetch.wait.max.ms": 500,
            "fetch.message.max.bytes": options.max_bytes,
            # After its own queue was full it would wait a second before the next fetch.
            "fetch.queue.backoff.ms": 10,
            **options.extra,
        }
        self._consumer: Consumer | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting = False
        """The thread is in `poll`: nobody else may take anything, or records change places."""
        self._came: Message | FriedaError | None = None
        self._news: asyncio.Future[None] | None = None
        self._closing = False

    @property
    def settings(self) -> Mapping[str, object]:
        """librdkafka's settings that were set, and its version."""
        return {**library.versions(), **self._config}

    async def start(self) -> None:
        """Connect, find the positions and begin to fetch. Raises FriedaError; nothing is left open then."""

        consumer = library.made(Consumer, self._config)
        try:
            await asyncio.to_thread(_assign, consumer, self._options)
        except BaseException:
            await asyncio.to_thread(consumer.close)
            raise
        self._consumer = consumer
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, "confluent-kafka poll")

    async def take(self, timeout_s: float, max_records: int = 10_000) -> Sequence[Taken]:
        """What has come, as soon as anything has. Raises FriedaError."""
        consumer, thread = self._consumer, self._thread
        if self._closing or consumer is None or thread is None:
            raise ClientClosedError("this consumer is not started, or closed")
        if self._came is None and not self._waiting:
            messages = consumer.consume(max_records, 0.0)
            if messages:
                return self._taken(messages)
            self._waiting = True
            thread.submit(self._wait, consumer)
        if self._came is None:
            await self._sleep(timeout_s)
        came, self._came = self._came, None
        if came is None:
            return ()
        if isinstance(came, FriedaError):
            raise came
        messages = [came]
        if max_records > 1:
            messages += consumer.consume(max_records - 1, 0.0)
        return self._taken(messages)

    async def close(self) -> None:
        """End it. May be repeated."""
        self._closing = True
        thread, self._thread = self._thread, None
        consumer, self._consumer = self._consumer, None
        if thread is not None:
            await asyncio.to_thread(thread.shutdown)
        if consumer is not None:
            await asyncio.to_thread(consumer.close)

    def _taken(self, messages: Sequence[Message]) -> Sequence[Taken]:
        """The records of each partition. What comes before an error is taken first, the error by the next call."""
        for number, message in enumerate(messages):
            error = message.error()
            if error is not None:
                if number == 0:
                    raise library.error_of(error)
                self._came = library.error_of(error)
                return _by_partition(messages[:number])
        return _by_partition(messages)

    def _wait(self, consumer: Consumer) -> None:
        """In the thread: wait for the next message."""
        came: Message | FriedaError | None = None
        try:
            while came is None and not self._closing:
                came = consumer.poll(_POLL_S)
        except KafkaException as error:
            came = library.error_of(error.args[0])
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._tell, came)

    def _tell(self, came: Message | FriedaError | None) -> None:
        self._waiting = False
        self._came = came
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def _sleep(self, timeout_s: float) -> None:
        """Until something has come, or the time is over. A cancelled wait loses nothing."""
        loop = asyncio.get_running_loop()
        news = self._news = loop.create_future()
        timer = loop.call_later(timeout_s, lambda: None if news.done() else news.set_result(None))
        try:
            await news
        finally:
            timer.cancel()
            self._news = None


def _assign(consumer: Consumer, options: ConsumerOptions) -> None:
    """Find the positions to begin at and assign them; blocks. Raises FriedaError."""

    known = library.partitions_of(consumer, options.topic, REQUEST_TIMEOUT_S)
    wanted = known if options.partitions is None else list(options.partitions)
    for partition in wanted:
        if partition not in known:
            raise ConfigError(f"topic {options.topic!r} has no partition {partition}")
    deadline_s = time.monotonic() + REQUEST_TIMEOUT_S
    places = []
    for partition in wanted:
        place = TopicPartition(options.topic, partition)
        low, high = library.retried(partial(_ends, consumer, place), deadline_s)
        place.offset = _first_offset(options.start, partition, low, high)
        places.append(place)
    consumer.assign(places)


def _ends(consumer: Consumer, place: TopicPartition) -> tuple[int, int]:
    """The first offset and the one after the last; blocks. Raises FriedaError."""
    try:
        return consumer.get_watermark_offsets(place, REQUEST_TIMEOUT_S)
    except KafkaException as error:
        raise library.error_of(error.args[0]) from None


def _first_offset(start: Start, partition: int, low: int, high: int) -> int:
    """Where to begin; a partition that a mapping does not name begins at its first record."""
    match start:
        case "earliest":
            return low
        case "latest":
            return high
    return kafka_offset(start[partition]) if partition in start else low


def _by_partition(messages: Sequence[Message]) -> list[Taken]:
    """The records of each partition in their order."""
    values: dict[int, list[bytes]] = {}
    last: dict[int, Message] = {}
    for message in messages:
        partition: Any = message.partition()
        if partition not in values:
            values[partition] = []
        values[partition].append(message.value() or b"")
        last[partition] = message
    return [
        Taken(partition, records, int(last[partition].offset() or 0) + 1)
        for partition, records in values.items()
    ]
