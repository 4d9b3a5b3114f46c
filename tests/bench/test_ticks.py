"""Ticks of an axis and their names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frieda.bench.ticks import (
    count,
    decades,
    duration,
    linear_ticks,
    percent_label,
    plain,
    round_ticks,
    size,
)

POSITIVE = st.floats(min_value=1e-6, max_value=1e12, allow_nan=False)


@given(st.lists(POSITIVE, min_size=1, max_size=20))
def test_logarithmic_ticks_enclose_the_values_ascend_and_are_few(values: list[float]) -> None:
    ticks = round_ticks(values)
    assert ticks[0] <= min(values) * (1 + 1e-9)
    assert ticks[-1] >= max(values) * (1 - 1e-9)
    assert ticks == sorted(set(ticks))
    assert 2 <= len(ticks) <= 21


@given(st.lists(POSITIVE, min_size=1, max_size=20))
def test_linear_ticks_begin_at_nothing_and_enclose_the_values(values: list[float]) -> None:
    ticks = linear_ticks(values)
    assert ticks[0] == 0
    assert ticks[-1] >= max(values) * (1 - 1e-6)
    assert 2 <= len(ticks) <= 7


def test_values_that_are_not_positive_have_no_tick_of_a_logarithm() -> None:
    assert round_ticks([0.0, -3.0]) == []
    assert round_ticks([0.0, 5.0]) == round_ticks([5.0])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (duration(999), "999 ns"),
        (duration(1_500), "1.5 µs"),
        (duration(2_000_000), "2 ms"),
        (duration(3e9), "3 s"),
        (size(100), "100 B"),
        (size(16 * 1024), "16 KiB"),
        (size(1024 * 1024), "1 MiB"),
        (count(1_200_000), "1.2 M"),
        (plain(12_345.6), "12,346"),
        (plain(0.25), "0.25"),
        (percent_label(0), "0%"),
        (percent_label(3), "99.9%"),
    ],
)
def test_a_quantity_is_told_in_the_unit_that_reads_best(text: str, expected: str) -> None:
    assert text == expected


def test_the_axis_of_percentiles_is_as_long_as_its_curves() -> None:
    assert decades([]) == pytest.approx(1.05)
    assert decades([50.0, 99.9]) == pytest.approx(3.05)
