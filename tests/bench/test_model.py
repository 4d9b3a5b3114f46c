"""The latency model: what went in comes out again, and the error is stated as it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frieda.bench.model import Row, Sample, fit, least_squares, medians, samples_of
from frieda.bench.results import Run
from frieda.errors import ConfigError

MakeRun = Callable[..., Run]
SIZES = (100, 1024, 16 * 1024, 256 * 1024)
WINDOWS = (1, 4, 16, 64)
FIXED_NS = st.floats(min_value=1e3, max_value=1e7)
BYTES_PER_S = st.floats(min_value=1e7, max_value=1e11)
OVERHEAD_NS = st.floats(min_value=1e2, max_value=1e5)
EXPONENT = st.floats(min_value=0.1, max_value=1.5)


def made(
    fixed_ns: float,
    bytes_per_s: float,
    overhead_ns: float = 0.0,
    contended_bytes_per_s: float = math.inf,
    exponent: float = 1.0,
    windows: Sequence[int] = WINDOWS,
) -> list[Sample]:
    samples = []
    for size in SIZES:
        for window in windows:
            alone_ns = fixed_ns + size / bytes_per_s * 1e9
            each_ns = overhead_ns + size / contended_bytes_per_s * 1e9
            growth = (window - 1) ** exponent if window > 1 else 0.0
            samples.append(Sample(size, window, alone_ns + growth * each_ns))
    return samples


@given(FIXED_NS, BYTES_PER_S)
def test_a_sequential_sender_gives_back_latency_and_bandwidth(
    fixed_ns: float, bytes_per_s: float
) -> None:
    found = fit(made(fixed_ns, bytes_per_s, windows=[1]))
    assert found.sequential.greatest < 1e-6
    assert found.windowed is None
    assert found.predict(100) == pytest.approx(fixed_ns + 100 / bytes_per_s * 1e9, rel=1e-6)
    assert found.bytes_per_s == pytest.approx(bytes_per_s, rel=1e-3)


@given(FIXED_NS, BYTES_PER_S, OVERHEAD_NS, BYTES_PER_S, EXPONENT)
def test_what_a_model_made_is_predicted_by_the_fitted_one(
    fixed_ns: float,
    bytes_per_s: float,
    overhead_ns: float,
    contended_bytes_per_s: float,
    exponent: float,
) -> None:
    samples = made(fixed_ns, bytes_per_s, overhead_ns, contended_bytes_per_s, exponent)
    found = fit(samples)
    assert found.windowed is not None
    assert found.windowed.greatest < 1e-3
    assert found.windowed.samples == len(SIZES) * (len(WINDOWS) - 1)


def test_the_parameters_themselves_come_back_where_they_matter() -> None:
    found = fit(made(30_000, 2e9, 3_000, 3e9, 0.8))
    assert found.fixed_ns == pytest.approx(30_000, rel=1e-6)
    assert found.bytes_per_s == pytest.approx(2e9, rel=1e-6)
    assert found.overhead_ns == pytest.approx(3_000, rel=1e-4)
    assert found.contended_bytes_per_s == pytest.approx(3e9, rel=1e-4)
    assert found.exponent == pytest.approx(0.8, abs=1e-4)
    assert found.overhead(64, 1024) == pytest.approx(63**0.8 * (3_000 + 1024 / 3), rel=1e-4)


@given(
    st.lists(
        st.builds(
            Sample,
            st.sampled_from([float(size) for size in SIZES]),
            st.sampled_from(WINDOWS),
            st.floats(min_value=1, max_value=1e10),
        ),
        max_size=30,
    )
)
def test_whatever_was_measured_no_coefficient_is_negative_and_the_residuals_are_true(
    noise: list[Sample],
) -> None:
    samples = [*noise, Sample(100.0, 1, 1e4), Sample(1e5, 1, 2e4)]
    found = fit(samples)
    assert found.fixed_ns >= 0
    assert found.overhead_ns >= 0
    assert all(
        value is None or value > 0 for value in (found.bytes_per_s, found.contended_bytes_per_s)
    )
    errors = [abs(found.predict(s.record_size_bytes, s.window) / s.latency_ns - 1) for s in samples]
    stated = max(
        found.sequential.greatest, 0 if found.windowed is None else found.windowed.greatest
    )
    assert max(errors) == pytest.approx(stated, rel=1e-6)


def test_small_records_count_as_much_as_large_ones() -> None:
    # Absolute errors would leave the small one 100% wrong for the sake of the large one.
    samples = [Sample(100, 1, 10_000), Sample(1000, 1, 10_000), Sample(1_000_000, 1, 1_100_000)]
    found = fit([*samples, Sample(1_000_000, 1, 900_000)])
    assert found.predict(100) == pytest.approx(10_000, rel=0.06)


def test_a_size_that_makes_no_difference_has_no_bandwidth() -> None:
    found = fit([Sample(100, 1, 50_000), Sample(100_000, 1, 40_000)])
    assert found.bytes_per_s is None
    assert found.predict(10**9) == found.fixed_ns
    assert found.sequential.greatest > 0.1


def test_one_window_above_1_cannot_tell_the_exponent_which_is_1_then() -> None:
    found = fit(made(30_000, 2e9, 3_000, 3e9, windows=[1, 16]))
    assert found.exponent == 1.0
    assert found.overhead_ns == pytest.approx(3_000, rel=1e-6)


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        ([], "there are 0"),
        ([Sample(100, 1, 1e4), Sample(100, 1, 2e4)], "there is 1"),
        ([Sample(100, 4, 1e4), Sample(1000, 4, 2e4)], "there are 0"),
        ([Sample(100, 1, 0.0), Sample(1000, 1, 2e4)], "must be above 0"),
        ([Sample(100, 0, 1.0), Sample(1000, 1, 2e4)], "must be above 0"),
    ],
)
def test_what_cannot_be_fitted_is_refused_with_the_reason(
    samples: list[Sample], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        fit(samples)


POSITIVE = st.floats(min_value=1e-3, max_value=1e3)


@given(
    st.lists(
        st.builds(Row, POSITIVE, POSITIVE, st.floats(min_value=-1e3, max_value=1e3), POSITIVE),
        min_size=1,
        max_size=8,
    ),
    POSITIVE,
    POSITIVE,
)
def test_no_other_pair_that_is_not_negative_has_a_smaller_error(
    rows: list[Row], other_x: float, other_y: float
) -> None:
    def error(x: float, y: float) -> float:
        return math.fsum(((r.a * x + r.b * y - r.target) / r.scale) ** 2 for r in rows)

    x, y = least_squares(rows)
    assert x >= 0
    assert y >= 0
    best = error(x, y)
    slack = 1e-6 * (1 + error(0, 0))
    for candidate in (
        (other_x, other_y),
        (other_x, 0.0),
        (0.0, other_y),
        (x * 1.01, y),
        (x, y * 1.01),
    ):
        assert best <= error(*candidate) + slack


def test_the_samples_of_a_sweep_are_those_of_valid_runs_with_enough_records(
    make_run: MakeRun,
) -> None:
    runs = [
        make_run(rate=None, in_flight=4, record_size=1024),
        make_run("kafka", rate=None, in_flight=1, samples=100),
        make_run("kafka", rate=None, in_flight=1, invalid_because="it failed"),
    ]
    assert list(samples_of(runs, "p99")) == ["Frieda tcp"]
    ((series, (sample,)),) = samples_of(runs[:1], "mean").items()
    mean_us = runs[0].latency_us["mean"]
    assert mean_us is not None
    assert series == "Frieda tcp"
    assert sample == Sample(1024.0, 4, mean_us * 1000)


def test_rounds_of_a_cell_become_their_median() -> None:
    rounds = [Sample(100, 1, value) for value in (5.0, 1.0, 3.0)]
    assert medians([*rounds, Sample(100, 4, 9.0)]) == [Sample(100, 1, 3.0), Sample(100, 4, 9.0)]
