"""The tables of a report as values, PURE: what the rounds gave at each place, and the change against each peer.

A cell is the median over the valid rounds with the least and the greatest. Where a single round has too few samples
for a percentile but all rounds together have enough, that of all together stands there with a star.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

from frieda.bench.comparison import THROUGHPUT, Spread, percent_change
from frieda.bench.contests import Contest, broker_share, latency_ns, merged_latency, spread
from frieda.bench.histogram import samples_needed
from frieda.bench.report import PERCENTILES, latencies_us
from frieda.bench.results import Run
from frieda.bench.ticks import duration, plain

NOTHING: Final = "–"
LATENCIES: Final = (*PERCENTILES, "max")
CHANGES: Final = ("p50", "p95", "p99", "p99.9")


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Text in rows and columns; the first `names` columns are names, the others numbers."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: int = 2
    notes: Sequence[str] = ()


def measured_table(contest: Contest) -> Table:
    """Every series at every place: latencies (not in bulk, where they describe queues), rates, processors, validity."""
    percentiles = () if contest.mode == "throughput" else _carried(contest)
    rows, starred = [], False
    for place, series in product(contest.places, contest.series):
        runs, valid = contest.at(place, series), contest.valid_at(place, series)
        if not runs:
            continue
        cells = [_latency_cell(valid, each) for each in percentiles]
        starred = starred or any(cell.endswith("*") for cell in cells)
        cells += [_cell(valid, lambda run: run.records_per_sec, plain)]
        cells += [_cell(valid, lambda run: run.mb_per_sec, plain)]
        cells += [_cell(valid, _processor_time(whose), plain) for whose in ("server", "clients")]
        rows.append([place.name, series, *cells, f"{len(valid)} of {len(runs)}"])
    unit = "event" if contest.mode == "ysb" else "record"
    return Table(
        headings=[
            *("load", "system", *percentiles, f"{unit}s/s", "MB/s"),
            *(f"server CPU, s/M {unit}s", f"clients' CPU, s/M {unit}s", "valid rounds"),
        ],
        rows=rows,
        notes=[*_reasons(contest), *(["* of all rounds together"] if starred else [])],
    )


def change_table(contest: Contest) -> Table | None:
    """Each series of Frieda's against each peer, in percent; None where there is no pair.

    Negative is less: less latency, or fewer records a second.
    """
    metrics = (THROUGHPUT,) if contest.mode == "throughput" else CHANGES
    ours = [series for series in contest.series if series.startswith("Frieda")]
    peers = [series for series in contest.series if series not in ours]
    rows, starred = [], False
    for place, own, peer in product(contest.places, ours, peers):
        mine, theirs = contest.valid_at(place, own), contest.valid_at(place, peer)
        if mine and theirs:
            cells = [_change_cell(mine, theirs, metric) for metric in metrics]
            starred = starred or any(cell.endswith("*") for cell in cells)
            rows.append([place.name, own, peer, *cells])
    if not rows:
        return None
    return Table(
        headings=[
            "load",
            "system",
            "against",
            *(each.replace("_per_sec", "/s") for each in metrics),
        ],
        rows=rows,
        names=3,
        notes=[
            "Change in percent, of each round; below 0 is less",
            *(["* of all rounds together"] if starred else []),
        ],
    )


def share_table(contest: Contest) -> Table | None:
    """The part of the latency that the broker and its clients took, all rounds together; None where it is not known."""
    rows = []
    for place, series in product(contest.places, contest.series):
        share = broker_share(contest.valid_at(place, series))
        if share is not None:
            values = latencies_us(share)
            told = (values[each] for each in LATENCIES)
            cells = [NOTHING if value is None else duration(value * 1000) for value in told]
            rows.append([place.name, series, *cells])
    if not rows:
        return None
    return Table(
        headings=["load", "system", *LATENCIES],
        rows=rows,
        notes=["The broker's share of the latency: broker and clients, all rounds together"],
    )


def markdown(table: Table) -> str:
    """The table for a document; what would break it is escaped."""
    lines = [
        _markdown_row(table.headings),
        _markdown_row(["---" if n < table.names else "---:" for n in range(len(table.headings))]),
        *map(_markdown_row, table.rows),
    ]
    return "\n".join([*lines, *(f"\n{_escaped(note)}" for note in table.notes)])


def _carried(contest: Contest) -> tuple[str, ...]:
    """The percentiles that at least one series can carry at one place, all rounds together."""
    most = max(
        (
            sum(run.latency().count for run in runs)
            for runs in (
                contest.valid_at(*each) for each in product(contest.places, contest.series)
            )
        ),
        default=0,
    )
    carried = (name for name, percent in PERCENTILES.items() if samples_needed(percent) <= most)
    return (*carried, "max")


def _cell(
    runs: Sequence[Run], value: Callable[[Run], float | None], text: Callable[[float], str]
) -> str:
    found = spread(runs, value) if runs else None
    return NOTHING if found is None else _spread_text(found, text)


def _latency_cell(runs: Sequence[Run], percentile: str) -> str:
    cell = _cell(runs, lambda run: latency_ns(run, percentile), duration)
    if cell != NOTHING or not runs:
        return cell
    together = latencies_us(merged_latency(runs)).get(percentile)
    return NOTHING if together is None else f"{duration(together * 1000)}*"


def _change_cell(mine: Sequence[Run], theirs: Sequence[Run], metric: str) -> str:
    found = percent_change(mine, theirs, metric)
    if found is not None:
        return _spread_text(found, lambda percent: f"{percent:+,.1f}%")
    if metric == THROUGHPUT:
        return NOTHING
    own, other = (latencies_us(merged_latency(runs)).get(metric) for runs in (mine, theirs))
    return NOTHING if own is None or not other else f"{(own / other - 1) * 100:+,.1f}%*"


def _spread_text(found: Spread, text: Callable[[float], str]) -> str:
    median, least, greatest = text(found.median), text(found.least), text(found.greatest)
    return median if least == greatest else f"{median} ({least} to {greatest})"


def _processor_time(whose: str) -> Callable[[Run], float | None]:
    def used(run: Run) -> float | None:
        seconds = run.cpu_s.get(whose)
        return seconds / run.records * 1e6 if seconds and run.records else None

    return used


def _reasons(contest: Contest) -> Iterator[str]:
    for place, series in product(contest.places, contest.series):
        for run in contest.at(place, series):
            if not run.valid:
                yield f"{series}, {place.name}, round {run.round + 1}: {run.invalid_because}"


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_escaped, cells))} |"


def _escaped(text: str) -> str:
    one_line = " ".join(text.split())
    for character in "\\|<>`*_[]":
        one_line = one_line.replace(character, f"\\{character}")
    return one_line
