"""Calls at exact times on an event loop, without a load of its own.

While the loop spins, the clock is looked at in every turn. Where it sleeps, a Linux timerfd wakes it, since the
loop's own timers tick in whole ms. A timer for each record also while spinning would be the larger part of the
load: measured in a virtual machine, 10 us for setting one, and an interrupt that stops the core for 40 us.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # the echo is timed without any transport of Frieda's
    from frieda.transports.polling import PollingEngine

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_TFD_TIMER_ABSTIME: Final = 1


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class Pacer:
    """Calls `send(intended_ns)` for each of `times_ns` as soon as it has come (open loop).

    `send` returns False for "not now" (the bound on records in flight is reached); the same time is
    offered again at the next `pump`, which the caller makes when something is answered. Nothing is
    queued: what is late stays in the schedule. `engine` is what makes the running loop spin, if anything
    does. The owner calls `close`.
    """

    def __init__(
        self,
        times_ns: Iterator[int],
        send: Callable[[int], bool],
        engine: PollingEngine | None = None,
    ) -> None:
        self._times_ns = times_ns
        self._send = send
        self._next_ns = next(times_ns, None)
        self._spec = _Itimerspec()
        self._pointer = ctypes.byref(self._spec)
        self._fd = _LIBC.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"timerfd_create: {os.strerror(number)}")
        self._blocked = False
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._expired)
        self._engine = engine
        if engine is not None:
            engine.add_source(self, inner=False)

    def pump(self) -> None:
        """Send what is due and may be sent; set the timer for the next if the loop may sleep until then."""
        self._blocked = False
        self._send_due()
        if self._engine is None or not self._engine.spinning:
            self._arm(0 if self._next_ns is None or self._blocked else self._next_ns)

    def poll(self) -> int:
        """PollSource: send what is due."""
        if self._next_ns is None or self._blocked or self._next_ns > time.monotonic_ns():
            return 0
        sent = self._send_due()
        if self._engine is not None and not self._engine.spinning and not self.arm():
            # It became due since: nobody would poll again, and a time that has passed expires at once.
            self._arm(self._next_ns)
        return sent

    def arm(self) -> bool:
        """PollSource: set the timer for the next; False when its time has come."""
        if self._next_ns is None or self._blocked:
            self._arm(0)
            return True
        if self._next_ns <= time.monotonic_ns():
            return False
        self._arm(self._next_ns)
        return True

    def close(self) -> None:
        """Send no more. May be called more than once."""
        self._next_ns = None
        if self._engine is not None:
            self._engine.remove_source(self)
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _expired(self) -> None:
        self._arm(0)  # also forgets the expiry, so no read is needed
        self.pump()

    def _send_due(self) -> int:
        """How many were sent until the next lies ahead, or may not be sent yet."""
        sent = 0
        while self._next_ns is not None and self._next_ns <= time.monotonic_ns():
            if not self._send(self._next_ns):
                self._blocked = True
                break
            sent += 1
            self._next_ns = next(self._times_ns, None)
        return sent

    def _arm(self, at_ns: int) -> None:
        if self._fd < 0:
            return
        value = self._spec.value
        value.seconds, value.nanoseconds = divmod(at_ns, 1_000_000_000)
        if _LIBC.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, self._pointer, None) < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"timerfd_settime: {os.strerror(number)}")
