"""A simulated cluster under schedules of faults: whatever happens, what was promised holds."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from frieda.testing.effort import examples
from frieda.testing.simulation.broker import SimulatedBroker
from frieda.testing.simulation.chaos import main
from frieda.testing.simulation.cluster import Outcome, Plan, draw_plan, simulate
from frieda.testing.simulation.faults import FAULTS, Fault
from frieda.testing.simulation.world import SECOND

SCHEDULES = 400
PARTS = 5
BEYOND_DRAWN_SEEDS = 1_000_000


def sound(plan: Plan) -> Outcome:
    """Run a plan; a failure prints its seed and the last steps."""
    outcome = simulate(plan)
    assert outcome.anomaly is None, "\n" + outcome.report()
    return outcome


@pytest.mark.parametrize("part", range(PARTS))
def test_random_schedules_keep_every_promise(part: int) -> None:
    count = examples(SCHEDULES) // PARTS
    totals: Counter[str] = Counter()
    for seed in range(part * count, (part + 1) * count):
        totals.update(sound(draw_plan(BEYOND_DRAWN_SEEDS + seed)).counts)
    assert totals["acknowledged"] > 50 * count
    assert totals["elections"] > 2 * count


def test_a_seed_is_a_schedule() -> None:
    first, second = simulate(draw_plan(4711)), simulate(draw_plan(4711))
    assert (first.events, first.counts, first.plan) == (second.events, second.counts, second.plan)
    assert simulate(draw_plan(4712)).events != first.events


def fault(at_s: float, lasts_s: float, name: str, choice: float = 0.0) -> Fault:
    """`choice` 0: the first broker, which leads at first."""
    return Fault(int(at_s * SECOND), int(lasts_s * SECOND), name, choice)


def case(*faults: Fault, **settings: Any) -> Plan:
    return replace(Plan(seed=0, faults=faults), **settings)


SECOND_BROKER = 0.4
THIRD_BROKER = 0.8
CUT_FROM_ALL = 0.01  # also from the metadata store
CUT_FROM_BROKERS = 0.08

CASES = {
    "the leader is killed": case(fault(2, 2, "kill the leader")),
    "two leaders are killed one after the other": case(
        fault(2, 3, "kill the leader"), fault(3.6, 2, "kill the leader")
    ),
    "a follower is killed and comes back with a divergent tail": case(
        fault(2, 0.2, "cut the leader off", CUT_FROM_ALL),
        fault(2.1, 3, "kill the leader"),
        acks=(1, 1),
    ),
    "a leader is frozen past its session and wakes as a zombie": case(
        fault(2, 2.5, "freeze the leader"), acks=(-1, 1)
    ),
    "the leader is cut off from all": case(
        fault(2, 2.5, "cut the leader off", CUT_FROM_ALL), acks=(-1, 1)
    ),
    "the leader is cut off from its followers alone": case(
        fault(2, 2.5, "cut the leader off", CUT_FROM_BROKERS)
    ),
    "the leader is cut off from the metadata store": case(
        fault(2, 2.5, "cut the leader off from the store"), acks=(-1, 1)
    ),
    "nothing gets into the leader": case(fault(2, 2.5, "cut one way", 0.0)),
    "nothing gets out of the leader": case(fault(2, 2.5, "cut one way", 0.06)),
    "a follower cannot answer": case(fault(2, 2.5, "cut one way", 0.97)),
    "the last replica stands alone": case(
        fault(1.5, 5, "kill a broker", SECOND_BROKER),
        fault(2.5, 4, "kill a broker", THIRD_BROKER),
        min_insync=1,
    ),
    "fewer are in sync than demanded": case(
        fault(1.5, 5, "kill a broker", SECOND_BROKER),
        fault(2.5, 4, "kill a broker", THIRD_BROKER),
        min_insync=2,
    ),
    "the metadata store is away": case(fault(2, 3, "stop the store"), acks=(-1, 1)),
    "links lose, double, delay and reorder": case(
        fault(1.5, 2, "storm", 0.777), fault(4, 2, "storm", 0.333)
    ),
    "a clock jumps": case(fault(2, 3, "jump of a clock"), acks=(-1, 1)),
    "a disk is full": case(fault(2, 2, "disk full"), fault(3, 2, "disk full", THIRD_BROKER)),
    "a follower is very slow": case(fault(2, 4, "slow broker", THIRD_BROKER)),
    "leaders stop gracefully in turn": case(
        fault(2, 1, "graceful stop"), fault(4, 1, "graceful stop"), acks=(-1, 1)
    ),
    "the machine of a follower blinks": case(
        fault(2, 0, "power blinks at a broker", THIRD_BROKER),
        fault(3.5, 3, "kill the leader"),
    ),
    "power is lost everywhere, and all was synced": case(
        fault(2, 1, "power lost everywhere"),
        fault(4.5, 1, "power lost everywhere"),
        flush_batch=True,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_lost_when(name: str) -> None:
    for seed in range(examples(5)):
        outcome = sound(replace(CASES[name], seed=seed))
        assert outcome.counts["excused"] == 0
        assert outcome.counts["acknowledged"] > 20


def kill_at(
    monkeypatch: pytest.MonkeyPatch, method: str, count: int, *, before: bool
) -> list[SimulatedBroker]:
    """Whichever broker comes to call `method` for the `count`th time is killed before or after it, for a second.

    Returns the list in which it then stands.
    """
    original = getattr(SimulatedBroker, method)
    calls = 0
    killed: list[SimulatedBroker] = []

    def kill(broker: SimulatedBroker) -> None:
        killed.append(broker)
        broker.kill()
        broker.world.after(SECOND, broker.start)

    def counted(broker: SimulatedBroker, *arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == count and before:
            kill(broker)
        else:
            original(broker, *arguments)
            if calls == count:
                kill(broker)

    monkeypatch.setattr(SimulatedBroker, method, counted)
    return killed


@pytest.mark.parametrize(
    ("moment", "method", "before"),
    [
        ("after the append and before the acknowledgement", "appended", True),
        ("when it was about to acknowledge", "answer", True),
        ("just after it acknowledged", "answer", False),
    ],
)
def test_nothing_is_lost_or_doubled_when_the_leader_is_killed(
    monkeypatch: pytest.MonkeyPatch, moment: str, method: str, before: bool
) -> None:
    killed = kill_at(monkeypatch, method, 61, before=before)
    outcome = sound(case(acks=(-1, -1)))
    assert len(killed) == 1, moment
    assert outcome.counts["elections"] == 2


def test_with_acks_1_a_new_leader_that_lacks_the_tail_makes_the_producer_take_a_new_epoch() -> None:
    plan = case(
        fault(2, 0.8, "cut the leader off", CUT_FROM_BROKERS),
        fault(2.4, 3, "kill the leader"),
        acks=(1,),
    )
    new_epochs = sum(
        sound(replace(plan, seed=seed)).counts["new producer epochs"] for seed in range(5)
    )
    assert new_epochs > 0


def test_power_lost_everywhere_loses_no_more_than_what_no_replica_in_sync_had() -> None:
    plan = case(fault(2, 1, "power lost everywhere"), fault(5, 1, "power lost everywhere"))
    excused = sum(sound(replace(plan, seed=seed)).counts["excused"] for seed in range(examples(8)))
    assert excused > 0


@pytest.mark.parametrize("unclean", [False, True])
def test_an_election_from_outside_the_isr_loses_records_only_where_it_is_allowed(
    unclean: bool,
) -> None:
    plan = case(
        fault(1.5, 3, "kill a broker", SECOND_BROKER),
        fault(1.6, 3, "kill a broker", THIRD_BROKER),
        fault(3.5, 4, "kill a broker"),
        min_insync=1,
        unclean=unclean,
    )
    excused = sum(sound(replace(plan, seed=seed)).counts["excused"] for seed in range(examples(5)))
    assert (excused > 0) is unclean


def test_the_command_runs_as_many_schedules_as_it_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--schedules", "4", "--first", "10", "--processes", "1"]) == 0
    assert capsys.readouterr().out.startswith("4 schedules, seeds 10 to 13: no anomaly.")


def test_every_kind_of_fault_is_drawn() -> None:
    drawn = {fault.name for seed in range(100) for fault in draw_plan(seed).faults}
    assert drawn == set(FAULTS)
