"""The schedule says the same as the list of times that the other benchmarks send by."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frieda.bench.load import Load, ProducerShare, constant_arrivals, shares
from frieda.ysb.schedule import Schedule


@st.composite
def producer_shares(draw: st.DrawFn) -> ProducerShare:
    producers = draw(st.integers(1, 9))
    load = Load(
        records=draw(st.integers(producers, 400)),
        producers=producers,
        rate=draw(st.floats(0.5, 2e6)),
    )
    return draw(st.sampled_from(shares(load)[0]))


@given(producer_shares(), st.data())
def test_times_and_counts_are_those_of_constant_arrivals(
    share: ProducerShare, data: st.DataObject
) -> None:
    assert share.rate is not None
    schedule = Schedule(share)
    times = list(constant_arrivals(share.rate, share.records, share.phase))
    assert [schedule.time_ns(number) for number in range(share.records)] == times
    moments = [*data.draw(st.lists(st.integers(-5, times[-1] + 5))), *times, times[0] - 1]
    for moment in moments:
        assert schedule.due_by(moment) == sum(time_ns <= moment for time_ns in times)


def test_a_closed_loop_has_no_schedule() -> None:
    with pytest.raises(ValueError, match="no intended times"):
        Schedule(shares(Load(records=1))[0][0])
