"""When a leader acknowledges, what it sends, and whom it counts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from frieda.cluster.state import PartitionState
from frieda.errors import ErrorCode
from frieda.replication.effects import (
    Acknowledge,
    Advanced,
    Deposed,
    Effect,
    Propose,
    Read,
    Sealed,
    Send,
)
from frieda.replication.leader import ACKS_ALL, ACKS_LEADER, ACKS_NONE, Leader, LeaderState
from frieda.replication.lease import Lease
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
    ToLeader,
)
from frieda.replication.settings import ReplicationSettings
from frieda.replication.stream import NEVER, StreamState
from frieda.testing.simulation.disk import SimulatedLog
from frieda.wire.batch import BatchHeader

MS = 1_000_000
HEADER = BatchHeader(0, 149, -1, 2, 0, 0, 0, 0, 0, -1, -1, -1, 1)
EPOCH = 5


class Bench:
    """A leader, broker 1, of a partition on 1, 2 and 3; its log, lease and clock; and what it wanted done."""

    def __init__(
        self,
        *,
        isr: tuple[int, ...] = (1, 2, 3),
        records: int = 0,
        flush_batch: bool = False,
        **settings: int,
    ) -> None:
        self.now_ns = 0
        self.log = SimulatedLog(flush_batch=flush_batch)
        for _ in range(records):
            self.log.append_own(HEADER, ((0, 0),), 1)
        self.lease = Lease(10_000, 100)
        self.lease.answered(0)
        self.state = PartitionState(
            replicas=(1, 2, 3), isr=isr, leader=1, leader_epoch=EPOCH, version=10
        )
        self.leader = Leader(
            1, self.state, self.log, self.lease, ReplicationSettings(**settings), self.now_ns
        )
        self.started = self.leader.start(frozenset({2, 3}), self.now_ns)

    def produce(self, acks: int = ACKS_ALL, token: object = "a") -> list[Effect]:
        assert self.leader.admit(acks, self.now_ns) is None
        batch = self.log.append_own(HEADER, ((0, 0),), EPOCH)
        return self.leader.appended(
            batch.base_offset, batch.end_offset, (batch,), 100, acks, token, self.now_ns
        )

    def says(self, follower: int, message: ToLeader) -> list[Effect]:
        return self.leader.received(follower, message, self.now_ns)

    def answers(self, follower: int, end: int, *epochs: EpochEnd) -> list[Effect]:
        number = self.leader.streams[follower].number
        life = f"life of {follower}"
        return self.says(follower, Answer(EPOCH, number, life, epochs, False, 0, end))

    def progresses(self, follower: int, end: int) -> list[Effect]:
        number = self.leader.streams[follower].number
        return self.says(follower, Progress(EPOCH, number, end, end))

    def streams(self, *followers: int) -> None:
        """These followers hold all that the log has."""
        end = self.log.log_end_offset
        for follower in followers:
            self.answers(follower, end, *((EpochEnd(1, end),) if end else ()))
            self.progresses(follower, end)
            assert self.leader.streams[follower].state is StreamState.STREAMING

    def learns(self, *isr: int) -> list[Effect]:
        self.state = replace(self.state, isr=isr, version=self.state.version + 1)
        return self.leader.state_changed(self.state, frozenset({2, 3}), self.now_ns)

    def at_ms(self, now_ms: int) -> list[Effect]:
        self.now_ns = now_ms * MS
        return self.leader.tick(self.now_ns)


def acknowledged(effects: list[Effect]) -> list[tuple[object, ErrorCode | None]]:
    return [tuple(effect) for effect in effects if isinstance(effect, Acknowledge)]


def proposals(effects: list[Effect]) -> list[Propose]:
    return [effect for effect in effects if isinstance(effect, Propose)]


def sent(effects: list[Effect], follower: int) -> list[object]:
    return [e.message for e in effects if isinstance(e, Send) and e.to == follower]


def test_a_leadership_begins_with_a_question_to_each_follower() -> None:
    bench = Bench()
    assert bench.started == [Send(2, Question(EPOCH, 1)), Send(3, Question(EPOCH, 1))]


def test_a_batch_is_pushed_to_each_follower_at_once_by_reference() -> None:
    bench = Bench()
    bench.streams(2, 3)
    effects = bench.produce()
    for follower in (2, 3):
        (message,) = sent(effects, follower)
        assert isinstance(message, Append)
        assert (message.base_offset, message.end_offset) == (0, 1)
        assert message.batches[0] is bench.log.batches[0]  # type: ignore[index]
    assert acknowledged(effects) == []


def test_acks_all_is_acknowledged_when_all_in_sync_have_it() -> None:
    bench = Bench()
    bench.streams(2, 3)
    bench.produce()
    assert bench.progresses(2, 1) == []
    assert bench.progresses(3, 1) == [Advanced(1), Acknowledge("a", None)]


def test_acks_1_is_acknowledged_at_once_and_acks_0_too() -> None:
    bench = Bench()
    assert acknowledged(bench.produce(ACKS_LEADER)) == [("a", None)]
    assert acknowledged(bench.produce(ACKS_NONE)) == [("a", None)]


def test_with_flush_batch_acks_1_waits_for_the_own_sync() -> None:
    bench = Bench(flush_batch=True)
    assert acknowledged(bench.produce(ACKS_LEADER)) == []
    bench.log.synced(1)
    assert acknowledged(bench.leader.safe_moved(0)) == [("a", None)]


def test_nothing_is_acknowledged_while_the_lease_does_not_hold() -> None:
    bench = Bench(isr=(1,))
    bench.now_ns = 9_899 * MS
    bench.produce(ACKS_LEADER, "before")
    bench.now_ns = 9_901 * MS
    assert bench.leader.admit(ACKS_LEADER, bench.now_ns) is ErrorCode.NOT_LEADER_OR_FOLLOWER
    bench.log.append_own(HEADER, ((0, 1),), EPOCH)
    effects = bench.leader.appended(1, 2, (), 100, ACKS_LEADER, "after", bench.now_ns)
    effects += bench.leader.appended(1, 2, (), 100, ACKS_ALL, "after too", bench.now_ns)
    assert acknowledged(effects) == []
    assert bench.leader.high_watermark == 1
    bench.lease.answered(bench.now_ns)
    effects = bench.leader.lease_renewed(bench.now_ns)
    assert acknowledged(effects) == [("after", None), ("after too", None)]


def test_acks_all_is_refused_before_the_append_below_min_insync() -> None:
    bench = Bench(isr=(1,), min_insync_replicas=2)
    assert bench.leader.admit(ACKS_ALL, 0) is ErrorCode.NOT_ENOUGH_REPLICAS
    assert bench.leader.admit(ACKS_LEADER, 0) is None


def test_acks_all_that_falls_below_min_insync_is_told_so_after_the_append() -> None:
    bench = Bench(isr=(1, 2), min_insync_replicas=2)
    bench.streams(2)
    bench.produce()
    effects = bench.learns(1)
    assert acknowledged(effects) == [("a", ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND)]


def test_a_retry_of_a_stored_batch_waits_until_it_is_committed() -> None:
    bench = Bench()
    bench.streams(2, 3)
    bench.produce()
    assert bench.leader.repeated(1, ACKS_ALL, "again", 0) == []
    bench.progresses(2, 1)
    assert acknowledged(bench.progresses(3, 1)) == [("a", None), ("again", None)]


def test_the_high_watermark_waits_for_members_that_have_not_said_what_they_hold() -> None:
    bench = Bench(records=3)
    bench.answers(2, 3, EpochEnd(1, 3))
    assert bench.progresses(2, 3) == []
    assert bench.leader.high_watermark == 0


def test_a_member_that_does_not_catch_up_is_proposed_to_leave_and_counts_till_that_is_so() -> None:
    bench = Bench(replica_lag_ms=1000, request_timeout_ms=60_000)
    bench.streams(2, 3)
    bench.produce()
    bench.progresses(2, 1)
    bench.lease.answered(2000 * MS)
    assert bench.leader.deadline_ns <= 1001 * MS
    assert proposals(bench.at_ms(999)) == []
    effects = bench.at_ms(1001)
    assert proposals(effects) == [Propose(10, (1, 2), ())]
    assert acknowledged(effects) == []
    assert acknowledged(bench.learns(1, 2)) == [("a", None)]


def test_an_idle_partition_asks_for_no_time_at_all() -> None:
    bench = Bench(heartbeat_ms=500)
    bench.streams(2, 3)
    bench.produce()
    bench.progresses(2, 1)
    bench.progresses(3, 1)
    effects = bench.at_ms(500)
    assert sent(effects, 2) == [Beat(EPOCH, 1, 1, 0)]
    bench.at_ms(501)
    assert bench.leader.deadline_ns == NEVER


def test_an_idle_member_whose_connection_is_up_stays_in_sync() -> None:
    bench = Bench(replica_lag_ms=1000)
    bench.streams(2, 3)
    assert proposals(bench.at_ms(9000)) == []
    bench.leader.link_down(2, bench.now_ns)
    assert proposals(bench.at_ms(9900)) == []
    assert proposals(bench.at_ms(10_001)) == [Propose(10, (1, 3), ())]


def test_a_follower_joins_when_it_has_the_start_of_the_epoch() -> None:
    """The high watermark of a new leader may be behind what is committed: to have reached that is not enough."""
    bench = Bench(isr=(1, 3), records=5)
    bench.answers(2, 2, EpochEnd(1, 2))
    assert proposals(bench.progresses(2, 2)) == []
    assert proposals(bench.progresses(2, 4)) == []
    (proposal,) = proposals(bench.progresses(2, 5))
    assert proposal == Propose(10, (1, 3, 2), ((2, "life of 2"),))


def test_a_follower_that_is_proposed_counts_before_the_store_has_agreed() -> None:
    bench = Bench(isr=(1,))
    bench.streams(2)
    assert acknowledged(bench.produce()) == []
    bench.learns(1, 2)
    assert acknowledged(bench.progresses(2, 1)) == [("a", None)]


def test_a_proposal_that_is_refused_is_not_repeated_at_once() -> None:
    bench = Bench(isr=(1, 3), answer_timeout_ms=300)
    bench.streams(3)
    bench.answers(2, 0)
    assert len(proposals(bench.progresses(2, 0))) == 1
    assert proposals(bench.leader.proposal_refused(10, bench.now_ns)) == []
    assert proposals(bench.progresses(2, 0)) == []
    assert bench.leader.deadline_ns == 300 * MS
    assert len(proposals(bench.at_ms(300))) == 1


def test_a_barred_follower_does_not_join() -> None:
    bench = Bench(isr=(1, 3))
    bench.leader.barred_changed(frozenset({2}), 0)
    bench.answers(2, 0)
    assert proposals(bench.progresses(2, 0)) == []
    assert len(proposals(bench.leader.barred_changed(frozenset(), 0))) == 1


def test_a_follower_is_told_to_cut_where_the_logs_part() -> None:
    bench = Bench(records=3)
    (message,) = sent(bench.answers(2, 5, EpochEnd(1, 4), EpochEnd(2, 5)), 2)
    assert message == Begin(EPOCH, 1, "life of 2", 3, False, 0, 0)


def test_a_follower_that_did_not_cut_is_asked_anew() -> None:
    bench = Bench(records=3)
    bench.answers(2, 5, EpochEnd(1, 5))
    assert sent(bench.progresses(2, 5), 2) == [Question(EPOCH, 2)]
    assert bench.leader.streams[2].match_offset == -1


def test_a_follower_that_is_behind_is_fed_from_the_log_and_then_pushed_to() -> None:
    bench = Bench(records=4, read_bytes=200)
    bench.answers(2, 1, EpochEnd(1, 1))
    (read,) = bench.progresses(2, 1)
    assert read == Read(2, 1, 1, 200)
    assert sent(bench.produce(), 2) == []  # it would come before what it follows
    batches = bench.log.read(1, 200, 5)
    effects = bench.leader.read_done(2, 1, 1, 3, batches, 200, 0)
    assert [type(message) for message in sent(effects, 2)] == [Append]
    assert Read(2, 1, 3, 200) in effects
    bench.leader.read_done(2, 1, 3, 5, bench.log.read(3, 200, 5), 200, 0)
    assert [type(message) for message in sent(bench.produce(), 2)] == [Append]


def test_a_follower_gets_no_more_than_its_window() -> None:
    bench = Bench(window_batches=2, window_bytes=1000)
    bench.streams(2, 3)
    pushed = [len(sent(bench.produce(token=i), 2)) for i in range(4)]
    assert pushed == [1, 1, 0, 0]
    effects = bench.progresses(2, 1)
    assert [effect for effect in effects if isinstance(effect, Read)] == [Read(2, 1, 2, 900)]


def test_a_batch_larger_than_the_window_goes_alone() -> None:
    bench = Bench(window_bytes=10)
    bench.streams(2, 3)
    assert len(sent(bench.produce(), 2)) == 1
    assert len(sent(bench.produce(), 2)) == 0


def test_a_follower_without_an_answer_is_asked_in_a_new_stream() -> None:
    bench = Bench(answer_timeout_ms=200)
    bench.streams(2, 3)
    bench.produce()
    bench.progresses(3, 1)
    effects = bench.at_ms(200)
    assert sent(effects, 2) == [Question(EPOCH, 2)]
    assert sent(effects, 3) == []
    assert bench.says(2, Progress(EPOCH, 1, 1, 1)) == []  # of the stream before
    assert bench.leader.high_watermark == 0


def test_a_follower_that_was_started_anew_is_asked_anew() -> None:
    bench = Bench()
    bench.streams(2, 3)
    assert sent(bench.says(2, Lost(EPOCH, 1)), 2) == [Question(EPOCH, 2)]
    assert bench.says(2, Lost(EPOCH, 1)) == []


@pytest.mark.parametrize("how", ["message", "metadata"])
def test_a_younger_leadership_ends_this_one_and_what_waits_is_sent_elsewhere(how: str) -> None:
    bench = Bench()
    bench.streams(2, 3)
    bench.produce()
    if how == "message":
        effects = bench.says(2, Fenced(EPOCH + 1))
    else:
        younger = replace(bench.state, leader_epoch=EPOCH + 1, leader=2, version=11)
        effects = bench.leader.state_changed(younger, frozenset(), 0)
    assert effects == [
        Deposed(EPOCH + 1),
        Acknowledge("a", ErrorCode.NOT_LEADER_OR_FOLLOWER),
    ]
    assert bench.leader.state is LeaderState.STOPPED
    assert bench.leader.admit(ACKS_LEADER, 0) is ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert bench.progresses(2, 1) == []


def test_a_leader_that_was_put_down_stops_though_the_epoch_is_its_own_still() -> None:
    """A controller may write that nobody leads without a new epoch: a lease that is renewed then means nothing."""
    bench = Bench()
    leaderless = replace(bench.state, leader=-1, version=11)
    assert bench.leader.state_changed(leaderless, frozenset(), 0) == [Deposed(EPOCH)]
    assert bench.leader.admit(ACKS_LEADER, 0) is ErrorCode.NOT_LEADER_OR_FOLLOWER


def test_a_state_from_before_its_election_does_not_stop_a_leader() -> None:
    bench = Bench()
    older = replace(bench.state, leader=-1, leader_epoch=EPOCH, version=9)
    assert bench.leader.state_changed(older, frozenset(), 0) == []
    assert bench.leader.state is LeaderState.LEADING


def test_a_produce_that_waits_too_long_is_told_so() -> None:
    bench = Bench(request_timeout_ms=100, replica_lag_ms=60_000)
    bench.streams(2, 3)
    bench.produce()
    assert bench.leader.deadline_ns <= 100 * MS
    assert acknowledged(bench.at_ms(100)) == [("a", ErrorCode.REQUEST_TIMED_OUT)]
    assert bench.leader.pending == 0


def test_no_more_produces_wait_than_the_bound() -> None:
    bench = Bench(max_pending=2)
    bench.produce()
    bench.produce()
    assert bench.leader.admit(ACKS_ALL, 0) is ErrorCode.BUSY


def test_a_sealed_leader_takes_no_more_and_says_when_all_in_sync_have_all() -> None:
    bench = Bench()
    bench.streams(2, 3)
    bench.produce()
    assert bench.leader.seal(0) == []
    assert bench.leader.admit(ACKS_LEADER, 0) is ErrorCode.NOT_LEADER_OR_FOLLOWER
    bench.progresses(2, 1)
    effects = bench.progresses(3, 1)
    assert effects == [Advanced(1), Acknowledge("a", None), Sealed(1)]
    bench.leader.unseal()
    assert bench.leader.admit(ACKS_LEADER, 0) is None


def test_a_replica_that_is_added_is_asked_and_one_that_is_removed_is_forgotten() -> None:
    bench = Bench()
    grown = replace(bench.state, replicas=(1, 2, 4), isr=(1, 2), version=11)
    effects = bench.leader.state_changed(grown, frozenset({2, 4}), 0)
    assert sent(effects, 4) == [Question(EPOCH, 1)]
    assert set(bench.leader.streams) == {2, 4}


def test_a_reader_ahead_of_a_new_leader_is_not_told_that_its_offset_does_not_exist() -> None:
    bench = Bench(records=3)
    assert not bench.leader.knows_the_end(0)
    bench.streams(2, 3)
    assert bench.leader.high_watermark == 3
    assert bench.leader.knows_the_end(0)
    assert not bench.leader.knows_the_end(20_000 * MS)  # nor by one that may have been deposed
