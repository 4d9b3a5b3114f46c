"""When each campaign's window was last written, PURE; the benchmark's latency counts from the window's end to then."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from frieda.ysb.window import Counts

NS_PER_MS = 1_000_000


class WindowUpdates:
    """What one worker has written, and when (ns since the epoch, when Redis had answered)."""

    def __init__(self, size_ms: int) -> None:
        self._size_ms = size_ms
        self._last_ns: dict[int, dict[str, int]] = {}
        self._newest: dict[int, int] = {}

    def note(self, counts: Counts, written_ns: int) -> None:
        """These windows were written."""
        for window_ms, by_campaign in counts.items():
            self._last_ns.setdefault(window_ms, {}).update(dict.fromkeys(by_campaign, written_ns))
            self._newest[window_ms] = written_ns

    def news(self) -> list[tuple[int, float]]:
        """(start of the window, latency in ms of its last write) of those that ended and were written since."""
        found = [
            (window_ms, (written_ns / NS_PER_MS) - window_ms - self._size_ms)
            for window_ms, written_ns in self._newest.items()
        ]
        self._newest.clear()
        return [(window_ms, latency_ms) for window_ms, latency_ms in found if latency_ms >= 0]

    def as_json(self) -> list[tuple[int, dict[str, int]]]:
        """All of it, as `last_updates` takes it."""
        return list(self._last_ns.items())


def last_updates(
    parts: Iterable[Iterable[tuple[int, Mapping[str, int]]]],
) -> dict[tuple[str, int], int]:
    """By campaign and window the last write of any worker, in ns since the epoch."""
    last_ns: dict[tuple[str, int], int] = {}
    for part in parts:
        for window_ms, by_campaign in part:
            for campaign, written_ns in by_campaign.items():
                key = (campaign, int(window_ms))
                last_ns[key] = max(written_ns, last_ns.get(key, 0))
    return last_ns


def window_latencies_ns(
    last_ns: Mapping[tuple[str, int], int], size_ms: int, from_ms: int, until_ms: int
) -> dict[tuple[str, int], int]:
    """By campaign and window from its end to its last write; below 0 where its last view was written before.

    Only windows that lie whole within the load, which lasts from `from_ms` until `until_ms`, have a latency.
    """
    return {
        (campaign, window_ms): written_ns - (window_ms + size_ms) * NS_PER_MS
        for (campaign, window_ms), written_ns in last_ns.items()
        if from_ms <= window_ms <= until_ms - size_ms
    }
