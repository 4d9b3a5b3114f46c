"""What a log is after a crash, after bits have flipped, and after its small files are lost."""

from __future__ import annotations

import pytest

from frieda.errors import BrokerError, CorruptLogError, ErrorCode
from frieda.storage.leader_epochs import LeaderEpochs
from frieda.testing.batches import make_batch
from frieda.wire.batch import check_batch

SEGMENT = "/data/t-0/00000000000000000000.log"


def numbered(values, sequence, **more):
    return make_batch(values, producer_id=5, producer_epoch=0, base_sequence=sequence, **more)


def test_a_torn_tail_is_cut_at_every_byte_of_the_last_batch(filesystem, open_log, append, read_all):
    log = open_log(filesystem)
    append(log, [b"one", b"two"])
    start = log.size_bytes
    append(log, [b"three", b"four"])
    end = log.size_bytes
    for zeros in (False, True):
        for cut_at in range(start, end):
            torn = filesystem.after_kill()
            data = torn.peek(SEGMENT)
            if zeros:  # as in a preallocated file, where what was not written reads as zeros
                data[cut_at:] = bytes(len(data) - cut_at)
            else:
                del data[cut_at:]
            survived = zeros and filesystem.peek(SEGMENT)[cut_at:end].count(0) == end - cut_at
            log = open_log(torn)
            assert read_all(log)[:2] == [(0, b"one"), (1, b"two")]
            assert log.log_end_offset == (4 if survived else 2)
            assert log.damages == []
            assert append(log, b"after") == log.log_end_offset - 1
            assert read_all(log)[-1] == (log.log_end_offset - 1, b"after")


def test_a_torn_tail_full_of_garbage_is_cut(filesystem, open_log, append, read_all):
    log = open_log(filesystem)
    append(log, b"one")
    end = log.size_bytes
    data = filesystem.peek(SEGMENT)
    data[end : end + 5000] = bytes(range(256)) * 19 + bytes(136)
    log = open_log(filesystem.after_kill())
    assert read_all(log) == [(0, b"one")]
    assert log.cut_bytes > 0


def test_a_torn_batch_whose_record_holds_a_batch_is_cut_whole(
    filesystem, open_log, append, read_all
):
    log = open_log(filesystem)
    append(log, b"one")
    inner = make_batch([b"inner"])
    inner[:8] = (3).to_bytes(8)
    start = log.size_bytes
    append(log, [b"x", bytes(inner), b"y" * 100])
    torn = filesystem.after_kill()
    data = torn.peek(SEGMENT)
    end = log.size_bytes
    data[end - 60 :] = bytes(len(data) - end + 60)
    log = open_log(torn)
    assert read_all(log) == [(0, b"one")]
    assert log.size_bytes == start


@pytest.mark.parametrize("clean", [False, True])
def test_a_flipped_bit_anywhere_in_the_middle_hides_that_batch_alone(
    filesystem, open_log, append, read_all, clean
):
    log = open_log(filesystem)
    positions = []
    for number in range(5):
        positions.append(log.size_bytes)
        append(log, [b"%d-%d" % (number, i) for i in range(3)])
    everything = read_all(log)
    log.close()
    for byte in range(positions[2], positions[3]):
        if positions[2] + 12 <= byte < positions[2] + 16:
            continue  # the leader epoch is covered by nothing, and harmless
        damaged = filesystem.after_kill()
        damaged.peek(SEGMENT)[byte] ^= 1 << (byte % 8)
        log = open_log(damaged, clean=clean)
        assert log.log_end_offset == 15
        if not clean:
            assert [d[:2] for d in log.damages] == [(6, 9)]
        for offset in (6, 7, 8):
            plan = log.plan_read(offset, 1 << 20)
            with pytest.raises(CorruptLogError) as caught:
                plan.read_into(memoryview(bytearray(plan.size_bytes)))
            assert caught.value.next_readable_offset == 9
            assert SEGMENT in str(caught.value)
        plan = log.plan_read(0, 1 << 20)
        assert plan.read_into(memoryview(bytearray(plan.size_bytes))) == positions[2]
        assert read_all(log, 9) == everything[9:]
        assert append(log, b"more") == 15
        log.close()


def test_two_damaged_batches_in_a_row_are_both_passed_over(filesystem, open_log, append, read_all):
    log = open_log(filesystem)
    positions = []
    for number in range(6):
        positions.append(log.size_bytes)
        append(log, b"value %d" % number)
    everything = read_all(log)
    for where in (4, 16, 20, 60):
        damaged = filesystem.after_kill()
        damaged.peek(SEGMENT)[positions[2] + where] ^= 0x40
        damaged.peek(SEGMENT)[positions[3] + 20] ^= 0x40
        log = open_log(damaged)
        assert log.damages[0][0] == 2
        assert log.damages[-1][1] == 4
        assert read_all(log, 4) == everything[4:]


def test_damage_at_the_end_of_a_closed_segment_is_kept_since_sound_batches_follow(
    filesystem, open_log, append, read_all
):
    log = open_log(filesystem)
    append(log, b"one")
    start = log.size_bytes
    append(log, b"two")
    log.roll()
    append(log, b"three")
    log.close()
    filesystem.unlink("/data/t-0/log-checkpoint")
    size = filesystem.size(SEGMENT)
    filesystem.peek(SEGMENT)[start + 30] ^= 1
    log = open_log(filesystem)
    assert filesystem.size(SEGMENT) == size
    assert [d[:2] for d in log.damages] == [(1, 2)]
    plan = log.plan_read(1, 1000)
    with pytest.raises(CorruptLogError) as caught:
        plan.read_into(memoryview(bytearray(max(plan.size_bytes, 100))))
    assert caught.value.next_readable_offset == 2
    assert read_all(log, 2) == [(2, b"three")]


def test_after_a_kill_only_the_last_segment_is_scanned(filesystem, open_log, append, read_all):
    log = open_log(filesystem, segment_bytes=1024)
    for number in range(50):
        append(log, b"%d" % number * 40)
    assert log.segment_count > 3
    everything = read_all(log)
    killed = open_log(filesystem.after_kill(), segment_bytes=1024)
    assert killed.scanned_segments == 1
    assert read_all(killed) == everything


@pytest.mark.parametrize(
    "name", ["log-checkpoint", "leader-epoch-checkpoint", ".index", ".timeindex", ".snapshot"]
)
@pytest.mark.parametrize("harm", ["missing", "empty", "cut", "flipped"])
@pytest.mark.parametrize("clean", [False, True])
def test_small_files_that_are_lost_or_damaged_are_made_again(
    filesystem, open_log, append, read_all, clock, name, harm, clean
):
    log = open_log(filesystem, segment_bytes=4096, index_interval_bytes=1024)
    sequence = 0
    for number in range(60):
        clock.advance(1)
        batch = numbered([b"%d" % number * 100], sequence, timestamp_ms=clock.time_ms())
        log.append(batch, check_batch(batch), number // 20)
        sequence += 1
    stamp = clock.time_ms() - 30_000
    everything, epochs = read_all(log), log.epochs.entries()
    found = log.offset_for_timestamp(stamp)
    assert found is not None
    log.close()
    for path in filesystem.paths():
        if not path.endswith(name):
            continue
        data = filesystem.peek(path)
        if harm == "missing":
            filesystem.unlink(path)
        elif harm == "empty":
            data.clear()
        elif harm == "cut":
            del data[len(data) // 2 + 1 :]
        elif data:
            data[len(data) // 2] ^= 0xFF
    log = open_log(filesystem, clean=clean, segment_bytes=4096, index_interval_bytes=1024)
    assert read_all(log) == everything
    for offset in (0, 7, 31, 59):
        assert read_all(log, offset) == everything[offset:]
    if (name, harm) != (".timeindex", "flipped"):
        # (A time index whose entries are wrong but in order has nothing that could tell.)
        assert log.offset_for_timestamp(stamp) == found
    if (name, harm) != ("leader-epoch-checkpoint", "flipped"):
        assert log.epochs.entries() == epochs
    assert log.producers.expected_sequence(5) == sequence


def test_indexes_of_another_log_are_built_again(filesystem, open_log, append, read_all):
    log = open_log(filesystem, segment_bytes=8192, index_interval_bytes=1024)
    for number in range(100):
        append(log, b"%d" % number * (30 + number))
    everything = read_all(log)
    log.close()
    indexes = [p for p in filesystem.paths() if p.endswith(".index")]
    filesystem.peek(indexes[0])[:] = filesystem.peek(indexes[1])
    log = open_log(filesystem, clean=True, segment_bytes=8192, index_interval_bytes=1024)
    for offset in range(100):
        assert read_all(log, offset) == everything[offset:]


def test_a_clean_opening_scans_nothing_and_a_killed_one_finds_the_same(
    filesystem, open_log, append, read_all
):
    log = open_log(filesystem, segment_bytes=2048)
    for number in range(40):
        append(log, b"%d" % number * 50)
    everything = read_all(log)
    assert log.close()
    assert filesystem.size(SEGMENT) < 2048
    for clean in (True, False):
        again = open_log(filesystem.after_kill(), clean=clean, segment_bytes=2048)
        assert again.scanned_segments == (0 if clean else 1)
        assert read_all(again) == everything
        assert again.log_end_offset == 40


def test_the_log_start_survives(filesystem, open_log, append):
    log = open_log(filesystem)
    for _ in range(4):
        append(log, b"x")
        log.roll()
    log.high_watermark = 4
    log.delete_before(2)
    assert log.close()
    log = open_log(filesystem, clean=True)
    assert log.log_start_offset == 2
    with pytest.raises(BrokerError) as caught:
        log.plan_read(1, 100)
    assert caught.value.code == ErrorCode.OFFSET_OUT_OF_RANGE


def test_an_empty_log_stays_where_it_was(filesystem, open_log, append, clock):
    log = open_log(filesystem, retention_ms=1000)
    append(log, [b"x", b"y"], clock.time_ms())
    log.high_watermark = 2
    clock.advance(10)
    assert log.apply_retention(clock.time_ms()) == 1
    assert (log.log_start_offset, log.log_end_offset) == (2, 2)
    for clean in (False, True):
        log.close()
        log = open_log(filesystem, clean=clean, retention_ms=1000)
        assert (log.log_start_offset, log.log_end_offset) == (2, 2)
    assert append(log, b"z") == 2


def test_epochs_answer_where_they_end():
    epochs = LeaderEpochs()
    for epoch, start in ((1, 0), (4, 10), (5, 30)):
        epochs.note(epoch, start)
    assert epochs.end_offset(4, 99) == (4, 30)
    assert epochs.end_offset(3, 99) == (1, 10)
    assert epochs.end_offset(9, 99) == (5, 99)
    assert epochs.end_offset(0, 99) == (-1, -1)
    assert LeaderEpochs.decode(epochs.encode()).entries() == epochs.entries()
    epochs.cut_start(15)
    epochs.cut_end(30)
    assert epochs.entries() == [(4, 15)]


def test_an_epoch_that_begins_before_others_ended_them():
    epochs = LeaderEpochs()
    for epoch, start in ((1, 0), (2, 10), (3, 20), (7, 10)):
        epochs.note(epoch, start)
    assert epochs.entries() == [(1, 0), (7, 10)]
