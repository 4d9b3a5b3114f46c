"""Batches that a leader stored, in the log of a follower: taken as they are, or refused before anything is stored."""

from __future__ import annotations

import errno

import pytest

from frieda.errors import BrokerError, ErrorCode, StorageError
from frieda.testing.batches import make_batch
from frieda.testing.filesystem import MemoryFileSystem
from frieda.wire.batch import check_batch
from frieda.wire.crc import crc32c

SEGMENT = "/data/t-0/00000000000000000000.log"


def joined(*batches):
    return memoryview(b"".join(batches))


def all_bytes(log, offset=0):
    plan = log.plan_read(offset, 1 << 20)
    view = memoryview(bytearray(plan.size_bytes))
    return bytes(view[: plan.read_into(view)])


def test_a_followers_log_is_the_leaders_to_the_last_byte(open_log, append):
    leader, follower = open_log(MemoryFileSystem()), open_log(MemoryFileSystem())
    for epoch, count in enumerate((3, 1, 4)):
        for number in range(count):
            batch = make_batch(
                [b"%d" % number] * (number + 1),
                producer_id=epoch,
                producer_epoch=0,
                base_sequence=sum(range(number + 1)),
            )
            leader.append(batch, check_batch(batch), epoch)
    everything = all_bytes(leader)
    assert (
        follower.append_replicated(memoryview(everything), 2)
        == follower.log_end_offset
        == leader.log_end_offset
    )
    assert all_bytes(follower) == everything
    assert follower.epochs.entries() == leader.epochs.entries() == [(0, 0), (1, 6), (2, 7)]
    for producer_id in range(3):
        expected = leader.producers.expected_sequence(producer_id)
        assert follower.producers.expected_sequence(producer_id) == expected
        assert follower.producers.epoch(producer_id) == 0


def test_a_buffer_that_may_only_be_read_is_taken(filesystem, open_log, leaders_batch, read_all):
    log = open_log(filesystem)
    batch = leaders_batch([b"one", b"two"], 0, 7)
    assert batch.readonly
    assert log.append_replicated(batch, 7) == 2
    assert read_all(log) == [(0, b"one"), (1, b"two")]
    assert log.epochs.entries() == [(7, 0)]


def test_several_batches_in_one_buffer_may_span_segments(
    filesystem, open_log, leaders_batch, read_all
):
    log = open_log(filesystem, segment_bytes=1024)
    batches = joined(*(leaders_batch(b"%d" % n * 300, n, 1) for n in range(9)))
    assert log.append_replicated(batches, 1) == 9
    assert log.segment_count == 5
    assert [offset for offset, _ in read_all(log)] == list(range(9))
    again = open_log(filesystem.after_kill(), segment_bytes=1024)
    assert read_all(again) == read_all(log)


@pytest.mark.parametrize(
    ("offset", "epoch", "code"),
    [
        (4, 5, ErrorCode.OFFSET_OUT_OF_RANGE),
        (2, 5, ErrorCode.OFFSET_OUT_OF_RANGE),
        (3, 4, ErrorCode.FENCED_LEADER_EPOCH),
        (3, 7, ErrorCode.INVALID_RECORD),
    ],
)
def test_what_does_not_go_on_where_the_log_ends_is_refused_whole(
    filesystem, open_log, leaders_batch, read_all, offset, epoch, code
):
    log = open_log(filesystem)
    log.append_replicated(leaders_batch([b"a", b"b"], 0, 5), 6)
    for buffer in (
        leaders_batch(b"x", offset - 1, epoch),
        joined(leaders_batch(b"good", 2, 5), leaders_batch(b"x", offset, epoch)),
    ):
        with pytest.raises(BrokerError) as caught:
            log.append_replicated(buffer, 6)
        assert caught.value.code == code
        assert str(log.log_end_offset) in str(caught.value) or "3" in str(caught.value)
        assert read_all(log) == [(0, b"a"), (1, b"b")]
        assert log.epochs.entries() == [(5, 0)]


def test_a_batch_damaged_on_its_way_is_refused_wherever_the_bit_flipped(
    filesystem, open_log, leaders_batch, read_all
):
    log = open_log(filesystem)
    log.append_replicated(leaders_batch(b"here", 0, 5), 5)
    good = leaders_batch(b"one", 1, 5)
    for bit in range(len(good) * 8):
        harmed = bytearray(good)
        harmed[bit // 8] ^= 1 << (bit % 8)
        with pytest.raises(BrokerError):
            log.append_replicated(memoryview(harmed), 5)
    assert read_all(log) == [(0, b"here")]
    assert log.append_replicated(good, 5) == 2


def test_a_batch_that_is_not_whole_is_refused_at_every_length(filesystem, open_log, leaders_batch):
    log = open_log(filesystem)
    first, second = leaders_batch(b"one", 0, 5), leaders_batch(b"two", 1, 5)
    for size in range(1, len(second)):
        with pytest.raises(BrokerError) as caught:
            log.append_replicated(joined(first, second[:size]), 5)
        assert caught.value.code == ErrorCode.CORRUPT_MESSAGE
    assert log.log_end_offset == 0


def test_batches_that_compaction_thinned_out_are_taken(filesystem, open_log, leaders_batch):
    log = open_log(filesystem)
    thinned = bytearray(leaders_batch(b"only", 0, 1))
    thinned[23:27] = (4).to_bytes(4)  # last offset delta
    thinned[17:21] = crc32c(bytes(thinned[21:])).to_bytes(4)
    assert log.append_replicated(memoryview(thinned), 1) == 5


def test_a_follower_whose_disk_fails_keeps_what_came_before(
    filesystem, open_log, leaders_batch, read_all
):
    log = open_log(filesystem)
    filesystem.fail("pwrite", errno.EIO, skip=1, times=1)
    both = joined(leaders_batch(b"one", 0, 1), leaders_batch(b"two", 1, 2))
    with pytest.raises(StorageError):
        log.append_replicated(both, 2)
    assert log.log_end_offset == 1
    assert log.epochs.entries() == [(1, 0)]
    assert read_all(open_log(filesystem.after_kill())) == [(0, b"one")]
    assert log.append_replicated(leaders_batch(b"two", 1, 2), 2) == 2
    assert read_all(log) == [(0, b"one"), (1, b"two")]


def test_a_leader_reads_for_its_followers_up_to_the_end_and_whole_batches_alone(
    filesystem, open_log, append
):
    log = open_log(filesystem)
    for _ in range(10):
        append(log, [b"x" * 100, b"y"])
    log.high_watermark = 4
    size = log.size_bytes // 10
    plan = log.plan_read(2, 3 * size + 5)
    view = memoryview(bytearray(plan.size_bytes))
    assert plan.read_into(view, wait=False) == 3 * size
    assert plan.next_offset == 8 > log.high_watermark
    plan = log.plan_read(18, 1 << 20)
    assert plan.read_into(memoryview(bytearray(plan.size_bytes)), wait=False) == size
    assert plan.next_offset == 20
    assert log.plan_read(20, 1 << 20).size_bytes == 0


def test_a_replica_that_failed_an_fsync_takes_nothing_more(filesystem, open_log, leaders_batch):
    log = open_log(filesystem)
    log.append_replicated(leaders_batch(b"one", 0, 1), 1)
    with filesystem.failing("sync", errno.EIO):
        job = log.begin_sync()
        job.run()
    with pytest.raises(StorageError) as caught:
        log.append_replicated(leaders_batch(b"two", 1, 1), 1)
    assert caught.value.code == ErrorCode.LOG_FAILED
    assert log.log_end_offset == 1
    assert SEGMENT in filesystem.paths()
