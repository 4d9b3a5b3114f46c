"""Calls at exact times on an event loop: a Linux timerfd, since the loop's own timers tick in whole ms."""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import Callable, Iterator
from typing import Final

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
    queued: what is late stays in the schedule. The owner calls `close`.
    """

    def __init__(self, times_ns: Iterator[int], send: Callable[[int], bool]) -> None:
        self._times_ns = times_ns
        self._send = send
        self._next_ns = next(times_ns, None)
        self._spec = _Itimerspec()
        self._pointer = ctypes.byref(self._spec)
        self._fd = _LIBC.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"timerfd_create: {os.strerror(number)}")
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self.pump)

    def pump(self) -> None:
        """Send what is due and may be sent; set the timer for the next if its time is to come."""
        while self._next_ns is not None:
            if self._next_ns > time.monotonic_ns():
                self._arm(self._next_ns)
                return
            if not self._send(self._next_ns):
                break
            self._next_ns = next(self._times_ns, None)
        self._arm(0)

    def _arm(self, at_ns: int) -> None:
        # Setting a timer also forgets an expiry that was not read, so no read is needed; 0 disarms.
        if self._fd < 0:
            return
        value = self._spec.value
        value.seconds, value.nanoseconds = divmod(at_ns, 1_000_000_000)
        if _LIBC.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, self._pointer, None) < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"timerfd_settime: {os.strerror(number)}")

    def close(self) -> None:
        """Send no more. May be called more than once."""
        self._next_ns = None
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
