"""Whose fault lateness is: what the system held back is not the generator's, what the generator slept through is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frieda.bench import verdict
from frieda.bench.load import LatenessSummary
from frieda.bench.verdict import Punctuality, invalid_because

MS = 1_000_000


def test_a_record_that_was_not_held_back_is_late_by_the_generator() -> None:
    punctuality = Punctuality()
    assert punctuality.sent(10 * MS, 10 * MS) == 0
    assert punctuality.sent(20 * MS, 27 * MS) == 7 * MS
    assert punctuality.held_ns == 0


def test_the_time_in_which_nothing_could_be_sent_is_the_systems() -> None:
    punctuality = Punctuality()
    punctuality.refused(10 * MS)
    assert punctuality.sent(10 * MS, 60 * MS) == 0
    assert punctuality.held_ns == 50 * MS


def test_what_became_due_meanwhile_may_be_caught_up_with_for_as_long_again() -> None:
    punctuality = Punctuality()
    punctuality.refused(10 * MS)
    punctuality.sent(10 * MS, 60 * MS)
    assert punctuality.sent(12 * MS, 100 * MS) == 0
    # At 110 ms the credit is used up: what is late beyond it is the generator's.
    assert punctuality.sent(14 * MS, 115 * MS) == 5 * MS


def test_a_generator_that_was_away_before_it_was_held_back_answers_for_that() -> None:
    punctuality = Punctuality()
    # Due at 10, 12 and 14 ms; the generator comes at 40 ms, sends one, and is held back from then to 42 ms.
    assert punctuality.sent(10 * MS, 40 * MS) == 30 * MS
    punctuality.refused(40 * MS)
    assert punctuality.sent(12 * MS, 42 * MS) == 28 * MS
    # 30 ms late; held from 40 to 42, and excused for 2 ms more: 26 ms remain, and 0.5 of being slow.
    assert punctuality.sent(14 * MS, 44 * MS + MS // 2) == 26 * MS + MS // 2


def test_a_second_refusal_does_not_begin_the_first_again() -> None:
    punctuality = Punctuality()
    punctuality.refused(10 * MS)
    punctuality.refused(30 * MS)
    assert punctuality.sent(10 * MS, 50 * MS) == 0
    assert punctuality.held_ns == 40 * MS


class Told:
    """The rule in so many words: every ns is looked at by itself."""

    def __init__(self) -> None:
        self.excused: set[int] = set()
        self.since: int | None = None

    def refused(self, since_ns: int) -> None:
        if self.since is None:
            self.since = since_ns

    def sent(self, intended_ns: int, now_ns: int) -> int:
        if self.since is not None:
            self.excused |= set(range(self.since, now_ns + (now_ns - self.since)))
            self.since = None
        return sum(moment not in self.excused for moment in range(intended_ns, now_ns))


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 6), st.integers(0, 9), st.booleans(), st.integers(0, 8)),
        max_size=40,
    )
)
def test_every_moment_of_lateness_is_counted_once_and_to_the_right_side(
    steps: list[tuple[int, int, bool, int]],
) -> None:
    punctuality, told = Punctuality(), Told()
    intended, now = 0, 0
    for gap, until_looked_at, refused, held in steps:
        intended += gap
        now = max(now, intended) + until_looked_at
        if refused:
            punctuality.refused(now)
            told.refused(now)
            now += held
        own = punctuality.sent(intended, now)
        assert own == told.sent(intended, now)
        assert 0 <= own <= now - intended


def test_memory_is_bounded_however_often_the_system_holds_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(verdict, "_MAX_STRETCHES", 10)
    punctuality = Punctuality()
    for number in range(1, 1000):
        punctuality.refused(100 * number)
        # Always the same backlog, so that no stretch may be forgotten.
        assert 0 <= punctuality.sent(0, 100 * number + 10) <= 100 * number
    assert len(punctuality._stretches) == 10


def own(late_sends: int, sends: int = 1000) -> LatenessSummary:
    return LatenessSummary(sends=sends, late_sends=late_sends, mean_us=1.0, max_us=5000.0)


def test_a_run_is_valid_until_one_in_a_hundred_sends_is_late() -> None:
    assert invalid_because(own(10), 0.0, 10.0, 0) is None
    reason = invalid_because(own(11), 0.0, 10.0, 0)
    assert reason is not None
    assert "11 of 1000 sends more than 1 ms, which is more than 1%" in reason


def test_a_run_that_ended_late_by_itself_is_invalid() -> None:
    assert invalid_because(own(0), 0.2, 10.0, 0) is None
    reason = invalid_because(own(0), 0.201, 10.0, 0)
    assert reason is not None
    assert "201.0 ms behind at the end by itself" in reason


def test_a_run_that_was_given_up_says_how_much_was_not_sent() -> None:
    reason = invalid_because(own(0), 0.0, 10.0, 17)
    assert reason is not None
    assert reason.startswith("given up with 17 records unsent")
