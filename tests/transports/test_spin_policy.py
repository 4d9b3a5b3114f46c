import pytest
from hypothesis import given
from hypothesis import strategies as st

from frieda.transports.spin_policy import (
    ACCOUNT_NS,
    CALM_NS,
    GOOD_PENALTIES,
    INTERVAL_NS,
    MAX_PENALTY_NS,
    PENALTY_NS,
    Reason,
    SpinAccount,
    SpinInterval,
    SpinPolicy,
    SpinSample,
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


MS = 1_000_000


def spin(account, at_ns, cpu_ns, wall_ns, ran_ns, switches=0):
    """One piece of spinning: what is to be judged at its end, and the thread's own time then."""
    account.begin(SpinSample(at_ns, cpu_ns, 0, 0))
    return account.look(SpinSample(at_ns + wall_ns, cpu_ns + ran_ns, switches, 0)), cpu_ns + ran_ns


def test_short_spins_are_judged_together_and_the_sleep_between_them_is_left_out():
    account = SpinAccount()
    cpu_ns = 7
    judged = []
    for number in range(20):  # 2 ms of spinning in 10, half of it lost to others
        interval, cpu_ns = spin(account, number * 10 * MS, cpu_ns, 2 * MS, 1 * MS, switches=1)
        judged.append(interval)
    expected = SpinInterval(20 * MS, 10 * MS, 10, 0)
    assert judged == [None] * 9 + [expected] + [None] * 9 + [expected]
    assert expected.trouble is Reason.PREEMPTED


def test_a_long_spin_is_judged_piece_by_piece():
    account = SpinAccount()
    account.begin(SpinSample(0, 0, 5, 5))
    assert account.look(SpinSample(19 * MS, 19 * MS, 5, 5)) is None
    assert account.look(SpinSample(25 * MS, 24 * MS, 6, 5)) == SpinInterval(25 * MS, 24 * MS, 1, 0)
    assert account.look(SpinSample(30 * MS, 29 * MS, 6, 5)) is None
    assert account.look(SpinSample(45 * MS, 44 * MS, 6, 6)) == SpinInterval(20 * MS, 20 * MS, 0, 1)


def test_spins_that_lie_far_apart_are_not_added_up():
    account = SpinAccount()
    for number in range(100):
        assert spin(account, number * (ACCOUNT_NS + 1), 0, 11 * MS, 1 * MS)[0] is None


def test_a_look_before_any_spin_tells_nothing():
    account = SpinAccount()
    assert account.look(SpinSample(10**12, 5, 0, 0)) is None


@given(st.lists(st.tuples(st.integers(0, 50 * MS), st.integers(0, 30 * MS)), max_size=80))
def test_no_spinning_is_counted_twice_and_little_is_left_out(pieces):
    account = SpinAccount()
    now_ns, spun_ns, judged_ns = 10**12, 0, 0
    for pause_ns, wall_ns in pieces:
        now_ns += pause_ns
        interval, _ = spin(account, now_ns, 0, wall_ns, 0)
        now_ns += wall_ns
        spun_ns += wall_ns
        if interval is not None:
            assert interval.wall_ns >= INTERVAL_NS
            judged_ns += interval.wall_ns
        assert judged_ns <= spun_ns


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
