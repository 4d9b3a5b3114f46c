"""Cutting a log and beginning it anew: what is left, on a disk that may stop at any moment and beside other threads."""

from __future__ import annotations

import errno
import itertools
import json
import threading
import zlib

import pytest

from frieda.clock import ManualClock
from frieda.config import TopicConfig
from frieda.errors import BrokerError, ErrorCode, StorageError
from frieda.storage.filesystem import RealFileSystem
from frieda.storage.log import PartitionLog
from frieda.storage.producer_state import REMEMBERED_BATCHES
from frieda.testing.batches import make_batch
from frieda.wire.batch import check_batch, decode_batch, iterate_batches

SEGMENT = "/data/t-0/00000000000000000000.log"
SMALL = {"segment_bytes": 1024, "index_interval_bytes": 1024, "retention_ms": -1}


def numbered(log, value, sequence, epoch, producer_id=5, producer_epoch=0):
    batch = make_batch(
        [value], producer_id=producer_id, producer_epoch=producer_epoch, base_sequence=sequence
    )
    return log.append(batch, check_batch(batch), epoch)


def grow(log, count=14):
    """Batches of one record each, under four epochs, over some segments. Epoch n begins at offset 4n."""
    for number in range(log.log_end_offset, count):
        numbered(log, b"%d old " % number * 40, number, number // 4)


def epochs_below(offset):
    return [(n // 4, n) for n in range(0, offset, 4)]


def sync(log):
    job = log.begin_sync()
    job.run()
    assert job.finish() is None


@pytest.mark.parametrize("offset", range(15))
@pytest.mark.parametrize("clean", [False, True])
def test_what_lies_before_the_cut_is_left_and_all_that_derives_from_it(
    filesystem, open_log, append, read_all, offset, clean
):
    log = open_log(filesystem, **SMALL)
    grow(log)
    everything = read_all(log)
    assert log.segment_count > 4
    assert log.truncate_to(offset) == offset
    for _ in range(2):
        assert (log.log_start_offset, log.log_end_offset) == (0, offset)
        assert read_all(log) == everything[:offset]
        assert log.epochs.entries() == epochs_below(offset)
        assert log.producers.expected_sequence(5) == offset
        assert log.close()
        log = open_log(filesystem, clean=clean, **SMALL)
        assert log.damages == []
    batch = make_batch([b"new"])
    assert log.append(batch, check_batch(batch), 9) == offset
    assert read_all(log) == [*everything[:offset], (offset, b"new")]
    assert log.epochs.entries() == [*epochs_below(offset), (9, offset)]


@pytest.mark.parametrize("offset", range(0, 41, 5))
@pytest.mark.parametrize("rolled", [False, True])
@pytest.mark.parametrize("later_ms", [0, 1000])
def test_times_are_found_in_what_is_left_and_in_what_comes_after(
    filesystem, open_log, append, clock, offset, rolled, later_ms
):
    """Both where what comes after is older than what was cut and where it is younger."""
    log = open_log(filesystem, index_interval_bytes=1024, retention_ms=-1)
    start_ms = clock.time_ms()
    for number in range(40):
        append(log, b"x" * 400, start_ms + 10 * number)
    if rolled:
        log.roll()
    log.truncate_to(offset)
    after_ms = start_ms + 10 * offset + later_ms
    for number in range(20):
        append(log, b"y" * 400, after_ms + number)
    for _ in range(2):
        for number in range(offset):
            assert log.offset_for_timestamp(start_ms + 10 * number)[0] == number
        for number in range(20):
            found = log.offset_for_timestamp(after_ms + number)
            assert found == (offset + number, after_ms + number)
        assert log.offset_for_timestamp(after_ms + 20) is None
        log.close()
        log = open_log(filesystem, clean=True, index_interval_bytes=1024, retention_ms=-1)


def test_the_age_by_which_a_segment_rolls_survives_a_cut(filesystem, open_log, append, clock):
    log = open_log(filesystem, segment_ms=60_000, retention_ms=-1)
    stamp = clock.time_ms() + 10**9  # from the future, so that it cannot tell the age
    append(log, b"x", stamp)
    clock.advance(50)
    append(log, b"y", stamp)
    log.truncate_to(1)
    clock.advance(20)
    log.apply_retention(clock.time_ms())
    assert log.segment_count == 2


def test_an_offset_inside_a_batch_takes_the_whole_batch_with_it(
    filesystem, open_log, append, read_all
):
    log = open_log(filesystem)
    append(log, [b"a", b"b"])
    append(log, [b"c", b"d", b"e"])
    assert log.truncate_to(4) == 2
    assert read_all(log) == [(0, b"a"), (1, b"b")]
    assert log.truncate_to(2) == 2
    assert log.cuts == 1, "where there is nothing to cut nothing is done"


def test_below_its_start_a_log_cannot_be_cut(filesystem, open_log):
    log = open_log(filesystem, **SMALL)
    grow(log)
    log.high_watermark = 8
    log.delete_before(6)
    with pytest.raises(BrokerError) as caught:
        log.truncate_to(5)
    assert caught.value.code == ErrorCode.OFFSET_OUT_OF_RANGE
    assert log.truncate_to(6) == 6
    assert (log.log_start_offset, log.log_end_offset) == (6, 6)


def test_a_log_that_begins_within_a_batch_and_is_cut_there_begins_with_the_batch(
    filesystem, open_log, append
):
    log = open_log(filesystem)
    append(log, [b"a", b"b", b"c", b"d"])
    log.high_watermark = 4
    log.delete_before(2)
    assert log.truncate_to(3) == 0
    assert (log.log_start_offset, log.log_end_offset) == (0, 0)


def test_the_high_watermark_comes_down_only_where_it_lay_above_the_cut(filesystem, open_log):
    log = open_log(filesystem, **SMALL)
    grow(log)
    log.high_watermark = 6
    cut = log.begin_cut(log.find_cut(9))
    assert not cut.below_high_watermark
    assert cut.complete() == 9
    assert log.high_watermark == 6
    cut = log.begin_cut(log.find_cut(3))
    assert cut.below_high_watermark
    cut.complete()
    assert log.high_watermark == 3


def test_damage_right_before_the_cut_goes_with_it_and_other_damage_stays(
    filesystem, open_log, append, read_all
):
    log = open_log(filesystem)
    positions = []
    for number in range(6):
        positions.append(log.size_bytes)
        append(log, b"value %d" % number)
    for hit in (1, 3):
        filesystem.peek(SEGMENT)[positions[hit] + 20] ^= 1
    log = open_log(filesystem.after_kill())
    assert [d[:2] for d in log.damages] == [(1, 2), (3, 4)]
    assert log.truncate_to(3) == 3
    assert [d[:2] for d in log.damages] == [(1, 2)]
    append(log, b"again 3")
    assert read_all(log, 2) == [(2, b"value 2"), (3, b"again 3")]


def test_nothing_is_left_of_a_log_that_begins_anew(filesystem, open_log, read_all, leaders_batch):
    for offset in (0, 5, 13, 100):
        disk = filesystem.after_kill()
        log = open_log(disk, **SMALL)
        grow(log)
        log.high_watermark = 3
        log.reset_to(offset)
        for clean in (False, True, False):
            assert (log.log_start_offset, log.log_end_offset) == (offset, offset)
            assert log.high_watermark == offset
            assert log.epochs.entries() == []
            assert len(log.producers) == 0
            assert log.segment_count == 1
            log.close()
            log = open_log(disk, clean=clean, **SMALL)
        assert log.append_replicated(leaders_batch(b"new", offset, 2), 2) == offset + 1
        assert read_all(log) == [(offset, b"new")]
        assert log.epochs.entries() == [(2, offset)]
        names = {path.rpartition("/")[2] for path in disk.paths()}
        assert {n for n in names if n.endswith(".log")} == {f"{offset:020d}.log"}
        log.close()
        assert disk.open_files == 0


def state_of(log, read_all):
    return (
        log.log_start_offset,
        read_all(log),
        log.epochs.entries(),
        log.producers.expected_sequence(5),
        log.damages,
    )


@pytest.mark.parametrize("target", [*range(14), ("anew", 0), ("anew", 6), ("anew", 40)])
def test_a_crash_at_any_moment_of_a_cut_leaves_the_log_as_before_or_as_after(
    filesystem, open_log, read_all, moments, target
):
    log = open_log(filesystem, **SMALL)
    grow(log)
    sync(log)
    before = state_of(log, read_all)
    if isinstance(target, tuple):
        found = moments(filesystem, lambda: log.reset_to(target[1]))
    else:
        found = moments(filesystem, lambda: log.truncate_to(target))
    after = state_of(log, read_all)
    assert after != before
    seen = set()
    for number, killed in enumerate(found):
        for seed in ("killed", None, 1, 2, 3):
            disk = killed if seed == "killed" else killed.after_power_loss(seed)
            for clean in (False, True):
                again = open_log(disk.after_kill(), clean=clean, **SMALL)
                state = state_of(again, read_all)
                assert state in (before, after), f"at moment {number}, {seed}"
                seen.add(state == after)
                assert number < len(found) - 1 or state == after, "a cut that has returned stays"
                again.close()
    assert seen == {False, True}


@pytest.mark.parametrize("target", [0, 3, 4, 7, 9, 13])
def test_what_is_appended_after_a_cut_never_mixes_with_what_was_cut(
    filesystem, open_log, read_all, moments, leaders_batch, target
):
    log = open_log(filesystem, **SMALL)
    grow(log)
    sync(log)
    old = read_all(log)
    log.truncate_to(target)
    new = [(n, b"%d new " % n * 40) for n in range(target, 18)]

    def refill():
        for offset, value in new:
            log.append_replicated(leaders_batch(value, offset, 9), 9)

    for killed in moments(filesystem, refill):
        for seed in (None, *range(4)):
            again = open_log(killed.after_power_loss(seed), **SMALL)
            if (
                again.damages
            ):  # pages reached the disk out of order; the follower would go back to there
                again.truncate_to(min(first for first, _, _ in again.damages))
            found = read_all(again)
            assert found == [*old[:target], *new][: len(found)]
            assert len(found) >= target
            marks = [(9, target)] if len(found) > target else []
            assert again.epochs.entries() == [*epochs_below(target), *marks]


def test_a_crash_while_recovery_carries_out_a_cut_is_made_good_by_the_next(
    filesystem, open_log, read_all, moments
):
    log = open_log(filesystem, **SMALL)
    grow(log)
    sync(log)
    found = moments(filesystem, lambda: log.truncate_to(5))
    after = state_of(log, read_all)
    unfinished = next(
        disk
        for disk in found
        if b'"cut_base": 3' in bytes(disk.after_power_loss().peek("/data/t-0/log-checkpoint"))
    )
    for again in moments(unfinished, lambda: open_log(unfinished, **SMALL)):
        for disk in (again, again.after_power_loss(), again.after_power_loss(7)):
            assert state_of(open_log(disk, **SMALL), read_all) == after


@pytest.mark.parametrize("epoch", [None, 9])
@pytest.mark.parametrize("target", [5, 6, 13, ("anew", 6), ("anew", 40)])
def test_what_is_appended_after_recovery_has_carried_out_a_cut_stays(
    filesystem, open_log, read_all, moments, leaders_batch, target, epoch
):
    log = open_log(filesystem, **SMALL)
    grow(log)
    log.close()
    log = open_log(filesystem, clean=True, **SMALL)
    anew = isinstance(target, tuple)
    cut = log.begin_cut(log.place_anew(target[1]) if anew else log.find_cut(target))
    for left in moments(filesystem, cut.run):
        first = open_log(left, **SMALL)
        end = first.log_end_offset
        entries, sequence = first.epochs.entries(), first.producers.expected_sequence(5)
        goes_on = epoch is None and bool(entries)
        leader_epoch = entries[-1][0] if goes_on else 9
        first.append_replicated(leaders_batch([b"new"] * 9, end, leader_epoch), 9)
        everything = read_all(first)
        second = open_log(left.after_kill(), **SMALL)
        assert read_all(second) == everything
        assert second.log_end_offset == end + 9
        assert second.epochs.entries() == entries + [(9, end)] * (not goes_on)
        assert second.producers.expected_sequence(5) == sequence


def test_epochs_that_were_cut_do_not_come_back_where_an_older_one_goes_on(
    filesystem, open_log, leaders_batch
):
    log = open_log(filesystem, **SMALL)
    grow(log)
    log.close()
    log = open_log(filesystem, clean=True, **SMALL)
    log.truncate_to(6)
    log.append_replicated(leaders_batch([b"x"] * 30, 6, 1), 1)
    for left in (filesystem.after_kill(), filesystem.after_power_loss()):
        assert open_log(left, **SMALL).epochs.entries() == [(0, 0), (1, 4)]


def test_what_was_remembered_of_producers_beyond_a_cut_does_not_come_back(
    filesystem, open_log, leaders_batch
):
    log = open_log(filesystem, **SMALL)
    grow(log)
    assert log.truncate_to(7) == 7
    log.append_replicated(leaders_batch([b"x"] * 30, 7, 9), 9)
    log.roll()
    assert log.producers.expected_sequence(5) == 7
    newest = max(path for path in filesystem.paths() if path.endswith(".snapshot"))
    filesystem.peek(newest).clear()  # so that an older one is looked for
    again = open_log(filesystem.after_kill(), **SMALL)
    assert again.log_end_offset == 37
    assert again.producers.expected_sequence(5) == 7


def test_a_checkpoint_of_before_there_were_cuts_is_read(filesystem, open_log):
    log = open_log(filesystem, **SMALL)
    grow(log)
    log.close()
    path = "/data/t-0/log-checkpoint"
    line = json.loads(bytes(filesystem.peek(path)).partition(b"\n")[0])
    del line["cut_base"], line["cut_position"]
    old = json.dumps(line).encode()
    filesystem.peek(path)[:] = b"%s\n%08x\n" % (old, zlib.crc32(old))
    assert open_log(filesystem, clean=True, **SMALL).scanned_segments == 0


@pytest.mark.parametrize("own", [False, True])
def test_an_epoch_that_was_cut_is_noted_again_when_it_comes_back(
    filesystem, open_log, append, leaders_batch, own
):
    log = open_log(filesystem, **SMALL)
    grow(log)
    log.truncate_to(10)
    if own:
        numbered(log, b"x", 10, 3)
    else:
        log.append_replicated(leaders_batch(b"x", 10, 3), 3)
    assert log.epochs.entries() == [(0, 0), (1, 4), (2, 8), (3, 10)]


def test_an_unclean_stop_after_a_cut_does_not_bring_back_epochs_that_were_cut(
    filesystem, open_log, leaders_batch
):
    log = open_log(filesystem, **SMALL)
    grow(log)
    log.close()
    log = open_log(filesystem, clean=True, **SMALL)
    log.truncate_to(6)
    log.append_replicated(leaders_batch([b"x"] * 20, 6, 7), 7)
    for disk in (filesystem.after_kill(), filesystem.after_power_loss(3)):
        entries = open_log(disk, **SMALL).epochs.entries()
        assert entries in ([(0, 0), (1, 4), (7, 6)], [(0, 0), (1, 4)])


# --- the memory of producers -------------------------------------------------------------------------------


def test_a_producer_that_began_in_what_was_cut_is_not_known_any_more(filesystem, open_log):
    log = open_log(filesystem)
    numbered(log, b"x", 0, 0, producer_id=1)
    numbered(log, b"x", 0, 0, producer_id=2)
    log.truncate_to(1)
    assert log.producers.epoch(1) == 0
    assert log.producers.epoch(2) == -1


def test_a_producers_earlier_epoch_comes_back(filesystem, open_log):
    log = open_log(filesystem)
    numbered(log, b"x", 0, 0)
    numbered(log, b"x", 1, 0)
    numbered(log, b"x", 0, 0, producer_epoch=1)
    log.truncate_to(2)
    assert (log.producers.epoch(5), log.producers.expected_sequence(5)) == (0, 2)


@pytest.mark.parametrize("rolled", [False, True])
def test_where_memory_does_not_reach_back_the_log_is_read_again(filesystem, open_log, rolled):
    log = open_log(filesystem)
    for sequence in range(10):
        numbered(log, b"x", sequence, 0)
    if rolled:
        log.roll()
    for sequence in range(10, 20 + REMEMBERED_BATCHES):
        numbered(log, b"x", sequence, 0)
    for epoch in (1, 2, 3):
        numbered(log, b"x", 0, 0, producer_epoch=epoch)
    log.truncate_to(12)
    assert (log.producers.epoch(5), log.producers.expected_sequence(5)) == (0, 12)
    again = open_log(filesystem.after_kill())
    assert again.producers.encode(12) == log.producers.encode(12)


# --- beside other work -------------------------------------------------------------------------------------


def test_a_log_that_is_being_cut_takes_no_writes_and_then_does(
    filesystem, open_log, append, read_all, leaders_batch
):
    log = open_log(filesystem, **SMALL)
    grow(log)
    log.high_watermark = 4
    cut = log.begin_cut(log.find_cut(6))
    assert log.log_end_offset == 6, "for readers it is cut at once"
    assert [offset for offset, _ in read_all(log)] == list(range(6))
    for attempt in (
        lambda: append(log, b"x"),
        lambda: log.append_replicated(leaders_batch(b"x", 6, 9), 9),
        lambda: log.delete_before(4),
        lambda: log.begin_cut(log.find_cut(3)),
        log.roll,
        log.begin_sync,
        cut.finish,
    ):
        with pytest.raises(StorageError) as caught:
            attempt()
        assert caught.value.code == ErrorCode.BUSY
        assert "cut" in str(caught.value)
    log.config = TopicConfig(segment_bytes=1024, retention_bytes=1)
    assert log.apply_retention(0) == 0, (
        "what is old waits, since the checkpoint says another thing now"
    )
    cut.run()
    assert cut.finish() == 6
    assert append(log, b"x") == 6
    assert log.synced_offset == 0, "that the segment before is synced is not known"
    sync(log)
    log.truncate_to(5)
    assert log.synced_offset == 5


def test_a_cut_waits_for_the_slow_work_of_rolls(filesystem, open_log, read_all):
    work = []
    log = open_log(filesystem, background=work.append, **SMALL)
    grow(log)
    everything = read_all(log)
    assert len(work) > 2
    cut = log.begin_cut(log.find_cut(5))
    thread = threading.Thread(target=cut.run)
    thread.start()
    size = filesystem.size(SEGMENT)
    for piece in work:
        assert thread.is_alive()
        piece()
    thread.join(60)
    assert cut.finish() == 5
    assert not log.failed
    assert log.maintenance_error == ""
    assert filesystem.size(SEGMENT) <= size
    for clean in (False, True):
        assert read_all(log) == everything[:5]
        log.close()
        log = open_log(filesystem, clean=clean, **SMALL)
    assert log.producers.expected_sequence(5) == 5


def test_a_sync_under_way_says_nothing_of_what_came_after_the_cut(
    filesystem, open_log, append, leaders_batch
):
    log = open_log(filesystem)
    for _ in range(10):
        append(log, b"old")
    job = log.begin_sync()
    log.truncate_to(3)
    log.append_replicated(leaders_batch([b"new"] * 10, 3, 1), 1)
    job.run()
    assert job.finish() is None
    assert log.synced_offset == 3
    assert open_log(filesystem.after_power_loss()).log_end_offset >= 3


def test_a_place_found_before_another_cut_is_refused(filesystem, open_log, append):
    log = open_log(filesystem)
    for _ in range(10):
        append(log, b"x")
    stale = log.find_cut(8)
    log.truncate_to(5)
    with pytest.raises(BrokerError) as caught:
        log.begin_cut(stale)
    assert caught.value.code == ErrorCode.OFFSET_OUT_OF_RANGE
    assert append(log, b"y") == 5


def test_closing_a_log_finishes_its_cut(filesystem, open_log, read_all):
    log = open_log(filesystem, **SMALL)
    grow(log)
    everything = read_all(log)
    log.begin_cut(log.find_cut(7))
    assert log.close()
    log = open_log(filesystem, clean=True, **SMALL)
    assert log.scanned_segments == 0
    assert read_all(log) == everything[:7]


def test_a_log_that_is_deleted_is_not_cut_any_more(filesystem, open_log):
    log = open_log(filesystem, **SMALL)
    grow(log)
    cut = log.begin_cut(log.find_cut(7))
    log.delete()
    cut.run()
    assert filesystem.paths() == []


@pytest.mark.parametrize("operation", ["pwrite", "rename", "sync_directory", "unlink"])
def test_a_cut_that_fails_is_tried_again_or_fails_the_log_but_never_passes_for_done(
    filesystem, open_log, append, read_all, operation
):
    log = open_log(filesystem, **SMALL)
    grow(log)
    everything = read_all(log)
    cut = log.begin_cut(log.find_cut(6))
    with filesystem.failing(operation, errno.ENOSPC):
        cut.run()
        with pytest.raises(StorageError):
            cut.finish()
    with pytest.raises(StorageError):
        append(log, b"x")
    assert read_all(open_log(filesystem.after_kill(), **SMALL)) in (everything, everything[:6])
    if log.failed:
        with pytest.raises(StorageError) as caught:
            cut.complete()
        assert caught.value.code == ErrorCode.LOG_FAILED
        assert log.close() is False
    else:
        assert cut.complete() == 6
        assert append(log, b"x") == 6
    again = open_log(filesystem.after_kill(), **SMALL)
    assert read_all(again)[:6] == everything[:6]
    assert again.log_end_offset == 6 + (not log.failed)


def test_an_fsync_that_fails_in_a_cut_is_not_tried_again(filesystem, open_log):
    log = open_log(filesystem, **SMALL)
    grow(log)
    cut = log.begin_cut(log.find_cut(6))
    filesystem.fail("sync", errno.EIO, path_part=".log", times=1)
    cut.run()
    assert log.failed
    syncs = filesystem.sync_count
    cut.run()
    assert filesystem.sync_count == syncs
    assert open_log(filesystem.after_kill(), **SMALL).log_end_offset == 6


def test_a_plan_made_before_a_cut_brings_nothing_after_it(filesystem, open_log, append):
    log = open_log(filesystem, **SMALL)
    grow(log)
    plans = [log.plan_read(offset, 1 << 20) for offset in range(14)]
    log.truncate_to(5)
    append(log, [b"other"] * 9)
    for plan in plans[4:]:
        assert plan.read_into(memoryview(bytearray(plan.size_bytes))) == 0
        with pytest.raises(BrokerError) as caught:
            log.plan_read(99, 1000)
        assert caught.value.code == ErrorCode.OFFSET_OUT_OF_RANGE
    again = log.plan_read(4, 1 << 20)
    assert again.read_into(memoryview(bytearray(again.size_bytes))) > 0


def test_who_has_read_the_end_just_before_a_cut_finds_nothing_there_and_no_damage(
    filesystem, open_log
):
    log = open_log(filesystem, **SMALL)
    grow(log)
    log.truncate_to(5)
    log.log_end_offset = 14  # what such a thread goes by
    for offset in range(5, 14):
        assert log.plan_read(offset, 1000).size_bytes == 0
    log.log_end_offset = 5


def test_readers_in_other_threads_see_each_offset_as_it_was_at_some_time_and_no_damage(tmp_path):
    log = PartitionLog.open(
        RealFileSystem(),
        str(tmp_path / "t-0"),
        TopicConfig(segment_bytes=4096, index_interval_bytes=1024, retention_ms=-1),
        ManualClock(),
        clean=False,
    )
    over = threading.Event()
    problems, reads = [], [0, 0]

    def read(reader):
        offset = 0
        while not over.is_set():
            try:
                plan = log.plan_read(offset, 3000)
                view = memoryview(bytearray(plan.size_bytes))
                size_bytes = plan.read_into(view)
                for position, header in iterate_batches(view[:size_bytes]):
                    batch = view[position : position + header.size_bytes]
                    for record in decode_batch(batch, "t", 0, offset):
                        value, round_number = record.value.split(b"/")
                        assert int(value) == record.offset
                        assert int(round_number) == header.leader_epoch
                offset = plan.next_offset if size_bytes else 0
                reads[reader] += 1
            except BrokerError as error:
                if error.code != ErrorCode.OFFSET_OUT_OF_RANGE:
                    problems.append(error)
                    return
                offset = 0
            except Exception as error:  # noqa: BLE001
                problems.append(error)
                return

    threads = [threading.Thread(target=read, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    try:
        for round_number in itertools.count():
            while log.log_end_offset < 60:
                offset = log.log_end_offset
                batch = make_batch([b"%0100d/%d" % (offset, round_number)])
                log.append(batch, check_batch(batch), round_number)
            log.truncate_to(round_number * 7 % 60)
            if problems or (round_number >= 40 and min(reads) >= 40):
                break
    finally:
        over.set()
        for thread in threads:
            thread.join(60)
        log.close()
    assert problems == []
