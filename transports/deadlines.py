"""The deadlines of many connections, kept by one timer that sweeps over them.

A deadline counts sweeps, not seconds. Between two sweeps the loop looks at its sockets, so a process that is held up
(stopped, or without a core for a while) does not lay its own standstill to the peer's charge: however long it was,
it counts as one sweep. It also spares the hot path a look at the clock.
"""

from __future__ import annotations

import asyncio
from math import ceil
from typing import Final, Protocol

LONGEST_INTERVAL_S: Final = 1.0
SWEEPS_PER_TIMEOUT: Final = 8
"""How finely the shortest timeout is measured: a deadline is met up to two sweeps late, and never early."""


class Watched(Protocol):
    """Something with deadlines."""

    def check_deadlines(self) -> bool:
        """Act when a deadline has passed; False when there is none to keep any more."""
        ...


class DeadlineSweep:
    """Sweeps over what is watched; its timer runs only while something is. Belongs to one event loop at a time."""

    __slots__ = ("_interval_s", "_loop", "_timer", "_watched", "sweeps")

    def __init__(self, shortest_timeout_s: float) -> None:
        self.sweeps = 1
        """How many have begun, counted from 1, so that 0 can mean "no deadline"."""
        self._interval_s = min(LONGEST_INTERVAL_S, shortest_timeout_s / SWEEPS_PER_TIMEOUT)
        self._watched: set[Watched] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def sweeps_in(self, timeout_s: float) -> int:
        """By so much `sweeps` has grown once `timeout_s` has surely passed."""
        return 1 + ceil(timeout_s / self._interval_s)  # one more: the next may follow at once

    def watch(self, watched: Watched) -> None:
        """Check the deadlines of `watched` from now on, until it has none."""
        self._watched.add(watched)
        loop = asyncio.get_running_loop()
        if self._timer is None or loop is not self._loop:
            self._loop = loop
            self._timer = loop.call_later(self._interval_s, self._turn)

    def forget(self, watched: Watched) -> None:
        """Its deadlines do not matter any more. May be called for one that is not watched."""
        self._watched.discard(watched)
        if not self._watched and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def sweep(self) -> None:
        """One sweep over all that is watched. The timer calls it."""
        self.sweeps += 1
        for watched in list(self._watched):
            if not watched.check_deadlines():
                self._watched.discard(watched)

    def _turn(self) -> None:
        self.sweep()
        self._timer = None
        if self._watched and self._loop is not None:
            self._timer = self._loop.call_later(self._interval_s, self._turn)
