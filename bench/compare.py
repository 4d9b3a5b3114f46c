"""The same load on several systems, one at a time, in rounds: each run has a fresh system on an empty folder.

The cases of one point run one after another, so that what is compared was measured a moment apart, and each round
begins with another contender. A share of a rate is of what the reference sustains with the same producers, sizes and
batching in a closed loop, which is measured first.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from frieda.bench.drive import DriveSettings, run_drive
from frieda.bench.drivers.registry import driver as driver_named
from frieda.bench.end_to_end import run_end_to_end
from frieda.bench.environment import describe_environment, filesystem_of
from frieda.bench.histogram import LatencyHistogram
from frieda.bench.payload import values_of
from frieda.bench.plan import (
    BATCHING_CANDIDATES,
    PROBE_RECORDS,
    WITHOUT_BATCHING,
    Batching,
    Contender,
    Plan,
    Point,
    case_name,
    drive_settings,
)
from frieda.bench.report import latencies_us
from frieda.bench.results import Results, Run
from frieda.bench.rounds import interleaved
from frieda.bench.systems.base import RunningSystem
from frieda.errors import ConfigError, FriedaError, MissingDependencyError


class Listener(Protocol):
    """Who hears how a comparison goes on."""

    def measured(self, run: Run) -> None:
        """One run has ended."""
        ...

    def probed(self, what: str) -> None:
        """A rate or a batching was found; a sentence that says which."""
        ...

    def skipped(self, what: str) -> None:
        """A case is left out; a sentence that says why."""
        ...

    def round_ended(self, results: Results) -> None:
        """All results so far."""
        ...


class CrossCheck(Protocol):
    """A load generator of the system's own, run against it as a check of ours."""

    def __call__(self, address: str, settings: DriveSettings) -> dict[str, object]: ...


class _Case(NamedTuple):
    contender: Contender
    point: Point

    @property
    def name(self) -> str:
        return case_name(self.contender, self.point)


@dataclass(slots=True)
class Comparison:
    """One run of a plan. `folder` is where the systems keep their data while they are measured.

    `cross_checks` are by driver; each is called once for each point with a rate, or in bulk, on a system that was
    started for it.
    """

    plan: Plan
    kind: str
    command: str
    folder: Path
    listener: Listener
    cross_checks: dict[str, CrossCheck] = field(default_factory=dict)
    facts: dict[str, object] = field(default_factory=dict)
    """What else the results shall tell."""
    _rates: dict[Point, float] = field(default_factory=dict)
    _batching: dict[str, Batching] = field(default_factory=dict)
    _unable: dict[str, str] = field(default_factory=dict)
    _runs: list[Run] = field(default_factory=list)
    _extra: dict[str, list[dict[str, object]]] = field(default_factory=dict)

    def run(self) -> Results:
        """Measure everything. A case that fails is an invalid run that says so. Raises ConfigError and the like."""
        for point in self.plan.points:
            self._find_batching(point)
            self._find_rate(point)
        for number, cases in self._rounds():
            for case in cases:
                if case.name not in self._unable:
                    self._measure(number, case)
            self.listener.round_ended(self.results())
        for point in self.plan.points:
            self._cross_check(point)
        return self.results()

    def results(self) -> Results:
        """What there is so far."""
        return Results(
            kind=self.kind,
            command=self.command,
            environment=describe_environment() | {"filesystem": filesystem_of(self.folder)},
            settings=self.plan.described(),
            runs=tuple(self._runs),
            extra=self.facts | self._extra,
        )

    def _rounds(self) -> Iterator[tuple[int, list[_Case]]]:
        """For each round its cases: the points in their order, the contenders of each in turn."""
        by_point = (
            interleaved([_Case(each, point) for each in self.plan.contenders], self.plan.rounds)
            for point in self.plan.points
        )
        in_order = sorted(chain.from_iterable(by_point), key=itemgetter(0))
        for number in range(self.plan.rounds):
            yield number, [case for of, case in in_order if of == number]

    def _measure(self, number: int, case: _Case) -> None:
        run = self._run(case, number)
        if run is not None:
            self._runs.append(run)
            self.listener.measured(run)

    def _run(self, case: _Case, number: int) -> Run | None:
        """One run of a case on a fresh system; an invalid one when it fails, None when the system cannot be so."""
        rate = self._rate(case.point)
        name = case.name
        try:
            with self._system(case) as (address, server):
                settings = self._settings(case, address, rate)
                run = self._drive(settings, name, number, server)
        except (ConfigError, MissingDependencyError) as error:
            # One that cannot have so many brokers is left out; any other mistake ends the comparison.
            if case.point.brokers == 1:
                raise
            self._leave_out(case, str(error))
            return None
        except FriedaError as error:
            settings = self._settings(case, case.contender.address or "", rate)
            return failed_run(settings, name, number, error)
        return replace(run, server_settings=_server_settings(server))

    def _drive(
        self, settings: DriveSettings, name: str, number: int, server: RunningSystem | None
    ) -> Run:
        if self.plan.method.kind == "end-to-end":
            return run_end_to_end(
                settings,
                case=name,
                consumers=self.plan.method.consumers,
                round_number=number,
                server=server,
            )
        return run_drive(settings, case=name, round_number=number, server=server)

    def _settings(self, case: _Case, address: str, rate: float | None) -> DriveSettings:
        batching = self._batching.get(case.name) or self.plan.method.batching or Batching()
        return drive_settings(self.plan, case.contender, case.point, address, rate, batching)

    @contextlib.contextmanager
    def _system(self, case: _Case) -> Iterator[tuple[str, RunningSystem | None]]:
        """The address of the contender, started on a folder of its own where it is to be."""
        system = case.contender.system
        if system is None:
            yield case.contender.address or "", None
            return
        with (
            tempfile.TemporaryDirectory(prefix="frieda-bench-", dir=self.folder) as folder,
            system.running(Path(folder), self.plan.durability, case.point.brokers) as running,
        ):
            yield running.address, running

    def _leave_out(self, case: _Case, why: str) -> None:
        self._unable[case.name] = why
        self._note("skipped", {"case": case.name, "why": why})
        self.listener.skipped(f"{case.name}: left out: {why}")

    def _note(self, what: str, row: dict[str, object]) -> None:
        self._extra.setdefault(what, []).append(row)

    # What is found beforehand

    def _rate(self, point: Point) -> float | None:
        return self._rates.get(point, point.rate)

    def _find_rate(self, point: Point) -> None:
        """The rate of a point that is given as a share of what the reference sustains."""
        if point.rate_share is None:
            return
        sustained: dict[str, float] = {}
        for contender in self.plan.contenders:
            case = _Case(contender, point)
            if (
                self.plan.reference in ("slowest", contender.label)
                and case.name not in self._unable
            ):
                found = self._probe(case, partial(self._saturating, point), "sustained rate")
                if found is not None:
                    sustained[contender.label] = found.records_per_sec
        if not sustained:
            raise FriedaError(
                f"{point.name}: the rate that {self.plan.reference} sustains was not to be found"
            )
        slowest = min(sustained, key=lambda label: sustained[label])
        self._rates[point] = rate = round(sustained[slowest] * point.rate_share, 3)
        self._note(
            "rates", {"point": point.name, "rate": rate, "of": slowest, "sustained": sustained}
        )
        self.listener.probed(
            f"{point.name}: {slowest} sustains {sustained[slowest]:,.0f} records/s, "
            f"so {rate:,.0f} records/s are sent"
        )

    def _saturating(self, point: Point, settings: DriveSettings) -> DriveSettings:
        """The same load as fast as it goes, record by record, with as many under way as the open loop may have."""
        in_flight = self.plan.method.in_flight_at(point, open_loop=True)
        return _shorter(replace(settings, load=replace(settings.load, in_flight=in_flight)))

    def _find_batching(self, point: Point) -> None:
        """With which batching each contender is fastest at this point."""
        if self.plan.method.batching is not None:
            return
        for contender in self.plan.contenders:
            case = _Case(contender, point)
            if contender.driver in WITHOUT_BATCHING:
                self._batching[case.name] = Batching()
                continue
            rates: dict[Batching, float] = {}
            for batching in BATCHING_CANDIDATES:
                self._batching[case.name] = batching
                run = self._probe(case, _shorter, f"batching {batching}")
                rates[batching] = 0.0 if run is None else run.records_per_sec
            best = max(rates, key=lambda each: rates[each])
            self._batching[case.name] = best
            tried = [
                {
                    "linger_ms": each.linger_ms,
                    "batch_bytes": each.batch_bytes,
                    "records_per_sec": rate,
                }
                for each, rate in rates.items()
            ]
            self._note("batching", {"case": case.name, "tried": tried})
            self.listener.probed(
                f"{case.name}: fastest with linger {best.linger_ms:g} ms "
                f"and batches of {best.batch_bytes} bytes"
            )

    def _probe(
        self, case: _Case, change: Callable[[DriveSettings], DriveSettings], what: str
    ) -> Run | None:
        """A short run that is no result; None when it failed, which is noted."""
        if case.name in self._unable:
            return None
        name = case.name
        try:
            with self._system(case) as (address, server):
                settings = change(self._settings(case, address, None))
                return run_drive(settings, case=f"{name} ({what})", server=server)
        except (ConfigError, MissingDependencyError) as error:
            if case.point.brokers == 1:
                raise
            self._leave_out(case, str(error))
        except FriedaError as error:
            self._note("failed_probes", {"case": name, "what": what, "why": str(error)})
            self.listener.probed(f"{name}: {what}: {error}")
        return None

    def _cross_check(self, point: Point) -> None:
        """The system's own load generator at this point, where there is one."""
        rate = self._rate(point)
        if rate is None and self.plan.method.kind != "throughput":
            return  # a closed loop is none of theirs
        for contender in self.plan.contenders:
            check = self.cross_checks.get(contender.driver)
            case = _Case(contender, point)
            if check is None or contender.system is None or case.name in self._unable:
                continue
            row: dict[str, object] = {"case": case.name}
            try:
                with self._system(case) as (address, _):
                    row |= check(address, self._settings(case, address, rate))
            except FriedaError as error:
                row["failed"] = str(error)
            self._note("cross_check", row)
            self.listener.probed(f"cross-check: {row}")


def failed_run(settings: DriveSettings, case: str, number: int, error: FriedaError) -> Run:
    """A run that came to no result: invalid, without a sample."""
    nothing = LatencyHistogram()
    return Run(
        case=case,
        round=number,
        system=driver_named(settings.driver).system,
        driver=settings.driver,
        settings=settings.described(values_of(settings.load)),
        records=0,
        elapsed_s=0.0,
        records_per_sec=0.0,
        latency_us=latencies_us(nothing),
        invalid_because=f"it failed: {error}",
        histogram=nothing.encode(),
    )


def _server_settings(server: RunningSystem | None) -> dict[str, Any]:
    if server is None:
        return {"version": None, "note": "it was there already, with settings of its own"}
    return {"version": server.version, **server.settings}


def _shorter(settings: DriveSettings) -> DriveSettings:
    load = settings.load
    records = max(load.producers, min(PROBE_RECORDS, load.records))
    return replace(settings, load=replace(load, records=records))
