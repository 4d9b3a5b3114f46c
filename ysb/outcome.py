"""What a run of the benchmark tells: how it goes while it runs, and what it gave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from frieda.bench.histogram import LatencyHistogram
from frieda.ysb.check import CheckReport
from frieda.ysb.lag import LagSample, LagTrend
from frieda.ysb.reader import WindowUpdate
from frieda.ysb.settings import YsbSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class YsbProgress:
    """How it goes: rates in events a second since the last, `lag` in events, and the newest window's latency."""

    elapsed_s: float
    sent_per_s: float
    taken_per_s: float
    lag: int
    behind_ms: float | None
    """How long ago the newest view that was taken was due; None before the first."""
    window_latency_ms: float | None
    """Of the windows written since the last: from the window's end to the write."""
    kills: int


@dataclass(frozen=True, slots=True, kw_only=True)
class YsbOutcome:
    """What one run gave."""

    settings: YsbSettings
    start_ms: int
    elapsed_s: float
    """From the begin of the measured part to the last acknowledgement; `cpu_s` is of the same time."""
    generated: Mapping[str, Any]
    """sent, acked, errors, held_s, last_error, ticks, late_ticks, mean_late_us, max_late_us."""
    counted: Mapping[str, int]
    """events, views, late, dropped, malformed, unjoined: as committed."""
    latencies_ns: Mapping[tuple[str, int], int]
    """By campaign and whole window, from its end to its last write; below 0 where its last view was written before."""
    broker_share: LatencyHistogram
    """From an event's send to its being taken by the pipeline, sampled."""
    write_times: LatencyHistogram
    """Of each write to Redis."""
    samples: tuple[LagSample, ...]
    lag: LagTrend
    updates: tuple[WindowUpdate, ...]
    check: CheckReport
    left_behind: int
    """Events that were acknowledged and not committed when the drain timeout was over."""
    kills: int
    cpu_s: Mapping[str, float]
    client_settings: Mapping[str, object]
