"""One timer for many deadlines: it stands at the earliest one that it was told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

NEVER: Final = 2**63


class DeadlineTimer:
    """Calls `callback` once at the earliest deadline, and forgets all; the callback tells it those that are left.

    A closed loop of short requests thus touches a timer once in a request timeout, and not once for each request.
    next_ns: that deadline by the client's clock, or NEVER. least_s: the callback comes no sooner than this.
    """

    __slots__ = ("_callback", "_handle", "_least_s", "_loop", "_now_ns", "next_ns")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        now_ns: Callable[[], int],
        callback: Callable[[], None],
        least_s: float = 0.001,
    ) -> None:
        self.next_ns = NEVER
        self._loop = loop
        self._now_ns = now_ns
        self._callback = callback
        self._least_s = least_s
        self._handle: asyncio.TimerHandle | None = None

    def watch(self, deadline_ns: int) -> None:
        """Call back at this deadline, unless an earlier one is watched. (Hot paths look at `next_ns` first.)"""
        if deadline_ns >= self.next_ns:
            return
        self.cancel()
        self.next_ns = deadline_ns
        wait_s = (deadline_ns - self._now_ns()) / 1e9
        self._handle = self._loop.call_later(max(wait_s, self._least_s), self._due)

    def cancel(self) -> None:
        """Forget all. May be repeated."""
        self.next_ns = NEVER
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _due(self) -> None:
        self._handle = None
        self.next_ns = NEVER
        self._callback()
