"""The state of fetching, driven by hand and by Hypothesis: answers late, reordered, after seeks, with errors."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from frieda.clients.chunks import BatchExtent, Chunk, batch_extents
from frieda.clients.fetch_state import FetchState, Outcome, PartitionFetch, Taken
from frieda.errors import BrokerError, CorruptLogError, ErrorCode, MissingDependencyError
from frieda.model import Record, TopicPartition
from frieda.testing.effort import examples
from frieda.wire.batch import BatchBuilder, decode_batch, patch

LEADER = "leader"
BATCH_RECORDS = 3
BATCH_BYTES = 100


class CountedLease:
    def __init__(self, out: Counter[str]) -> None:
        self._out = out
        self._released = False
        out["leases"] += 1

    def release(self) -> None:
        assert not self._released, "a lease was released twice"
        self._released = True
        self._out["leases"] -= 1


def fake_decode(batch: memoryview, topic: str, partition: int, from_offset: int) -> list[Record]:
    """A batch of the tests is 100 bytes that begin with its base offset."""
    base = int.from_bytes(batch[:8], "big")
    if batch[8]:
        raise BrokerError(ErrorCode.CORRUPT_MESSAGE, "damaged")
    return [
        Record(topic, partition, offset, 0, None, b"", ())
        for offset in range(max(base, from_offset), base + BATCH_RECORDS)
    ]


def make_chunk(
    offset: int, batches: int, out: Counter[str] | None = None, damaged: bool = False
) -> Chunk:
    """Batches from the one that holds `offset` on."""
    first = offset - offset % BATCH_RECORDS
    data = bytearray()
    extents = []
    for index in range(batches):
        base = first + index * BATCH_RECORDS
        start = len(data)
        data += base.to_bytes(8, "big") + bytes([damaged]) + bytes(BATCH_BYTES - 9)
        extents.append(BatchExtent(start, len(data), base, base + BATCH_RECORDS))
    lease = None if out is None else CountedLease(out)
    return Chunk(memoryview(bytes(data)), extents, offset, lease)


def make_state(*, prefetch_bytes: int = 2000, max_bytes: int = 400) -> FetchState:
    return FetchState(fake_decode, prefetch_bytes=prefetch_bytes, max_bytes=max_bytes)


def placed(state: FetchState, number: int, offset: int = 0) -> PartitionFetch:
    partition = state.add(TopicPartition("t", number), b"id", "earliest")
    state.place(partition, LEADER)
    state.begin(partition, offset)
    return partition


def offsets(taken: Taken | None) -> list[int]:
    assert taken is not None
    return [record.offset for record in taken.records]


def test_a_partition_is_fetched_once_it_has_a_leader_and_an_offset() -> None:
    state = make_state()
    partition = state.add(TopicPartition("t", 0), b"id", "earliest")
    assert state.next_order(LEADER) is None
    state.place(partition, LEADER)
    assert partition in state.adrift
    assert state.next_order(LEADER) is None
    state.begin(partition, 7)
    assert not state.adrift
    order = state.next_order(LEADER)
    assert order is not None
    assert [(slot.partition, slot.offset) for slot in order.slots] == [(partition, 7)]


def test_the_next_fetch_may_leave_before_a_record_is_decoded() -> None:
    state = make_state()
    partition = placed(state, 0)
    first = state.next_order(LEADER)
    assert first is not None
    assert state.next_order(LEADER) is None, "one fetch of a partition at a time"
    assert state.settle(first, [Outcome(make_chunk(0, 2), 100)])
    second = state.next_order(LEADER)
    assert second is not None
    assert second.slots[0].offset == 6
    assert partition.position == 0


def test_an_answer_from_before_a_seek_is_dropped_and_its_buffer_given_back() -> None:
    out: Counter[str] = Counter()
    state = make_state()
    partition = placed(state, 0)
    old = state.next_order(LEADER)
    assert old is not None
    state.seek(partition, 30)
    new = state.next_order(LEADER)
    assert new is not None
    assert new.slots[0].offset == 30
    assert state.settle(new, [Outcome(make_chunk(30, 1, out), 100)])
    assert not state.settle(old, [Outcome(make_chunk(0, 1, out), 100)])
    assert offsets(state.take()) == [30, 31, 32]
    assert state.take() is None
    assert out["leases"] == 0
    assert state.reserved_bytes == state.buffered_bytes == 0


def test_a_batch_that_begins_before_the_wanted_offset_gives_only_what_follows_it() -> None:
    state = make_state()
    placed(state, 0, offset=4)
    order = state.next_order(LEADER)
    assert order is not None
    state.settle(order, [Outcome(make_chunk(4, 2), 100)])
    assert offsets(state.take()) == [4, 5]
    assert offsets(state.take()) == [6, 7, 8]


def test_what_a_paused_partition_gets_is_kept_and_comes_after_resume() -> None:
    state = make_state()
    partition = placed(state, 0)
    order = state.next_order(LEADER)
    assert order is not None
    state.pause(partition)
    state.settle(order, [Outcome(make_chunk(0, 1), 100)])
    assert state.take() is None
    assert state.next_order(LEADER) is None
    state.resume(partition)
    assert offsets(state.take()) == [0, 1, 2]
    assert state.next_order(LEADER) is not None


def test_no_fetch_leaves_without_room_and_one_does_when_a_chunk_is_used_up() -> None:
    state = make_state(prefetch_bytes=800, max_bytes=400)
    placed(state, 0)
    order = state.next_order(LEADER)
    assert order is not None
    state.settle(order, [Outcome(make_chunk(0, 4), 1000)])
    order = state.next_order(LEADER)
    assert order is not None
    state.settle(order, [Outcome(make_chunk(12, 4), 1000)])
    assert state.buffered_bytes == 800
    assert state.next_order(LEADER) is None
    for _ in range(4):
        assert not state.freed
        assert state.take() is not None
    assert state.freed
    assert state.next_order(LEADER) is not None


def test_a_batch_larger_than_all_room_is_taken_and_stops_fetching_until_it_is_used() -> None:
    state = make_state(prefetch_bytes=400, max_bytes=400)
    placed(state, 0)
    order = state.next_order(LEADER)
    assert order is not None
    state.settle(order, [Outcome(make_chunk(0, 9), 1000)])
    assert state.buffered_bytes == 900
    assert state.next_order(LEADER) is None
    while state.take() is not None:
        pass
    assert state.next_order(LEADER) is not None


def test_a_busy_partition_is_fetched_apart_from_the_idle_ones() -> None:
    state = make_state()
    busy, idle = placed(state, 0), placed(state, 1)
    order = state.next_order(LEADER)
    assert order is not None
    assert [slot.partition for slot in order.slots] == [busy, idle]
    state.settle(order, [Outcome(make_chunk(0, 1), 100), Outcome(None, 0)])
    first, second = state.next_order(LEADER), state.next_order(LEADER)
    assert first is not None
    assert second is not None
    assert [slot.partition for slot in first.slots] == [busy]
    assert [slot.partition for slot in second.slots] == [idle]


def test_idle_partitions_go_along_in_front_when_there_is_room_for_one_fetch_only() -> None:
    state = make_state(prefetch_bytes=500, max_bytes=400)
    busy, idle = placed(state, 0), placed(state, 1)
    order = state.next_order(LEADER)
    assert order is not None
    state.settle(order, [Outcome(make_chunk(0, 1), 100), Outcome(None, 0)])
    order = state.next_order(LEADER)
    assert order is not None
    assert [slot.partition for slot in order.slots] == [idle, busy]


def test_who_got_nothing_for_want_of_room_in_the_answer_is_first_in_the_next_fetch() -> None:
    state = make_state()
    served, starved = placed(state, 0), placed(state, 1)
    order = state.next_order(LEADER)
    assert order is not None
    state.settle(order, [Outcome(make_chunk(0, 1), 100), Outcome(None, 100)])
    order = state.next_order(LEADER)
    assert order is not None
    assert [slot.partition for slot in order.slots] == [starved, served]


def test_partitions_take_turns_by_chunks() -> None:
    state = make_state()
    placed(state, 0)
    placed(state, 1)
    order = state.next_order(LEADER)
    assert order is not None
    state.settle(order, [Outcome(make_chunk(0, 2), 100), Outcome(make_chunk(0, 1), 100)])
    for next_order in iter(lambda: state.next_order(LEADER), None):
        outcomes = [Outcome(make_chunk(slot.offset, 1), 100) for slot in next_order.slots]
        state.settle(next_order, outcomes)
        break
    turns = [taken.partition.key.partition for taken in iter(state.take, None)]
    assert turns == [0, 0, 1, 0, 1]


def test_records_that_are_put_back_come_first_again() -> None:
    state = make_state()
    partition = placed(state, 0)
    order = state.next_order(LEADER)
    assert order is not None
    state.settle(order, [Outcome(make_chunk(0, 2), 100)])
    taken = state.take()
    assert taken is not None
    state.put_back(Taken(partition, taken.records[1:], taken.next_offset, 0))
    assert offsets(state.take()) == [1, 2]
    assert offsets(state.take()) == [3, 4, 5]


def test_a_damaged_batch_is_fetched_once_more_and_then_fails_its_partition() -> None:
    out: Counter[str] = Counter()
    state = make_state()
    partition = placed(state, 0)
    for attempt in (1, 2):
        order = state.next_order(LEADER)
        assert order is not None
        assert order.slots[0].offset == 0
        state.settle(order, [Outcome(make_chunk(0, 1, out, damaged=True), 100)])
        assert state.take() is None
        assert out["leases"] == 0
        assert (partition in state.failed) == (attempt == 2)
    error = partition.error
    assert isinstance(error, CorruptLogError)
    assert error.next_readable_offset == 3
    assert "t-0" in str(error)
    assert state.next_order(LEADER) is None
    state.seek(partition, error.next_readable_offset)
    assert not state.failed
    assert state.next_order(LEADER) is not None


def test_records_before_a_damaged_batch_are_not_fetched_again() -> None:
    state = make_state()
    placed(state, 0)
    order = state.next_order(LEADER)
    assert order is not None
    good, bad = make_chunk(0, 1), make_chunk(3, 1, damaged=True)
    buffer = memoryview(bytes(good.buffer) + bytes(bad.buffer))
    extents = [*good.batches, BatchExtent(100, 200, 3, 6)]
    state.settle(order, [Outcome(Chunk(buffer, extents, 0), 100)])
    assert offsets(state.take()) == [0, 1, 2]
    assert state.take() is None
    order = state.next_order(LEADER)
    assert order is not None
    assert order.slots[0].offset == 3


def test_a_missing_codec_fails_the_partition_at_once() -> None:
    def decode(batch: memoryview, topic: str, partition: int, from_offset: int) -> list[Record]:
        raise MissingDependencyError("pip install frieda[compression]")

    state = FetchState(decode, prefetch_bytes=2000, max_bytes=400)
    partition = placed(state, 0)
    order = state.next_order(LEADER)
    assert order is not None
    state.settle(order, [Outcome(make_chunk(0, 1), 100)])
    assert state.take() is None
    assert isinstance(partition.error, MissingDependencyError)


def test_an_offset_out_of_range_leaves_what_was_fetched_before_to_be_read() -> None:
    state = make_state()
    partition = placed(state, 0)
    order = state.next_order(LEADER)
    assert order is not None
    state.settle(order, [Outcome(make_chunk(0, 1), 100)])
    order = state.next_order(LEADER)
    assert order is not None
    state.settle(order, [Outcome(out_of_range=True)])
    assert partition in state.adrift
    state.begin(partition, 300)
    assert offsets(state.take()) == [0, 1, 2]
    order = state.next_order(LEADER)
    assert order is not None
    assert order.slots[0].offset == 300


def test_a_lost_leader_sets_its_partitions_adrift_and_a_new_one_goes_on_where_it_was() -> None:
    state = make_state()
    partition = placed(state, 0)
    order = state.next_order(LEADER)
    assert order is not None
    state.settle(order, [Outcome(make_chunk(0, 1), 100)])
    order = state.next_order(LEADER)
    assert order is not None
    state.forget_leader(LEADER)
    state.abandon(order)
    assert list(state.adrift) == [partition]
    state.place(partition, "another")
    again = state.next_order("another")
    assert again is not None
    assert again.slots[0].offset == 3


def test_nothing_is_left_of_a_partition_that_is_removed() -> None:
    out: Counter[str] = Counter()
    state = make_state()
    partition = placed(state, 0)
    order = state.next_order(LEADER)
    assert order is not None
    state.settle(order, [Outcome(make_chunk(0, 2, out), 100)])
    order = state.next_order(LEADER)
    assert order is not None
    taken = state.take()
    assert taken is not None
    state.remove(partition.key)
    state.put_back(taken)
    state.settle(order, [Outcome(make_chunk(6, 1, out), 100)])
    assert state.take() is None
    assert out["leases"] == 0
    assert state.buffered_bytes == state.reserved_bytes == 0


class Fetching(RuleBasedStateMachine):
    """Whatever happens, each partition's records come in order, each once, from where it was last sought."""

    def __init__(self) -> None:
        super().__init__()
        self.out: Counter[str] = Counter()
        self.state = make_state(prefetch_bytes=1600, max_bytes=400)
        self.orders = []
        self.wanted = {}
        for number in range(3):
            partition = placed(self.state, number)
            self.wanted[partition] = 0

    def some_partition(self, number: int) -> PartitionFetch:
        return list(self.state.partitions.values())[number]

    numbers = st.integers(0, 2)

    @rule()
    def send(self) -> None:
        order = self.state.next_order(LEADER)
        if order is not None:
            self.orders.append(order)

    @precondition(lambda self: self.orders)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        order = self.orders.pop(data.draw(st.integers(0, len(self.orders) - 1)))
        room = 4
        outcomes = []
        for slot in order.slots:
            what = data.draw(st.sampled_from(["chunk", "chunk", "none", "retry", "lost", "error"]))
            if what == "chunk" and room:
                batches = data.draw(st.integers(1, room))
                room -= batches
                outcomes.append(Outcome(make_chunk(slot.offset, batches, self.out), 10**6, 0))
            elif what == "retry":
                outcomes.append(Outcome(retry=True))
            elif what == "lost":
                outcomes.append(Outcome(lost=True))
            elif what == "error":
                outcomes.append(Outcome(error=BrokerError(ErrorCode.INVALID_REQUEST)))
            else:
                outcomes.append(Outcome(None, slot.offset, 0))
        self.state.settle(order, outcomes)

    @precondition(lambda self: self.orders)
    @rule(data=st.data())
    def lose_a_fetch(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.orders) - 1))
        self.state.abandon(self.orders.pop(index))

    @rule(number=numbers, offset=st.integers(0, 1000))
    def seek(self, number: int, offset: int) -> None:
        partition = self.some_partition(number)
        self.state.seek(partition, offset)
        self.wanted[partition] = offset

    @rule(number=numbers)
    def pause(self, number: int) -> None:
        self.state.pause(self.some_partition(number))

    @rule(number=numbers)
    def resume(self, number: int) -> None:
        self.state.resume(self.some_partition(number))

    @rule()
    def place(self) -> None:
        for partition in list(self.state.adrift):
            self.state.place(partition, LEADER)

    @rule(batches=st.integers(1, 4), rounds=st.integers(1, 4), takes=st.integers(0, 12))
    def go_well_for_a_while(self, batches: int, rounds: int, takes: int) -> None:
        for _ in range(rounds):
            self.place()
            self.send()
            while self.orders:
                order = self.orders.pop(0)
                room = 4
                outcomes = []
                for slot in order.slots:
                    size = min(batches, room)
                    room -= size
                    chunk = make_chunk(slot.offset, size, self.out) if size else None
                    outcomes.append(Outcome(chunk, 10**6, 0))
                self.state.settle(order, outcomes)
        for _ in range(takes):
            self.take(BATCH_RECORDS)

    @rule(keep=st.integers(0, 3))
    def take(self, keep: int) -> None:
        taken = self.state.take()
        if taken is None:
            return
        used = taken.records[:keep]
        if used != taken.records:
            rest = taken.records[keep:]
            self.state.put_back(Taken(taken.partition, rest, taken.next_offset, 0))
        for record in used:
            assert not taken.partition.paused
            assert record.offset == self.wanted[taken.partition]
            self.wanted[taken.partition] = record.offset + 1

    @invariant()
    def bytes_are_counted_and_bounded(self) -> None:
        state = self.state
        buffered = sum(c.size_bytes for p in state.partitions.values() for c in p.chunks)
        assert state.buffered_bytes == buffered
        assert state.reserved_bytes == sum(order.max_bytes for order in self.orders)
        assert state.buffered_bytes + state.reserved_bytes <= 1600

    @invariant()
    def every_chunk_holds_one_lease(self) -> None:
        assert self.out["leases"] == sum(len(p.chunks) for p in self.state.partitions.values())

    @invariant()
    def a_partition_is_in_one_current_fetch_at_most(self) -> None:
        current = Counter(
            slot.partition
            for order in self.orders
            for slot in order.slots
            if slot.generation == slot.partition.generation
        )
        assert all(count == 1 for count in current.values())
        for partition in self.state.partitions.values():
            assert partition.in_flight == (partition in current)

    @invariant()
    def what_can_go_on_is_queued(self) -> None:
        for partition in self.state.partitions.values():
            can = (
                partition.leader is not None
                and not partition.in_flight
                and not partition.paused
                and partition.error is None
            )
            assert (partition.queue is not None) == can
            assert (partition in self.state.adrift) == (partition.leader is None)
            assert (partition in self.state.failed) == (partition.error is not None)

    def teardown(self) -> None:
        self.state.clear()
        for order in self.orders:
            self.state.abandon(order)
        assert self.out["leases"] == 0
        assert self.state.reserved_bytes == self.state.buffered_bytes == 0


TestFetching = Fetching.TestCase
TestFetching.settings = settings(max_examples=examples(60), stateful_step_count=40, deadline=None)


def real_batches(*sizes: int) -> bytes:
    """Real batches of so many records each, end to end from offset 0."""
    data = bytearray()
    offset = 0
    for size in sizes:
        builder = BatchBuilder(1000)
        for index in range(size):
            builder.append(1, None, b"v%d" % (offset + index))
        batch = bytearray(builder.build(-1, -1, -1, "none"))
        patch(batch, offset, 0)
        data += batch
        offset += size
    return bytes(data)


def test_extents_agree_with_the_codec() -> None:
    data = memoryview(real_batches(1, 5, 2))
    extents = batch_extents(data, 0)
    assert [(each.base_offset, each.next_offset) for each in extents] == [(0, 1), (1, 6), (6, 8)]
    found = [
        record.offset
        for each in extents
        for record in decode_batch(data[each.start : each.end], "t", 0)
    ]
    assert found == list(range(8))


def test_extents_leave_out_batches_before_the_offset_and_a_cut_last_one() -> None:
    data = real_batches(2, 3, 4)
    whole = len(real_batches(2, 3))
    for cut in range(whole, len(data)):
        extents = batch_extents(memoryview(data[:cut]), 2)
        assert [(each.base_offset, each.next_offset) for each in extents] == [(2, 5)]


@pytest.mark.parametrize("position", [0, 8, 23])
def test_headers_that_make_no_sense_are_an_error_and_not_a_loop(position: int) -> None:
    data = bytearray(real_batches(2, 2))
    second = len(real_batches(2))
    data[second + position] = 0xFF
    with pytest.raises(BrokerError, match="CORRUPT_MESSAGE"):
        batch_extents(memoryview(data), 0)
