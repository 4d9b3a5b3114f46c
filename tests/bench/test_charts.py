"""Charts as values and as pictures."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from frieda.bench.charts import (
    LOOKS,
    Chart,
    Curve,
    CurveChart,
    Dot,
    Mark,
    Panel,
    PanelChart,
    ScatterChart,
    looks,
)
from frieda.bench.drawing import drawn, write_chart
from frieda.bench.histogram import CurvePoint
from frieda.errors import MissingDependencyError

CURVE = [CurvePoint(0.0, 1_000), CurvePoint(90.0, 2_000), CurvePoint(99.0, 90_000)]


def panels(count: int) -> PanelChart:
    marks = {"Frieda tcp": [Mark(0, 2e5, 1e5, 3e5)], "Kafka": [Mark(0, 9e5, 9e5, 9e5)]}
    panel = Panel(title="8 producers", y_label="p99", unit="ns", marks=marks)
    busy = {"Frieda tcp": [Mark(0, 0.5, 0.2, 1.3)]}
    last = Panel(title="server", y_label="cores", unit="cores", marks=busy)
    return PanelChart(
        name="panels",
        title="Title of $5 & <more>",
        subtitle="acks=1; " * 40,
        x_label="message size",
        categories=["100 B"],
        panels=[*([panel] * (count - 1)), last],
        notes=["Redis Streams: no run"],
    )


CHARTS: list[Chart] = [
    *map(panels, (1, 2, 4, 5)),
    CurveChart(
        name="curve",
        title="Title",
        subtitle="",
        curves={
            "Kafka": Curve(total=CURVE, rounds=[CURVE, CURVE], share=CURVE[:2]),
            "nothing": Curve(total=[]),
        },
        share_label="the broker's share",
    ),
    ScatterChart(
        name="scatter",
        title="Title",
        subtitle="s",
        x_label="x",
        x_unit="bytes",
        y_label="y",
        y_unit="ns",
        dots={"W = 1": [Dot(100, 1e4, "8"), Dot(1024, 2e4)]},
        lines={"W = 1": [Dot(100, 1e4), Dot(1024, 2e4)], "roof": [Dot(100, 1e5), Dot(1024, 1e5)]},
        joined=True,
    ),
    ScatterChart(
        name="equal",
        title="Title",
        subtitle="s",
        x_label="x",
        x_unit="ns",
        y_label="y",
        y_unit="ns",
        dots={"Kafka": [Dot(100, 1e4)]},
        equal_axes=True,
    ),
]


def test_a_system_looks_the_same_whoever_stands_beside_it() -> None:
    alone, crowd = looks(["Kafka"]), looks(["Redis Streams", "another", "Kafka"])
    assert alone["Kafka"] == crowd["Kafka"] == LOOKS["Kafka"]
    assert crowd["another"] not in LOOKS.values()


def test_no_two_systems_look_alike() -> None:
    assert len({look.colour for look in LOOKS.values()}) == len(LOOKS)
    assert len({look.marker for look in LOOKS.values()}) == len(LOOKS)
    others = looks(["a", "b", "c"])
    assert len({look.colour for look in others.values()}) == 3


@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.name)
def test_every_kind_of_chart_is_drawn_as_png_and_as_svg_that_parses(chart: Chart) -> None:
    assert drawn(chart, "png").startswith(b"\x89PNG\r\n")
    root = ElementTree.fromstring(drawn(chart, "svg"))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"


def test_the_same_chart_gives_the_same_bytes(tmp_path: Path) -> None:
    for suffix in (".png", ".svg"):
        first, second = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
        write_chart(first, CHARTS[0])
        write_chart(second, CHARTS[0])
        assert first.read_bytes() == second.read_bytes()


def test_more_rounds_of_a_series_change_the_picture() -> None:
    chart = CHARTS[4]
    assert isinstance(chart, CurveChart)
    fewer = CurveChart(
        name=chart.name,
        title=chart.title,
        subtitle=chart.subtitle,
        curves={"Kafka": Curve(total=CURVE)},
    )
    assert drawn(chart, "svg") != drawn(fewer, "svg")


def test_another_format_is_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.gif: a figure is a \.png or a \.svg"):
        write_chart(tmp_path / "a.gif", CHARTS[0])
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'frieda\[plots\]'"):
        write_chart(tmp_path / "a.png", CHARTS[0])
    assert not list(tmp_path.iterdir())
