"""The latency model of a sweep as a table and as charts, PURE: what it predicts beside what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from frieda.bench.charts import Dot, ScatterChart
from frieda.bench.contests import DURABILITY_MEANING
from frieda.bench.model import STATISTICS, Fit, Residuals, Sample, fit, medians, samples_of
from frieda.bench.results import Results
from frieda.bench.tables import NOTHING, Table
from frieda.bench.ticks import duration, plain
from frieda.errors import ConfigError

MODEL: Final = "L + size / B + (W - 1)^k (o + size / C)"
_CURVE_POINTS: Final = 40


class Fitted(NamedTuple):
    """The model of one series and statistic ("mean", "p99"), with the medians that it was fitted to."""

    series: str
    statistic: str
    fit: Fit
    samples: Sequence[Sample]


@dataclass(frozen=True, slots=True)
class Models:
    """What could be fitted, and a sentence for each that could not."""

    fitted: Sequence[Fitted]
    problems: Sequence[str]


def models_of(results: Results) -> Models:
    """Fit the model to every series of a sweep."""
    fitted: list[Fitted] = []
    problems: list[str] = []
    for statistic in STATISTICS:
        by_series = samples_of(results.runs, statistic)
        if not by_series:
            problems.append(f"{STATISTICS[statistic]}: no valid run with enough samples")
        for series, samples in by_series.items():
            middle = medians(samples)
            try:
                fitted.append(Fitted(series, statistic, fit(middle), middle))
            except ConfigError as error:
                problems.append(f"{series}, {STATISTICS[statistic]}: {error}")
    spoiled = {run.case: run.invalid_because for run in results.runs if run.invalid_because}
    problems += [f"{case}: a round is left out: {why}" for case, why in spoiled.items()]
    return Models(fitted, problems)


def model_table(models: Models) -> Table:
    """A row for each fit; bandwidths in MB/s, a dash where the size made no difference."""
    return Table(
        headings=[
            *("system", "latency of", "L", "B, MB/s", "o", "C, MB/s", "k"),
            *("error at W=1, median (greatest)", "error at W>1, median (greatest)"),
        ],
        rows=[
            [
                each.series,
                STATISTICS[each.statistic],
                duration(each.fit.fixed_ns),
                _bandwidth(each.fit.bytes_per_s),
                *_overhead_cells(each.fit),
                _error(each.fit.sequential),
                _error(each.fit.windowed),
            ]
            for each in models.fitted
        ],
        notes=[f"Latency = {MODEL}", *models.problems],
    )


def model_charts(results: Results) -> list[ScatterChart]:
    """For each statistic all predictions over all measurements; for each series its latencies over sizes."""
    models = models_of(results)
    charts: list[ScatterChart] = []
    conditions = _conditions(results)
    for statistic, what in STATISTICS.items():
        mine = [each for each in models.fitted if each.statistic == statistic]
        if not mine:
            continue
        charts.append(
            ScatterChart(
                name=f"model-{statistic}-predicted-beside-measured",
                title=f"Latency model, {what}",
                subtitle=f"{MODEL}; on the line what is predicted is what was measured; {conditions}",
                x_label="measured",
                x_unit="ns",
                y_label="predicted",
                y_unit="ns",
                dots={
                    each.series: [
                        Dot(
                            sample.latency_ns,
                            each.fit.predict(sample.record_size_bytes, sample.window),
                        )
                        for sample in each.samples
                    ]
                    for each in mine
                },
                equal_axes=True,
                notes=models.problems,
            )
        )
        charts += [_over_sizes(each, what, conditions) for each in mine]
    return charts


def _over_sizes(each: Fitted, what: str, conditions: str) -> ScatterChart:
    windows = sorted({sample.window for sample in each.samples})
    sizes = sorted({sample.record_size_bytes for sample in each.samples})
    factor = (sizes[-1] / sizes[0]) ** (1 / (_CURVE_POINTS - 1))
    steps = [sizes[0] * factor**number for number in range(_CURVE_POINTS)]
    fitted = each.fit
    errors = f"median (greatest) error {_error(fitted.sequential)} at W = 1"
    if fitted.windowed is not None:
        errors += f", {_error(fitted.windowed)} above"
    return ScatterChart(
        name=f"model-{each.statistic}-{each.series.lower().replace(' ', '-')}",
        title=f"{each.series}: {what} over size and window",
        subtitle=f"points measured, lines predicted: {_formula(fitted)}; {errors}; {conditions}",
        x_label="record size",
        x_unit="bytes",
        y_label=what,
        y_unit="ns",
        dots={
            f"W = {window}": [
                Dot(sample.record_size_bytes, sample.latency_ns)
                for sample in each.samples
                if sample.window == window
            ]
            for window in windows
        },
        lines={
            f"W = {window}": [Dot(step, fitted.predict(step, window)) for step in steps]
            for window in windows
        },
    )


def _formula(fitted: Fit) -> str:
    text = duration(fitted.fixed_ns)
    if fitted.bytes_per_s is not None:
        text += f" + size / {_bandwidth(fitted.bytes_per_s)} MB/s"
    if fitted.windowed is None:
        return text
    parts = []
    if fitted.overhead_ns > 0 or fitted.contended_bytes_per_s is None:
        parts.append(duration(fitted.overhead_ns))
    if fitted.contended_bytes_per_s is not None:
        parts.append(f"size / {_bandwidth(fitted.contended_bytes_per_s)} MB/s")
    return f"{text} + (W - 1)^{fitted.exponent:.2f} ({' + '.join(parts)})"


def _overhead_cells(fitted: Fit) -> list[str]:
    if fitted.windowed is None:
        return [NOTHING] * 3
    return [
        duration(fitted.overhead_ns),
        _bandwidth(fitted.contended_bytes_per_s),
        f"{fitted.exponent:.2f}",
    ]


def _bandwidth(bytes_per_s: float | None) -> str:
    return NOTHING if bytes_per_s is None else plain(bytes_per_s / 2**20)


def _error(residuals: Residuals | None) -> str:
    if residuals is None:
        return NOTHING
    return f"{residuals.median:.0%} ({residuals.greatest:.0%})"


def _conditions(results: Results) -> str:
    """What all runs of the sweep share, for a subtitle."""
    parts = []
    for name in ("durability", "acks", "producers", "brokers", "linger_ms"):
        values = {str(run.settings.get(name)) for run in results.runs} - {"None"}
        if len(values) == 1:
            (value,) = values
            meaning = DURABILITY_MEANING.get(value)
            parts.append(f"{name.replace('_', ' ')} {value}" + (f" ({meaning})" if meaning else ""))
    rounds = len({run.round for run in results.runs})
    return "; ".join(
        ["closed loop", *parts, "one round" if rounds == 1 else f"medians of {rounds} rounds"]
    )
