"""The parts that a simulation is put together from: the real ones, or one in which a rule is switched off. PURE."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from frieda.cluster.election import Decision, decide
from frieda.replication.follower import Follower
from frieda.replication.leader import Leader
from frieda.replication.lease import Lease


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What decides. A test of the checks replaces one of them."""

    leader: type[Leader] = Leader
    follower: type[Follower] = Follower
    lease: type[Lease] = Lease
    decide: Callable[..., Decision] = decide
    """The rule of elections."""
    minds_its_life: bool = True
    """A broker leads only what it was elected for in this life."""
    sessions_are_lives: bool = True
    """A broker that has lost its session registers as a new incarnation, and leads only what it is elected for then."""
    seals: bool = True
    """Before it says that it will stop, a broker brings those in sync to the end of what it leads."""
    checks_incarnations: bool = True
    """A change of the ISR fails when a member that it adds was started anew since."""
    waits_for_the_end: bool = True
    """A reader that is ahead of a leader waits until that knows the end."""


REAL: Rules = Rules()
