"""The percentile curve as a picture: text for a terminal, PNG or SVG for a document.

The x-axis is logarithmic in 1 / (1 - p), as in HdrHistogram's plotter, so that 90%, 99%, 99.9% are
equally far apart and the tail has the room it deserves. A curve ends where its samples end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from frieda.bench.charts import Curve, CurveChart
from frieda.bench.drawing import write_chart
from frieda.bench.histogram import CurvePoint, LatencyHistogram
from frieda.bench.ticks import beyond, decades, duration, percent_label, round_ticks

MARKERS: Final = "●○▲△■□"


def text_curve(series: Mapping[str, LatencyHistogram], width: int = 78, height: int = 18) -> str:
    """The curves as text, both axes logarithmic; a legend with one marker for each series.

    Where two curves meet, the one named later is seen. Raises ValueError for more than six series.
    """
    if len(series) > len(MARKERS):
        raise ValueError(f"{len(series)} series: at most {len(MARKERS)} can be told apart")
    curves = {name: _seen(histogram) for name, histogram in series.items()}
    points = [point for curve in curves.values() for point in curve]
    legend = "   ".join(
        f"{marker} {name}" + ("" if curves[name] else " (too few samples)")
        for marker, name in zip(MARKERS, series, strict=False)
    )
    if not points:
        return legend
    ticks = round_ticks([max(point.value_ns, 1) for point in points])
    margin = max(len(duration(tick)) for tick in ticks) + 1
    columns, wide = width - margin - 2, decades([point.percent for point in points])
    low, high = math.log10(ticks[0]), math.log10(ticks[-1])
    grid = [[" "] * columns for _ in range(height)]
    for column in _tick_columns(wide, columns):
        for row in grid:
            row[column] = "┊"
    for marker, curve in zip(MARKERS, curves.values(), strict=False):
        for column, value_ns in enumerate(_values_at_columns(curve, columns, wide)):
            if value_ns is not None:
                share = (math.log10(max(value_ns, 1)) - low) / (high - low)
                grid[round((1 - share) * (height - 1))][column] = marker
    labels = [""] * height
    for tick in ticks:
        labels[round((1 - (math.log10(tick) - low) / (high - low)) * (height - 1))] = duration(tick)
    lines = [
        f"{label:>{margin}} {'┤' if label else '│'}{''.join(row)}".rstrip()
        for label, row in zip(labels, grid, strict=True)
    ]
    lines.append(f"{'':>{margin}} └{'─' * columns}")
    lines.append(f"{'':>{margin}}  {_x_labels(wide, columns)}".rstrip())
    return "\n".join([*lines, f"{'':>{margin}}  {legend}"])


def write_figure(
    path: Path, series: Mapping[str, LatencyHistogram], title: str, subtitle: str = ""
) -> None:
    """Draw the curves into `path`; its suffix (.png or .svg) chooses the format.

    `subtitle` is the place for the settings. Raises MissingDependencyError without matplotlib,
    ValueError for another suffix, OSError.
    """
    curves = {name: Curve(total=_seen(histogram)) for name, histogram in series.items()}
    chart = CurveChart(name=path.stem, title=title, subtitle=subtitle, curves=curves)
    write_chart(path, chart)


def _seen(histogram: LatencyHistogram) -> list[CurvePoint]:
    return histogram.curve(ticks_per_half_distance=10)


def _values_at_columns(curve: Sequence[CurvePoint], columns: int, wide: float) -> list[int | None]:
    """The curve's value at each column: that of the first point at or beyond it."""
    values: list[int | None] = []
    position = 0
    for column in range(columns):
        x = 10 ** (column / (columns - 1) * wide)
        while position < len(curve) and beyond(curve[position].percent) < x * (1 - 1e-9):
            position += 1
        values.append(curve[position].value_ns if position < len(curve) else None)
    return values


def _tick_columns(wide: float, columns: int) -> list[int]:
    return [round(tick / wide * (columns - 1)) for tick in range(int(wide) + 1)]


def _x_labels(wide: float, columns: int) -> str:
    line = [" "] * columns
    for tick, column in enumerate(_tick_columns(wide, columns)):
        label = percent_label(tick)
        start = min(max(column - len(label) // 2, 0), columns - len(label))
        line[start : start + len(label)] = label
    return "".join(line)
