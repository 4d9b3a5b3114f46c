"""The controller of a simulated cluster: the real rule of elections, applied to what it saw a moment ago. PURE."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from frieda.cluster.election import Decision, Reason, Tail, leads
from frieda.cluster.state import PartitionState
from frieda.testing.simulation.store import View

Election = tuple[int, PartitionState, Reason]


def elections(
    view: View, unclean_allowed: bool, decide: Callable[..., Decision]
) -> Iterator[Election]:
    """The elections that are due, and the members to take out of an ISR. `decide`: as in frieda.cluster.election."""
    for partition, state in enumerate(view.states):
        decision = decide(
            state,
            view.brokers,
            controller_epoch=view.controller_epoch,
            unclean=unclean_allowed,
            tails=_tails_of(view, partition),
        )
        if decision.state is not None:
            yield partition, decision.state, decision.reason


def certain_by_now(view: View) -> Iterator[tuple[int, int]]:
    """Brokers, and the number of their registration, whose doubtful logs play no part in any election any more."""
    for broker_id, registration in view.brokers.items():
        doubtful = any(
            broker_id in state.isr
            and not (state.leader == broker_id and leads(state, view.brokers))
            for state in view.states
        )
        if not registration.tail_certain and not doubtful:
            yield broker_id, registration.number


def _tails_of(view: View, partition: int) -> dict[int, Tail]:
    return {
        broker_id: view.tails[broker_id].get(partition, Tail(-1, 0))
        for broker_id, registration in view.brokers.items()
        if not registration.tail_certain
    }
