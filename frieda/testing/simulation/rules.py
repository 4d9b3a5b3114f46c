"""The parts that a simulation is put together from: the real ones, or one in which a rule is switched off. PURE."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from frieda.cluster.state import PartitionState
from frieda.replication.follower import Follower
from frieda.replication.leader import Leader
from frieda.replication.lease import Lease
from frieda.testing.simulation.controller import elect
from frieda.testing.simulation.store import Election

Elect = Callable[..., tuple[PartitionState, Election] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What decides. A test of the checks replaces one of them."""

    leader: type[Leader] = Leader
    follower: type[Follower] = Follower
    lease: type[Lease] = Lease
    elect: Elect = elect
    resigns: bool = True
    """A broker that is started anew gives up what it led before it registers."""
    checks_incarnations: bool = True
    """A change of the ISR fails when a member that it adds was started anew since."""
    waits_for_the_end: bool = True
    """A reader that is ahead of a leader waits until that knows the end."""


REAL: Rules = Rules()
