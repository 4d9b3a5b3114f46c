"""Each rule switched off in turn: the simulation must see what comes of it, which proves that its checks can fail."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest

from frieda.cluster.election import Decision, Reason, decide
from frieda.cluster.state import PartitionState
from frieda.replication import stream
from frieda.replication.effects import Acknowledge, Effect
from frieda.replication.epochs import Agreement, ReplicaLog
from frieda.replication.follower import Follower
from frieda.replication.leader import ACKS_ALL, ACKS_LEADER, Leader
from frieda.replication.lease import Lease
from frieda.replication.messages import Answer, Begin, ToFollower
from frieda.testing.simulation.cluster import draw_plan, simulate
from frieda.testing.simulation.faults import draw_faults
from frieda.testing.simulation.rules import REAL, Rules
from frieda.testing.simulation.world import MS, SECOND

SEEDS = 300


def first_anomaly(
    rules: Rules, faults: tuple[str, ...], settings: dict[str, Any], seeds: int = SEEDS
) -> str | None:
    """The first in this many schedules; of these kinds of faults, when there are any, and with these settings."""
    for seed in range(seeds):
        plan = draw_plan(seed)
        if faults:
            drawn = draw_faults(Random(seed), 10, 1 * SECOND, plan.lasts_ms * MS, faults)
            plan = replace(plan, faults=tuple(drawn), unclean=False)
        outcome = simulate(replace(plan, **settings), rules)
        if outcome.anomaly is not None:
            return outcome.anomaly.name
    return None


class AcknowledgesAtOnce(Leader):
    """acks=all is answered when the leader has it."""

    __slots__ = ()

    def _await(self, end_offset: int, acks: int, token: object, now_ns: int) -> None:
        super()._await(end_offset, ACKS_LEADER if acks == ACKS_ALL else acks, token, now_ns)


class AnswersRetriesAtOnce(Leader):
    __slots__ = ()

    def repeated(self, end_offset: int, acks: int, token: object, now_ns: int) -> list[Effect]:
        return [Acknowledge(token, None)]


class IgnoresTheLease(Leader):
    __slots__ = ()

    def _lease_holds(self, now_ns: int) -> bool:
        return True


class CommitsOverTheProposedIsr(Leader):
    """The high watermark over the set that was asked for, while a change is under way."""

    __slots__ = ()

    def _committed_offset(self) -> int:
        self._in_sync.maximal = self._in_sync.proposed or self._in_sync.agreed
        return super()._committed_offset()


class CommitsAlone(Leader):
    """min_insync_replicas is not asked for."""

    __slots__ = ()

    def _committed_offset(self) -> int:
        return self._led.log.safe_offset


class DoesNotFence(Follower):
    __slots__ = ()

    def received(self, sender: int, message: ToFollower) -> list[Effect]:
        if message.leader_epoch < self._epoch:
            self._epoch = message.leader_epoch
            self._leave()
        return super().received(sender, message)


class CutsToTheHighWatermark(Follower):
    """What Kafka did before KIP-101."""

    __slots__ = ()

    def _on_begin(self, sender: int, begin: Begin) -> None:
        offset = min(begin.offset, self.high_watermark)
        super()._on_begin(sender, begin._replace(offset=offset))


class EternalLease(Lease):
    __slots__ = ()

    def holds(self, now_ns: int) -> bool:
        return True


class LeaseOfTheLastAnswer(Lease):
    """Counted from now, which is when the answer came; and to the very end of the session."""

    __slots__ = ()

    def answered(self, sent_ns: int) -> None:
        super().answered(sent_ns + self._duration_ns)


def the_shorter_end(log: ReplicaLog, answer: Answer) -> Agreement:
    """The shorter of the two ends, whatever the epochs."""
    return Agreement(min(log.log_end_offset, answer.log_end_offset))


def elects_anyone(state: PartitionState, brokers: Any, **settings: Any) -> Decision:
    """As if every election that is not clean were."""
    decision = decide(state, brokers, **(settings | {"unclean": True}))
    return replace(decision, reason=Reason.CLEAN)


def trusts_every_tail(state: PartitionState, brokers: Any, **settings: Any) -> Decision:
    certain = {i: replace(broker, tail_certain=True) for i, broker in brokers.items()}
    return decide(state, certain, **settings)


SWITCHED_OFF = {
    "acks=all waits for the high watermark": (Rules(leader=AcknowledgesAtOnce), (), {}),
    "a retry waits as the batch does": (Rules(leader=AnswersRetriesAtOnce), (), {}),
    "an acknowledgement asks for the lease": (
        Rules(leader=IgnoresTheLease),
        ("freeze the leader", "slow broker"),
        {"acks": (1, -1), "flush_batch": True, "period_ms": 15},
    ),
    "a lease ends": (Rules(lease=EternalLease), ("cut the leader off from the store",), {}),
    "a lease ends before the session does": (
        Rules(lease=LeaseOfTheLastAnswer),
        ("cut the leader off from the store", "slow store"),
        {"acks": (1, 1)},
    ),
    "the high watermark counts the maximal ISR": (
        Rules(leader=CommitsOverTheProposedIsr),
        ("slow broker", "slow store", "kill the leader"),
        {},
    ),
    "the high watermark waits for the ISR": (Rules(leader=CommitsAlone), (), {}),
    "a follower fences what is older": (
        Rules(follower=DoesNotFence),
        ("restart a broker", "freeze the leader"),
        {"replica_lag_ms": 1500},
    ),
    "a cut goes by epochs, not by the high watermark": (
        Rules(follower=CutsToTheHighWatermark),
        ("freeze the leader", "kill the leader", "slow broker"),
        {"period_ms": 25, "replica_lag_ms": 1500, "min_insync": 1},
    ),
    "an election is clean": (Rules(decide=elects_anyone), (), {}),
    "a doubtful tail is not elected": (Rules(decide=trusts_every_tail), (), {}),
    "a broker leads only in the life that was elected": (
        Rules(minds_its_life=False),
        ("power blinks at a broker",),
        {"flush_batch": False},
    ),
    "a reader waits for a leader that knows the end": (Rules(waits_for_the_end=False), (), {}),
    "a leader is sealed before it hands over": (
        Rules(seals=False),
        ("graceful stop",),
        {"acks": (1, 1)},
    ),
}


@pytest.mark.parametrize("rule", SWITCHED_OFF)
def test_without_this_rule_the_simulation_finds_an_anomaly(rule: str) -> None:
    rules, faults, settings = SWITCHED_OFF[rule]
    assert first_anomaly(rules, faults, settings) is not None


@pytest.mark.parametrize("rule", [rule for rule, case in SWITCHED_OFF.items() if case[1]])
def test_with_this_rule_the_same_schedules_are_sound(rule: str) -> None:
    _, faults, settings = SWITCHED_OFF[rule]
    assert first_anomaly(REAL, faults, settings, seeds=6) is None


def test_a_schedule_that_fails_prints_its_seed_its_faults_and_the_last_steps() -> None:
    plan = replace(draw_plan(7), replication_factor=3, min_insync=2, unclean=False)
    outcome = simulate(plan, Rules(leader=CommitsAlone))
    assert outcome.anomaly is not None
    report = outcome.report()
    assert report.startswith("seed 7: ")
    assert all(str(fault) in report for fault in plan.faults)
    assert "registers as" in report
    assert report.endswith(str(outcome.anomaly))
    assert outcome.anomaly.name == "too-few-copies"


def test_without_the_epochs_logs_diverge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "agreement", the_shorter_end)
    anomaly = first_anomaly(REAL, ("kill the leader", "power lost at the leader", "storm"), {})
    assert anomaly is not None
