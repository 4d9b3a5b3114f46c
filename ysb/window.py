"""Event-time windows, PURE: which views still count, and the counts of views by window and campaign.

A view belongs to the window that holds its event time. Each partition has a watermark of its own: the greatest event
time of the views that were taken from it. A window is over for a partition as soon as its watermark has reached the
window's end; a view that comes for it then is late. A late view counts as any other until the watermark lies
`allowed_lateness_ms` behind the window's end; from then on it is dropped, and the dropped ones are counted too.

So what is counted depends on nothing but the records of a partition and their order: reading them again from a
committed position, with the watermark that was committed with it, decides alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from frieda.errors import ConfigError

NO_WATERMARK_MS: Final = -1
"""The watermark of a partition from which no view was taken yet; event times are never negative."""
Counts = Mapping[int, Mapping[str, int]]
"""Views by the start of their window (ms) and by campaign."""


@dataclass(frozen=True, slots=True)
class WindowRule:
    """How long a window is, and how long late views count. Raises ConfigError for a value out of range."""

    size_ms: int = 10_000
    allowed_lateness_ms: int = 60_000

    def __post_init__(self) -> None:
        if not 1 <= self.size_ms <= 86_400_000:
            raise ConfigError(f"window_ms = {self.size_ms}: must be from 1 to 86400000 (a day)")
        if not 0 <= self.allowed_lateness_ms <= 86_400_000:
            raise ConfigError(
                f"allowed_lateness_ms = {self.allowed_lateness_ms}: must be from 0 to 86400000 (a day)"
            )

    def start_of(self, event_time_ms: int) -> int:
        """The start of the window that an event time lies in."""
        return event_time_ms - event_time_ms % self.size_ms


class PartitionClock:
    """The watermark of one partition, and what became of the views that came behind it."""

    __slots__ = ("_allowed_ms", "_size_ms", "dropped", "late", "watermark_ms")

    def __init__(
        self,
        rule: WindowRule,
        watermark_ms: int = NO_WATERMARK_MS,
        late: int = 0,
        dropped: int = 0,
    ) -> None:
        self._size_ms = rule.size_ms
        self._allowed_ms = rule.allowed_lateness_ms
        self.watermark_ms = watermark_ms
        self.late = late
        """Views whose window was over, and that counted all the same."""
        self.dropped = dropped
        """Views that came too late to count."""

    def accepts(self, event_time_ms: int) -> bool:
        """Take note of the next view; whether it counts. To be called for every view, in the partition's order."""
        if event_time_ms >= self.watermark_ms:
            self.watermark_ms = event_time_ms
            return True
        end_ms = event_time_ms - event_time_ms % self._size_ms + self._size_ms
        if end_ms > self.watermark_ms:
            return True
        if end_ms + self._allowed_ms > self.watermark_ms:
            self.late += 1
            return True
        self.dropped += 1
        return False


class WindowCounts:
    """Views that were counted and not yet written: what is added until `take` takes all of it."""

    __slots__ = ("_counts", "_size_ms")

    def __init__(self, rule: WindowRule) -> None:
        self._size_ms = rule.size_ms
        self._counts: dict[int, dict[str, int]] = {}

    def __bool__(self) -> bool:
        return bool(self._counts)

    def add(self, campaign: str, event_time_ms: int) -> None:
        """Count one view."""
        window_ms = event_time_ms - event_time_ms % self._size_ms
        counts = self._counts.get(window_ms)
        if counts is None:
            counts = self._counts[window_ms] = {}
        counts[campaign] = counts.get(campaign, 0) + 1

    def take(self) -> Counts:
        """All that was counted since the last call."""
        taken, self._counts = self._counts, {}
        return taken


def each_count(counts: Counts) -> Iterator[tuple[int, str, int]]:
    """(start of the window, campaign, views) of each."""
    for window_ms, by_campaign in counts.items():
        for campaign, views in by_campaign.items():
            yield window_ms, campaign, views
