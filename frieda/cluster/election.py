"""Who leads a partition, and who stays in its ISR, when brokers come, go, stop or return without their tail. PURE.

The rules, the first that fits:

| the leader | the ISR | then |
| --- | --- | --- |
| is there, in the life that was elected | all there and certain | nothing |
| the same | a member is gone, uncertain or stopping | it leaves the ISR; leader and epoch stay |
| is stopping | another sound member | the other leads under the next epoch |
| is stopping | no other | it stays as long as it can |
| is not | a sound member | the first of the replicas that is one leads, a former leader before others |
| is not | every member there, none certain | the one with the longest log leads, alone in the ISR |
| is not | otherwise, unclean allowed | the best replica that is there leads, alone in the ISR |
| is not | otherwise | nobody leads; the ISR stays as it was last agreed on, and those are waited for |

Sound: in the ISR, there, and certain of its tail or the leader that was elected in this life. The sixth row is the
"last replica standing" of KIP-966, settled by (last leader epoch, log end offset) as Kafka's unclean recovery does.
A log is the longer one by its epoch first: what an older leader appended and nobody took over counts for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, NamedTuple

from frieda.cluster.state import NO_LEADER, BrokerRegistration, PartitionState


class Tail(NamedTuple):
    """Where a log ends: compared as a whole."""

    leader_epoch: int
    end_offset: int


class Reason(Enum):
    """Why a decision was taken; the value is for people."""

    IN_ORDER = "its leader is there"
    ISR_SHRUNK = "members of the ISR are gone, stopping or not certain of their tail"
    HANDED_OVER = "its leader is stopping"
    CLEAN = "the first replica in sync leads"
    PREFERRED = "the preferred leader is in sync"
    LONGEST_LOG = "no replica in sync is certain of its tail; the one with the longest log leads"
    UNCLEAN = "no replica in sync is there; another leads, records may be lost (unclean.leader.election.enable)"
    AWAITING_ISR = "no replica in sync is there that is certain of its tail"
    AWAITING_TAILS = "it is not known yet where the logs of the replicas in sync end"
    NOT_IN_SYNC = "the preferred leader is not in sync"


@dataclass(frozen=True, slots=True)
class Decision:
    """`state` is what the partition shall become; None: it stays as it is."""

    reason: Reason
    state: PartitionState | None = None
    awaited: tuple[int, ...] = ()
    """Brokers without which there is no leader."""


_NO_TAILS: Final[Mapping[int, Tail]] = {}


def decide(
    state: PartitionState,
    brokers: Mapping[int, BrokerRegistration],
    *,
    controller_epoch: int,
    unclean: bool = False,
    tails: Mapping[int, Tail] = _NO_TAILS,
) -> Decision:
    """What follows for a partition from who is there. `tails`: of uncertain brokers, as far as known."""
    sound = _sound(state, brokers)
    steady = tuple(broker for broker in sound if not brokers[broker].stopping)
    if leads(state, brokers):
        if not brokers[state.leader].stopping:
            return _shrink(state, steady, controller_epoch)
        if steady:
            winner = _first(state, steady)
            return Decision(
                Reason.HANDED_OVER, _elected(state, winner, steady, brokers, controller_epoch)
            )
        return _shrink(state, sound, controller_epoch)
    if sound:
        candidates = steady or sound
        winner = _first(state, candidates)
        return Decision(
            Reason.CLEAN, _elected(state, winner, candidates, brokers, controller_epoch)
        )
    return _without_sound_member(state, brokers, controller_epoch, unclean, tails)


def prefer(
    state: PartitionState, brokers: Mapping[int, BrokerRegistration], *, controller_epoch: int
) -> Decision:
    """Leadership back to the first replica, when that is in sync and stays."""
    preferred = state.replicas[0]
    if state.leader == preferred and leads(state, brokers):
        return Decision(Reason.IN_ORDER)
    sound = _sound(state, brokers)
    if preferred not in sound or brokers[preferred].stopping:
        return Decision(Reason.NOT_IN_SYNC, awaited=(preferred,))
    isr = tuple(broker for broker in sound if not brokers[broker].stopping)
    return Decision(Reason.PREFERRED, _elected(state, preferred, isr, brokers, controller_epoch))


def hand_to(
    state: PartitionState,
    candidates: tuple[int, ...],
    brokers: Mapping[int, BrokerRegistration],
    *,
    controller_epoch: int,
) -> PartitionState | None:
    """The state under the first of `candidates` that is sound and stays, or None when none is. The ISR stays."""
    for broker in candidates:
        if broker in _sound(state, brokers) and not brokers[broker].stopping:
            return _elected(state, broker, state.isr, brokers, controller_epoch)
    return None


def leads(state: PartitionState, brokers: Mapping[int, BrokerRegistration]) -> bool:
    """Whether the leader is there, in the life in which it was elected."""
    registration = brokers.get(state.leader)
    return registration is not None and registration.incarnation == state.leader_incarnation


def _sound(state: PartitionState, brokers: Mapping[int, BrokerRegistration]) -> tuple[int, ...]:
    leader = state.leader if leads(state, brokers) else NO_LEADER
    return tuple(
        broker
        for broker in state.isr
        if broker == leader or (broker in brokers and brokers[broker].tail_certain)
    )


def _first(state: PartitionState, candidates: tuple[int, ...]) -> int:
    """The first of the replicas, those that are on their way out last.

    A leader that is back in another life goes before the others: it alone may have what acks=1 promised.
    """
    order = {broker: position for position, broker in enumerate(state.replicas)}
    return min(
        candidates,
        key=lambda broker: (
            broker in state.removing,
            broker != state.leader,
            order.get(broker, len(order)),
        ),
    )


def _shrink(state: PartitionState, isr: tuple[int, ...], controller_epoch: int) -> Decision:
    if isr == state.isr:
        return Decision(Reason.IN_ORDER)
    return Decision(Reason.ISR_SHRUNK, replace(state, isr=isr, controller_epoch=controller_epoch))


def _without_sound_member(
    state: PartitionState,
    brokers: Mapping[int, BrokerRegistration],
    controller_epoch: int,
    unclean: bool,
    tails: Mapping[int, Tail],
) -> Decision:
    absent = tuple(broker for broker in state.isr if broker not in brokers)
    unknown = tuple(broker for broker in state.isr if broker not in tails)
    order = {broker: -position for position, broker in enumerate(state.replicas)}

    def longest(candidates: tuple[int, ...]) -> int:
        return max(
            candidates, key=lambda broker: (tails.get(broker, Tail(-1, -1)), order.get(broker, -99))
        )

    if state.isr and not absent and (not unknown or len(state.isr) == 1):
        winner = longest(state.isr)
        reason = Reason.LONGEST_LOG
    else:
        members = tuple(broker for broker in state.isr if broker in brokers)
        others = tuple(broker for broker in state.replicas if broker in brokers)
        candidates = members or others
        if not unclean or not candidates:
            waiting = Reason.AWAITING_ISR if absent or not unknown else Reason.AWAITING_TAILS
            return _leaderless(state, controller_epoch, waiting, absent or unknown)
        steady = tuple(broker for broker in candidates if not brokers[broker].stopping)
        winner = longest(steady or candidates)
        reason = Reason.UNCLEAN
    return Decision(reason, _elected(state, winner, (winner,), brokers, controller_epoch))


def _leaderless(
    state: PartitionState, controller_epoch: int, reason: Reason, awaited: tuple[int, ...]
) -> Decision:
    if state.leader == NO_LEADER:
        return Decision(reason, awaited=awaited)
    after = replace(
        state, leader=NO_LEADER, leader_incarnation="", controller_epoch=controller_epoch
    )
    return Decision(reason, after, awaited)


def _elected(
    state: PartitionState,
    leader: int,
    isr: tuple[int, ...],
    brokers: Mapping[int, BrokerRegistration],
    controller_epoch: int,
) -> PartitionState:
    return replace(
        state,
        leader=leader,
        leader_incarnation=brokers[leader].incarnation,
        leader_epoch=state.leader_epoch + 1,
        isr=isr,
        controller_epoch=controller_epoch,
    )
