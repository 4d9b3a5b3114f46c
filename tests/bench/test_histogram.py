"""The histogram: what it counts, what it refuses to say, and the formats it writes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
from hypothesis import given, settings
from hypothesis import strategies as st

from frieda.bench.histogram import (
    HIGHEST_NS,
    MAX_WINDOWS,
    LatencyHistogram,
    WindowedRecorder,
    hlog,
    merged,
    samples_needed,
)
from frieda.testing.effort import examples


def histogram_of(*values: int) -> LatencyHistogram:
    histogram = LatencyHistogram()
    for value in values:
        histogram.record(value)
    return histogram


@pytest.mark.parametrize(
    ("percent", "needed"),
    [(0, 20), (50, 40), (95, 400), (99, 2_000), (99.9, 20_000), (99.99, 200_000)],
)
def test_a_percentile_needs_twenty_samples_beyond_it(percent: float, needed: int) -> None:
    assert samples_needed(percent) == needed
    histogram = LatencyHistogram()
    histogram.record(1000, needed - 1)
    assert histogram.percentile(percent) is None
    histogram.record(1000)
    assert histogram.percentile(percent) == 1000


@pytest.mark.parametrize("percent", [100, 101, -1])
def test_a_percentile_outside_the_range_is_refused(percent: float) -> None:
    with pytest.raises(ValueError, match="must be at least 0 and below 100"):
        samples_needed(percent)


def test_an_empty_histogram_says_nothing() -> None:
    empty = LatencyHistogram()
    assert (empty.count, empty.max_ns, empty.mean_ns, empty.percentile(50)) == (0, None, None, None)
    assert empty.curve() == []


@given(st.lists(st.integers(0, HIGHEST_NS), min_size=40, max_size=200))
def test_median_maximum_and_mean_are_right_to_three_digits(values: list[int]) -> None:
    histogram = histogram_of(*values)
    ordered = sorted(values)
    median = histogram.percentile(50)
    assert median is not None
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    assert low <= median <= high * 1.001 + 1
    assert histogram.max_ns is not None
    assert max(values) <= histogram.max_ns <= max(values) * 1.001 + 1
    assert histogram.mean_ns == sum(values) / len(values)


@settings(max_examples=examples(6))
@given(
    st.lists(st.lists(st.integers(0, HIGHEST_NS), max_size=50), max_size=4),
)
def test_merging_encoded_histograms_is_recording_into_one(parts: list[list[int]]) -> None:
    together = merged([histogram_of(*part) for part in parts])
    alone = histogram_of(*(value for part in parts for value in part))
    assert together.encode() == alone.encode()
    assert together.count == alone.count
    assert together.max_ns == alone.max_ns
    if alone.mean_ns:
        assert together.mean_ns == pytest.approx(alone.mean_ns, rel=0.001, abs=1)


def test_a_value_above_the_range_counts_as_an_hour() -> None:
    histogram = histogram_of(HIGHEST_NS * 50)
    assert histogram.count == 1
    assert histogram.max_ns == pytest.approx(HIGHEST_NS, rel=0.001)


def test_a_negative_latency_is_refused() -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        LatencyHistogram().record(-1)


@pytest.mark.parametrize("encoded", ["", "nonsense", "HISTFAAAAB", "é", "A" * 2_000_000])
def test_what_is_no_encoded_histogram_is_refused(encoded: str) -> None:
    with pytest.raises(ValueError, match="encoded histogram"):
        LatencyHistogram().merge(encoded)


def test_a_histogram_of_another_range_is_refused() -> None:
    other = HdrHistogram(1, 1000, 3)
    with pytest.raises(ValueError, match="another range"):
        LatencyHistogram().merge(other.encode().decode())


def test_the_encoded_form_stays_small_however_much_was_recorded() -> None:
    histogram = LatencyHistogram()
    for value in range(1, HIGHEST_NS, HIGHEST_NS // 20_011):
        histogram.record(value, 10**6)
    assert len(histogram.encode()) < 200_000


def test_correction_adds_the_samples_that_a_stall_kept_from_being_taken() -> None:
    # 99 samples of 10 and one stall of 100 at an interval of 10: 90, 80, ... 10 were omitted.
    histogram = histogram_of(*[10] * 99, 100)
    corrected = histogram.corrected(10)
    assert corrected.count == 100 + 9
    assert corrected.max_ns == 100
    assert histogram.count == 100
    assert corrected.mean_ns == (99 * 10 + sum(range(10, 101, 10))) / 109


def test_the_curve_ends_where_the_samples_end() -> None:
    histogram = histogram_of(*range(1000, 3000))
    percents = [point.percent for point in histogram.curve()]
    assert percents == sorted(percents)
    assert percents[-1] == 99.0
    flat = LatencyHistogram()
    flat.record(1000, 2000)
    assert flat.curve() == [(0.0, 1000), (99.0, 1000)]


def test_hgrm_is_the_percentile_distribution_in_microseconds() -> None:
    lines = histogram_of(*range(1000, 101_000, 1000)).hgrm().splitlines()
    assert lines[0].split() == ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]
    rows = [line.split() for line in lines[2:] if line and not line.startswith("#")]
    assert rows[0] == ["1.000", "0.000000000000", "1", "1.00"]
    assert rows[-1] == ["100.031", "1.000000000000", "100"]
    half = next(row for row in rows if row[1] == "0.500000000000")
    assert half == ["50.015", "0.500000000000", "50", "2.00"]
    assert lines[-3].startswith("#[Mean    =       50.5")
    deviation = float(lines[-3].rpartition("=")[2].rstrip("]"))
    assert deviation == pytest.approx(28.866, rel=0.001)
    assert lines[-2].endswith("TotalCount     =          100]")


def test_windows_are_put_aside_whole_and_recording_goes_on() -> None:
    recorder = WindowedRecorder(0)
    recorder.record(5)
    ended = recorder.turn(100)
    recorder.record(7, 2)
    assert (ended.start_ns, ended.end_ns, ended.histogram.count) == (0, 100, 1)
    windows = recorder.windows(150)
    assert [(w.start_ns, w.end_ns, w.histogram.count) for w in windows] == [
        (0, 100, 1),
        (100, 150, 2),
    ]


def test_beyond_the_last_window_nothing_is_lost_and_nothing_grows() -> None:
    recorder = WindowedRecorder(0)
    for number in range(MAX_WINDOWS + 5):
        recorder.record(1)
        recorder.turn(number + 1)
    windows = recorder.windows(MAX_WINDOWS + 9)
    assert len(windows) == MAX_WINDOWS + 1
    assert sum(window.histogram.count for window in windows) == MAX_WINDOWS + 5


def test_an_interval_log_is_read_back_by_hdrhistograms_own_reader(tmp_path: Path) -> None:
    recorder = WindowedRecorder(1_000_000_000)
    recorder.record(5_000_000)
    recorder.turn(6_000_000_000)
    recorder.record(9_000_000, 3)
    file = tmp_path / "run.hlog"
    windows = recorder.windows(8_000_000_000)
    file.write_text(hlog(1_700_000_000.0, windows), encoding="ascii")
    reader = HistogramLogReader(str(file), HdrHistogram(1, HIGHEST_NS, 3))
    first, second = (reader.get_next_interval_histogram() for _ in range(2))
    assert reader.get_next_interval_histogram() is None
    reader.close()
    assert (first.get_total_count(), second.get_total_count()) == (1, 3)
    assert (first.get_start_time_stamp(), second.get_end_time_stamp()) == (
        1_700_000_000_000.0,
        1_700_000_007_000.0,
    )
