"""The log against a model of the log as a list: whatever is done to it, it reads as the list does."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from frieda.clock import ManualClock
from frieda.config import TopicConfig
from frieda.storage.log import PartitionLog
from frieda.testing.batches import make_batch
from frieda.testing.effort import examples
from frieda.testing.filesystem import MemoryFileSystem
from frieda.wire.batch import check_batch, decode_batch, iterate_batches

START_MS = 1_700_000_000_000


class LogModel(RuleBasedStateMachine):
    """records: (timestamp, value) by offset, from 0 on; synced: how many of them a power cut may not take."""

    def __init__(self) -> None:
        super().__init__()
        self.filesystem = MemoryFileSystem()
        self.clock = ManualClock(time_ms=START_MS)
        self.records: list[tuple[int, bytes]] = []
        self.batch_starts: list[int] = []
        self.synced = 0
        self.sequences = 0

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
    )
    def append(self, values: list[bytes], age_ms: int, numbered: bool) -> None:
        self.clock.advance(0.01)
        stamp = self.clock.time_ms() - age_ms
        stamps = [stamp + i % 3 for i in range(len(values))]
        fields = (
            {"producer_id": 7, "producer_epoch": 0, "base_sequence": self.sequences}
            if numbered
            else {}
        )
        batch = make_batch(values, stamps, **fields)
        header = check_batch(batch)
        base_offset = self.log.append(batch, header, 3)
        assert base_offset == len(self.records)
        self.batch_starts.append(base_offset)
        self.records += zip(stamps, values, strict=True)
        if numbered:
            self.sequences += len(values)

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
        offset = data.draw(st.integers(self.log.log_start_offset, len(self.records)))
        if offset < len(self.records):
            offset = max(s for s in self.batch_starts if s <= offset)
        self.log.truncate_to(max(offset, self.log.log_start_offset))
        self.forget_from(max(offset, self.log.log_start_offset))

    def forget_from(self, offset: int) -> None:
        del self.records[offset:]
        self.batch_starts = [s for s in self.batch_starts if s < offset]
        self.synced = min(self.synced, offset)
        assert self.log.log_end_offset == len(self.records)
        self.sequences = self.log.producers.expected_sequence(7)

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
        if self.log.damages:
            # Pages reached the disk out of order, and whole batches lie behind a hole: all are kept and reported.
            assert min(first for first, _, _ in self.log.damages) >= self.synced
            self.log.truncate_to(min(first for first, _, _ in self.log.damages))
        assert self.synced <= self.log.log_end_offset <= len(self.records)
        self.forget_from(self.log.log_end_offset)

    @invariant()
    def the_ends_are_right(self) -> None:
        if hasattr(self, "log"):
            assert self.log.log_end_offset == len(self.records)
            assert 0 <= self.log.log_start_offset <= len(self.records)
            assert self.log.producers.expected_sequence(7) == self.sequences

    def teardown(self) -> None:
        if hasattr(self, "log"):
            self.run_pending()
            self.log.close()
            assert self.filesystem.open_files == 0


TestLogModel = LogModel.TestCase
TestLogModel.settings = settings(max_examples=examples(40), stateful_step_count=40, deadline=None)
