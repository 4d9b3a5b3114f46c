"""The percentile curve as a picture: text for a terminal, PNG or SVG for a document.

The x-axis is logarithmic in 1 / (1 - p), as in HdrHistogram's plotter, so that 90%, 99%, 99.9% are
equally far apart and the tail has the room it deserves. A curve ends where its samples end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from frieda.bench.histogram import CurvePoint, LatencyHistogram
from frieda.errors import MissingDependencyError

MARKERS: Final = "●○▲△■□"
COLOURS: Final = ("#0b6e99", "#d9480f", "#2b8a3e", "#862e9c", "#5c677d", "#c2255c")
GRID_COLOUR: Final = "#dde1e6"
TEXT_COLOUR: Final = "#343a40"


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
    ticks = _y_ticks(points)
    margin = max(len(_duration(tick)) for tick in ticks) + 1
    columns, decades = width - margin - 2, _decades(points)
    low, high = math.log10(ticks[0]), math.log10(ticks[-1])
    grid = [[" "] * columns for _ in range(height)]
    for column in _tick_columns(decades, columns):
        for row in grid:
            row[column] = "┊"
    for marker, curve in zip(MARKERS, curves.values(), strict=False):
        for column, value_ns in enumerate(_values_at_columns(curve, columns, decades)):
            if value_ns is not None:
                share = (math.log10(max(value_ns, 1)) - low) / (high - low)
                grid[round((1 - share) * (height - 1))][column] = marker
    labels = [""] * height
    for tick in ticks:
        labels[round((1 - (math.log10(tick) - low) / (high - low)) * (height - 1))] = _duration(
            tick
        )
    lines = [
        f"{label:>{margin}} {'┤' if label else '│'}{''.join(row)}".rstrip()
        for label, row in zip(labels, grid, strict=True)
    ]
    lines.append(f"{'':>{margin}} └{'─' * columns}")
    lines.append(f"{'':>{margin}}  {_x_labels(decades, columns)}".rstrip())
    return "\n".join([*lines, f"{'':>{margin}}  {legend}"])


def write_figure(
    path: Path, series: Mapping[str, LatencyHistogram], title: str, subtitle: str = ""
) -> None:
    """Draw the curves into `path`; its suffix (.png or .svg) chooses the format.

    `subtitle` is the place for the settings. Raises MissingDependencyError without matplotlib,
    ValueError for another suffix, OSError.
    """
    if path.suffix not in (".png", ".svg"):
        raise ValueError(f"{path.name}: a figure is a .png or a .svg")
    try:
        # Not pyplot: it keeps every figure in a global list and looks for a display.
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError:
        raise MissingDependencyError(
            "drawing a figure needs matplotlib: pip install 'frieda[plots]'"
        ) from None
    figure = Figure(figsize=(9, 5.2), dpi=144, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    curves = {name: _seen(histogram) for name, histogram in series.items()}
    for (name, curve), colour in zip(curves.items(), _cycle(COLOURS, len(curves)), strict=True):
        axes.plot(
            [_x(point.percent) for point in curve],
            [max(point.value_ns, 1) / 1000 for point in curve],
            label=name,
            color=colour,
            linewidth=2.2,
            solid_capstyle="round",
        )
    _style(axes, [point for curve in curves.values() for point in curve])
    # A "$" would begin a formula.
    axes.set_title(title.replace("$", r"\$"), loc="left", fontsize=14, weight="bold", pad=26)
    axes.text(
        0,
        1.03,
        subtitle.replace("$", r"\$"),
        transform=axes.transAxes,
        fontsize=8.5,
        color="#6c757d",
    )
    # Fixed metadata and salt, so that the same figures give the same bytes.
    metadata: dict[str, Any] = {"Date": None} if path.suffix == ".svg" else {"Software": "Frieda"}
    from matplotlib import rc_context  # noqa: PLC0415

    with rc_context({"svg.hashsalt": "frieda"}):
        figure.savefig(path, metadata=metadata)


def _style(axes: Any, points: Sequence[CurvePoint]) -> None:
    """Axes, grid, labels and legend."""
    from matplotlib.ticker import FuncFormatter, NullFormatter  # noqa: PLC0415

    decades = _decades(points)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(1, 10**decades)
    ticks = range(math.ceil(decades) if decades % 1 else int(decades) + 1)
    axes.set_xticks([10**tick for tick in ticks], [_percent_label(tick) for tick in ticks])
    axes.set_xlabel("share of the records", color=TEXT_COLOUR)
    axes.set_ylabel("latency", color=TEXT_COLOUR)
    if points:
        y_ticks = _y_ticks(points)
        axes.set_ylim(y_ticks[0] / 1000, y_ticks[-1] / 1000)
        axes.set_yticks([tick / 1000 for tick in y_ticks])
        axes.legend(loc="upper left", frameon=False, fontsize=10)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda us, _: _duration(us * 1000)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.minorticks_off()
    axes.grid(True, color=GRID_COLOUR, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=TEXT_COLOUR, length=0, pad=7)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#adb5bd")


def _seen(histogram: LatencyHistogram) -> list[CurvePoint]:
    return histogram.curve(ticks_per_half_distance=10)


def _x(percent: float) -> float:
    return 1 / (1 - percent / 100)


def _decades(points: Sequence[CurvePoint]) -> float:
    """How many powers of ten the x-axis spans; at least one, and a little more than the curves."""
    return max(1.0, max((math.log10(_x(point.percent)) for point in points), default=1.0) + 0.05)


def _values_at_columns(
    curve: Sequence[CurvePoint], columns: int, decades: float
) -> list[int | None]:
    """The curve's value at each column: that of the first point at or beyond it."""
    values: list[int | None] = []
    position = 0
    for column in range(columns):
        x = 10 ** (column / (columns - 1) * decades)
        while position < len(curve) and _x(curve[position].percent) < x * (1 - 1e-9):
            position += 1
        values.append(curve[position].value_ns if position < len(curve) else None)
    return values


def _y_ticks(points: Sequence[CurvePoint]) -> list[int]:
    """Round values (1, 2, 5 times a power of ten) from below the lowest to above the highest."""
    low = max(min(point.value_ns for point in points), 1)
    high = max(low + 1, *(point.value_ns for point in points))
    steps = [factor * 10**power for power in range(14) for factor in (1, 2, 5)]
    first = max(step for step in steps if step <= low)
    last = min(step for step in steps if step >= high)
    ticks = [step for step in steps if first <= step <= last]
    wide = [tick for tick in ticks if str(tick)[0] == "1" or tick in (first, last)]
    return wide if len(ticks) > 8 else ticks


def _duration(value_ns: float) -> str:
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if value_ns >= size * 0.9999:
            return f"{value_ns / size:.4g} {unit}"
    return f"{value_ns:.4g} ns"


def _percent_label(decade: int) -> str:
    """0%, 90%, 99%, 99.9%..."""
    nines = "9" * decade
    return ["0%", "90%", "99%"][decade] if decade < 3 else f"{nines[:2]}.{nines[2:]}%"


def _tick_columns(decades: float, columns: int) -> list[int]:
    return [round(tick / decades * (columns - 1)) for tick in range(int(decades) + 1)]


def _x_labels(decades: float, columns: int) -> str:
    line = [" "] * columns
    for tick, column in enumerate(_tick_columns(decades, columns)):
        label = _percent_label(tick)
        start = min(max(column - len(label) // 2, 0), columns - len(label))
        line[start : start + len(label)] = label
    return "".join(line)


def _cycle(colours: Sequence[str], count: int) -> list[str]:
    return [colours[number % len(colours)] for number in range(count)]
