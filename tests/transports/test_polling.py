import asyncio

import pytest

from frieda.clock import ManualClock
from frieda.errors import ConfigError
from frieda.testing.transport_pair import turns
from frieda.transports.census import Census
from frieda.transports.polling import (
    ACTIVITIES_BETWEEN_LOOKS,
    GAP_NS,
    TICKS_BETWEEN_LOOKS,
    PollingEngine,
)
from frieda.transports.spin_policy import CALM_NS, INTERVAL_NS, SpinInterval, SpinPolicy

WINDOW_US = 2000
MANY = 200  # loop turns: more than enough for several looks at the clock


@pytest.fixture
def clock():
    return ManualClock(monotonic_ns=10**9)


@pytest.fixture
def make_engine(clock, tmp_path):
    engines = []

    def make(mode="adaptive", policy=None, cores=2):
        def census():
            made = Census(str(tmp_path))
            made.cores = cores
            return made

        engine = PollingEngine(mode, WINDOW_US, clock=clock, policy=policy, make_census=census)
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        engine.close()


class Source:
    """Each poll takes 20 us of the clock that stands still otherwise."""

    def __init__(self, clock):
        self.clock = clock
        self.events = []
        self.polls = 0
        self.arms = 0
        self.late_event = False

    def poll(self):
        self.polls += 1
        self.clock.advance(0.00002)
        found = len(self.events)
        self.events.clear()
        return found

    def arm(self):
        self.arms += 1
        late, self.late_event = self.late_event, False
        return not late


async def test_the_event_mode_never_spins(make_engine):
    engine = make_engine("event")
    engine.start()
    for _ in range(10):
        engine.note_activity()
        await turns(3)
    assert engine.statistics.spins == 0
    assert engine.statistics.state == "asleep"
    assert engine.statistics.census == "unused"


async def test_the_adaptive_mode_spins_from_the_first_activity_to_the_end_of_its_window(
    make_engine, clock
):
    engine = make_engine()
    engine.start()
    await turns(MANY)
    assert engine.statistics.state == "asleep"
    engine.note_activity()
    assert engine.spinning
    await turns(MANY)
    assert engine.spinning  # the window has not passed
    clock.advance(0.0015)
    engine.note_activity()
    await turns(MANY)
    clock.advance(0.0015)
    await turns(MANY)
    assert engine.spinning  # activity has begun a new window
    clock.advance(0.0006)
    await turns(MANY)
    assert engine.statistics.state == "asleep"
    assert (engine.statistics.spins, engine.statistics.sleeps) == (1, 1)


async def test_the_busy_mode_never_sleeps(make_engine, clock):
    engine = make_engine("busy", cores=1)
    engine.start()
    for _ in range(5):
        clock.advance(10)
        await turns(MANY)
        assert engine.spinning


async def test_a_spinning_loop_still_serves_timers_and_tasks(make_engine):
    engine = make_engine("busy")
    engine.start()
    await asyncio.sleep(0.001)
    await asyncio.ensure_future(asyncio.sleep(0))
    assert engine.spinning


@pytest.mark.parametrize("mode", ["adaptive", "busy"])
async def test_it_does_not_spin_while_a_thread_works_and_does_again_after(make_engine, mode):
    engine = make_engine(mode)
    engine.start()
    engine.note_activity()
    await turns(3)
    engine.thread_work_started()
    engine.thread_work_started()
    await turns(3)
    assert engine.statistics.state == "yielding"
    engine.note_activity()
    engine.thread_work_finished()
    await turns(3)
    assert engine.statistics.state == "yielding"
    engine.thread_work_finished()
    assert engine.spinning


async def test_thread_work_that_begins_while_asleep_keeps_it_from_spinning(make_engine):
    engine = make_engine()
    engine.start()
    engine.thread_work_started()
    engine.note_activity()
    await turns(3)
    assert engine.statistics.state == "yielding"
    assert engine.statistics.spins == 0
    engine.thread_work_finished()
    assert engine.spinning


async def test_a_crowd_makes_it_sleep_and_the_end_of_the_crowd_lets_it_spin(
    make_engine, clock, tmp_path
):
    engine = make_engine()
    others = [Census(str(tmp_path)) for _ in range(2)]
    engine.start()
    for _ in range(ACTIVITIES_BETWEEN_LOOKS):
        engine.note_activity()
    assert engine.spinning
    for each in others:
        each.heartbeat(clock.monotonic_ns() + INTERVAL_NS)
    clock.advance(INTERVAL_NS / 1e9)
    engine.note_activity()
    await turns(MANY)
    assert engine.statistics.state == "barred"
    assert engine.statistics.fallbacks == {"crowded": 1}
    assert engine.statistics.active_processes == 3
    clock.advance(CALM_NS / 1e9 + 1)
    for _ in range(ACTIVITIES_BETWEEN_LOOKS):
        engine.note_activity()
    assert engine.spinning
    for each in others:
        each.close()


async def test_a_barred_loop_counts_for_others_as_long_as_it_is_active(
    make_engine, clock, tmp_path
):
    policy = SpinPolicy()
    policy.saw_processes(clock.monotonic_ns(), 9, 1)
    engine = make_engine(policy=policy)
    observer = Census(str(tmp_path))
    engine.start()
    engine.note_activity()
    assert engine.statistics.state == "barred"
    assert observer.active(clock.monotonic_ns()) == 2
    observer.close()


async def test_a_barred_loop_looks_again_when_there_is_activity(make_engine, clock):
    policy = SpinPolicy()
    policy.saw_processes(clock.monotonic_ns(), 9, 1)
    engine = make_engine(policy=policy)
    engine.start()
    engine.note_activity()
    assert engine.statistics.state == "barred"
    clock.advance(CALM_NS / 1e9 + 1)
    await turns(5)
    assert engine.statistics.state == "barred"
    for _ in range(ACTIVITIES_BETWEEN_LOOKS):
        engine.note_activity()
    assert engine.spinning
    assert engine.statistics.fallbacks == {"crowded": 1}


async def test_losing_the_core_to_others_makes_it_sleep(make_engine, clock, monkeypatch):
    engine = make_engine()
    switches = iter(range(0, 1000, 3))
    monkeypatch.setattr(
        "frieda.transports.polling.resource.getrusage",
        lambda _: type("Usage", (), {"ru_nivcsw": next(switches), "ru_nvcsw": 0}),
    )
    monkeypatch.setattr(
        "frieda.transports.polling.time.thread_time_ns", lambda: clock.monotonic_ns() // 2
    )
    engine.start()
    engine.note_activity()
    for _ in range(6):
        clock.advance(INTERVAL_NS / 1e9)
        engine.note_activity()
        await turns(MANY)
    assert engine.statistics.fallbacks == {"preempted": 1}
    assert engine.statistics.state == "barred"


async def test_losing_the_core_in_many_short_spins_makes_it_sleep_too(
    make_engine, clock, monkeypatch
):
    engine = make_engine()
    switches = iter(range(0, 100_000, 3))
    monkeypatch.setattr(
        "frieda.transports.polling.resource.getrusage",
        lambda _: type("Usage", (), {"ru_nivcsw": next(switches), "ru_nvcsw": 0}),
    )
    monkeypatch.setattr(
        "frieda.transports.polling.time.thread_time_ns", lambda: clock.monotonic_ns() // 2
    )
    engine.start()
    for _ in range(40):  # 3 ms of spinning in 4: never the 20 ms that are judged
        engine.note_activity()
        await turns(MANY)
        clock.advance(0.003)
        await turns(MANY)
        if engine.statistics.state == "barred":
            break
        assert engine.statistics.state == "asleep"
        clock.advance(0.001)
    assert engine.statistics.fallbacks == {"preempted": 1}
    assert 10 <= engine.statistics.spins <= 20


async def test_a_spinner_looks_at_itself_seldom_until_time_is_missing_and_then_closely(
    make_engine, clock, monkeypatch
):
    looks = []

    def usage(_):
        looks.append(clock.monotonic_ns())
        return type("Usage", (), {"ru_nivcsw": 0, "ru_nvcsw": 0})

    async def spin(seconds):
        before = len(looks)
        for _ in range(round(seconds / 0.0005)):
            clock.advance(0.0005)  # less than a gap
            engine.note_activity()
            await turns(TICKS_BETWEEN_LOOKS)
        return len(looks) - before

    monkeypatch.setattr("frieda.transports.polling.resource.getrusage", usage)
    monkeypatch.setattr("frieda.transports.polling.time.thread_time_ns", clock.monotonic_ns)
    engine = make_engine()
    engine.start()
    await spin(0.01)
    assert await spin(0.2) <= 1
    clock.advance(2 * GAP_NS / 1e9)
    assert 5 <= await spin(0.2) <= 11
    await spin(0.1)
    assert await spin(0.2) <= 1


async def test_a_source_that_needs_no_inner_spin_is_polled_once_a_turn(make_engine, clock):
    engine = make_engine("busy")
    patient, eager = Source(clock), Source(clock)
    engine.start()
    engine.add_source(patient, inner=False)
    await turns(50)
    assert patient.polls <= 52
    engine.add_source(eager)
    before = patient.polls
    await turns(50)
    assert patient.polls - before >= 60
    assert eager.polls >= 60
    engine.remove_source(eager)
    before = patient.polls
    await turns(50)
    assert patient.polls - before <= 52


async def test_sources_are_polled_while_spinning_and_armed_before_sleeping(make_engine, clock):
    engine = make_engine()
    source = Source(clock)
    engine.start()
    engine.add_source(source)
    await turns(5)
    assert source.polls > 0
    arms = source.arms
    source.late_event = True
    for _ in range(MANY):
        await turns(1)
        if engine.statistics.state == "asleep":
            break
    assert engine.statistics.state == "asleep"
    assert source.arms == arms + 2  # the first time something had come just then
    assert engine.statistics.sleeps == 1
    engine.remove_source(source)
    polls = source.polls
    engine.note_activity()
    await turns(5)
    assert source.polls == polls


async def test_events_of_a_source_are_activity(make_engine, clock):
    engine = make_engine()
    source = Source(clock)
    engine.start()
    engine.add_source(source)
    start_ns = clock.monotonic_ns()
    while clock.monotonic_ns() < start_ns + 5 * WINDOW_US * 1000:
        source.events.append("event")
        await turns(1)
        assert engine.spinning


async def test_a_source_that_fails_is_dropped_and_reported_and_the_engine_goes_on(
    make_engine, clock
):
    reports = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    engine = make_engine()
    source = Source(clock)
    engine.start()
    source.poll = lambda: 1 // 0
    engine.add_source(source)
    await turns(MANY)
    assert isinstance(reports[0]["exception"], ZeroDivisionError)
    assert len(reports) == 1
    clock.advance(0.003)
    await turns(MANY)
    assert engine.statistics.state == "asleep"


async def test_without_a_census_file_it_works_and_says_so(clock):
    engine = PollingEngine("adaptive", clock=clock, make_census=lambda: Census("/proc/nowhere"))
    engine.start()
    engine.note_activity()
    await turns(5)
    assert engine.spinning
    assert "/proc/nowhere" in engine.statistics.census
    engine.close()


async def test_close_ends_the_spin_and_may_be_repeated(make_engine):
    engine = make_engine("busy")
    engine.start()
    await turns(3)
    engine.close()
    engine.close()
    await turns(5)
    engine.note_activity()
    assert engine.statistics.state == "stopped"


async def test_an_engine_drives_one_loop_only(make_engine):
    engine = make_engine()
    engine.start()
    with pytest.raises(ConfigError, match="own"):
        engine.start()


@pytest.mark.parametrize(("mode", "window_us"), [("sometimes", 1), ("adaptive", -1)])
def test_nonsense_settings_are_config_errors(mode, window_us):
    with pytest.raises(ConfigError):
        PollingEngine(mode, window_us)


def test_an_interval_is_what_the_policy_takes():
    assert SpinInterval(100, 50, 1, 0).lost_share == 0.5
