"""The clock seam: everything that needs the time takes a Clock, so that tests can turn it by hand."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Two clocks: one for durations and deadlines, one for the timestamps of records."""

    def monotonic_ns(self) -> int:
        """Nanoseconds of a clock that never goes back; its zero means nothing."""
        ...

    def time_ms(self) -> int:
        """Milliseconds since the Unix epoch; may jump."""
        ...


class SystemClock:
    """The machine's own clocks."""

    # Not wrapped: it is asked several times for each record that is sent.
    monotonic_ns = staticmethod(time.monotonic_ns)

    def time_ms(self) -> int:
        return time.time_ns() // 1_000_000


class ManualClock:
    """A clock that stands still until a test moves it."""

    def __init__(self, monotonic_ns: int = 1, time_ms: int = 1_700_000_000_000) -> None:
        self._monotonic_ns = monotonic_ns
        self._time_ms = time_ms

    def monotonic_ns(self) -> int:
        return self._monotonic_ns

    def time_ms(self) -> int:
        return self._time_ms

    def advance(self, seconds: float) -> None:
        """Move both clocks forward by `seconds`."""
        self._monotonic_ns += int(seconds * 1e9)
        self._time_ms += int(seconds * 1e3)
