"""Which runs make which figure of the published evaluation, PURE; what is not in the files is named, not drawn.

Percentile latency over message sizes for 2, 4, 8 and 16 producers and one broker; for 16, 32 and 64 producers on
four brokers with replication 4; throughput of one and of four brokers; the latency distribution of the Yahoo
Streaming Benchmark. Beside them a percentile curve of each place, with all systems.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from frieda.bench.charts import Chart, Curve, CurveChart, Mark, Panel, PanelChart
from frieda.bench.contests import (
    OTHER_KINDS,
    Contest,
    Place,
    broker_share,
    contests,
    cores,
    latency_ns,
    merged_latency,
    mode_of,
    place_of,
    spread,
)
from frieda.bench.histogram import CurvePoint, LatencyHistogram
from frieda.bench.model_figures import model_charts
from frieda.bench.results import Results, Run
from frieda.bench.roofline_figure import roofline_chart
from frieda.bench.ticks import Unit, size

PERCENTILES: Final = ("p50", "p99", "p99.9")
WHAT: Final = {
    "latency": "produce, until the acknowledgement",
    "end-to-end": "produce to consume",
    "ysb": "Yahoo Streaming Benchmark, end of window to last write",
    "throughput": "throughput, as fast as it goes",
}


class _Item(NamedTuple):
    """A part of the published evaluation, and whether a run belongs to it."""

    title: str
    holds: Callable[[Run], bool]


def _one_broker(producers: int) -> _Item:
    return _Item(
        f"percentile latency of {producers} producers and one broker over message sizes",
        lambda run: (
            mode_of(run) == "latency"
            and _brokers(run) == 1
            and place_of(run).producers == producers
        ),
    )


def _four_brokers(producers: int) -> _Item:
    return _Item(
        f"percentile latency of {producers} producers, 4 brokers with replication 4",
        lambda run: (
            mode_of(run) == "latency"
            and _brokers(run) == 4
            and run.settings.get("replication") == 4
            and place_of(run).producers == producers
        ),
    )


def _throughput(brokers: int, text: str) -> _Item:
    return _Item(
        f"throughput of {text}",
        lambda run: mode_of(run) == "throughput" and _brokers(run) == brokers,
    )


PUBLISHED: Final = (
    *map(_one_broker, (2, 4, 8, 16)),
    *map(_four_brokers, (16, 32, 64)),
    _throughput(1, "one broker"),
    _throughput(4, "four brokers"),
    _Item(
        "latency distribution of the Yahoo Streaming Benchmark", lambda run: mode_of(run) == "ysb"
    ),
)
PUBLISHED_SYSTEMS: Final = {"frieda": "Frieda", "kafka": "Kafka"}


def charts(files: Sequence[Results]) -> list[Chart]:
    """Every figure that the files hold, overviews first. Names are unique."""
    found = [chart for contest in contests(files) for chart in charts_of(contest)]
    curves = [chart for chart in found if isinstance(chart, CurveChart)]
    overviews = [chart for chart in found if not isinstance(chart, CurveChart)]
    return _with_unique_names([*overviews, *further_charts(files), *curves])


def further_charts(files: Sequence[Results]) -> list[Chart]:
    """The figures of the latency model and the roofline."""
    found: list[Chart] = []
    for results in files:
        if results.kind == "model":
            found += model_charts(results)
        elif results.kind == "roofline" and (chart := roofline_chart(results)) is not None:
            found.append(chart)
    return found


def charts_of(contest: Contest) -> list[Chart]:
    """The figures of one contest: the overview, and the percentile curves of each place."""
    found: list[Chart] = []
    if contest.mode == "throughput":
        found.append(_throughput_chart(contest))
    else:
        if contest.mode != "ysb":
            found += _latency_charts(contest)
        found += _curve_charts(contest)
    return [chart for chart in found if _holds_anything(chart)]


def absent(files: Sequence[Results]) -> list[str]:
    """What the published evaluation shows and the files do not hold, a sentence each."""
    runs = [run for results in files if results.kind not in OTHER_KINDS for run in results.runs]
    sentences = []
    for item in PUBLISHED:
        held = [run for run in runs if item.holds(run)]
        if not held:
            sentences.append(f"{item.title}: not in the files")
            continue
        for system, name in PUBLISHED_SYSTEMS.items():
            theirs = [run for run in held if run.system == system]
            if not theirs:
                sentences.append(f"{item.title}: no run of {name} in the files")
            elif not any(run.valid for run in theirs):
                why = theirs[0].invalid_because
                sentences.append(f"{item.title}: no valid run of {name}: {why}")
    return [*sentences, *_absent_beside(files)]


def _absent_beside(files: Sequence[Results]) -> Iterator[str]:
    """The roofline and the latency model, which have files of their own."""
    rooflines = [results for results in files if results.kind == "roofline"]
    if not any(roofline_chart(results) for results in rooflines):
        why = next((str(r.extra["missing"]) for r in rooflines if "missing" in r.extra), None)
        yield f"roofline of the broker: {why or 'not in the files'}"
    if not any(results.kind == "model" for results in files):
        yield "latency model: not in the files"


def _latency_charts(contest: Contest) -> Iterator[PanelChart]:
    """Over message sizes a figure for each percentile and a panel for each number of producers.

    Where only the number of producers differs it is the x-axis, and the percentiles are the panels.
    """
    sizes = sorted({place.record_size_bytes for place in contest.places})
    crowds = sorted({place.producers for place in contest.places})
    title = WHAT[contest.mode]
    if len(sizes) == 1 and len(crowds) > 1:
        places = [Place(producers, sizes[0]) for producers in crowds]
        panels = [
            _panel(contest, places, percentile, "latency", "ns", _percentile(percentile))
            for percentile in PERCENTILES
        ]
        yield PanelChart(
            name=_file_name(contest, "by-producers"),
            title=f"Latency over producers: {title}",
            subtitle=f"{size(sizes[0])} records; {contest.described()}; {contest.rounds()}",
            x_label="producers",
            categories=[str(producers) for producers in crowds],
            panels=panels,
            notes=_notes(contest, PERCENTILES),
        )
        return
    for percentile in PERCENTILES:
        panels = [
            _panel(
                contest,
                [Place(producers, each) for each in sizes],
                f"{producers} producer{'' if producers == 1 else 's'}",
                f"{percentile} latency",
                "ns",
                _percentile(percentile),
            )
            for producers in crowds
        ]
        yield PanelChart(
            name=_file_name(contest, percentile),
            title=f"{percentile} latency over message sizes: {title}",
            subtitle=f"{contest.described()}; {contest.rounds()}",
            x_label="message size",
            categories=[size(each) for each in sizes],
            panels=panels,
            notes=_notes(contest, (percentile,)),
        )


def _throughput_chart(contest: Contest) -> PanelChart:
    """Throughput, and the processors that server and clients kept busy for it.

    Where several numbers of producers meet several sizes, every place is a category of its own.
    """
    places = contest.places
    sizes = {place.record_size_bytes for place in places}
    crowds = {place.producers for place in places}
    if len(crowds) == 1:
        x_label, categories = "message size", [size(place.record_size_bytes) for place in places]
        who = f"{places[0].producers} producer{'' if places[0].producers == 1 else 's'}; "
    elif len(sizes) == 1:
        x_label, categories = "producers", [str(place.producers) for place in places]
        who = f"{size(places[0].record_size_bytes)} records; "
    else:
        x_label, who = "producers, message size", ""
        categories = [f"{place.producers}\n{size(place.record_size_bytes)}" for place in places]
    brokers = contest.conditions.get("brokers")
    of = "one broker" if brokers in (None, 1) else f"{brokers} brokers"
    return PanelChart(
        name=_file_name(contest, "throughput"),
        title=f"Throughput of {of}",
        subtitle=f"{who}{contest.described()}; {contest.rounds()}; each side with its own batching (see the settings)",
        x_label=x_label,
        categories=categories,
        panels=[
            _panel(contest, places, "values acknowledged", "MB/s", "MB/s", _mb_per_s),
            _panel(contest, places, "processors, server", "cores busy", "cores", _cores("server")),
            _panel(
                contest, places, "processors, clients", "cores busy", "cores", _cores("clients")
            ),
        ],
        notes=_notes(contest, ()),
    )


def _curve_charts(contest: Contest) -> Iterator[CurveChart]:
    """The percentile curves of each place, all systems of the contest in one."""
    for place in contest.places:
        curves: dict[str, Curve] = {}
        notes = []
        for series in contest.series:
            runs = contest.valid_at(place, series)
            if not runs:
                continue
            rounds = [_points(run.latency()) for run in runs] if len(runs) > 1 else []
            total = _points(merged_latency(runs))
            share = broker_share(runs)
            curves[series] = Curve(
                total=total, rounds=rounds, share=() if share is None else _points(share)
            )
            if not curves[series].total:
                notes.append(f"{series}: too few samples for a curve")
        what = "windows of campaigns" if contest.mode == "ysb" else "records"
        title = WHAT[contest.mode]
        several = any(curve.rounds for curve in curves.values())
        thin = "; rounds thin, all together thick" if several else ""
        yield CurveChart(
            name=_file_name(contest, f"curve {place.name}"),
            title=title[0].upper() + title[1:],
            subtitle=f"{place.name}; {contest.described([place])}{thin}",
            curves=curves,
            x_label=f"share of the {what}",
            share_label="the broker's share of it",
            notes=[*_notes(contest, (), [place]), *notes],
        )


def _panel(
    contest: Contest,
    places: Sequence[Place],
    title: str,
    y_label: str,
    unit: Unit,
    value: Callable[[Run], float | None],
) -> Panel:
    marks = {
        series: [
            Mark(number, found.median, found.least, found.greatest)
            for number, place in enumerate(places)
            if (found := spread(contest.valid_at(place, series), value)) is not None
        ]
        for series in contest.series
    }
    return Panel(title=title, y_label=y_label, unit=unit, marks=marks)


def _percentile(name: str) -> Callable[[Run], float | None]:
    return lambda run: latency_ns(run, name)


def _mb_per_s(run: Run) -> float | None:
    return run.mb_per_sec


def _cores(whose: str) -> Callable[[Run], float | None]:
    return lambda run: cores(run, whose)


def _notes(
    contest: Contest, percentiles: Sequence[str], places: Sequence[Place] | None = None
) -> list[str]:
    """What is not drawn, and why: no run, no valid run, too few samples."""
    where: dict[str, list[str]] = {}
    for series in contest.series:
        for place in contest.places if places is None else places:
            runs, valid = contest.at(place, series), contest.valid_at(place, series)
            if not runs:
                where.setdefault(f"{series}: no run", []).append(place.name)
            left_out = len(runs) - len(valid)
            for why in dict.fromkeys(run.invalid_because for run in runs if not run.valid):
                sentence = f"{series}: {left_out} of {len(runs)} rounds left out ({why})"
                where.setdefault(sentence, []).append(place.name)
            for each in percentiles:
                if any(latency_ns(run, each) is None for run in valid):
                    where.setdefault(f"{series}: too few samples for {each}", []).append(place.name)
    return [f"{sentence}: {'; '.join(names)}" for sentence, names in where.items()]


def _points(histogram: LatencyHistogram) -> list[CurvePoint]:
    return histogram.curve(ticks_per_half_distance=10)


def _brokers(run: Run) -> object:
    return run.settings.get("brokers") or 1


def _holds_anything(chart: Chart) -> bool:
    match chart:
        case PanelChart(panels=panels):
            return any(marks for panel in panels for marks in panel.marks.values())
        case CurveChart(curves=curves):
            return any(curve.total for curve in curves.values())
        case _:
            return True


def _file_name(contest: Contest, what: str) -> str:
    told = contest.conditions
    parts = [contest.mode, contest.durability, f"acks-{told.get('acks')}"]
    if told.get("brokers") not in (None, 1):
        parts.append(f"{told['brokers']}-brokers")
    if told.get("replication") not in (None, 1):
        parts.append(f"replication-{told['replication']}")
    parts.append(what.replace("throughput", "mb-per-s"))
    return re.sub(r"[^A-Za-z0-9.]+", "-", " ".join(parts)).strip("-").lower()


def _with_unique_names(found: Sequence[Chart]) -> list[Chart]:
    seen: dict[str, int] = {}
    named: list[Chart] = []
    for chart in found:
        times = seen[chart.name] = seen.get(chart.name, 0) + 1
        named.append(chart if times == 1 else replace(chart, name=f"{chart.name}-{times}"))
    return named
