"""The roofline of a file of results as a chart, PURE: the counts of each run under the two roofs of the machine."""

from __future__ import annotations

from collections.abc import Mapping

from frieda.bench.charts import Dot, ScatterChart
from frieda.bench.contests import number, series_of
from frieda.bench.results import Results
from frieda.errors import ConfigError


def roofline_chart(results: Results) -> ScatterChart | None:
    """The plot; None when the file holds no counts."""
    roofs = results.extra.get("roofs")
    counted = [run for run in results.runs if run.valid and run.extra.get("traffic_bytes")]
    if not counted or not isinstance(roofs, Mapping):
        return None
    most = number(roofs.get("instructions_per_s"))
    bandwidth = number(roofs.get("bytes_per_s"))
    if most <= 0 or bandwidth <= 0:
        raise ConfigError("the file of results has a roof that is not above 0")
    dots: dict[str, list[Dot]] = {}
    for run in sorted(counted, key=lambda run: number(run.settings.get("producers"))):
        instructions = number(run.extra["instructions"])
        intensity = instructions / number(run.extra["traffic_bytes"])
        per_s = instructions / number(run.extra["counted_s"])
        label = f"{run.settings.get('producers')}"
        dots.setdefault(series_of(run), []).append(Dot(intensity, per_s, label))
    ridge = most / bandwidth
    reach = [dot.x for series in dots.values() for dot in series]
    left, right = min(*reach, ridge) / 3, max(*reach, ridge) * 3
    events = counted[0].extra.get("events")
    named = ", ".join(map(str, events)) if isinstance(events, list | tuple) else "perf's counters"
    size = counted[0].settings.get("record_size")
    return ScatterChart(
        name="roofline",
        title="Roofline of the broker",
        subtitle=(
            f"the number beside a point is that of the producers; {size} B records, closed loop, "
            f"durability {counted[0].settings.get('durability')}; counted: {named}; roofs measured on one core"
        ),
        x_label="instructions for each byte of memory traffic",
        x_unit="instructions/byte",
        y_label="instructions a second",
        y_unit="instructions/s",
        dots={series: dots[series] for series in sorted(dots)},
        lines={
            "memory bandwidth": [Dot(left, left * bandwidth), Dot(ridge, most)],
            "most instructions": [Dot(ridge, most), Dot(right, most)],
        },
        joined=True,
    )
