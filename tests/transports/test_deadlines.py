"""Deadlines that count sweeps: late by a little, never early, and blind to the standstill of their own process."""

import time

import pytest

from frieda.testing.transport_pair import eventually, turns
from frieda.transports.deadlines import SWEEPS_PER_TIMEOUT, DeadlineSweep


class Late:
    """Gives up `patience_s` after it was watched."""

    def __init__(self, sweep, patience_s):
        self.sweep = sweep
        self.since = sweep.sweeps
        self.patience = sweep.sweeps_in(patience_s)
        self.given_up = False
        sweep.watch(self)

    def check_deadlines(self):
        self.given_up = self.sweep.sweeps - self.since >= self.patience
        return not self.given_up


@pytest.fixture
def sweep():
    return DeadlineSweep(0.08)


async def test_a_deadline_is_never_early_and_its_timer_ends_with_it(sweep):
    began = time.monotonic()
    late = Late(sweep, 0.08)
    later = Late(sweep, 0.12)
    await eventually(lambda: late.given_up, "the deadline")
    assert time.monotonic() - began >= 0.08 * 0.95  # loops round their timers to a millisecond
    await eventually(lambda: later.given_up, "the other deadline")
    assert time.monotonic() - began >= 0.12 * 0.95
    assert sweep._timer is None


async def test_the_standstill_of_this_process_counts_as_one_sweep(sweep):
    late = Late(sweep, 0.08)
    for _ in range(SWEEPS_PER_TIMEOUT - 1):
        time.sleep(0.1)  # noqa: ASYNC251  (the loop stands still for longer than the deadline)
        await turns(1)
        assert not late.given_up
    assert sweep.sweeps <= 1 + SWEEPS_PER_TIMEOUT
    sweep.forget(late)


async def test_who_is_forgotten_is_not_asked_again(sweep):
    late = Late(sweep, 0.08)
    sweep.forget(late)
    sweep.forget(late)
    assert sweep._timer is None
    sweep.sweep()
    assert not late.given_up


def test_a_long_timeout_is_measured_at_least_once_a_second():
    sweep = DeadlineSweep(600)
    assert sweep.sweeps_in(30) == 31
    assert sweep.sweeps_in(600) == 601
