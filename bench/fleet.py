"""The processes of a benchmark: started, begun at one moment, listened to, merged, and never left behind.

Each is a `frieda.bench.worker`. A benchmark gives the function that its load processes run; that
function reports through a `frieda.bench.meter.Meter`, whose `result()` is what `run_load` merges.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import frieda
from frieda.bench.environment import describe_environment
from frieda.bench.histogram import LatencyHistogram, Window
from frieda.bench.load import Lateness, LatenessSummary, Load, shares
from frieda.bench.report import Progress, Result
from frieda.bench.worker import MAX_LINE_BYTES
from frieda.errors import FriedaError

READY_TIMEOUT_S: Final = 60.0
SILENCE_TIMEOUT_S: Final = 60.0
"""A load process tells its progress every 5 s; one that is silent for so long has hung."""

STOP_TIMEOUT_S: Final = 5.0
HEAD_START_NS: Final = 50_000_000
"""How far ahead the common start lies, so that every process has heard of it."""

OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What all load processes measured together, warm-up cut."""

    records: int
    errors: int
    elapsed_s: float
    latency: LatencyHistogram
    service_time: LatencyHistogram | None
    lateness: LatenessSummary | None
    windows: list[Window]
    parts: Sequence[Mapping[str, Any]] = ()
    """What each process said, with whatever its entry has added to `Meter.result()`."""

    def as_result(self, name: str, load: Load, settings: Mapping[str, object]) -> Result:
        """The outcome of running `load` as the result of the benchmark `name`, with what shaped it beside it."""
        return Result(
            name=name,
            records=self.records,
            errors=self.errors,
            size_bytes=self.records * load.record_size_bytes,
            elapsed_s=self.elapsed_s,
            latency=self.latency,
            service_time=self.service_time,
            lateness=self.lateness,
            settings=settings,
            environment=describe_environment(),
        )


class Fleet:
    """Owns worker processes: leaving the context ends every one of them."""

    def __init__(self) -> None:
        self._workers: list[Worker] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.gather(*(worker.stop() for worker in self._workers))

    async def start(self, entry: str, task: Mapping[str, Any]) -> Worker:
        """A new process that runs `entry` (`module:function`) with `task` (JSON values)."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # nothing in the user's folder may stand in for a module of ours
            "-m",
            "frieda.bench.worker",
            entry,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=MAX_LINE_BYTES,
            start_new_session=True,  # Ctrl-C is for us; we end our workers ourselves
            env=_environment(),
        )
        worker = Worker(process)
        self._workers.append(worker)
        await worker.tell(task)
        return worker


class Worker:
    """One process of a fleet."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        if process.stdin is None or process.stdout is None:
            raise ValueError("a worker needs pipes for its standard input and output")
        self._process = process
        self._stdin = process.stdin
        self._stdout = process.stdout

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    async def tell(self, message: Mapping[str, Any]) -> None:
        """Send one line. A worker that is gone is noticed by whoever waits for its answer."""
        with contextlib.suppress(ConnectionError):
            self._stdin.write(json.dumps(message).encode() + b"\n")
            await self._stdin.drain()

    async def ready(self) -> dict[str, Any]:
        """Wait until it is set up; what it said of itself. Raises FriedaError."""
        kind, facts = await self._hear(READY_TIMEOUT_S)
        if kind != "ready":
            raise FriedaError(f"a benchmark process said {kind!r} before it was ready")
        return facts

    async def result(self, on_progress: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Wait for its result, passing on its progress. Raises FriedaError."""
        while True:
            kind, facts = await self._hear(SILENCE_TIMEOUT_S)
            if kind == "result":
                return facts
            on_progress(facts)

    async def _hear(self, timeout_s: float) -> tuple[str, dict[str, Any]]:
        try:
            line = await asyncio.wait_for(self._stdout.readline(), timeout_s)
        except TimeoutError:
            raise FriedaError(
                f"a benchmark process said nothing for {timeout_s:.0f} s; it was stopped"
            ) from None
        if not line:
            code = await self._process.wait()
            raise FriedaError(f"a benchmark process ended before its result (exit code {code})")
        message = json.loads(line)
        if message["type"] == "error":
            raise FriedaError(f"a benchmark process failed: {message['message']}")
        return message["type"], message["facts"]

    async def stop(self) -> None:
        """End it: by the end of its input, and after STOP_TIMEOUT_S, or if cancelled, by force."""
        self._stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), STOP_TIMEOUT_S)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        except asyncio.CancelledError:
            self._process.kill()
            raise


async def run_load(
    fleet: Fleet,
    entry: str,
    load: Load,
    task: Mapping[str, Any],
    on_progress: OnProgress,
    on_phase: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Run `load` in `load.processes` processes and merge what they measured.

    Each runs `entry` with `task`, "load" (the whole) and "shares" (its producers). `on_progress` is
    called once for each window, with what all processes did in it; `on_phase` with each {"phase": name} that a
    process tells as its progress. Raises FriedaError.
    """
    windows = ProgressByWindow(load.processes, on_progress)

    def take(facts: dict[str, Any]) -> None:
        if "phase" in facts:
            on_phase(str(facts["phase"]))
        else:
            windows.take(facts)

    workers = [
        await fleet.start(
            entry, {**task, "load": asdict(load), "shares": [asdict(share) for share in part]}
        )
        for part in shares(load)
    ]
    await asyncio.gather(*(worker.ready() for worker in workers))
    start_ns = time.monotonic_ns() + HEAD_START_NS
    await asyncio.gather(*(worker.tell({"start_ns": start_ns}) for worker in workers))
    results = await asyncio.gather(*(worker.result(take) for worker in workers))
    return merge_results(results)


def merge_results(results: Sequence[Mapping[str, Any]]) -> Outcome:
    """One outcome from what each process's `Meter.result` said."""
    latency, windows = _merge_windows([result["latency"] for result in results])
    service_parts = [result["service_time"] for result in results if result["service_time"]]
    lateness = Lateness()
    for result in results:
        if result["lateness"] is not None:
            lateness.add(LatenessSummary(**result["lateness"]))
    late = lateness.summary()
    first_ns = min(result["first_ns"] for result in results)
    last_ns = max(result["last_ns"] for result in results)
    return Outcome(
        records=latency.count,
        errors=sum(result["errors"] for result in results),
        elapsed_s=(last_ns - first_ns) / 1e9,
        latency=latency,
        service_time=_merge_windows(service_parts)[0] if service_parts else None,
        lateness=late if late.sends else None,
        windows=windows,
        parts=results,
    )


def _merge_windows(
    parts: Sequence[Sequence[Mapping[str, Any]]],
) -> tuple[LatencyHistogram, list[Window]]:
    """The total, and for each window number what all processes recorded in it."""
    total = LatencyHistogram()
    windows: list[Window] = []
    for number in range(max(map(len, parts), default=0)):
        rows = [part[number] for part in parts if number < len(part)]
        histogram = LatencyHistogram()
        for row in rows:
            histogram.merge(row["histogram"])
            total.merge(row["histogram"])
        start_ns = min(row["start_ns"] for row in rows)
        windows.append(Window(start_ns, max(row["end_ns"] for row in rows), histogram))
    return total, windows


class ProgressByWindow:
    """Adds up the progress of all processes, window by window."""

    def __init__(self, processes: int, on_progress: OnProgress) -> None:
        self._processes = processes
        self._on_progress = on_progress
        self._parts: dict[int, list[Progress]] = {}

    def take(self, facts: dict[str, Any]) -> None:
        """One process's news of one window; when it is the last one's, all of them are told as one."""
        number = int(facts.pop("number"))
        parts = self._parts.setdefault(number, [])
        parts.append(Progress(**facts))
        if len(parts) == self._processes:
            self._on_progress(_sum(self._parts.pop(number)))


def _sum(parts: Sequence[Progress]) -> Progress:
    records = sum(part.records for part in parts)
    sum_ns = sum(part.records * (part.mean_ns or 0.0) for part in parts)
    return Progress(
        records=records,
        size_bytes=sum(part.size_bytes for part in parts),
        elapsed_s=max(part.elapsed_s for part in parts),
        mean_ns=sum_ns / records if records else None,
        max_ns=max((part.max_ns for part in parts if part.max_ns is not None), default=None),
    )


def _environment() -> dict[str, str]:
    """Ours, with the folder that `frieda` was imported from, so that a checkout's worker finds it."""
    home = str(Path(frieda.__file__).resolve().parent.parent)
    inherited = os.environ.get("PYTHONPATH")
    if "site-packages" in Path(home).parts:
        return dict(os.environ)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [home, inherited]))}
