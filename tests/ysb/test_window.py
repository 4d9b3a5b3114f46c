"""Windows, watermark and lateness against a model that keeps every view."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frieda.errors import ConfigError
from frieda.ysb.window import PartitionClock, WindowCounts, WindowRule, each_count

rules = st.builds(WindowRule, st.integers(1, 50), st.integers(0, 200))
times = st.lists(st.integers(0, 500), max_size=200)


def fates(rule: WindowRule, times_ms: list[int]) -> list[str]:
    """The definition, word by word: what becomes of each view, given all that came before it."""
    found = []
    for number, time_ms in enumerate(times_ms):
        watermark_ms = max(times_ms[:number], default=-1)
        start_ms = next(
            s for s in range(0, time_ms + 1, rule.size_ms) if time_ms < s + rule.size_ms
        )
        end_ms = start_ms + rule.size_ms
        if watermark_ms < end_ms:
            found.append("counted")
        elif watermark_ms < end_ms + rule.allowed_lateness_ms:
            found.append("late")
        else:
            found.append("dropped")
    return found


@given(rules, times)
def test_what_becomes_of_a_view_is_what_the_definition_says(
    rule: WindowRule, times_ms: list[int]
) -> None:
    clock = PartitionClock(rule)
    accepted = [clock.accepts(time_ms) for time_ms in times_ms]
    wanted = fates(rule, times_ms)
    assert accepted == [fate != "dropped" for fate in wanted]
    assert (clock.late, clock.dropped) == (wanted.count("late"), wanted.count("dropped"))
    assert clock.watermark_ms == max(times_ms, default=-1)


@given(rules, times, st.data())
def test_a_clock_that_goes_on_from_what_was_committed_decides_as_one_that_never_stopped(
    rule: WindowRule, times_ms: list[int], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(times_ms)))
    whole, before = PartitionClock(rule), PartitionClock(rule)
    wanted = [whole.accepts(time_ms) for time_ms in times_ms]
    found = [before.accepts(time_ms) for time_ms in times_ms[:cut]]
    after = PartitionClock(rule, before.watermark_ms, before.late, before.dropped)
    found += [after.accepts(time_ms) for time_ms in times_ms[cut:]]
    assert found == wanted
    assert (after.watermark_ms, after.late, after.dropped) == (
        whole.watermark_ms,
        whole.late,
        whole.dropped,
    )


@given(
    rules,
    st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, 500))),
    st.lists(st.integers(0, 500)),
)
def test_every_view_is_taken_once_in_the_window_that_holds_its_time(
    rule: WindowRule, views: list[tuple[str, int]], takes: list[int]
) -> None:
    counts = WindowCounts(rule)
    taken: Counter[tuple[int, str]] = Counter()
    for number, (campaign, time_ms) in enumerate(views):
        counts.add(campaign, time_ms)
        if number in takes:
            for window_ms, name, count in each_count(counts.take()):
                taken[window_ms, name] += count
            assert not counts
    for window_ms, name, count in each_count(counts.take()):
        taken[window_ms, name] += count
    assert taken == Counter((rule.start_of(time_ms), campaign) for campaign, time_ms in views)
    assert all(start % rule.size_ms == 0 for start, _ in taken)


def test_a_view_at_the_end_of_a_window_belongs_to_the_next() -> None:
    rule = WindowRule(10, 0)
    assert [rule.start_of(time_ms) for time_ms in (9, 10, 19, 20)] == [0, 10, 10, 20]


def test_without_allowed_lateness_a_view_is_dropped_as_soon_as_its_window_is_over() -> None:
    clock = PartitionClock(WindowRule(10, 0))
    assert [clock.accepts(time_ms) for time_ms in (8, 9, 8, 10, 9)] == [
        True,
        True,
        True,
        True,
        False,
    ]
    assert (clock.late, clock.dropped) == (0, 1)


@pytest.mark.parametrize(("size_ms", "lateness_ms"), [(0, 0), (86_400_001, 0), (1, -1)])
def test_a_rule_out_of_range_is_refused(size_ms: int, lateness_ms: int) -> None:
    with pytest.raises(ConfigError, match=r"window_ms|allowed_lateness_ms"):
        WindowRule(size_ms, lateness_ms)
