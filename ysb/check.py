"""Are the counts right? What they must be is computed again from the seed, without broker, pipeline or Redis. PURE."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from frieda.bench.load import Load, shares
from frieda.ysb.campaigns import Campaigns
from frieda.ysb.events import AdEvents, Skew
from frieda.ysb.window import WindowRule

Key = tuple[str, int]
"""A campaign and the start of a window in ms."""
MOST_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class Difference:
    """A campaign's window whose count is wrong."""

    campaign: str
    window_ms: int
    expected: int
    seen: int
    dropped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """What the comparison found."""

    windows: int
    """Windows of campaigns that must be there."""
    views: int
    """Views that must be counted, or dropped for coming too late."""
    dropped: int
    differences: tuple[Difference, ...]

    @property
    def exact(self) -> bool:
        """Every view was counted once, in the right window, or dropped for coming too late."""
        return not self.differences

    def sentence(self) -> str:
        """What to tell."""
        dropped = f", {self.dropped} of them dropped for coming too late" if self.dropped else ""
        whole = f"{self.views} views in {self.windows} windows of campaigns{dropped}"
        if self.exact:
            return f"exact: {whole}"
        named = "; ".join(
            f"campaign {each.campaign}, window {each.window_ms}: expected {each.expected}, "
            f"counted {each.seen}, dropped {each.dropped}"
            for each in self.differences[:MOST_NAMED]
        )
        more = len(self.differences) - MOST_NAMED
        rest = f"; and {more} more" if more > 0 else ""
        return f"WRONG: {len(self.differences)} counts of {whole}: {named}{rest}"


def expected_counts(
    load: Load, campaigns: Campaigns, start_ms: int, rule: WindowRule, skew: Skew | None = None
) -> dict[Key, int]:
    """The views of each campaign and window, counted one by one from the events that the load consists of."""
    campaign_of = campaigns.by_ad()
    counts: dict[Key, int] = {}
    for share in (share for process in shares(load) for share in process):
        events = AdEvents(campaigns, share, skew)
        events.begin(start_ms)
        for ad, time_ms in events.views():
            key = (campaign_of[ad], rule.start_of(time_ms))
            counts[key] = counts.get(key, 0) + 1
    return counts


def compare_counts(
    expected: Mapping[Key, int],
    seen: Iterable[tuple[Key, int]],
    dropped: Mapping[Key, int],
) -> CheckReport:
    """Hold what was written against what is expected: seen + dropped must be that, in every window."""
    found: dict[Key, int] = {}
    for key, count in seen:
        found[key] = found.get(key, 0) + count
    differences = [
        Difference(campaign, window_ms, want, have, late)
        for campaign, window_ms in sorted({*expected, *found, *dropped}, key=lambda key: key[::-1])
        for key in ((campaign, window_ms),)
        for want, have, late in ((expected.get(key, 0), found.get(key, 0), dropped.get(key, 0)),)
        if want != have + late
    ]
    return CheckReport(
        windows=len(expected),
        views=sum(expected.values()),
        dropped=sum(dropped.values()),
        differences=tuple(differences),
    )
