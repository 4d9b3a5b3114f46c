"""The percentile curve as text and as a picture."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from frieda.bench.figures import text_curve, write_figure
from frieda.bench.histogram import LatencyHistogram
from frieda.errors import MissingDependencyError


def steady(value_ns: int, samples: int, slow_ns: int = 0, slow: int = 0) -> LatencyHistogram:
    histogram = LatencyHistogram()
    histogram.record(value_ns, samples)
    if slow:
        histogram.record(slow_ns, slow)
    return histogram


def test_the_x_axis_is_labelled_as_far_as_the_samples_reach() -> None:
    assert text_curve({"a": steady(1000, 2_000)}).splitlines()[-2].split() == ["0%", "90%", "99%"]
    wide = text_curve({"a": steady(1000, 200_000)}).splitlines()[-2]
    assert wide.split() == ["0%", "90%", "99%", "99.9%", "99.99%"]


def test_a_flat_curve_is_one_row_and_a_tail_rises_where_it_begins() -> None:
    # 2% of the samples are a hundred times slower: the curve leaves its row between 90% and 99%.
    picture = text_curve({"a": steady(10_000, 19_600, 1_000_000, 400)}, width=80)
    rows = [line for line in picture.splitlines() if "●" in line][:-1]
    assert len(rows) == 2
    high, low = rows
    labels = picture.splitlines()[-2]
    assert low.rindex("●") < high.index("●")
    assert labels.index("90%") < high.index("●") < labels.index("99%")


def test_every_line_fits_the_width() -> None:
    picture = text_curve({"one": steady(10_000, 50_000), "two": steady(90_000, 50_000)}, width=60)
    assert max(map(len, picture.splitlines())) <= 60
    assert picture.splitlines()[-1].split() == ["●", "one", "○", "two"]


def test_a_series_with_too_few_samples_is_named_and_not_drawn() -> None:
    picture = text_curve({"some": steady(1000, 500), "none": steady(1000, 5)})
    assert "none (too few samples)" in picture
    assert "○" not in "".join(picture.splitlines()[:-1])
    assert text_curve({"none": LatencyHistogram()}) == "● none (too few samples)"


def test_more_series_than_markers_are_refused() -> None:
    with pytest.raises(ValueError, match="7 series: at most 6"):
        text_curve({str(number): LatencyHistogram() for number in range(7)})


@pytest.mark.parametrize(
    ("suffix", "signature"), [(".png", b"\x89PNG\r\n"), (".svg", b"<?xml version")]
)
def test_a_figure_is_written_and_the_same_figures_give_the_same_bytes(
    tmp_path: Path, suffix: str, signature: bytes
) -> None:
    series = {"a $5 curve": steady(1000, 2_000, 9_000, 50), "empty": LatencyHistogram()}
    first, second = tmp_path / f"first{suffix}", tmp_path / f"second{suffix}"
    write_figure(first, series, "Title", "acks=1, flush=never")
    write_figure(second, series, "Title", "acks=1, flush=never")
    assert first.read_bytes().startswith(signature)
    assert first.read_bytes() == second.read_bytes()


def test_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"curve\.gif: a figure is a \.png or a \.svg"):
        write_figure(tmp_path / "curve.gif", {}, "")


def test_without_matplotlib_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'frieda\[plots\]'"):
        write_figure(tmp_path / "curve.png", {}, "")
