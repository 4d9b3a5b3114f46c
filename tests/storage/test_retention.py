"""Rolling and retention by size and by age, and deleting on request."""

from __future__ import annotations

import pytest

from frieda.errors import BrokerError


def fill(log, append, clock, count=4):
    for number in range(count):
        append(log, b"%d" % number * 100, clock.time_ms())
        log.roll()
        clock.advance(10)
    log.high_watermark = log.log_end_offset


def test_segments_roll_by_size(filesystem, open_log, append):
    log = open_log(filesystem, segment_bytes=1024)
    for _ in range(6):
        append(log, b"x" * 400)
    assert log.segment_count == 3
    append(log, b"x" * 5000)
    assert log.segment_count == 4, "a batch larger than a segment has one of its own"


def test_segments_roll_by_age_at_the_tick(filesystem, open_log, append, clock):
    log = open_log(filesystem, segment_ms=1000, retention_ms=-1)
    append(log, b"x", clock.time_ms())
    clock.advance(0.9)
    log.apply_retention(clock.time_ms())
    assert log.segment_count == 1
    clock.advance(0.2)
    log.apply_retention(clock.time_ms())
    assert log.segment_count == 2
    log.apply_retention(clock.time_ms() + 10_000)
    assert log.segment_count == 2, "an empty segment does not roll"


def test_the_age_of_a_segment_survives_a_restart(filesystem, open_log, append, clock):
    log = open_log(filesystem, segment_ms=1000, retention_ms=-1)
    append(log, b"x", clock.time_ms())
    log.close()
    clock.advance(2)
    log = open_log(filesystem, clean=True, segment_ms=1000, retention_ms=-1)
    log.apply_retention(clock.time_ms())
    assert log.segment_count == 2


def test_old_segments_are_deleted_by_age(filesystem, open_log, append, clock, read_all):
    log = open_log(filesystem, retention_ms=25_000)
    fill(log, append, clock)
    assert log.apply_retention(clock.time_ms()) == 2
    assert log.log_start_offset == 2
    assert [offset for offset, _ in read_all(log)] == [2, 3]
    assert not [p for p in filesystem.paths() if "00000000000000000000." in p]


def test_the_active_segment_is_rolled_before_it_expires(filesystem, open_log, append, clock):
    log = open_log(filesystem, retention_ms=1000)
    append(log, b"x", clock.time_ms())
    log.high_watermark = 1
    clock.advance(5)
    assert log.apply_retention(clock.time_ms()) == 1
    assert log.segment_count == 1
    assert log.log_start_offset == log.log_end_offset == 1


def test_old_segments_are_deleted_by_size_and_never_too_many(filesystem, open_log, append, clock):
    log = open_log(filesystem, retention_ms=-1)
    fill(log, append, clock)
    size = log.size_bytes
    one = size // 4
    log.config = log.config.altered({"retention.bytes": str(2 * one + 1)})
    assert log.apply_retention(clock.time_ms()) == 1
    assert log.size_bytes >= 2 * one + 1


def test_nothing_above_the_high_watermark_is_deleted(filesystem, open_log, append, clock):
    log = open_log(filesystem, retention_ms=1)
    fill(log, append, clock)
    log.high_watermark = 2
    assert log.apply_retention(clock.time_ms()) == 2


def test_records_without_a_timestamp_go_with_the_next_that_are_old(
    filesystem, open_log, append, clock
):
    log = open_log(filesystem, retention_ms=5000)
    append(log, b"x", -1)
    log.roll()
    append(log, b"y", clock.time_ms())
    log.roll()
    log.high_watermark = 2
    assert log.apply_retention(clock.time_ms()) == 0
    clock.advance(10)
    assert log.apply_retention(clock.time_ms()) == 2


def test_delete_before_hides_records_at_once(filesystem, open_log, append, clock):
    log = open_log(filesystem)
    fill(log, append, clock)
    assert log.delete_before(2) == 2
    assert log.log_start_offset == 2
    assert log.delete_before(1) == 0
    with pytest.raises(BrokerError, match="high watermark"):
        log.delete_before(99)
