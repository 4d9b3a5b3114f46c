"""What a load process measures with: latencies by window, errors, lateness, and the news of each window."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from typing import Any, Final

from frieda.bench.histogram import Window, WindowedRecorder
from frieda.bench.load import Lateness, Load
from frieda.bench.report import WINDOW_S
from frieda.bench.worker import Channel

NEVER_NS: Final = 2**63 - 1


class Meter:
    """The measurements of one process. `begin` it, record, and send `result()` when all is done.

    `record(latency_ns, count)` is one histogram call; `record_service_time` likewise (open loop).
    Both are replaced at each window, so look them up on the meter at every call.
    """

    def __init__(self, channel: Channel, load: Load, window_s: float = WINDOW_S) -> None:
        self.lateness = Lateness()
        self.errors = 0
        self.first_ns = NEVER_NS
        self.last_ns = 0
        self._channel = channel
        self._window_s = window_s
        self._record_size_bytes = load.record_size_bytes
        self._open_loop = load.rate is not None
        self._number = 0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, start_ns: int) -> None:
        """Open the first window. `start_ns` is the common start, which may lie a little ahead."""
        self._latency = WindowedRecorder(start_ns)
        self._service_time = WindowedRecorder(start_ns)
        self.record = self._latency.record
        self.record_service_time = self._service_time.record
        self._timer = asyncio.get_running_loop().call_later(self._window_s, self._turn)

    def measuring_since(self, now_ns: int) -> None:
        """A producer of this process sent its first record after the warm-up."""
        self.first_ns = min(self.first_ns, now_ns)

    def measured_until(self, now_ns: int) -> None:
        """A producer of this process got its last answer."""
        self.last_ns = max(self.last_ns, now_ns)

    def _turn(self) -> None:
        now_ns = time.monotonic_ns()
        self._tell(self._latency.turn(now_ns))
        self._service_time.turn(now_ns)
        self.record = self._latency.record
        self.record_service_time = self._service_time.record
        self._timer = asyncio.get_running_loop().call_later(self._window_s, self._turn)

    def _tell(self, window: Window) -> None:
        histogram = window.histogram
        self._channel.progress(
            {
                "number": self._number,
                "records": histogram.count,
                "size_bytes": histogram.count * self._record_size_bytes,
                "elapsed_s": (window.end_ns - window.start_ns) / 1e9,
                "mean_ns": histogram.mean_ns,
                "max_ns": histogram.max_ns,
            }
        )
        self._number += 1

    def close(self) -> None:
        """Stop the window timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def result(self) -> dict[str, Any]:
        """Everything measured, as JSON values that `fleet.merge_results` takes."""
        now_ns = time.monotonic_ns()
        return {
            "errors": self.errors,
            "first_ns": self.first_ns,
            "last_ns": self.last_ns,
            "latency": _encoded(self._latency.windows(now_ns)),
            "service_time": _encoded(self._service_time.windows(now_ns))
            if self._open_loop
            else None,
            "lateness": asdict(self.lateness.summary()) if self._open_loop else None,
        }


def _encoded(windows: list[Window]) -> list[dict[str, Any]]:
    return [
        {
            "start_ns": window.start_ns,
            "end_ns": window.end_ns,
            "histogram": window.histogram.encode(),
        }
        for window in windows
    ]
