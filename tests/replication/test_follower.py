"""What a follower takes, and from whom."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from frieda.errors import ErrorCode
from frieda.replication.effects import AppendFailed, Cut, Effect, Send
from frieda.replication.follower import Follower, FollowerState
from frieda.replication.messages import (
    Answer,
    Append,
    Beat,
    Begin,
    EpochEnd,
    Fenced,
    Lost,
    Progress,
    Question,
)
from frieda.replication.settings import ReplicationSettings
from frieda.testing.simulation.disk import SimulatedLog, StoredBatch
from frieda.wire.batch import BatchHeader

LEADER = 1
HEADER = BatchHeader(0, 149, -1, 2, 0, 0, 0, 0, 0, -1, -1, -1, 1)


def batch(offset: int, epoch: int = 1) -> StoredBatch:
    return StoredBatch(offset, offset + 1, epoch, HEADER, ((0, offset),))


def log_of(*epochs: int, flush_batch: bool = False) -> SimulatedLog:
    log = SimulatedLog(flush_batch=flush_batch)
    log.append_replicated(
        tuple(batch(offset, epoch) for offset, epoch in enumerate(epochs)), max(epochs, default=0)
    )
    return log


def follower_of(log: SimulatedLog, epoch: int = 1, **settings: int) -> Follower:
    return Follower(log, epoch, "life 1", ReplicationSettings(**settings))


def append(offset: int, *, epoch: int = 1, stream: int = 1, high_watermark: int = 0) -> Append:
    entry = (batch(offset, epoch),)
    return Append(epoch, stream, offset, offset + 1, 100, high_watermark, 0, entry)


def begin(offset: int, *, epoch: int = 1, stream: int = 1, life: str = "life 1") -> Begin:
    return Begin(epoch, stream, life, offset, False, 0, 0)


def streaming(log: SimulatedLog, **settings: int) -> Follower:
    follower = follower_of(log, **settings)
    follower.received(LEADER, Question(1, 1))
    follower.received(LEADER, begin(log.log_end_offset))
    assert follower.state is FollowerState.STREAMING
    return follower


def test_a_question_is_answered_with_epochs_and_end() -> None:
    follower = follower_of(log_of(1, 1, 3))
    (effect,) = follower.received(LEADER, Question(4, 1))
    assert effect == Send(
        LEADER, Answer(4, 1, "life 1", (EpochEnd(1, 2), EpochEnd(3, 3)), False, 0, 3)
    )


def test_an_older_leader_is_fenced_and_changes_nothing() -> None:
    log = log_of(1)
    follower = streaming(log)
    follower.leader_changed(2)
    for message in (Question(1, 9), begin(0), append(1), Beat(1, 1, 9, 9)):
        assert follower.received(LEADER, message) == [Send(LEADER, Fenced(2))]
    assert (log.log_end_offset, follower.leader_epoch, follower.log_start_offset) == (1, 2, 0)


def test_the_epoch_of_the_last_record_fences_too() -> None:
    """After a restart the log may know of a younger leadership than the metadata that were read."""
    assert follower_of(log_of(7), epoch=3).leader_epoch == 7


def test_a_younger_leader_is_adopted_and_ends_the_stream() -> None:
    log = log_of(1)
    follower = streaming(log)
    assert follower.received(2, append(1, epoch=2, stream=1)) == [Send(2, Lost(2, 1))]
    assert (follower.leader_epoch, log.log_end_offset) == (2, 1)


def test_only_a_begin_cuts_and_only_to_its_offset() -> None:
    log = log_of(1, 1, 1)
    follower = follower_of(log)
    follower.received(LEADER, Question(1, 1))
    assert follower.received(LEADER, begin(2)) == [Cut(2, False, False)]
    assert follower.state is FollowerState.CUTTING
    log.cut_to(2)
    assert follower.cut_done() == [Send(LEADER, Progress(1, 1, 2, 2))]
    assert follower.state is FollowerState.STREAMING


def test_a_cut_below_the_high_watermark_says_so() -> None:
    log = log_of(1, 1, 1)
    log.high_watermark = 3
    follower = follower_of(log)
    follower.received(LEADER, Question(1, 1))
    assert follower.received(LEADER, begin(2)) == [Cut(2, False, True)]


def test_a_begin_counts_once() -> None:
    """A second one, come late, would cut what was appended since."""
    log = log_of(1)
    follower = streaming(log)
    follower.received(LEADER, append(1))
    assert follower.received(LEADER, begin(1)) == []
    assert log.log_end_offset == 2


def test_a_begin_for_the_life_before_a_restart_is_not_taken() -> None:
    log = log_of(1, 1, 1)
    follower = follower_of(log)
    follower.received(LEADER, Question(1, 1))
    assert follower.received(LEADER, begin(1, life="life 0")) == []
    assert follower.state is FollowerState.ASKED


def test_a_question_that_comes_while_the_log_is_cut_waits_for_its_end() -> None:
    log = log_of(1, 1, 1)
    follower = follower_of(log)
    follower.received(LEADER, Question(1, 1))
    follower.received(LEADER, begin(2))
    assert follower.received(2, Question(5, 1)) == []
    assert follower.received(LEADER, append(2)) == [Send(LEADER, Fenced(5))]
    log.cut_to(2)
    (effect,) = follower.cut_done()
    assert effect == Send(2, Answer(5, 1, "life 1", (EpochEnd(1, 2),), False, 0, 2))


def test_an_append_after_a_restart_is_answered_with_lost() -> None:
    follower = follower_of(log_of(1))
    assert follower.received(LEADER, append(1, stream=3)) == [Send(LEADER, Lost(1, 3))]


def test_an_append_of_an_older_stream_says_nothing() -> None:
    log = log_of(1)
    follower = streaming(log)
    follower.received(LEADER, Question(1, 2))
    assert follower.received(LEADER, append(1, stream=1)) == []
    assert log.log_end_offset == 1


def test_an_append_that_comes_twice_is_answered_and_stored_once() -> None:
    log = log_of(1)
    follower = streaming(log)
    for _ in range(2):
        assert follower.received(LEADER, append(1)) == [Send(LEADER, Progress(1, 1, 2, 2))]
    assert log.log_end_offset == 2


def test_a_gap_that_is_never_filled_keeps_no_more_than_its_bound() -> None:
    log = log_of(1)
    follower = streaming(log, max_parked=3)
    for offset in range(2, 10):
        assert follower.received(LEADER, append(offset)) == []
    assert (follower.parked, log.log_end_offset) == (3, 1)
    follower.received(LEADER, Question(1, 2))
    assert follower.parked == 0


def test_parked_bytes_are_bounded_too() -> None:
    follower = streaming(log_of(1), max_parked_bytes=250)
    for offset in range(2, 10):
        follower.received(LEADER, append(offset))
    assert follower.parked == 2


def test_the_high_watermark_never_passes_the_own_end() -> None:
    follower = streaming(log_of(1))
    follower.received(LEADER, append(1, high_watermark=50))
    assert follower.high_watermark == 2
    follower.received(LEADER, Beat(1, 1, 1, 0))
    assert follower.high_watermark == 2


def test_a_log_that_takes_nothing_ends_the_stream_until_the_leader_comes_again() -> None:
    log = log_of(1)
    follower = streaming(log)
    log.full = True
    (failed,) = follower.received(LEADER, append(1))
    assert isinstance(failed, AppendFailed)
    assert failed.code is ErrorCode.DISK_FULL
    log.full = False
    assert (
        follower.received(LEADER, append(2)) == []
    )  # an answer would bring the leader back at once
    assert len(follower.received(LEADER, Question(1, 2))) == 1


def test_with_flush_batch_progress_says_what_is_safe_and_again_after_the_sync() -> None:
    log = log_of(1, flush_batch=True)
    log.synced(1)
    follower = streaming(log)
    assert follower.received(LEADER, append(1)) == [Send(LEADER, Progress(1, 1, 2, 1))]
    log.synced(2)
    assert follower.safe_moved() == [Send(LEADER, Progress(1, 1, 2, 2))]


@given(st.integers(0, 2**32), st.integers(1, 30))
def test_appends_in_any_order_and_any_number_end_up_in_order(seed: int, count: int) -> None:
    chance = random.Random(seed)
    log = log_of()
    follower = streaming(log)
    messages = [append(offset) for offset in range(count)] * 2
    chance.shuffle(messages)
    effects: list[Effect] = []
    for message in messages:
        effects += follower.received(LEADER, message)
    assert [entry.base_offset for entry in log.batches] == list(range(count))
    assert effects[-1] == Send(LEADER, Progress(1, 1, count, count))
    assert follower.parked == 0
