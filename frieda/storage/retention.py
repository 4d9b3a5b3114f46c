"""What a log's tick decides: which of the oldest segments may go, whether to roll, which indexes to forget."""

from __future__ import annotations

from collections.abc import Sequence

from frieda.config import UNLIMITED, TopicConfig
from frieda.storage.segment import Segment
from frieda.storage.time_lookup import first_timestamp_ms


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


def old_enough_to_roll(active: Segment, config: TopicConfig, now_ms: int) -> bool:
    """Was the first record of the active segment appended segment_ms ago? Raises StorageError."""
    if active.end_position == 0:
        return False
    if active.first_append_ms == 0:
        # Appended before this process began: its own timestamp is the best there is.
        active.first_append_ms = min(now_ms, max(first_timestamp_ms(active), 1))
    return now_ms - active.first_append_ms >= config.segment_ms


def forget_unused_indexes(closed: Sequence[Segment]) -> None:
    """Give back the memory of indexes that nobody has looked into since the last time."""
    for segment in closed:
        if segment.index_used:
            segment.index_used = False
        else:
            segment.forget_indexes()


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
