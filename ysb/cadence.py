"""The moments at which the sink writes, PURE: every `sink_ms`, on a grid that follows from the start of the load.

The grid does not depend on how long a write takes, so two systems under the same load write at the same moments.
Where the end of a window lies between two of them decides most of a window's latency: `phase` shifts the grid, and
rounds of a comparison go through different phases, each of them the same for all systems.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

NS_PER_MS: Final = 1_000_000
PROGRESS_MS: Final = 500.0
"""Every process tells how it goes at the same moments, so that what they say can be held against each other."""
_GOLDEN_RATIO: Final = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, slots=True)
class Cadence:
    """Writes at start + (k + phase) x sink_ms, k = 0, 1, 2..."""

    start_ns: int
    sink_ms: float
    phase: float
    """From 0 to below 1."""

    def next_ns(self, now_ns: int) -> int:
        """The first moment of the grid after `now_ns`."""
        interval_ns = self.sink_ms * NS_PER_MS
        number = math.floor((now_ns - self.start_ns) / interval_ns - self.phase) + 1
        moment_ns = self.start_ns + round((max(0, number) + self.phase) * interval_ns)
        # Rounding may give the moment that is now.
        return moment_ns if moment_ns > now_ns else moment_ns + round(interval_ns)


def phase_of(round_number: int, worker: int, workers: int) -> float:
    """The phase of a worker: rounds spread evenly however many there are, workers evenly within a round."""
    return (0.5 + round_number * _GOLDEN_RATIO + worker / workers) % 1.0
