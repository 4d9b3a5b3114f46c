"""Moving a partition to other brokers, one compare-and-set after the other. PURE.

| step | what is written |
| --- | --- |
| begin | the new replicas join the old ones: `replicas` = target, then the old; `adding`, `removing` say which |
| wait | nothing: the new ones catch up, and the leader takes each into the ISR |
| finish | once every new replica is in the ISR and one of the target can lead: leader and ISR from the target alone |
| cancel | instead of finish: the same the other way round |

Between begin and finish the partition works as always, also when brokers come and go and when another controller
takes over, since all there is to know stands in the partition's state. A broker that is no replica any more removes
its log. Source: KIP-455.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

from frieda.cluster.election import hand_to, leads
from frieda.cluster.state import BrokerRegistration, PartitionState


class Stage(Enum):
    """How far a reassignment is; the value is for people."""

    NONE = "no reassignment is under way"
    CATCHING_UP = "new replicas are catching up"
    AWAITING_LEADER = "no new replica can lead yet"
    READY = "every new replica is in sync"


@dataclass(frozen=True, slots=True)
class Step:
    """`state` is what the partition shall become; None: nothing is to be done now."""

    stage: Stage
    state: PartitionState | None = None
    awaited: tuple[int, ...] = ()
    """New replicas that are not in sync yet."""


def target_of(state: PartitionState) -> tuple[int, ...]:
    """The replicas when everything is done."""
    return tuple(broker for broker in state.replicas if broker not in state.removing)


def origin_of(state: PartitionState) -> tuple[int, ...]:
    """The replicas as they were before."""
    return tuple(broker for broker in state.replicas if broker not in state.adding)


def begin(state: PartitionState, target: tuple[int, ...]) -> PartitionState | None:
    """Set out for `target`, whose first is to be the preferred leader; None when it is so already.

    A reassignment that is under way is turned: what it has added and the new target lacks goes again.
    """
    origin = origin_of(state)
    adding = tuple(broker for broker in target if broker not in origin)
    removing = tuple(broker for broker in origin if broker not in target)
    replicas = target + removing
    given_up = tuple(broker for broker in state.replicas if broker not in replicas)
    if (replicas, adding, removing) == (state.replicas, state.adding, state.removing):
        return None
    if state.leader in given_up or not set(state.isr) - set(given_up):
        # It has led since it was added: it stays until another can.
        removing += tuple(broker for broker in given_up if broker in state.isr)
        replicas = target + removing
    isr = tuple(broker for broker in state.isr if broker in replicas)
    return replace(state, replicas=replicas, adding=adding, removing=removing, isr=isr)


def cancel(state: PartitionState) -> PartitionState | None:
    """Set out for where it came from; None when nothing is under way."""
    if not is_under_way(state):
        return None
    return begin(state, origin_of(state))


def is_under_way(state: PartitionState) -> bool:
    """Whether the replicas are on their way to others."""
    return bool(state.adding or state.removing)


def step(
    state: PartitionState, brokers: Mapping[int, BrokerRegistration], *, controller_epoch: int
) -> Step:
    """What is to be done now for a reassignment. Elections that are due come first (`frieda.cluster.election`)."""
    if not is_under_way(state):
        return Step(Stage.NONE)
    target = target_of(state)
    awaited = tuple(broker for broker in state.adding if broker not in state.isr)
    if awaited:
        return Step(Stage.CATCHING_UP, awaited=awaited)
    after = state
    if state.leader not in target or not leads(state, brokers):
        handed = hand_to(state, target, brokers, controller_epoch=controller_epoch)
        if handed is None:
            return Step(Stage.AWAITING_LEADER)
        after = handed
    done = replace(
        after,
        replicas=target,
        adding=(),
        removing=(),
        isr=tuple(broker for broker in after.isr if broker in target),
        controller_epoch=controller_epoch,
    )
    return Step(Stage.READY, done)
