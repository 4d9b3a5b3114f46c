"""One run of the benchmark: campaigns into Redis, generator and pipeline in processes, lag, and the counts after.

The load begins at a window's start, so that all windows are whole. When the last event is acknowledged the pipeline
has `drain_timeout_s` to commit what is left; then what is in Redis is collected and checked.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import secrets
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from frieda.bench.drivers.registry import driver
from frieda.bench.fleet import Fleet, Worker
from frieda.bench.histogram import LatencyHistogram
from frieda.bench.load import shares
from frieda.errors import FriedaError, MissingDependencyError
from frieda.ysb.cadence import PROGRESS_MS, Cadence, phase_of
from frieda.ysb.campaigns import Campaigns
from frieda.ysb.check import compare_counts, expected_counts
from frieda.ysb.lag import LagSample, trend
from frieda.ysb.outcome import YsbOutcome, YsbProgress
from frieda.ysb.reader import collect, dropped_views
from frieda.ysb.settings import YsbSettings
from frieda.ysb.store import open_redis, partition_states, redis_errors, write_campaigns
from frieda.ysb.timing import sleep_until
from frieda.ysb.updates import last_updates, window_latencies_ns

if TYPE_CHECKING:
    from redis.asyncio import Redis

NS_PER_MS: Final = 1_000_000
HEAD_START_MS: Final = 300
"""The start lies at least so far ahead that every process has heard of it."""
DRAIN_LOOK_S: Final = 0.1


def run_ysb(
    settings: YsbSettings,
    on_progress: Callable[[YsbProgress], None] = lambda _: None,
    require_alive: Callable[[], None] = lambda: None,
    server_cpu_s: Callable[[], float] = lambda: 0.0,
) -> YsbOutcome:
    """Run it once. The database of Redis must hold no campaigns; it keeps what this run wrote.

    `require_alive` is called about once a second and may raise; `server_cpu_s` tells the broker's processor time.
    Raises FriedaError.
    """
    used = driver(settings.driver)
    if (missing := used.missing()) is not None:
        raise MissingDependencyError(missing)
    return asyncio.run(_Benchmark(settings, on_progress, require_alive, server_cpu_s).run())


class _Live:
    """The newest news of every process."""

    def __init__(self) -> None:
        self.generated: dict[int, Mapping[str, Any]] = {}
        self.taken: dict[int, Mapping[str, Any]] = {}
        self.window_latency_ms: float | None = None

    def sent(self, number: int, facts: dict[str, Any]) -> None:
        self.generated[number] = facts

    def took(self, number: int, facts: dict[str, Any]) -> None:
        self.taken[number] = facts
        newest = max(facts["windows"], default=None)
        if newest is not None:
            self.window_latency_ms = newest[1]

    def sample(self, elapsed_s: float, due: int) -> LagSample:
        acked = sum(facts["acked"] for facts in self.generated.values())
        taken = sum(facts["events"] for facts in self.taken.values())
        return LagSample(elapsed_s, due, acked, taken)

    def watermark_ms(self) -> int:
        return max((facts["watermark_ms"] for facts in self.taken.values()), default=-1)


class _Benchmark:
    """Owns the processes of one run."""

    def __init__(
        self,
        settings: YsbSettings,
        on_progress: Callable[[YsbProgress], None],
        require_alive: Callable[[], None],
        server_cpu_s: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._on_progress = on_progress
        self._require_alive = require_alive
        self._server_cpu_s = server_cpu_s
        self._load = settings.load()
        self._campaigns = Campaigns.seeded(
            settings.seed, settings.campaigns, settings.ads_per_campaign
        )
        self._topic = f"{settings.topic}-{secrets.token_hex(4)}"
        self._epoch_ns = time.time_ns() - time.monotonic_ns()
        self._start_ms = 0
        self._start_ns = 0
        self._live = _Live()
        self._samples: list[LagSample] = []
        self._pipelines: dict[int, Worker] = {}
        self._running = [asyncio.Event() for _ in range(settings.workers)]
        """The worker of this number was told to begin, and was not killed since."""
        self._killed: set[int] = set()
        self._ending = False

    async def run(self) -> YsbOutcome:
        """Everything, from the empty topic to the checked counts. Raises FriedaError; no process is left."""
        settings = self._settings
        async with open_redis(settings.redis_url) as client:
            await write_campaigns(client, self._campaigns)
            await driver(settings.driver).make_topic(
                settings.address, self._topic, settings.partitions
            )
            async with Fleet() as fleet:
                return await self._with_processes(fleet, client)

    async def _with_processes(self, fleet: Fleet, client: Redis) -> YsbOutcome:
        settings = self._settings
        numbers = range(settings.workers)
        for number in numbers:
            self._pipelines[number] = await fleet.start(
                "frieda.ysb.pipeline:run", self._pipeline_task(number)
            )
        generators = [
            await fleet.start("frieda.ysb.generator:run", self._generator_task(part))
            for part in shares(self._load)
        ]
        workers = [*self._pipelines.values(), *generators]
        facts = await asyncio.gather(*(worker.ready() for worker in workers))
        for number in numbers:
            self._running[number].set()
        self._choose_start()
        await asyncio.gather(*(worker.tell({"start_ns": self._start_ns}) for worker in workers))
        piping = [asyncio.ensure_future(self._supervise(fleet, number)) for number in numbers]
        sending = [
            asyncio.ensure_future(worker.result(partial(self._live.sent, number)))
            for number, worker in enumerate(generators)
        ]
        used = asyncio.ensure_future(self._cpu_at_measured_start(client))
        killing = asyncio.ensure_future(self._kill())
        watching = asyncio.ensure_future(self._watch())
        everything: list[asyncio.Future[Any]] = [*piping, *sending, used, killing, watching]
        try:
            generated = _added(await _all(sending, everything))
            for number, sent in enumerate(sending):
                self._live.sent(number, sent.result())
            elapsed_s = (time.monotonic_ns() - self._measured_ns) / 1e9
            await _all([killing], everything)
            left_behind = (
                await _all([asyncio.ensure_future(self._drain(client, generated))], everything)
            )[0]
            await self._end()
            piped = await _all(piping, everything)
        finally:
            for future in everything:
                future.cancel()
            await asyncio.gather(*everything, return_exceptions=True)
        server_cpu_s, redis_cpu_s = await self._cpu_s(client)
        updates = await collect(client)
        start_ms = self._start_ms
        expected = await asyncio.to_thread(
            expected_counts, self._load, self._campaigns, start_ms, settings.rule(), settings.skew
        )
        seen = [((each.campaign, each.window_ms), each.seen_count) for each in updates]
        counted = await partition_states(client, range(settings.partitions))
        broker_share, write_times = LatencyHistogram(), LatencyHistogram()
        for part in piped:
            broker_share.merge(part["broker_share"])
            write_times.merge(part["write_times"])
        last_ns = last_updates(part["updates"] for part in piped)
        return YsbOutcome(
            settings=settings,
            start_ms=start_ms,
            elapsed_s=elapsed_s,
            generated=generated,
            counted=_added(
                [
                    {name: value for name, value in asdict(state).items() if name in COUNTED}
                    for state in counted.values()
                ]
            ),
            latencies_ns=window_latencies_ns(
                last_ns,
                settings.window_ms,
                start_ms + round(settings.warm_up_s * 1000),
                start_ms + round(settings.total_s * 1000),
            ),
            broker_share=broker_share,
            write_times=write_times,
            samples=tuple(self._samples),
            lag=trend(self._samples, settings.rate, settings.warm_up_s, settings.total_s),
            updates=tuple(updates),
            check=compare_counts(expected, seen, await dropped_views(client)),
            left_behind=left_behind,
            kills=len(self._killed),
            cpu_s={
                "server": server_cpu_s - used.result()[0],
                "redis": redis_cpu_s - used.result()[1],
                "generators": generated["cpu_s"],
                "pipelines": sum(part["cpu_s"] for part in piped),
            },
            client_settings={
                "pipeline": facts[0]["settings"],
                "generator": facts[len(numbers)]["settings"],
            },
        )

    # --- tasks of the processes ---------------------------------------------------------------------------

    def _pipeline_task(self, number: int) -> dict[str, Any]:
        settings = self._settings
        return {
            "driver": settings.driver,
            "address": settings.address,
            "topic": self._topic,
            "partitions": list(range(number, settings.partitions, settings.workers)),
            "redis_url": settings.redis_url,
            "window_ms": settings.window_ms,
            "allowed_lateness_ms": settings.allowed_lateness_ms,
            "sink_ms": settings.sink_ms,
            "sink_phase": phase_of(settings.round, number, settings.workers),
            "epoch_ns": self._epoch_ns,
            "warm_up_s": settings.warm_up_s,
            "polling": settings.polling,
            "max_bytes": settings.max_bytes,
            "consumer_extra": dict(settings.consumer_extra),
        }

    def _generator_task(self, part: Any) -> dict[str, Any]:
        settings = self._settings
        return {
            "driver": settings.driver,
            "address": settings.address,
            "topic": self._topic,
            "shares": [asdict(share) for share in part],
            "seed": settings.seed,
            "campaigns": settings.campaigns,
            "ads_per_campaign": settings.ads_per_campaign,
            "skew": None if settings.skew is None else asdict(settings.skew),
            "tick_ms": settings.tick_ms,
            "warm_up_s": settings.warm_up_s,
            "epoch_ns": self._epoch_ns,
            "acks": settings.acks,
            "linger_ms": settings.linger_ms,
            "batch_bytes": settings.batch_bytes,
            "polling": settings.polling,
            "max_in_flight": settings.max_in_flight,
            "delivery_timeout_s": settings.delivery_timeout_s,
            "producer_extra": dict(settings.producer_extra),
        }

    def _choose_start(self) -> None:
        """The next start of a window that every process can still hear of before."""
        size_ms = self._settings.window_ms
        soon_ms = (time.monotonic_ns() + self._epoch_ns) // NS_PER_MS + HEAD_START_MS
        self._start_ms = -(-soon_ms // size_ms) * size_ms
        self._start_ns = self._start_ms * NS_PER_MS - self._epoch_ns

    # --- while it runs ------------------------------------------------------------------------------------

    async def _supervise(self, fleet: Fleet, number: int) -> dict[str, Any]:
        """The result of a pipeline worker; one that we have killed is started again."""
        while True:
            worker = self._pipelines[number]
            try:
                return await worker.result(partial(self._live.took, number))
            except FriedaError:
                if worker.pid not in self._killed:
                    raise
            again = await fleet.start("frieda.ysb.pipeline:run", self._pipeline_task(number))
            await again.ready()
            await again.tell({"start_ns": self._start_ns})
            self._pipelines[number] = again
            self._running[number].set()
            if self._ending:
                await again.tell({"end": True})

    @property
    def _measured_ns(self) -> int:
        """When the measured part begins."""
        return self._start_ns + round(self._settings.warm_up_s * 1e9)

    async def _cpu_at_measured_start(self, client: Redis) -> tuple[float, float]:
        await sleep_until(self._measured_ns)
        return await self._cpu_s(client)

    async def _cpu_s(self, client: Redis) -> tuple[float, float]:
        """Processor time of the broker, and of Redis as it says itself."""
        with redis_errors():
            facts = await client.info("cpu")
        redis_s = float(facts["used_cpu_user"]) + float(facts["used_cpu_sys"])
        return self._server_cpu_s(), redis_s

    async def _kill(self) -> None:
        """SIGKILL a worker of the pipeline at as many moments of the run as were asked for."""
        settings = self._settings
        generator = random.Random(f"kills {settings.seed}")
        moments = sorted(generator.uniform(0.1, 0.9) for _ in range(settings.kills))
        for moment in moments:
            await sleep_until(self._start_ns + int(moment * settings.total_s * 1e9))
            number = generator.randrange(settings.workers)
            # One that was just killed is started again first.
            await self._running[number].wait()
            worker = self._pipelines[number]
            with contextlib.suppress(
                ProcessLookupError
            ):  # it failed by itself, which is told elsewhere
                os.kill(worker.pid, signal.SIGKILL)
                self._killed.add(worker.pid)
                self._running[number].clear()

    async def _watch(self) -> None:
        """Take a sample of the lag at every moment that the processes told theirs, and show how it goes."""
        moments = Cadence(self._start_ns, PROGRESS_MS, 0.5)
        shown = LagSample(0.0, 0, 0, 0)
        while True:
            await sleep_until(moments.next_ns(time.monotonic_ns()))
            now_ns = time.monotonic_ns()
            # What was told half an interval ago.
            elapsed_s = (now_ns - self._start_ns) / 1e9 - PROGRESS_MS / 2000
            if elapsed_s < 0:
                continue
            settings = self._settings
            due = min(self._load.records, round(settings.rate * elapsed_s))
            sample = self._live.sample(elapsed_s, due)
            self._samples.append(sample)
            if elapsed_s - shown.elapsed_s >= 0.9:
                self._require_alive()
                self._on_progress(self._progress(shown, sample))
                shown = sample

    def _progress(self, before: LagSample, now: LagSample) -> YsbProgress:
        seconds = now.elapsed_s - before.elapsed_s
        watermark_ms = self._live.watermark_ms()
        told_ms = self._start_ms + now.elapsed_s * 1000
        latency_ms, self._live.window_latency_ms = self._live.window_latency_ms, None
        return YsbProgress(
            elapsed_s=now.elapsed_s,
            sent_per_s=(now.acked - before.acked) / seconds,
            taken_per_s=(now.taken - before.taken) / seconds,
            lag=now.lag,
            behind_ms=None if watermark_ms < 0 else max(0.0, told_ms - watermark_ms),
            window_latency_ms=latency_ms,
            kills=len(self._killed),
        )

    async def _drain(self, client: Redis, generated: Mapping[str, Any]) -> int:
        """Wait until all that was acknowledged is committed; how many events were not, at the deadline."""
        deadline_s = time.monotonic() + self._settings.drain_timeout_s
        while True:
            states = await partition_states(client, range(self._settings.partitions))
            left = int(generated["acked"]) - sum(state.events for state in states.values())
            if left <= 0 or time.monotonic() > deadline_s:
                return max(0, left)
            await asyncio.sleep(DRAIN_LOOK_S)

    async def _end(self) -> None:
        self._ending = True
        await asyncio.gather(
            *(worker.tell({"end": True}) for worker in list(self._pipelines.values()))
        )


COUNTED: Final = ("events", "views", "late", "dropped", "malformed", "unjoined")
_LARGEST: Final = ("max_late_us",)


async def _all(
    wanted: Sequence[asyncio.Future[Any]], everything: Sequence[asyncio.Future[Any]]
) -> list[Any]:
    """The results of `wanted`; what fails meanwhile among `everything` is raised at once."""
    while not all(part.done() for part in wanted):
        running = [part for part in {*wanted, *everything} if not part.done()]
        done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for part in done:
            part.result()
    return [part.result() for part in wanted]


def _added(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Numbers added up by name; of texts the last that says anything, of `_LARGEST` the largest."""
    total: dict[str, Any] = {}
    for part in parts:
        for name, value in part.items():
            if isinstance(value, str):
                total[name] = value or total.get(name, "")
            elif name in _LARGEST:
                total[name] = max(value, total.get(name, value))
            else:
                total[name] = total.get(name, 0) + value
    return total
