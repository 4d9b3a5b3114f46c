"""The tables of a comparison: each contender over all rounds, and the change against each peer."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from frieda.bench.histogram import LatencyHistogram
from frieda.bench.report import latencies_us
from frieda.bench.results import Run
from frieda.bench.systems.base import System

OWN: Final = "frieda"
COLUMNS: Final = (
    *("system", "latency", "rounds", "p50_ms", "p95_ms", "p99_ms", "p99.9_ms", "max_ms"),
    *("mean_ms", "least_mean_ms", "greatest_mean_ms", "lag", "counts"),
)
CHANGE_COLUMNS: Final = ("change in %", "latency", "p50", "p95", "p99", "p99.9", "max", "mean")
_COMPARED: Final = ("p50", "p95", "p99", "p99.9", "max", "mean")
_LATENCIES: Final = ("window", "broker and clients")


class Contender(NamedTuple):
    """A system that takes part, with the driver that talks to it."""

    name: str
    system: System
    driver: str
    transport: str | None


def rows(runs: Sequence[Run]) -> list[dict[str, object]]:
    """Two rows for each contender: the windows' latency, and the broker's share of it."""
    table: list[dict[str, object]] = []
    for name, its in _by_case(runs).items():
        lag: list[Any] = [run.extra["lag"] for run in its]
        grows = [each["grows"] for each in lag]
        for latency in _LATENCIES:
            values = latencies_us(_merged(its, latency))
            means = [_ms(latencies_us(_histogram(run, latency))["mean"]) for run in its]
            known = [mean for mean in means if mean is not None]
            table.append(
                {
                    "system": name,
                    "latency": latency,
                    "rounds": len(its),
                    **{f"{key}_ms": _ms(value) for key, value in values.items()},
                    "least_mean_ms": min(known, default=None),
                    "greatest_mean_ms": max(known, default=None),
                    "lag": "GROWS"
                    if True in grows
                    else round(statistics.mean(e["mean"] for e in lag)),
                    "counts": "exact" if all(run.extra["exact"] for run in its) else "WRONG",
                }
            )
    return table


def changes(runs: Sequence[Run]) -> list[dict[str, object]]:
    """What each of ours is against each peer, in percent: below 0 is less latency."""
    cases = _by_case(runs)
    own = [name for name, its in cases.items() if its[0].system == OWN]
    peers = [name for name in cases if name not in own]
    table: list[dict[str, object]] = []
    for mine in own:
        for other in peers:
            for latency in _LATENCIES:
                here = latencies_us(_merged(cases[mine], latency))
                there = latencies_us(_merged(cases[other], latency))
                changed = {name: _percent(here[name], there[name]) for name in _COMPARED}
                table.append({"change in %": f"{mine} / {other}", "latency": latency, **changed})
    return table


def _by_case(runs: Sequence[Run]) -> dict[str, list[Run]]:
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run.case, []).append(run)
    return found


def _histogram(run: Run, latency: str) -> LatencyHistogram:
    if latency == _LATENCIES[0]:
        return run.latency()
    histogram = LatencyHistogram()
    histogram.merge(str(run.extra["broker_share_histogram"]))
    return histogram


def _merged(runs: Sequence[Run], latency: str) -> LatencyHistogram:
    total = LatencyHistogram()
    for run in runs:
        total.merge(_histogram(run, latency).encode())
    return total


def _ms(value_us: float | None) -> float | None:
    return None if value_us is None else value_us / 1000


def _percent(value: float | None, base: float | None) -> float | None:
    return None if value is None or not base else round(100 * (value - base) / base, 1)
