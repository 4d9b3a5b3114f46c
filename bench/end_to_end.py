"""Produce to consume on one clock: every record carries when it was to be sent and when it was.

Consumers, in processes of their own, read from before the first record is sent. Producers and consumers are
processes of one machine, so the kernel's monotonic clock is the same for both, wherever the system itself is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Final, TypeVar

from frieda.bench.drive import (
    DriveSettings,
    ServerMeter,
    as_run,
    blamed_on,
    interval_log,
    prepare_topic,
    task_of,
    waited_s,
    with_topic,
)
from frieda.bench.drive_worker import CONSUME, SEND
from frieda.bench.driven import STAMP
from frieda.bench.drivers.base import ConsumerOptions
from frieda.bench.fleet import Fleet, Outcome, merge_results, run_load
from frieda.bench.load import Load, split
from frieda.bench.payload import mean_bytes, values_of
from frieda.bench.report import MIB, Progress, latencies_us
from frieda.bench.results import Run
from frieda.bench.systems.base import RunningSystem
from frieda.errors import ConfigError, FriedaError

Result = TypeVar("Result")

DRAIN_TIMEOUT_S: Final = 20.0
"""After the last acknowledgement: how long no record may come while some are still missing."""


def run_end_to_end(
    settings: DriveSettings,
    *,
    case: str,
    consumers: int = 1,
    round_number: int = 0,
    server: RunningSystem | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Run:
    """Run the load and `consumers` that share its partitions, and say what the consumers saw, as one run of `case`.

    Latency is from the intended send time (without a rate: from the call) to when the consumer's call returned with
    the record. `extra` has the producers' own latencies, until the acknowledgement. Raises FriedaError, ConfigError.
    """
    require_room_for_stamps(settings.load)
    if not 1 <= consumers <= settings.partitions:
        raise ConfigError(
            f"consumers = {consumers}: must be from 1 to the number of partitions ({settings.partitions})"
        )
    named = with_topic(settings)
    prepare_topic(named)
    return asyncio.run(_drive(named, case, consumers, round_number, server, on_progress))


def require_room_for_stamps(load: Load) -> None:
    """Raise ConfigError when a record has no room for its two times."""
    shortest = min(map(len, values_of(load)))
    if shortest < STAMP.size:
        raise ConfigError(
            f"a record of {shortest} bytes has no room for its times: give at least {STAMP.size}"
        )


async def _drive(
    settings: DriveSettings,
    case: str,
    consumers: int,
    round_number: int,
    server: RunningSystem | None,
    on_progress: Callable[[Progress], None],
) -> Run:
    load = settings.load
    meter = ServerMeter(server, load.processes + consumers)
    seen = _Seen(meter.phase)
    with blamed_on(server):
        async with Fleet() as fleet:
            workers = [
                await fleet.start(CONSUME, task) for task in consumer_tasks(settings, consumers)
            ]
            await asyncio.gather(*(worker.ready() for worker in workers))
            for worker in workers:
                await worker.tell({"start_ns": time.monotonic_ns()})
            reading = asyncio.gather(*(worker.result(seen.take) for worker in workers))
            try:
                producing = asyncio.ensure_future(
                    run_load(
                        fleet,
                        SEND,
                        load,
                        task_of(settings, stamped=True),
                        meter.watching(on_progress),
                        meter.phase,
                    )
                )
                sent = await _first_failure(producing, reading)
                await _first_failure(
                    asyncio.ensure_future(seen.wait_for(stored_records(load, sent))), reading
                )
                for worker in workers:
                    await worker.tell({"end": True})
                read = await reading
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
    run = as_run(settings, sent, case, round_number, meter)
    return _as_consumed(run, settings, sent, read, consumers)


def consumer_tasks(settings: DriveSettings, consumers: int) -> list[dict[str, Any]]:
    """What each consumer is told: its part of the partitions."""
    counts = split(settings.partitions, consumers)
    tasks: list[dict[str, Any]] = []
    for number, count in enumerate(counts):
        first = sum(counts[:number])
        options = ConsumerOptions(
            address=settings.address,
            topic=settings.topic,
            partitions=tuple(range(first, first + count)),
            start="latest",
            polling=settings.polling,
        )
        task = {
            "driver": settings.driver,
            "options": asdict(options),
            "load": asdict(settings.load),
        }
        tasks.append(task)
    return tasks


def stored_records(load: Load, sent: Outcome) -> int:
    """How many records of a load are in the topic at least: those that were acknowledged, warm-up among them."""
    unsent = sum(
        row["backlog"]["unsent"] for part in sent.parts for row in part["punctuality"] or ()
    )
    return load.records + load.warm_up_records - int(unsent) - sent.errors


async def _first_failure(task: asyncio.Task[Result], others: asyncio.Future[Any]) -> Result:
    """The result of `task`; when `others` fail or end before it does, their error."""
    try:
        await asyncio.wait({task, others}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            others.result()
            raise FriedaError("the consumers ended before the load did")
        return task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class _Seen:
    """Counts what all consumers have seen."""

    def __init__(self, on_phase: Callable[[str], None]) -> None:
        self._on_phase = on_phase
        self._count = 0
        self._news = asyncio.Event()

    def take(self, facts: dict[str, Any]) -> None:
        """News of one consumer; those of its windows are in its result, too."""
        if "phase" in facts:
            self._on_phase(facts["phase"])
        elif "seen" in facts:
            self._count += facts["seen"]
            self._news.set()

    async def wait_for(self, count: int) -> None:
        """Wait until so many were seen. Raises FriedaError when no more come."""
        while self._count < count:
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), DRAIN_TIMEOUT_S)
            except TimeoutError:
                raise FriedaError(
                    f"{count} records were acknowledged and {self._count} came to the consumers; "
                    f"no more came for {DRAIN_TIMEOUT_S:g} s"
                ) from None


def _as_consumed(
    run: Run,
    settings: DriveSettings,
    sent: Outcome,
    read: Sequence[Mapping[str, Any]],
    consumers: int,
) -> Run:
    """The run of the producers, with what the consumers saw in the place of the acknowledgements."""
    outcome = merge_results(read)
    rate = outcome.records / outcome.elapsed_s if outcome.elapsed_s > 0 else 0.0
    clients_s = run.cpu_s["clients"] + sum(part["cpu_s"] for part in read)
    service_time = outcome.service_time
    return replace(
        run,
        settings={**run.settings, "consumers": consumers},
        client_settings={"producer": run.client_settings, "consumer": read[0]["client_settings"]},
        records=outcome.records,
        elapsed_s=round(outcome.elapsed_s, 6),
        records_per_sec=round(rate, 3),
        mb_per_sec=round(rate * mean_bytes(values_of(settings.load)) / MIB, 6),
        latency_us=latencies_us(outcome.latency),
        service_time_us=latencies_us(service_time) if service_time else None,
        cpu_s={**run.cpu_s, "clients": round(clients_s, 6)},
        extra={
            "acknowledged_us": dict(run.latency_us),
            "acknowledged_histogram": run.histogram,
            "waited_for_processor_s": waited_s([*sent.parts, *read]),
        },
        histogram=outcome.latency.encode(),
        service_histogram=service_time.encode() if service_time else None,
        hlog=interval_log(outcome),
    )
