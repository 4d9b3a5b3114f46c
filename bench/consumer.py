"""The consumer benchmark: how fast one consumer takes records from the beginning of a topic.

The clock runs from before the consumer connects to its last record, so finding brokers, partitions and offsets is
part of the time; how much of it they took is told beside it. Nothing is fetched before the clock runs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from operator import attrgetter
from typing import Any, Final, cast

from frieda.bench.environment import describe_environment
from frieda.bench.fleet import Fleet
from frieda.bench.histogram import LatencyHistogram
from frieda.bench.report import MIB, WINDOW_S, latencies_us
from frieda.bench.worker import Channel
from frieda.clients.admin import Admin
from frieda.clients.consumer import Consumer
from frieda.config import PollingMode
from frieda.errors import ConfigError, FriedaError
from frieda.model import Record

HEADING: Final = (
    "start.time, end.time, data.consumed.in.MB, MB.sec, data.consumed.in.nMsg, nMsg.sec, "
    "setup.time.ms, fetch.time.ms, fetch.MB.sec, fetch.nMsg.sec"
)
_LOOK_S: Final = 1.0
_value_of = attrgetter("value")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerSettings:
    """What to read. `records` None: all that the topic holds at the start.

    `iterate`: by `async for` instead of `getmany`. `timeout_s`: how long no record may come.
    """

    topic: str
    bootstrap: str = "tcp://127.0.0.1:9500"
    records: int | None = None
    iterate: bool = False
    polling: str = "adaptive"
    max_bytes: int = 1024 * 1024
    check_crcs: bool = True
    timeout_s: float = 10.0

    def __post_init__(self) -> None:
        if self.records is not None and self.records < 1:
            raise ConfigError(f"records = {self.records}: must be at least 1")
        if self.timeout_s <= 0:
            raise ConfigError(f"timeout_s = {self.timeout_s}: must be above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerProgress:
    """What was read within one reporting window."""

    records: int
    elapsed_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerResult:
    """What was read and how long it took, `setup_s` of that before the first fetch."""

    records: int
    size_bytes: int
    began_at_s: float
    elapsed_s: float
    setup_s: float
    settings: Mapping[str, object]
    environment: Mapping[str, object]

    @property
    def records_per_sec(self) -> float:
        """Records a second, setup included."""
        return self.records / self.elapsed_s

    @property
    def mb_per_sec(self) -> float:
        """MiB of values a second, setup included."""
        return self.size_bytes / MIB / self.elapsed_s


def run_consumer(
    settings: ConsumerSettings, on_progress: Callable[[ConsumerProgress], None] = lambda _: None
) -> ConsumerResult:
    """Read in a process of its own. Raises FriedaError: no broker, no topic, too few records within the timeout."""
    return asyncio.run(_measure(settings, on_progress))


def progress_line(progress: ConsumerProgress) -> str:
    """The line that is printed while the records come."""
    rate = progress.records / max(progress.elapsed_s, 1e-9)
    return f"{progress.records} records read, {rate:.1f} records/sec."


def summary_lines(result: ConsumerResult) -> list[str]:
    """The lines of kafka-consumer-perf-test, with the setup where Kafka has its rebalance, and the settings."""
    size_mib = result.size_bytes / MIB
    fetch_s = max(result.elapsed_s - result.setup_s, 1e-9)
    values = (
        _clock_time(result.began_at_s),
        _clock_time(result.began_at_s + result.elapsed_s),
        f"{size_mib:.4f}",
        f"{result.mb_per_sec:.4f}",
        f"{result.records}",
        f"{result.records_per_sec:.4f}",
        f"{result.setup_s * 1000:.0f}",
        f"{fetch_s * 1000:.0f}",
        f"{size_mib / fetch_s:.4f}",
        f"{result.records / fetch_s:.4f}",
    )
    shown = ", ".join(f"{name}={value}" for name, value in result.settings.items())
    return [HEADING, ", ".join(values), f"consumer: {shown}"]


def as_json(result: ConsumerResult) -> dict[str, object]:
    """The result as JSON values, with the keys of the other benchmarks; there are no latencies here."""
    return {
        "benchmark": "consumer",
        "records": result.records,
        "errors": 0,
        "elapsed_s": round(result.elapsed_s, 6),
        "setup_s": round(result.setup_s, 6),
        "records_per_sec": round(result.records_per_sec, 3),
        "mb_per_sec": round(result.mb_per_sec, 6),
        "latency_us": latencies_us(LatencyHistogram()),
        "settings": dict(result.settings),
        "environment": dict(result.environment),
    }


async def _measure(
    settings: ConsumerSettings, on_progress: Callable[[ConsumerProgress], None]
) -> ConsumerResult:
    async with Admin(settings.bootstrap, polling="event") as admin:
        description = await admin.describe_topic(settings.topic)
        health = await admin.broker_health()
    async with Fleet() as fleet:
        worker = await fleet.start("frieda.bench.consumer:read", asdict(settings))
        await worker.ready()
        await worker.tell({"start_ns": time.monotonic_ns()})
        read = await worker.result(lambda facts: on_progress(ConsumerProgress(**facts)))
    return ConsumerResult(
        **read,
        settings={
            "transport": settings.bootstrap.partition(":")[0],
            "call": "async for" if settings.iterate else "getmany",
            "partitions": len(description.partitions),
            "polling": settings.polling,
            "broker_polling": health.settings["polling"],
            "flush": description.configs["flush"] or health.settings["flush"],
            "max_bytes": settings.max_bytes,
            "check_crcs": settings.check_crcs,
        },
        environment=describe_environment(),
    )


async def read(task: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """The worker process: one consumer."""
    settings = ConsumerSettings(**task)
    consumer = Consumer(
        settings.bootstrap,
        settings.topic,
        start="earliest",
        polling=cast(PollingMode, settings.polling),
        max_bytes=settings.max_bytes,
        check_crcs=settings.check_crcs,
        transport=settings.bootstrap.partition(":")[0],
    )
    await channel.ready()
    began_at_s, began_ns = time.time(), time.monotonic_ns()
    try:
        await consumer.start()
        ends, begins = await consumer.end_offsets(), await consumer.beginning_offsets()
        held = sum(ends.values()) - sum(begins.values())
        wanted = settings.records or held
        if wanted == 0:
            raise FriedaError(f"topic {settings.topic!r} is empty: there is nothing to read")
        setup_ns = time.monotonic_ns() - began_ns
        watch = _Watch(consumer, sum(begins.values()), settings.timeout_s, channel)
        try:
            async with asyncio.timeout(settings.timeout_s) as limit:
                watch.start(limit)
                take = _iterate if settings.iterate else _take_many
                records, size_bytes = await take(consumer, wanted)
        except TimeoutError:
            raise FriedaError(
                f"no record for {settings.timeout_s:g} s after {watch.records} of {wanted}; "
                f"topic {settings.topic!r} held {held} at the start"
            ) from None
        finally:
            watch.close()
        ended_ns = time.monotonic_ns()
    finally:
        await consumer.close()
    return {
        "records": records,
        "size_bytes": size_bytes,
        "began_at_s": began_at_s,
        "elapsed_s": (ended_ns - began_ns) / 1e9,
        "setup_s": setup_ns / 1e9,
    }


class _Watch:
    """Looks once a second: tells each window, and puts off the timeout as long as records come."""

    def __init__(
        self, consumer: Consumer, first_position: int, timeout_s: float, channel: Channel
    ) -> None:
        self.records = 0
        self._consumer = consumer
        self._first_position = first_position
        self._timeout_s = timeout_s
        self._channel = channel
        self._told_records = 0
        self._told_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self, limit: asyncio.Timeout) -> None:
        """Begin to look."""
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._told_s = self._loop.time()
        self._timer = self._loop.call_later(_LOOK_S, self._look)

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        now_s = self._loop.time()
        positions = [self._consumer.position(key) or 0 for key in self._consumer.assignment]
        records = sum(positions) - self._first_position
        if records > self.records:
            self.records = records
            self._limit.reschedule(now_s + self._timeout_s)
        if now_s - self._told_s >= WINDOW_S:
            progress = ConsumerProgress(
                records=records - self._told_records, elapsed_s=now_s - self._told_s
            )
            self._channel.progress(asdict(progress))
            self._told_records, self._told_s = records, now_s
        self._timer = self._loop.call_later(_LOOK_S, self._look)


# Both return the records taken and the bytes of their values.


async def _take_many(consumer: Consumer, wanted: int) -> tuple[int, int]:
    size_bytes = count = 0
    while count < wanted:
        found = await consumer.getmany(timeout_ms=1000, max_records=wanted - count)
        for records in found.values():
            count += len(records)
            size_bytes += _bytes_of(records)
    return count, size_bytes


async def _iterate(consumer: Consumer, wanted: int) -> tuple[int, int]:
    size_bytes = count = 0
    async for record in consumer:
        size_bytes += len(record.value or b"")
        count += 1
        if count == wanted:
            break
    return count, size_bytes


def _bytes_of(records: Iterable[Record]) -> int:
    try:
        return sum(map(len, map(_value_of, records)))
    except TypeError:  # a record without a value
        return sum(len(record.value or b"") for record in records)


def _clock_time(seconds: float) -> str:
    fraction = f"{seconds:.3f}".partition(".")[2]
    return time.strftime(f"%Y-%m-%d %H:%M:%S:{fraction}", time.localtime(seconds))
