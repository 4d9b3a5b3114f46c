"""The order of idempotent producers, against a model that remembers everything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frieda.errors import ErrorCode
from frieda.storage.producer_state import (
    REMEMBERED_BATCHES,
    ProducerState,
    SnapshotDamagedError,
    VerdictKind,
)
from frieda.wire.batch import BatchHeader

LAST = 2**31 - 1


def header(sequence, count=1, producer_id=1, epoch=0, timestamp_ms=5):
    return BatchHeader(
        0, 49, 0, 2, 0, 0, count - 1, 0, timestamp_ms, producer_id, epoch, sequence, count
    )


def kinds(state, *headers):
    return [state.check(h).kind for h in headers]


def test_a_batch_without_a_producer_is_always_accepted():
    state = ProducerState()
    assert kinds(state, header(-1, producer_id=-1, epoch=-1)) == [VerdictKind.ACCEPT]
    state.update(header(-1, producer_id=-1, epoch=-1), 0)
    assert len(state) == 0


def test_the_next_batch_is_accepted_a_later_one_is_early_and_an_old_one_a_duplicate():
    state = ProducerState()
    state.update(header(0, 3), 100)
    state.update(header(3, 2, timestamp_ms=9), 103)
    assert state.check(header(5)).kind is VerdictKind.ACCEPT
    early = state.check(header(6))
    assert (early.kind, early.error) == (VerdictKind.EARLY, ErrorCode.OUT_OF_ORDER_SEQUENCE)
    assert state.check(header(3, 2))[:3] == (VerdictKind.DUPLICATE, 103, 9)
    assert state.check(header(0, 3))[:3] == (VerdictKind.DUPLICATE, 100, 5)


@pytest.mark.parametrize(("sequence", "count"), [(0, 2), (1, 2), (2, 4), (4, 3)])
def test_sequences_cut_into_other_batches_are_refused(sequence, count):
    state = ProducerState()
    state.update(header(0, 3), 0)
    state.update(header(3, 2), 3)
    verdict = state.check(header(sequence, count))
    assert (verdict.kind, verdict.error) == (VerdictKind.REJECT, ErrorCode.OUT_OF_ORDER_SEQUENCE)


def test_an_unknown_producer_must_begin_at_zero():
    state = ProducerState()
    assert state.check(header(0)).kind is VerdictKind.ACCEPT
    verdict = state.check(header(4))
    assert (verdict.kind, verdict.error) == (VerdictKind.EARLY, ErrorCode.UNKNOWN_PRODUCER_ID)


def test_a_new_epoch_begins_at_zero_and_fences_the_old_one():
    state = ProducerState()
    state.update(header(0), 0)
    assert state.check(header(0, epoch=1)).kind is VerdictKind.ACCEPT
    assert state.check(header(1, epoch=1)).kind is VerdictKind.EARLY
    state.update(header(0, epoch=1), 1)
    verdict = state.check(header(1, epoch=0))
    assert (verdict.kind, verdict.error) == (VerdictKind.REJECT, ErrorCode.INVALID_PRODUCER_EPOCH)
    assert state.epoch(1) == 1


def test_sequences_begin_again_at_zero_after_the_last():
    state = ProducerState()
    state.update(header(LAST - 1, 4), 10)
    assert state.expected_sequence(1) == 2
    assert kinds(state, header(2), header(3), header(LAST - 1, 4)) == [
        VerdictKind.ACCEPT,
        VerdictKind.EARLY,
        VerdictKind.DUPLICATE,
    ]
    state = ProducerState()
    state.update(header(LAST), 0)
    assert state.check(header(0)).kind is VerdictKind.ACCEPT


def test_a_duplicate_too_old_to_be_remembered_has_no_offset():
    state = ProducerState()
    for sequence in range(REMEMBERED_BATCHES + 10):
        state.update(header(sequence), sequence)
    assert state.check(header(10))[:2] == (VerdictKind.DUPLICATE, 10)
    assert state.check(header(9))[:2] == (VerdictKind.DUPLICATE, -1)


def test_silent_producers_are_forgotten_and_their_number_is_bounded():
    state = ProducerState(max_producers=10, now_ms=1)
    for producer_id in range(10):
        state.now_ms = producer_id
        state.update(header(0, producer_id=producer_id), 0)
    state.update(header(0, producer_id=99), 0)
    assert len(state) == 10
    assert state.epoch(0) == -1, "the one that was silent the longest went"
    assert state.expire(5) == 4
    assert len(state) == 6


@pytest.mark.parametrize("sequence", [-1, -5])
def test_a_producer_without_a_sequence_is_refused(sequence):
    assert ProducerState().check(header(sequence)).error == ErrorCode.INVALID_RECORD


batches = st.lists(
    st.tuples(st.integers(1, 3), st.integers(0, 2), st.integers(1, 4), st.integers(-3, 3)),
    max_size=200,
)


@given(batches, st.integers(0, LAST))
def test_what_is_stored_is_in_order_once_whatever_arrives(arrivals, begin):
    """Arrivals as (producer, epoch, count, how far off the right sequence)."""
    state = ProducerState()
    stored: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
    epochs: dict[int, int] = {}
    offset = 0
    for producer_id, epoch, count, off in arrivals:
        mine = stored.setdefault((producer_id, epoch), [])
        due = (mine[-1][0] + mine[-1][1]) % 2**31 if mine else 0
        if not mine and epochs.get(producer_id, -1) < epoch and off == 0 and begin % 5 == 0:
            due = 0
        sequence = (due + off) % 2**31
        verdict = state.check(header(sequence, count, producer_id, epoch))
        if epoch < epochs.get(producer_id, -1):
            assert verdict.error == ErrorCode.INVALID_PRODUCER_EPOCH
        elif off == 0:
            assert verdict.kind is VerdictKind.ACCEPT
            state.update(header(sequence, count, producer_id, epoch), offset)
            mine.append((sequence, count, offset))
            epochs[producer_id] = epoch
            offset += count
        elif off > 0:
            assert verdict.kind is VerdictKind.EARLY
        else:
            same = [o for s, c, o in mine if (s, c) == (sequence, count)]
            if same and epochs.get(producer_id) == epoch:
                assert verdict[:2] == (VerdictKind.DUPLICATE, same[0])
            else:
                assert verdict.kind is not VerdictKind.ACCEPT
    copy = ProducerState()
    copy.restore(state.encode(offset), offset)
    assert copy.encode(offset) == state.encode(offset)


def test_a_snapshot_cut_or_changed_anywhere_is_found_out():
    state = ProducerState()
    for sequence in range(5):
        state.update(header(sequence), sequence)
    snapshot = state.encode(7)
    fresh = ProducerState()
    for at in range(len(snapshot)):
        harmed = bytearray(snapshot)
        harmed[at] ^= 4
        for bad in (bytes(harmed), snapshot[:at]):
            with pytest.raises(SnapshotDamagedError):
                fresh.restore(bad, 7)
    with pytest.raises(SnapshotDamagedError):
        fresh.restore(snapshot, 8)
    assert len(fresh) == 0


@given(st.binary(max_size=200))
def test_garbage_is_a_snapshot_that_is_damaged_and_nothing_else(garbage):
    with pytest.raises(SnapshotDamagedError):
        ProducerState().restore(garbage, 0)


@given(
    steps=st.lists(
        st.tuples(st.integers(1, 3), st.sampled_from(["next", "next", "next", "epoch"])),
        max_size=60,
    ),
    cut_at=st.integers(0, 60),
    snapshot_at=st.integers(-1, 60),
)
def test_a_cut_brings_back_what_was_or_says_that_it_cannot(steps, cut_at, snapshot_at):
    """Against states that were never told of what is cut, one for each length of the log."""
    state = ProducerState()
    history = [ProducerState()]
    epochs, sequences = {1: 0, 2: 0, 3: 0}, {1: 0, 2: 0, 3: 0}
    for offset, (producer_id, step) in enumerate(steps):
        if offset == snapshot_at:
            state.restore(state.encode(offset), offset)
        if step == "epoch":
            epochs[producer_id] += 1
            sequences[producer_id] = 0
        each = header(sequences[producer_id], producer_id=producer_id, epoch=epochs[producer_id])
        sequences[producer_id] += 1
        following = ProducerState()
        following.restore(history[-1].encode(0), 0)
        following.update(each, offset)
        history.append(following)
        state.update(each, offset)
    before = state.encode(0)
    cut_at = min(cut_at, len(steps))
    if state.cut_end(cut_at):
        assert len(state) == len(history[cut_at])
        for producer_id in (1, 2, 3):
            for question in (ProducerState.epoch, ProducerState.expected_sequence):
                assert question(state, producer_id) == question(history[cut_at], producer_id)
        assert state.encode(0) == history[cut_at].encode(0) or len(steps) > REMEMBERED_BATCHES
    else:
        assert state.encode(0) == before
        assert cut_at < len(steps)


def test_a_cut_of_one_epoch_of_each_producer_needs_no_log():
    state = ProducerState()
    state.update(header(0), 0)
    state.update(header(1), 1)
    state.update(header(0, epoch=1), 2)
    state.update(header(0, producer_id=2), 3)
    assert state.cut_end(1)
    assert (state.epoch(1), state.expected_sequence(1), state.epoch(2)) == (0, 1, -1)


def test_a_cut_of_more_than_is_remembered_does():
    state = ProducerState()
    for sequence in range(REMEMBERED_BATCHES + 5):
        state.update(header(sequence), sequence)
    assert not state.cut_end(4)
    assert state.expected_sequence(1) == REMEMBERED_BATCHES + 5
    assert state.cut_end(5 + REMEMBERED_BATCHES // 2)
    assert state.expected_sequence(1) == 5 + REMEMBERED_BATCHES // 2
    assert state.check(header(5)).base_offset == 5
    assert state.check(header(4)).kind is VerdictKind.DUPLICATE
