"""Who leads next: the rule of an election, as the simulation's controller applies it. PURE.

- Without a leader, or with one that is not there: the first of the replicas, in their order, that is in the ISR, is
  there, and has a certain tail. The new ISR is what of the old one is there and certain.
- When nobody can be elected so, and the topic allows it: any replica that is there (unclean).
- When all of the last ISR were started anew with an uncertain tail: once all of them are there again, the replica that
  holds most, by (latest leader epoch, end), also one from outside the ISR: it may hold what they lost, and then they
  must not cut it ("last replica standing", KIP-966).
- A member of the ISR that was started anew with an uncertain tail leaves it, while there is a leader.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from frieda.cluster.state import NO_LEADER, PartitionState
from frieda.testing.simulation.store import Election, StoredPartition, View

Decision = tuple[int, PartitionState, Election]


def decide(
    view: View,
    unclean_allowed: tuple[bool, ...],
    rule: Callable[..., tuple[PartitionState, Election] | None],
) -> Iterator[Decision]:
    """The elections that are due, and the members to take out: (partition, new state, how). `rule`: `elect`."""
    alive = frozenset(view.registrations)
    for partition, stored in enumerate(view.partitions):
        decision = rule(stored, alive, unclean_allowed=unclean_allowed[partition])
        if decision is not None:
            state, how = decision
            yield partition, replace(state, controller_epoch=view.controller_epoch), how


def elect(
    stored: StoredPartition, alive: frozenset[int], *, unclean_allowed: bool
) -> tuple[PartitionState, Election] | None:
    """The next state of one partition, or None when it stays as it is."""
    state, uncertain = stored.state, stored.uncertain
    if state.leader in alive:
        if not uncertain.keys() - {state.leader}:
            return None
        kept = tuple(m for m in state.isr if m not in uncertain or m == state.leader)
        return (replace(state, isr=kept), Election.CLEAN) if kept != state.isr else None
    candidates = [
        replica
        for replica in state.replicas
        if replica in state.isr and replica in alive and replica not in uncertain
    ]
    if candidates:
        isr = tuple(m for m in state.isr if m in candidates)
        return _led_by(state, candidates[0], isr), Election.CLEAN
    present = [replica for replica in state.replicas if replica in alive]
    if unclean_allowed and present:
        return _led_by(state, present[0], (present[0],)), Election.UNCLEAN
    if all(member in uncertain for member in state.isr) and alive.issuperset(state.isr):
        if all(replica in stored.positions for replica in present):
            best = max(present, key=lambda replica: stored.positions[replica])
            return _led_by(state, best, (best,)), Election.LAST_RESORT
    elif state.leader != NO_LEADER:
        leaderless = replace(state, leader=NO_LEADER, leader_epoch=state.leader_epoch + 1)
        return leaderless, Election.CLEAN
    return None


def _led_by(state: PartitionState, leader: int, isr: tuple[int, ...]) -> PartitionState:
    return replace(state, leader=leader, leader_epoch=state.leader_epoch + 1, isr=isr)
