"""When may a process keep a core busy by polling? The decision, as a function of what was observed.

PURE: the time and every observation are arguments. Spinning pays only while each spinner has a core to itself
(measured on two cores: five spinners have a p99.9 of 16 ms where two have 0.15 ms). Three signs tell:

    CROWDED    more Frieda processes are active on these cores than there are cores (the census)
    PREEMPTED  the scheduler took the core away: involuntary context switches, and a share of the time lost
    LATE       time was lost without either kind of context switch: a hypervisor or a quota took it

CROWDED holds until the crowd has been gone for CALM_NS. The other two bar spinning for a penalty that doubles
from one relapse to the next and halves again after a long enough good time.
Measured: a spinner that has its core loses under 1% in an interval (1 in 10 of them up to 8%); one that shares
it with another loses 50%, with 2 to 3 involuntary switches in 20 ms.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

INTERVAL_NS: Final = 20_000_000
"""So much spinning is judged at once, in one piece or in several."""
ACCOUNT_NS: Final = 1_000_000_000
"""Pieces that lie further apart than this tell nothing together."""
CALM_NS: Final = 500_000_000
"""How long a crowd must be gone before spinning starts again: hysteresis."""
PENALTY_NS: Final = 100_000_000
"""The first penalty."""
MAX_PENALTY_NS: Final = 5_000_000_000
GOOD_PENALTIES: Final = 8
"""The penalty halves after this many times its length of spinning without trouble."""
PREEMPTED_SHARE: Final = 0.15
"""Share of an interval lost to others, with involuntary switches, that makes it a bad one."""
LATE_SHARE: Final = 0.25
"""Share of an interval lost without any switch that makes it a bad one."""
BAD_INTERVALS: Final = 2
"""So many bad intervals in a row are no accident."""


class Reason(Enum):
    """Why a process that would spin sleeps instead."""

    CROWDED = "crowded"
    PREEMPTED = "preempted"
    LATE = "late"


@dataclass(frozen=True, slots=True)
class SpinInterval:
    """What one interval of spinning was like; the sleep between its pieces is not part of it."""

    wall_ns: int
    cpu_ns: int
    involuntary_switches: int
    voluntary_switches: int

    @property
    def lost_share(self) -> float:
        """The share of the time in which the spinner did not run."""
        return max(0.0, 1.0 - self.cpu_ns / self.wall_ns) if self.wall_ns > 0 else 0.0

    @property
    def trouble(self) -> Reason | None:
        """What was wrong with it, if anything."""
        lost = self.lost_share
        if self.involuntary_switches and lost >= PREEMPTED_SHARE:
            return Reason.PREEMPTED
        # A voluntary switch means that a callback waited (for a disk, say): then lost time says nothing.
        if not self.involuntary_switches and not self.voluntary_switches and lost >= LATE_SHARE:
            return Reason.LATE
        return None


class SpinSample(NamedTuple):
    """The clocks and counters of a thread at one moment."""

    wall_ns: int
    cpu_ns: int
    involuntary_switches: int
    voluntary_switches: int


class SpinAccount:
    """Adds up pieces of spinning until they are long enough to be judged.

    Under a load that pauses now and then, or whose other end lost its core, no spin lasts long: judged one by one
    they would all be too short to tell anything.
    """

    __slots__ = ("_began_ns", "_since", "_total")

    def __init__(self) -> None:
        self._since: SpinSample | None = None
        self._total = (0, 0, 0, 0)
        self._began_ns = 0

    def begin(self, sample: SpinSample) -> None:
        """A spin begins."""
        self._since = sample
        if sample.wall_ns - self._began_ns > ACCOUNT_NS:
            self._total = (0, 0, 0, 0)
            self._began_ns = sample.wall_ns

    def look(self, sample: SpinSample) -> SpinInterval | None:
        """The spin goes on, or ends here: an interval to be judged, once there is enough of it."""
        since, self._since = self._since, sample
        if since is None:
            return None
        wall_ns, cpu_ns, involuntary, voluntary = self._total
        wall_ns += sample.wall_ns - since.wall_ns
        cpu_ns += sample.cpu_ns - since.cpu_ns
        involuntary += sample.involuntary_switches - since.involuntary_switches
        voluntary += sample.voluntary_switches - since.voluntary_switches
        if wall_ns < INTERVAL_NS:
            self._total = (wall_ns, cpu_ns, involuntary, voluntary)
            return None
        self._total = (0, 0, 0, 0)
        self._began_ns = sample.wall_ns
        return SpinInterval(wall_ns, cpu_ns, involuntary, voluntary)


class SpinPolicy:
    """The state of the decision for one event loop. Ask `bar` after each observation."""

    __slots__ = (
        "_bad",
        "_barred_until_ns",
        "_crowded_until_ns",
        "_good_ns",
        "_penalty_ns",
        "_reason",
    )

    def __init__(self) -> None:
        self._crowded_until_ns = 0
        self._barred_until_ns = 0
        self._penalty_ns = PENALTY_NS
        self._bad = 0
        self._good_ns = 0
        self._reason = Reason.PREEMPTED

    @property
    def penalty_ns(self) -> int:
        """What the next relapse costs."""
        return self._penalty_ns

    def saw_processes(self, now_ns: int, active: int, cores: int) -> None:
        """`active` processes (this one included) want to spin on `cores` usable cores."""
        if active > cores:
            self._crowded_until_ns = now_ns + CALM_NS

    def saw_interval(self, now_ns: int, interval: SpinInterval) -> None:
        """One interval of spinning has ended at `now_ns`."""
        trouble = interval.trouble
        if trouble is None:
            self._bad = 0
            self._good_ns += interval.wall_ns
            if self._good_ns >= GOOD_PENALTIES * self._penalty_ns:
                self._good_ns = 0
                self._penalty_ns = max(PENALTY_NS, self._penalty_ns // 2)
            return
        self._good_ns = 0
        self._bad += 1
        if self._bad >= BAD_INTERVALS:
            self._bad = 0
            self._reason = trouble
            self._barred_until_ns = now_ns + self._penalty_ns
            self._penalty_ns = min(MAX_PENALTY_NS, 2 * self._penalty_ns)

    def bar(self, now_ns: int) -> Reason | None:
        """Why spinning is barred at `now_ns`, or None when it is not."""
        if now_ns < self._crowded_until_ns:
            return Reason.CROWDED
        if now_ns < self._barred_until_ns:
            return self._reason
        return None
