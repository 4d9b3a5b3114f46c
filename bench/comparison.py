"""What a file of results says, as tables, PURE: medians with their spread, and the change against each peer.

A change is that of one round, of two cases that were measured a moment apart; what is stated is the median over the
rounds beside the least and the greatest. Invalid runs count in nothing but the number of valid ones.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from frieda.bench.results import Results, Run

LATENCIES: Final = ("p50", "p99", "p99.9")
THROUGHPUT: Final = "records_per_sec"


@dataclass(frozen=True, slots=True)
class Spread:
    """The median over the rounds, the least and the greatest."""

    median: float
    least: float
    greatest: float
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """None without a value."""
        if not values:
            return None
        return cls(statistics.median(values), min(values), max(values), len(values))


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """How much less (negative) or more one case of Frieda's has than a peer's at the same point, in percent."""

    point: str
    ours: str
    peer: str
    metric: str
    percent: Spread


def value_of(run: Run, metric: str) -> float | None:
    """`records_per_sec`, `mb_per_sec`, "server" or "clients" (processor time), or a percentile in microseconds."""
    match metric:
        case "records_per_sec":
            return run.records_per_sec
        case "mb_per_sec":
            return run.mb_per_sec
        case "server" | "clients":
            return run.cpu_s.get(metric)
        case _:
            return run.latency_us.get(metric)


def metrics_of(runs: Sequence[Run]) -> tuple[str, ...]:
    """What is compared: latencies, or the rate where that is what was measured."""
    throughput = any(run.settings.get("mode") == "throughput" for run in runs)
    return (THROUGHPUT,) if throughput else LATENCIES


def values_by_round(runs: Sequence[Run], metric: str) -> dict[int, float]:
    """The value of each round with a valid run that can carry it."""
    found = ((run.round, value_of(run, metric)) for run in runs if run.valid)
    return {number: value for number, value in found if value is not None}


def spread(runs: Sequence[Run], metric: str) -> Spread | None:
    """Of the valid runs of one case; None when none of them has the value."""
    return Spread.of(list(values_by_round(runs, metric).values()))


def rows(results: Results) -> list[dict[str, object]]:
    """One row for each case: medians in microseconds, the spread of the p99.9, processor time of a million records."""
    return [_row(case, runs) for case, runs in _tcp_first(results.cases())]


def _row(case: str, runs: Sequence[Run]) -> dict[str, object]:
    row: dict[str, object] = {
        "case": case,
        "valid": f"{sum(run.valid for run in runs)}/{len(runs)}",
    }
    for metric in (*LATENCIES, "max", THROUGHPUT, "mb_per_sec"):
        found = spread(runs, metric)
        row[metric] = None if found is None else round(found.median, 1)
    tail = spread(runs, "p99.9")
    row["p99.9_spread"] = None if tail is None else f"{tail.least:.0f}..{tail.greatest:.0f}"
    for metric in ("server", "clients"):
        used = [
            seconds / run.records * 1e6
            for run in runs
            if run.valid and run.records and (seconds := run.cpu_s.get(metric)) is not None
        ]
        row[f"{metric}_cpu"] = round(statistics.median(used), 2) if used else None
    row["invalid_because"] = next((run.invalid_because for run in runs if not run.valid), None)
    return row


def changes(results: Results) -> list[Change]:
    """Every case of Frieda's against every peer's at the same point; tcp first."""
    found: list[Change] = []
    by_point: dict[str, dict[str, Sequence[Run]]] = {}
    for case, runs in _tcp_first(results.cases()):
        by_point.setdefault(str(runs[0].settings.get("point", "")), {})[case] = runs
    for point, cases in by_point.items():
        ours = [runs for runs in cases.values() if runs[0].system == "frieda"]
        peers = [runs for runs in cases.values() if runs[0].system != "frieda"]
        for mine in ours:
            for theirs in peers:
                found.extend(_changes(point, mine, theirs))
    return found


def percent_change(mine: Sequence[Run], theirs: Sequence[Run], metric: str) -> Spread | None:
    """How much more the one case has than the other, round by round; None without a round that both can carry."""
    own, other = values_by_round(mine, metric), values_by_round(theirs, metric)
    return Spread.of(
        [
            (own[number] / other[number] - 1) * 100
            for number in sorted(own.keys() & other.keys())
            if other[number] > 0
        ]
    )


def _changes(point: str, mine: Sequence[Run], theirs: Sequence[Run]) -> Iterator[Change]:
    for metric in metrics_of([*mine, *theirs]):
        percent = percent_change(mine, theirs, metric)
        if percent is not None:
            yield Change(
                point=point,
                ours=_contender(mine),
                peer=_contender(theirs),
                metric=metric,
                percent=percent,
            )


def change_rows(results: Results) -> list[dict[str, object]]:
    """The changes as a table: one row for a point and a pair."""
    table: dict[tuple[str, str, str], dict[str, object]] = {}
    for change in changes(results):
        key = (change.point, change.ours, change.peer)
        row = table.setdefault(
            key, {"point": change.point, "what": change.ours, "against": change.peer}
        )
        percent = change.percent
        row[change.metric] = (
            f"{percent.median:+.1f}% ({percent.least:+.1f}..{percent.greatest:+.1f})"
        )
        row["rounds"] = percent.rounds
    return list(table.values())


def _contender(runs: Sequence[Run]) -> str:
    return str(runs[0].settings.get("contender", runs[0].system))


def _tcp_first(cases: Mapping[str, list[Run]]) -> list[tuple[str, list[Run]]]:
    """The points in their order; at each what goes over tcp, as the peers do, before what does not."""
    points = list(dict.fromkeys(str(runs[0].settings.get("point", "")) for runs in cases.values()))

    def place(item: tuple[str, list[Run]]) -> tuple[int, bool]:
        settings = item[1][0].settings
        return points.index(str(settings.get("point", ""))), settings.get("transport") != "tcp"

    return sorted(cases.items(), key=place)
