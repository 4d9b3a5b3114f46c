"""The moments of the sink lie on a grid that only the start and the phase decide."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from frieda.ysb.cadence import Cadence, phase_of

phases = st.floats(0, 1, exclude_max=True)


@given(st.integers(0, 10**18), st.floats(1, 60_000), phases, st.integers(-(10**12), 10**13))
def test_the_next_moment_is_on_the_grid_and_at_most_one_interval_away(
    start_ns: int, sink_ms: float, phase: float, after_ns: int
) -> None:
    cadence, now_ns = Cadence(start_ns, sink_ms, phase), start_ns + after_ns
    moment_ns = cadence.next_ns(now_ns)
    interval_ns = sink_ms * 1_000_000
    steps = (moment_ns - start_ns) / interval_ns - phase
    assert moment_ns > now_ns
    assert abs(steps - round(steps)) < 1e-3
    assert moment_ns - max(now_ns, start_ns) <= interval_ns + 2
    assert round(steps) >= 0


def test_the_moments_follow_each_other_without_a_gap() -> None:
    cadence, moments = Cadence(1000, 10.0, 0.5), [0]
    for _ in range(4):
        moments.append(cadence.next_ns(moments[-1]))
    assert moments[1:] == [5_001_000, 15_001_000, 25_001_000, 35_001_000]


@given(st.integers(0, 1000), st.integers(1, 16))
def test_workers_share_the_interval_evenly(round_number: int, workers: int) -> None:
    found = sorted(phase_of(round_number, worker, workers) for worker in range(workers))
    gaps = [after - before for before, after in pairwise(found)]
    assert all(abs(gap - 1 / workers) < 1e-9 for gap in gaps)
    assert all(0 <= phase < 1 for phase in found)


def test_rounds_go_through_different_phases() -> None:
    found = sorted(phase_of(number, 0, 1) for number in range(8))
    assert max(after - before for before, after in pairwise(found)) < 0.25
