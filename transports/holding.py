"""Sends that are held until a buffer's worth has gathered or a time has passed: eager flush is measured against it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from frieda.transports.base import HELD_BYTES


class HeldSends:
    """When to let go of what one connection has queued. Owner: the connection, which calls `cancel` at its end."""

    __slots__ = ("_hold_s", "_let_go", "_loop", "_timer")

    def __init__(self, hold_s: float, let_go: Callable[[], None]) -> None:
        self._hold_s = hold_s
        self._let_go = let_go
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def grew(self, queued_bytes: int) -> None:
        """So much is held now."""
        if queued_bytes >= HELD_BYTES:
            self.now()
        elif self._timer is None:
            self._timer = self._loop.call_later(self._hold_s, self.now)

    def now(self) -> None:
        """Wait no longer."""
        self.cancel()
        self._let_go()

    def cancel(self) -> None:
        """Let nothing go by itself. May be repeated."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
