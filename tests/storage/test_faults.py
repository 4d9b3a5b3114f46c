"""Disks that are full, broken or slow: typed errors, a log that stays readable, nothing half done."""

from __future__ import annotations

import errno

import pytest

from frieda.errors import BrokerError, ErrorCode, StorageError

SEGMENT = "/data/t-0/00000000000000000000.log"


def test_a_full_disk_is_a_retriable_error_and_the_log_goes_on_when_there_is_space(
    filesystem, open_log, append, read_all
):
    log = open_log(filesystem)
    append(log, b"one")
    filesystem.capacity_bytes = filesystem.used_bytes
    append(log, b"x" * 30_000)  # fits into what is allocated
    append(log, b"x" * 30_000)
    with pytest.raises(StorageError) as caught:
        append(log, b"x" * 30_000)
    assert caught.value.code == ErrorCode.DISK_FULL
    assert caught.value.retriable
    assert SEGMENT in str(caught.value)
    end = log.log_end_offset
    everything = read_all(log)
    assert len(everything) == end
    filesystem.heal()
    assert append(log, b"two") == end
    assert read_all(log) == [*everything, (end, b"two")]
    assert read_all(open_log(filesystem.after_kill())) == [*everything, (end, b"two")]


def test_the_last_bytes_of_a_disk_are_used(filesystem, open_log, append):
    log = open_log(filesystem)
    filesystem.capacity_bytes = filesystem.used_bytes + 2000
    append(log, b"x" * 1000)
    with pytest.raises(StorageError, match="free some space"):
        append(log, b"x" * 1000)


@pytest.mark.parametrize("short_by", [1, 40, 100])
def test_a_short_write_is_finished(filesystem, open_log, append, read_all, short_by):
    log = open_log(filesystem)
    filesystem.short_write_bytes = short_by
    append(log, b"x" * 200)
    assert read_all(log) == [(0, b"x" * 200)]


def test_a_write_that_fails_half_way_leaves_the_log_as_it_was(
    filesystem, open_log, append, read_all
):
    log = open_log(filesystem)
    append(log, b"one")
    filesystem.short_write_bytes = 80
    filesystem.fail("pwrite", errno.EIO, skip=1, times=1)
    with pytest.raises(StorageError) as caught:
        append(log, b"lost" * 100)
    assert caught.value.code == ErrorCode.STORAGE_ERROR
    assert log.log_end_offset == 1
    assert read_all(open_log(filesystem.after_kill())) == [(0, b"one")]
    assert append(log, b"two") == 1
    assert read_all(log) == [(0, b"one"), (1, b"two")]
    assert read_all(open_log(filesystem.after_kill())) == [(0, b"one"), (1, b"two")]


def test_a_failed_append_changes_no_producer(filesystem, open_log, append):
    log = open_log(filesystem)
    fields = {"producer_id": 1, "producer_epoch": 0}
    append(log, b"one", base_sequence=0, **fields)
    with filesystem.failing("pwrite", errno.EIO), pytest.raises(StorageError):
        append(log, b"two", base_sequence=1, **fields)
    assert log.producers.expected_sequence(1) == 1


def test_a_roll_that_fails_leaves_the_log_as_it_was(filesystem, open_log, append, read_all):
    log = open_log(filesystem, segment_bytes=1024)
    append(log, b"x" * 900)
    with filesystem.failing("open", errno.EMFILE), pytest.raises(StorageError):
        append(log, b"y" * 900)
    assert log.segment_count == 1
    assert append(log, b"z" * 900) == 1
    assert [offset for offset, _ in read_all(log)] == [0, 1]


def test_after_an_fsync_error_the_log_takes_no_more_writes_and_stays_readable(
    filesystem, open_log, append, read_all
):
    log = open_log(filesystem)
    append(log, b"one")
    job = log.begin_sync()
    with filesystem.failing("sync", errno.EIO):
        job.run()
    error = job.finish()
    assert error is not None
    assert error.code == ErrorCode.LOG_FAILED
    assert not error.retriable
    assert log.failed
    assert "fsync" in log.failure
    for attempt in (lambda: append(log, b"two"), log.begin_sync, log.roll):
        with pytest.raises(StorageError) as caught:
            attempt()
        assert caught.value.code == ErrorCode.LOG_FAILED
    syncs = filesystem.sync_count
    assert read_all(log) == [(0, b"one")]
    assert log.close() is False
    assert filesystem.sync_count == syncs, "an fsync that failed is never tried again"


def test_an_fsync_error_after_a_roll_fails_the_log_too(filesystem, open_log, append):
    work = []
    log = open_log(filesystem, background=work.append)
    append(log, b"one")
    log.roll()
    with filesystem.failing("sync", errno.EIO):
        work.pop()()
    assert log.failed


def test_slow_work_that_fails_is_told_and_made_good_at_the_next_opening(
    filesystem, open_log, append, read_all
):
    log = open_log(filesystem)
    append(log, b"one")
    with filesystem.failing("rename", errno.EIO):
        log.roll()
    append(log, b"two")
    assert "Input/output error" in log.maintenance_error
    assert not log.failed
    again = open_log(filesystem.after_kill())
    assert again.scanned_segments == 2
    assert read_all(again) == [(0, b"one"), (1, b"two")]


def test_a_read_error_is_typed(filesystem, open_log, append):
    log = open_log(filesystem)
    append(log, b"one")
    plan = log.plan_read(0, 1000)
    with filesystem.failing("pread", errno.EIO), pytest.raises(StorageError) as caught:
        plan.read_into(memoryview(bytearray(plan.size_bytes)))
    assert caught.value.code == ErrorCode.STORAGE_ERROR
    assert SEGMENT in str(caught.value)


def test_a_cold_read_blocks_only_where_it_may(filesystem, open_log, append):
    log = open_log(filesystem, segment_bytes=1024)
    for _ in range(5):
        append(log, b"x" * 600)
    log.close()
    log = open_log(filesystem, clean=True)
    filesystem.cold = True
    plan = log.plan_read(1, 10_000)
    view = memoryview(bytearray(plan.size_bytes))
    with pytest.raises(BlockingIOError):
        plan.read_into(view, wait=False)
    assert plan.read_into(view, wait=True) > 600


def test_a_segment_deleted_before_its_read_is_out_of_range_and_during_it_no_matter(
    filesystem, open_log, append
):
    log = open_log(filesystem)
    append(log, b"one")
    log.roll()
    append(log, b"two")
    log.high_watermark = 2
    plan = log.plan_read(0, 1000)
    file = log._segments[0].retained_file()
    log.delete_before(1)
    assert file.pread(8, 0) == bytes(8)
    file.release()
    with pytest.raises(BrokerError) as caught:
        plan.read_into(memoryview(bytearray(plan.size_bytes)))
    assert caught.value.code == ErrorCode.OFFSET_OUT_OF_RANGE


def test_nothing_stays_open(filesystem, open_log, append, read_all):
    log = open_log(filesystem, segment_bytes=1024)
    assert filesystem.open_files == 0, "a log that is not used holds no descriptor"
    for _ in range(5):
        append(log, b"x" * 600)
    read_all(log)
    assert filesystem.open_files == 1
    log.apply_retention(0)
    log.apply_retention(0)
    assert filesystem.open_files == 0, "an idle log gives its descriptor back"
    append(log, b"x")
    log.close()
    log.close()
    assert filesystem.open_files == 0
