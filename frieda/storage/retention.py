"""Which of the oldest segments of a partition may go, by age and by size. PURE but for reading timestamps."""

from __future__ import annotations

from collections.abc import Sequence

from frieda.config import UNLIMITED, TopicConfig
from frieda.storage.segment import Segment


def expired_segments(
    segments: Sequence[Segment], config: TopicConfig, now_ms: int, high_watermark: int
) -> int:
    """How many segments, oldest first, retention lets go. May be all: the last one must be rolled first, then.

    By age: those whose newest record is too old (one without timestamps goes with the next one that is). By size:
    as long as what is left still has retention_bytes. What lies above the high watermark stays.
    Raises StorageError.
    """
    allowed = 0
    for segment in segments:
        if segment.next_offset > high_watermark or segment.end_position == 0:
            break
        allowed += 1
    return min(
        allowed, max(_by_age(segments[:allowed], config, now_ms), _by_size(segments, config))
    )


def _by_age(segments: Sequence[Segment], config: TopicConfig, now_ms: int) -> int:
    if config.retention_ms == UNLIMITED:
        return 0
    count = 0
    for at, segment in enumerate(segments):
        newest_ms = segment.largest_timestamp_ms()
        if newest_ms < 0:
            continue
        if now_ms - newest_ms <= config.retention_ms:
            break
        count = at + 1
    return count


def _by_size(segments: Sequence[Segment], config: TopicConfig) -> int:
    if config.retention_bytes == UNLIMITED:
        return 0
    surplus = sum(segment.end_position for segment in segments) - config.retention_bytes
    count = 0
    for segment in segments[:-1]:
        surplus -= segment.end_position
        if surplus < 0:
            break
        count += 1
    return count
