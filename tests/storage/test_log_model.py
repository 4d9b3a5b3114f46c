"""The log against a model of the log as a list: whatever is done to it, it reads as the list does."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from frieda.clock import ManualClock
from frieda.config import TopicConfig
from frieda.storage.leader_epochs import LeaderEpochs
from frieda.storage.log import PartitionLog
from frieda.testing.batches import make_batch
from frieda.testing.effort import examples
from frieda.testing.filesystem import MemoryFileSystem, Operation
from frieda.wire.batch import check_batch, decode_batch, iterate_batches, patch

START_MS = 1_700_000_000_000


class LogModel(RuleBasedStateMachine):
    """records: (timestamp, value) by offset, from 0 on; synced: how many of them a power cut may not take.

    batches: (base offset, leader epoch, last sequence or -1) of each.
    """

    def __init__(self) -> None:
        super().__init__()
        self.filesystem = MemoryFileSystem()
        self.clock = ManualClock(time_ms=START_MS)
        self.records: list[tuple[int, bytes]] = []
        self.batches: list[tuple[int, int, int]] = []
        self.synced = 0
        self.sequences = 0
        self.leader_epoch = 3

    @property
    def batch_starts(self) -> list[int]:
        return [start for start, _, _ in self.batches]

    @initialize(
        segment_bytes=st.sampled_from([1024, 3000, 20_000]),
        interval=st.sampled_from([1024, 4096]),
        in_background=st.booleans(),
    )
    def begin(self, segment_bytes: int, interval: int, in_background: bool) -> None:
        self.pending: list[object] = []
        self.in_background = in_background
        self.config = TopicConfig(
            segment_bytes=segment_bytes, index_interval_bytes=interval, retention_ms=-1
        )
        self.open(clean=False)

    def open(self, *, clean: bool) -> None:
        self.pending = []
        self.log = PartitionLog.open(
            self.filesystem,
            "/data/t-0",
            self.config,
            self.clock,
            clean=clean,
            background=self.pending.append if self.in_background else None,
        )

    def run_pending(self) -> None:
        while self.pending:
            self.pending.pop(0)()  # type: ignore[operator]

    @rule(
        values=st.lists(st.binary(max_size=300), min_size=1, max_size=6),
        age_ms=st.integers(-50, 50),
        numbered=st.booleans(),
        replicated=st.booleans(),
    )
    def append(self, values: list[bytes], age_ms: int, numbered: bool, replicated: bool) -> None:
        self.clock.advance(0.01)
        stamp = self.clock.time_ms() - age_ms
        stamps = [stamp + i % 3 for i in range(len(values))]
        fields = (
            {"producer_id": 7, "producer_epoch": 0, "base_sequence": self.sequences}
            if numbered
            else {}
        )
        batch = make_batch(values, stamps, **fields)
        base_offset = len(self.records)
        if replicated:
            patch(batch, base_offset, self.leader_epoch)
            end = self.log.append_replicated(batch.toreadonly(), self.leader_epoch)
            assert end == base_offset + len(values)
        else:
            assert self.log.append(batch, check_batch(batch), self.leader_epoch) == base_offset
        self.records += zip(stamps, values, strict=True)
        if numbered:
            self.sequences += len(values)
        self.batches.append((base_offset, self.leader_epoch, self.sequences if numbered else -1))

    @rule()
    def another_leader(self) -> None:
        self.leader_epoch += 1

    @rule()
    def roll(self) -> None:
        self.log.roll()

    @rule()
    def do_the_slow_work(self) -> None:
        self.run_pending()

    @rule()
    def sync(self) -> None:
        job = self.log.begin_sync()
        job.run()
        assert job.finish() is None
        self.synced = len(self.records)
        assert self.log.synced_offset == self.synced

    @rule(data=st.data(), max_bytes=st.integers(0, 5000))
    def read(self, data: st.DataObject, max_bytes: int) -> None:
        offset = data.draw(st.integers(self.log.log_start_offset, len(self.records)))
        up_to = data.draw(st.integers(offset, len(self.records)))
        plan = self.log.plan_read(offset, max_bytes, up_to)
        view = memoryview(bytearray(plan.size_bytes))
        size_bytes = plan.read_into(view, wait=True)
        if size_bytes == 0 < plan.size_bytes:  # the first batch is larger than was known
            plan = self.log.plan_read(offset, max_bytes, up_to)
            view = memoryview(bytearray(plan.size_bytes))
            size_bytes = plan.read_into(view, wait=True)
        found = []
        for position, header in iterate_batches(view[:size_bytes]):
            batch = view[position : position + header.size_bytes]
            found += decode_batch(batch, "t", 0, offset)
            assert header.next_offset <= up_to
        expected = self.records[offset : plan.next_offset]
        assert [(r.offset, r.timestamp_ms, r.value) for r in found] == [
            (offset + i, stamp, value) for i, (stamp, value) in enumerate(expected)
        ]
        first_end = min(
            (s for s in [*self.batch_starts, len(self.records)] if s > offset), default=offset
        )
        if first_end <= up_to and offset < len(self.records):
            assert found, "a whole batch was there and none was brought"

    @rule(shift_ms=st.integers(-2000, 200))
    def look_up_a_time(self, shift_ms: int) -> None:
        stamp = self.clock.time_ms() + shift_ms
        start = self.log.log_start_offset
        expected = next(
            ((start + i, t) for i, (t, _) in enumerate(self.records[start:]) if t >= stamp),
            None,
        )
        assert self.log.offset_for_timestamp(stamp) == expected

    @rule(keep_bytes=st.integers(0, 6000))
    def retain_by_size(self, keep_bytes: int) -> None:
        self.log.config = TopicConfig(
            segment_bytes=self.config.segment_bytes, retention_ms=-1, retention_bytes=keep_bytes
        )
        self.log.high_watermark = self.log.log_end_offset
        before = self.log.size_bytes
        self.log.apply_retention(self.clock.time_ms())
        assert self.log.size_bytes >= min(keep_bytes, before)
        self.log.config = self.config

    @precondition(lambda self: self.records)
    @rule(data=st.data())
    def cut(self, data: st.DataObject) -> None:
        self.run_pending()
        offset = self.draw_cut(data)
        reached = self.log.truncate_to(offset)
        self.forget_from(self.reached_by(offset))
        assert reached == len(self.records)
        assert self.log.producers.expected_sequence(7) == self.sequences
        self.leader_epoch += 1

    @precondition(lambda self: self.records)
    @rule(data=st.data(), seed=st.sampled_from(["killed", None]) | st.integers(0, 1 << 30))
    def stop_in_the_middle_of_a_cut(self, data: st.DataObject, seed: str | int | None) -> None:
        self.run_pending()
        offset = self.draw_cut(data)
        steps = data.draw(st.integers(0, 60))
        cut = self.log.begin_cut(place) if (place := self.log.find_cut(offset)) else None
        left = None
        check = self.filesystem.check

        def count(operation: Operation, path: str) -> None:
            nonlocal steps, left
            steps -= 1
            if steps == 0:
                left = self.filesystem.after_kill()
            check(operation, path)

        self.filesystem.check = count  # type: ignore[method-assign]
        if cut is not None:
            cut.complete()
        left = left or self.filesystem.after_kill()
        self.filesystem = left if seed == "killed" else left.after_power_loss(seed)  # type: ignore[arg-type]
        before, reached = len(self.records), self.reached_by(offset)
        self.open(clean=False)
        if seed == "killed":
            assert self.log.damages == []
            assert self.log.log_end_offset in (before, reached)
        self.synced = min(self.synced, reached)
        self.take_up_what_is_left()
        self.leader_epoch += 1

    @rule(distance=st.integers(-30, 30))
    def begin_anew(self, distance: int) -> None:
        self.run_pending()
        offset = max(len(self.records) + distance, 0)
        self.log.reset_to(offset)
        self.records = (self.records + [(0, b"")] * 30)[:offset]
        self.batches, self.synced, self.sequences = [], offset, 0
        assert self.log.log_start_offset == self.log.high_watermark == offset
        self.leader_epoch += 1

    def draw_cut(self, data: st.DataObject) -> int:
        offset: int = data.draw(st.integers(self.log.log_start_offset, len(self.records)))
        return offset

    def reached_by(self, offset: int) -> int:
        """Where a cut at `offset` ends the log: at the start of the batch that holds it."""
        if offset >= len(self.records):
            return len(self.records)
        return max(s for s in self.batch_starts if s <= offset)

    def forget_from(self, offset: int) -> None:
        del self.records[offset:]
        self.batches = [batch for batch in self.batches if batch[0] < offset]
        self.synced = min(self.synced, offset)
        assert self.log.log_end_offset == len(self.records)
        self.sequences = max(0, *(last for _, _, last in self.batches), 0)

    def take_up_what_is_left(self) -> None:
        """After a stop: what is there is a beginning of what there was, and has all that was synced."""
        if self.log.damages:
            # Pages reached the disk out of order, and whole batches lie behind a hole: all are kept and reported.
            first = min(first for first, _, _ in self.log.damages)
            assert first >= self.synced
            self.log.truncate_to(first)
        assert self.synced <= self.log.log_end_offset <= len(self.records)
        self.forget_from(self.log.log_end_offset)
        # (Retention may have taken its records, and the power cut the snapshot that remembered it.)
        if self.log.producers.expected_sequence(7) != self.sequences:
            assert self.log.producers.expected_sequence(7) == 0
            self.batches = [(start, epoch, -1) for start, epoch, _ in self.batches]
            self.sequences = 0

    @rule()
    def close_and_open(self) -> None:
        self.run_pending()
        start = self.log.log_start_offset
        assert self.log.close()
        assert self.filesystem.open_files == 0
        self.synced = len(self.records)
        self.open(clean=True)
        assert self.log.scanned_segments == 0
        assert self.log.log_start_offset == start

    @rule()
    def kill(self) -> None:
        done = not self.pending
        self.filesystem = self.filesystem.after_kill()
        self.open(clean=False)
        if done:
            assert self.log.scanned_segments <= 1
        assert self.log.damages == []

    @rule(seed=st.none() | st.integers(0, 1 << 30))
    def lose_power(self, seed: int | None) -> None:
        self.filesystem = self.filesystem.after_power_loss(seed)
        self.open(clean=False)
        self.take_up_what_is_left()

    @invariant()
    def the_ends_are_right(self) -> None:
        if hasattr(self, "log"):
            assert self.log.log_end_offset == len(self.records)
            assert 0 <= self.log.log_start_offset <= len(self.records)
            assert self.log.producers.expected_sequence(7) == self.sequences

    @invariant()
    def the_leader_epochs_are_those_of_the_batches(self) -> None:
        if hasattr(self, "log"):
            expected = LeaderEpochs()
            for start, epoch, _ in self.batches:
                expected.note(epoch, start)
            found = LeaderEpochs.decode(self.log.epochs.encode())
            for each in (expected, found):
                each.cut_start(self.log.log_start_offset)
                each.cut_end(len(self.records))  # the epoch of a log that is empty may be forgotten
            assert found.entries() == expected.entries()

    def teardown(self) -> None:
        if hasattr(self, "log"):
            self.run_pending()
            self.log.close()
            assert self.filesystem.open_files == 0


TestLogModel = LogModel.TestCase
TestLogModel.settings = settings(max_examples=examples(40), stateful_step_count=40, deadline=None)
