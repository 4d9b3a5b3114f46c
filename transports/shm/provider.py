"""The poll source of all shm queue pairs of one transport: it polls the few that have traffic, and only those.

A queue pair with traffic is *hot* while the engine spins; the others sleep and their peers ring. So a spin costs
the same with ten connections as with ten thousand. The provider is a source of the engine only while something
is hot: a spin for the sake of sockets does not lose time here.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from frieda.transports.base import TransportRuntime

if TYPE_CHECKING:
    from frieda.transports.shm.queue_pair import ShmQueuePair

MAX_HOT: Final = 64
"""How many queue pairs are polled; more have to ring."""
HOT_FOR_NS: Final = 5_000_000
"""A queue pair without traffic for so long is polled no longer."""
POLLS_BETWEEN_LOOKS: Final = 256
"""The clock is read every so many polls (one costs from 0.2 us)."""


class ShmProvider:
    """One for each transport. Nothing to close: what it polls closes itself."""

    def __init__(self, runtime: TransportRuntime) -> None:
        self.note_activity = runtime.engine.note_activity
        self._engine = runtime.engine
        self._hot: tuple[ShmQueuePair, ...] = ()
        self._countdown = POLLS_BETWEEN_LOOKS

    @property
    def hot(self) -> int:
        """How many queue pairs are polled at this moment."""
        return len(self._hot)

    def poll(self) -> int:
        """PollSource: deliver what the hot queue pairs have."""
        found = 0
        for pair in self._hot:
            if pair.hot:  # the one before may have closed it
                found += pair.poll()
        self._countdown -= 1
        if self._countdown <= 0:
            self._countdown = POLLS_BETWEEN_LOOKS
            self._cool_idle()
        return found

    def arm(self) -> bool:
        """PollSource: all sleep, or the spin goes on. Where it does not, what is there gets a turn of the loop."""
        spinning = self._engine.spinning
        for pair in self._hot:
            if pair.sleep():
                continue
            if spinning:
                for each in self._hot:  # those that sleep already
                    each.wake()
                return False
            pair.hot = False
            pair.settle()
        self._hot = ()
        self._engine.remove_source(self)
        return True

    def warm(self, pair: ShmQueuePair) -> bool:
        """Poll `pair` from now on; False when the engine does not spin or too many are hot."""
        if not self._engine.spinning or len(self._hot) >= MAX_HOT:
            return False
        pair.wake()
        pair.active = True
        self._hot += (pair,)
        if len(self._hot) == 1:
            self._engine.add_source(self)
        return True

    def cool(self, pair: ShmQueuePair) -> None:
        """Poll `pair` no longer. May be called for one that is not hot."""
        if pair in self._hot:
            pair.hot = False
            self._hot = tuple(each for each in self._hot if each is not pair)
            if not self._hot:
                self._engine.remove_source(self)

    def _cool_idle(self) -> None:
        now_ns = time.monotonic_ns()
        for pair in self._hot:
            if pair.active:
                pair.active = False
                pair.active_ns = now_ns
            elif now_ns - pair.active_ns > HOT_FOR_NS and pair.sleep():
                self.cool(pair)
