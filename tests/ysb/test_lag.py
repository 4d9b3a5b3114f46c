"""Whether a lag grows is told from noise, and not said of too few samples."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from frieda.ysb.lag import LagSample, trend

RATE = 100_000.0


def samples_of(lags: list[int], step_s: float = 0.5) -> list[LagSample]:
    return [
        LagSample(number * step_s, 10**9 + number, 10**9, 10**9 + number - lag)
        for number, lag in enumerate(lags)
    ]


def test_a_lag_that_rises_by_a_tenth_of_the_rate_grows() -> None:
    found = trend(samples_of([number * 5000 for number in range(120)]), RATE, 0.0, 60.0)
    assert found.grows is True
    assert found.growth_per_s is not None
    assert abs(found.growth_per_s - 10_000) < 1
    assert found.largest == 119 * 5000


@given(st.lists(st.integers(0, 5000), min_size=120, max_size=120))
def test_noise_of_fifty_ms_is_no_growth(lags: list[int]) -> None:
    assert trend(samples_of(lags), RATE, 0.0, 60.0).grows is False


def test_a_stall_in_the_middle_that_is_caught_up_is_no_growth() -> None:
    lags = [100] * 120
    lags[70:76] = [50_000, 100_000, 80_000, 60_000, 40_000, 20_000]
    assert trend(samples_of(lags), RATE, 0.0, 60.0).grows is False


def test_what_comes_before_and_after_the_measured_part_is_not_looked_at() -> None:
    lags = [10**6] * 30 + [100] * 91 + [10**6] * 50
    found = trend(samples_of(lags), RATE, 15.0, 60.0)
    assert found.grows is False
    assert found.growth_per_s == 0


def test_too_few_samples_say_nothing() -> None:
    found = trend(samples_of([1, 2, 3]), RATE, 0.0, 2.0)
    assert (found.grows, found.growth_per_s) == (None, None)
    assert trend([], RATE, 0.0, 2.0).mean == 0


def test_events_count_as_lag_from_when_they_are_due_until_they_are_taken() -> None:
    assert LagSample(1.0, 100, 50, 40).lag == 60
    assert LagSample(1.0, 100, 120, 120).lag == 0
