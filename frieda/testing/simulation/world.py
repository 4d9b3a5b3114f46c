"""Time and chance of a simulation: one queue of events, one source of randomness; so a seed is a schedule. PURE."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import Any, Final

MS: Final = 1_000_000
SECOND: Final = 1_000_000_000
TRACE_LENGTH: Final = 400


class World:
    """What happens, in order. now_ns: the true time, which nobody inside can see."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.now_ns = 0
        self.events = 0
        self._serial = 0
        self._queue: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._trace: deque[tuple[int, tuple[Any, ...]]] = deque(maxlen=TRACE_LENGTH)

    def after(self, delay_ns: int, action: Callable[..., None], *arguments: Any) -> None:
        """`action` happens in `delay_ns`."""
        self._serial += 1
        heappush(self._queue, (self.now_ns + max(delay_ns, 0), self._serial, action, arguments))

    def run_until(self, time_ns: int) -> None:
        """Let happen all that is to happen before `time_ns`."""
        queue = self._queue
        while queue and queue[0][0] <= time_ns:
            self.now_ns, _, action, arguments = heappop(queue)
            self.events += 1
            action(*arguments)
        self.now_ns = time_ns

    def note(self, *what: Any) -> None:
        """Remember a step, for the report of a failure. Its parts are made into text only then."""
        self._trace.append((self.now_ns, what))

    def last_steps(self, count: int) -> list[str]:
        """The last steps noted, as text."""
        recent = list(self._trace)[-count:]
        return [
            f"{time_ns / SECOND:9.4f} s  " + " ".join(map(str, what)) for time_ns, what in recent
        ]


class DriftingClock:
    """A monotonic clock of one machine: it has a rate and a zero of its own, and may jump ahead."""

    def __init__(self, world: World, rate: float, zero_ns: int) -> None:
        self._world = world
        self._rate = rate
        self._since_ns = world.now_ns
        self._base_ns = zero_ns

    def now_ns(self) -> int:
        """What a process on this machine reads."""
        return self._base_ns + int((self._world.now_ns - self._since_ns) * self._rate)

    def true_delay_ns(self, until_ns: int) -> int:
        """How long, truly, until this clock reads `until_ns`."""
        return int((until_ns - self.now_ns()) / self._rate) + 1

    def jump(self, ahead_ns: int) -> None:
        """Go ahead at once (the machine was suspended)."""
        self._base_ns += ahead_ns
