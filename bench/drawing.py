"""How a chart becomes a picture: PNG or SVG, by matplotlib, the same bytes for the same chart."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from frieda.bench.charts import (
    Chart,
    CurveChart,
    Look,
    Mark,
    Panel,
    PanelChart,
    ScatterChart,
    looks,
)
from frieda.bench.histogram import CurvePoint
from frieda.bench.ticks import (
    AS_GIVEN,
    FROM_ZERO,
    LABELS,
    Unit,
    beyond,
    decades,
    linear_ticks,
    percent_label,
    round_ticks,
)
from frieda.errors import MissingDependencyError

GRID_COLOUR: Final = "#dde1e6"
TEXT_COLOUR: Final = "#343a40"
QUIET_COLOUR: Final = "#6c757d"
DASHED: Final = (0, (4, 2))
SUFFIXES: Final = (".png", ".svg")


def write_chart(path: Path, chart: Chart) -> None:
    """Draw into `path`; its suffix (.png or .svg) chooses the format.

    Raises MissingDependencyError without matplotlib, ValueError for another suffix, OSError.
    """
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path.name}: a figure is a .png or a .svg")
    path.write_bytes(drawn(chart, path.suffix.removeprefix(".")))


def drawn(chart: Chart, file_format: str) -> bytes:
    """The bytes of the chart as "png" or "svg". Raises MissingDependencyError."""
    figure = _figure(chart)
    from matplotlib import rc_context  # noqa: PLC0415  (it is there: the figure is)

    # Fixed metadata and salt, so that the same figures give the same bytes.
    metadata: dict[str, Any] = {"Date": None} if file_format == "svg" else {"Software": "Frieda"}
    target = io.BytesIO()
    with rc_context({"svg.hashsalt": "frieda"}):
        figure.savefig(target, format=file_format, metadata=metadata)
    return target.getvalue()


def _figure(chart: Chart) -> Any:
    match chart:
        case PanelChart():
            return _panels(chart)
        case CurveChart():
            return _curves(chart)
        case ScatterChart():
            return _scatter(chart)


class _Frame:
    """A white figure with title, subtitle, legend and notes, whose rest is a grid of axes. Sizes in inches."""

    def __init__(
        self,
        chart: Chart,
        names: Sequence[str],
        rows: int = 1,
        columns: int = 1,
        axes_size: tuple[float, float] = (7.6, 4.0),
        column_gap: float = 0.35,
    ) -> None:
        figure_class, canvas_class = _matplotlib()
        left, right, row_gap = 0.95, 0.3, 0.62
        width = left + right + columns * axes_size[0] + (columns - 1) * column_gap
        subtitle = _wrapped(chart.subtitle, width)
        notes = [line for note in chart.notes for line in _wrapped(note, width)]
        self._legend_rows = _legend_rows(names, width)
        self._legend_y = 0.56 + 0.18 * len(subtitle)
        above = self._legend_y + 0.21 * len(self._legend_rows) + 0.33
        below = 0.68 + 0.17 * len(notes) + (0.1 if notes else 0.0)
        height = above + below + rows * axes_size[1] + (rows - 1) * row_gap
        self.figure = figure_class(figsize=(width, height), dpi=144, facecolor="white")
        canvas_class(self.figure)
        self._width, self._height = width, height
        self._write(0.3, 0.38, chart.title, size=14, weight="bold", color=TEXT_COLOUR)
        for number, line in enumerate(subtitle):
            self._write(0.3, 0.62 + 0.18 * number, line, size=8.5, color=QUIET_COLOUR)
        for number, line in enumerate(notes):
            up = 0.17 * (len(notes) - number) - 0.02
            self._write(0.3, height - up, line, size=7.5, color=QUIET_COLOUR)
        grid = self.figure.add_gridspec(
            rows,
            columns,
            left=left / width,
            right=1 - right / width,
            top=1 - above / height,
            bottom=below / height,
            hspace=row_gap / axes_size[1],
            wspace=column_gap / axes_size[0],
        )
        self.axes = [
            self.figure.add_subplot(grid[row, column])
            for row in range(rows)
            for column in range(columns)
        ]

    def _write(self, x: float, from_top: float, text: str, **look: Any) -> None:
        self.figure.text(x / self._width, 1 - from_top / self._height, _plain(text), **look)

    def legend(self, handles: Mapping[str, Any]) -> None:
        """The names under the subtitle, in as many lines as they need."""
        for number, row in enumerate(self._legend_rows):
            shown = [name for name in row if name in handles]
            if not shown:
                continue
            legend = self.figure.legend(
                [handles[name] for name in shown],
                [_plain(name) for name in shown],
                loc="upper left",
                bbox_to_anchor=(
                    0.24 / self._width,
                    1 - (self._legend_y + 0.21 * number) / self._height,
                ),
                borderaxespad=0.0,
                frameon=False,
                ncols=len(shown),
                fontsize=9,
                labelcolor=TEXT_COLOUR,
                handletextpad=0.5,
                columnspacing=1.6,
            )
            self.figure.add_artist(legend)


def _legend_rows(names: Sequence[str], width_inches: float) -> list[list[str]]:
    rows: list[list[str]] = [[]]
    used = 0.0
    for name in names:
        need = 0.75 + 0.078 * len(name)
        if rows[-1] and used + need > width_inches - 0.4:
            rows.append([])
            used = 0.0
        rows[-1].append(name)
        used += need
    return rows


def _panels(chart: PanelChart) -> Any:
    count = len(chart.panels)
    columns = {1: 1, 2: 2, 3: 3, 4: 2}.get(count, 3)
    rows = -(-count // columns)
    names = [
        name
        for name in dict.fromkeys(name for panel in chart.panels for name in panel.marks)
        if any(panel.marks.get(name) for panel in chart.panels)
    ]
    gap = 0.35 if len({panel.unit for panel in chart.panels}) == 1 else 0.95
    frame = _Frame(chart, names, rows, columns, (7.6, 4.0) if count == 1 else (4.4, 3.0), gap)
    look = looks(names)
    handles: dict[str, Any] = {}
    for number, (axes, panel) in enumerate(zip(frame.axes, chart.panels, strict=False)):
        for name, marks in panel.marks.items():
            if marks:
                handles[name] = _draw_marks(axes, marks, _shift(names, name), look[name])
        alike = [each for each in chart.panels if each.unit == panel.unit]
        _style(axes)
        _value_axis(axes.yaxis, panel.unit, _extent(alike))
        axes.set_title(_plain(panel.title), loc="left", fontsize=10, color=TEXT_COLOUR)
        axes.set_xlim(-0.5, len(chart.categories) - 0.5)
        axes.set_xticks(range(len(chart.categories)), chart.categories)
        axes.grid(False, axis="x")
        if number >= count - columns:
            axes.set_xlabel(chart.x_label, color=TEXT_COLOUR)
        first_of_unit = number % columns == 0 or chart.panels[number - 1].unit != panel.unit
        if first_of_unit:
            axes.set_ylabel(panel.y_label, color=TEXT_COLOUR)
        else:
            axes.tick_params(labelleft=False)
    for axes in frame.axes[count:]:
        axes.set_visible(False)
    frame.legend(handles)
    return frame.figure


def _draw_marks(axes: Any, marks: Sequence[Mark], shift: float, look: Look) -> Any:
    """Medians joined by a line, each with the range of the rounds."""
    x = [mark.at + shift for mark in marks]
    axes.vlines(
        x,
        [mark.least for mark in marks],
        [mark.greatest for mark in marks],
        color=look.colour,
        linewidth=3.2,
        alpha=0.32,
        capstyle="round",
    )
    medians = [mark.median for mark in marks]
    axes.plot(x, medians, color=look.colour, linewidth=1.1, alpha=0.55)
    return axes.plot(
        x,
        medians,
        linestyle="none",
        marker=look.marker,
        markersize=7.5 if look.marker in "PX" else 6.5,
        color=look.colour,
        markeredgecolor="white",
        markeredgewidth=0.7,
    )[0]


def _curves(chart: CurveChart) -> Any:
    look = looks(chart.curves)
    shown = [name for name, curve in chart.curves.items() if curve.total]
    shares = any(curve.share for curve in chart.curves.values())
    frame = _Frame(chart, [*shown, chart.share_label] if shares else shown)
    axes = frame.axes[0]
    handles: dict[str, Any] = {}
    points: list[CurvePoint] = []
    for name in shown:
        curve, colour = chart.curves[name], look[name].colour
        for each in curve.rounds:
            axes.plot(*_xy(each), color=colour, linewidth=0.9, alpha=0.3)
        axes.plot(*_xy(curve.share), color=colour, linewidth=1.4, linestyle=DASHED)
        handles[name] = axes.plot(*_xy(curve.total), color=colour, linewidth=2.2)[0]
        points += [*curve.total, *curve.share, *(point for each in curve.rounds for point in each)]
    if shares:
        handles[chart.share_label] = axes.plot([], [], color=QUIET_COLOUR, linestyle=DASHED)[0]
    wide = decades([point.percent for point in points])
    _style(axes)
    axes.set_xscale("log")
    axes.set_xlim(1, 10**wide)
    ticks = range(int(wide) + 1)
    axes.set_xticks([10**tick for tick in ticks], [percent_label(tick) for tick in ticks])
    _value_axis(axes.yaxis, "ns", [max(point.value_ns, 1) for point in points])
    axes.minorticks_off()
    axes.set_xlabel(chart.x_label, color=TEXT_COLOUR)
    axes.set_ylabel(chart.y_label, color=TEXT_COLOUR)
    frame.legend(handles)
    return frame.figure


def _scatter(chart: ScatterChart) -> Any:
    names = list(dict.fromkeys([*chart.lines, *chart.dots]))
    frame = _Frame(chart, names, axes_size=(6.2, 5.2) if chart.equal_axes else (7.6, 4.6))
    axes = frame.axes[0]
    look = looks(chart.dots)
    handles: dict[str, Any] = {}
    measured = [dot for series in chart.dots.values() for dot in series]
    shown = [*measured, *(dot for series in chart.lines.values() for dot in series)]
    _style(axes)
    y_values = [dot.y for dot in shown]
    x_values = [dot.x for dot in (measured if chart.x_unit in AS_GIVEN else shown)]
    both = x_values + y_values
    _value_axis(axes.xaxis, chart.x_unit, both if chart.equal_axes else x_values)
    _value_axis(axes.yaxis, chart.y_unit, both if chart.equal_axes else y_values)
    if chart.equal_axes and both:
        axes.plot([min(both), max(both)], [min(both), max(both)], color="#adb5bd", linewidth=1.0)
    for name, series in chart.lines.items():
        of_dots = name in chart.dots
        handles[name] = axes.plot(
            [dot.x for dot in series],
            [dot.y for dot in series],
            color=look[name].colour if of_dots else QUIET_COLOUR,
            linewidth=1.2 if of_dots else 1.6,
            linestyle="solid" if of_dots or not handles else DASHED,
            alpha=0.7 if of_dots else 1.0,
        )[0]
    for name, series in chart.dots.items():
        handles[name] = axes.plot(
            [dot.x for dot in series],
            [dot.y for dot in series],
            linestyle="solid" if chart.joined else "none",
            linewidth=1.0,
            marker=look[name].marker,
            markersize=6.5,
            color=look[name].colour,
            markeredgecolor="white",
            markeredgewidth=0.7,
        )[0]
        for dot in series:
            axes.annotate(
                _plain(dot.label),
                (dot.x, dot.y),
                xytext=(6, 4),
                textcoords="offset points",
                fontsize=7.5,
                color=TEXT_COLOUR,
            )
    axes.minorticks_off()
    axes.set_xlabel(chart.x_label, color=TEXT_COLOUR)
    axes.set_ylabel(chart.y_label, color=TEXT_COLOUR)
    frame.legend(handles)
    return frame.figure


def _style(axes: Any) -> None:
    axes.grid(True, color=GRID_COLOUR, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=TEXT_COLOUR, length=0, pad=6, labelsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#adb5bd")


def _value_axis(axis: Any, unit: Unit, values: Sequence[float]) -> None:
    """An axis with round ticks around the values, logarithmic but for units that begin at nothing."""
    axes, way = axis.axes, axis.axis_name
    if unit in FROM_ZERO:
        ticks = linear_ticks(values)
    else:
        getattr(axes, f"set_{way}scale")("log")
        ticks = sorted(set(values)) if unit in AS_GIVEN else round_ticks(values)
    if ticks:
        margin = 1.3 if unit in AS_GIVEN else 1.0
        getattr(axes, f"set_{way}lim")(ticks[0] / margin, ticks[-1] * margin)
        axis.set_ticks(ticks, [LABELS[unit](tick) for tick in ticks])
    axis.set_ticks([], minor=True)


def _extent(panels: Sequence[Panel]) -> list[float]:
    return [
        value
        for panel in panels
        for marks in panel.marks.values()
        for mark in marks
        for value in (mark.least, mark.greatest)
    ]


def _shift(names: Sequence[str], name: str) -> float:
    """How far beside its category a series stands, so that ranges do not hide each other."""
    step = min(0.14, 0.7 / len(names))
    return (names.index(name) - (len(names) - 1) / 2) * step


def _xy(curve: Sequence[CurvePoint]) -> tuple[list[float], list[float]]:
    return [beyond(point.percent) for point in curve], [max(point.value_ns, 1) for point in curve]


def _wrapped(text: str, width_inches: float) -> list[str]:
    return textwrap.wrap(text, max(40, int((width_inches - 0.6) / 0.063)))


def _plain(text: str) -> str:
    return text.replace("$", r"\$")  # a "$" would begin a formula


def _matplotlib() -> tuple[Any, Any]:
    try:
        # Not pyplot: it keeps every figure in a global list and looks for a display.
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError:
        raise MissingDependencyError(
            "drawing a figure needs matplotlib: pip install 'frieda[plots]'"
        ) from None
    return Figure, FigureCanvasAgg
