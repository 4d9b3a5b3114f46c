import pytest
from hypothesis import given
from hypothesis import strategies as st

from frieda.transports.spin_policy import (
    CALM_NS,
    GOOD_PENALTIES,
    INTERVAL_NS,
    MAX_PENALTY_NS,
    PENALTY_NS,
    Reason,
    SpinInterval,
    SpinPolicy,
)

GOOD = SpinInterval(INTERVAL_NS, INTERVAL_NS, 0, 0)
PREEMPTED = SpinInterval(INTERVAL_NS, INTERVAL_NS // 2, 3, 0)
LATE = SpinInterval(INTERVAL_NS, INTERVAL_NS // 2, 0, 0)


@pytest.mark.parametrize(
    ("lost_percent", "involuntary", "voluntary", "trouble"),
    [
        (0, 0, 0, None),
        (8, 2, 0, None),  # what a quiet machine shows now and then
        (50, 3, 0, Reason.PREEMPTED),  # two spinners on one core
        (50, 3, 5, Reason.PREEMPTED),
        (20, 1, 0, Reason.PREEMPTED),
        (20, 0, 0, None),
        (30, 0, 0, Reason.LATE),  # a hypervisor or a quota
        (90, 0, 1, None),  # a callback waited for something
        (-5, 0, 0, None),  # clocks that do not quite agree
    ],
)
def test_what_an_interval_tells(lost_percent, involuntary, voluntary, trouble):
    cpu_ns = INTERVAL_NS * (100 - lost_percent) // 100
    assert SpinInterval(INTERVAL_NS, cpu_ns, involuntary, voluntary).trouble is trouble


@pytest.mark.parametrize(
    ("active", "cores", "barred"), [(1, 1, False), (2, 2, False), (3, 2, True), (2, 1, True)]
)
def test_more_active_processes_than_cores_do_not_spin(active, cores, barred):
    policy = SpinPolicy()
    policy.saw_processes(0, active, cores)
    assert (policy.bar(1) is Reason.CROWDED) == barred


def test_a_crowd_must_be_gone_for_a_while_before_spinning_starts_again():
    policy = SpinPolicy()
    policy.saw_processes(0, 5, 2)
    policy.saw_processes(CALM_NS // 2, 2, 2)
    assert policy.bar(CALM_NS - 1) is Reason.CROWDED
    assert policy.bar(CALM_NS) is None


@pytest.mark.parametrize(
    ("interval", "reason"), [(PREEMPTED, Reason.PREEMPTED), (LATE, Reason.LATE)]
)
def test_one_bad_interval_is_an_accident_and_two_in_a_row_are_not(interval, reason):
    policy = SpinPolicy()
    for bad in (interval, GOOD, interval):
        policy.saw_interval(0, bad)
        assert policy.bar(0) is None
    policy.saw_interval(0, interval)
    assert policy.bar(PENALTY_NS - 1) is reason
    assert policy.bar(PENALTY_NS) is None


def test_the_penalty_doubles_at_each_relapse_up_to_a_bound_and_halves_after_good_times():
    policy = SpinPolicy()
    now = 0
    for _ in range(20):
        policy.saw_interval(now, PREEMPTED)
        policy.saw_interval(now, PREEMPTED)
        now += MAX_PENALTY_NS
    assert policy.penalty_ns == MAX_PENALTY_NS
    for _ in range(GOOD_PENALTIES * MAX_PENALTY_NS // INTERVAL_NS):
        policy.saw_interval(now, GOOD)
    assert policy.penalty_ns == MAX_PENALTY_NS // 2
    for _ in range(2 * GOOD_PENALTIES * MAX_PENALTY_NS // INTERVAL_NS):
        policy.saw_interval(now, GOOD)
    assert policy.penalty_ns == PENALTY_NS


@given(
    st.lists(st.tuples(st.sampled_from([GOOD, PREEMPTED, LATE]), st.integers(1, 6)), max_size=200)
)
def test_a_bar_always_ends_once_the_trouble_is_over(history):
    policy = SpinPolicy()
    now = 0
    for interval, active in history:
        now += INTERVAL_NS
        policy.saw_processes(now, active, 2)
        if policy.bar(now) is None:
            policy.saw_interval(now, interval)
        assert PENALTY_NS <= policy.penalty_ns <= MAX_PENALTY_NS
    assert policy.bar(now + MAX_PENALTY_NS + CALM_NS) is None
