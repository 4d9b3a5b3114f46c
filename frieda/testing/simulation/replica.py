"""One partition on one simulated broker: the driver around Leader and Follower, as thin as the real one. PURE."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from frieda.cluster.state import PartitionState
from frieda.errors import ErrorCode, StorageError
from frieda.replication.effects import (
    Acknowledge,
    Advanced,
    AppendFailed,
    Cut,
    Deposed,
    Effect,
    Propose,
    Read,
    Sealed,
    Send,
)
from frieda.replication.follower import Follower, FollowerState
from frieda.replication.leader import Leader, LeaderState
from frieda.replication.messages import Answer, Append, Fenced, Lost, Progress, ReplicationMessage
from frieda.replication.stream import NEVER
from frieda.storage.producer_state import VerdictKind
from frieda.testing.simulation.disk import RECORD_SIZE_BYTES, SimulatedLog, StoredBatch
from frieda.testing.simulation.world import MS
from frieda.wire.batch import BatchHeader

if TYPE_CHECKING:
    from frieda.testing.simulation.broker import SimulatedBroker

PROPOSE_AGAIN_NS = 300 * MS


class ProduceRequest(NamedTuple):
    """first_in_flight: the smallest sequence of this producer that it still waits for. A gap below it is for ever."""

    client: str
    number: int
    partition: int
    header: BatchHeader
    values: tuple[tuple[int, int], ...]
    acks: int
    first_in_flight: int


class Waiting(NamedTuple):
    """The token of a produce that is not answered yet."""

    request: ProduceRequest
    base_offset: int


class ProduceAnswer(NamedTuple):
    """gap: sequences that were acknowledged to the producer are missing here, so it must take a new epoch."""

    number: int
    error: ErrorCode | None
    base_offset: int = -1
    gap: bool = False


class FetchAnswer(NamedTuple):
    """Whole batches below the high watermark."""

    error: ErrorCode | None
    batches: tuple[StoredBatch, ...] = ()
    high_watermark: int = -1


class Replica:
    """Lives as long as its broker's process."""

    def __init__(self, broker: SimulatedBroker, partition: int, log: SimulatedLog) -> None:
        self.broker = broker
        self.partition = partition
        self.log = log
        self.leader: Leader | None = None
        self.follower: Follower | None = None
        self.seen: PartitionState | None = None
        self._led_epoch = -1
        self._next_tick_ns = NEVER
        self._proposal: Propose | None = None

    # --- the metadata ---------------------------------------------------------------------------------------

    def on_state(self, state: PartitionState) -> None:
        """The metadata say so; late, perhaps."""
        if self.seen is None or state.version > self.seen.version:
            self.seen = state
        if self.broker.session is None and self.broker.rules.sessions_are_lives:
            return  # what it is to be follows once it is registered
        if self.leader is not None:
            self._apply(self.leader.state_changed(state, self.broker.connected(), self.now_ns()))
        self._take_role()

    def _take_role(self) -> None:
        assert self.seen is not None
        state, broker = self.seen, self.broker
        if self.leader is not None and self.leader.leader_epoch >= state.leader_epoch:
            return
        leads = (
            state.leader == broker.broker_id
            and state.leader_epoch > self._led_epoch
            and (state.leader_incarnation == broker.incarnation or not broker.rules.minds_its_life)
        )
        follower = self.follower
        if leads and (follower is None or follower.state is not FollowerState.CUTTING):
            if follower is None or state.leader_epoch >= follower.leader_epoch:
                self._lead(state)
        elif self.leader is not None:
            self.step_down(state.leader_epoch)
        elif follower is not None:
            follower.leader_changed(state.leader_epoch)
        elif broker.broker_id in state.replicas:
            self._follow(state.leader_epoch)

    def session_lost(self) -> None:
        """Be nothing, until this broker is registered anew and has read what is so by then."""
        if self.broker.rules.sessions_are_lives:
            self.step_down(-1)
            self.follower = None

    def _lead(self, state: PartitionState) -> None:
        if self.follower is not None:
            self.log.high_watermark = self.follower.high_watermark
            self.follower = None
        broker = self.broker
        broker.note("leads", self.partition, "epoch", state.leader_epoch, "from", self.log.position)
        now_ns = self.now_ns()
        self.leader = broker.rules.leader(
            broker.broker_id, state, self.log, broker.lease, broker.settings, now_ns
        )
        self._led_epoch = state.leader_epoch
        broker.history.leads(self.partition, broker.broker_id, state.leader_epoch, self.log)
        self._apply(self.leader.start(broker.connected(), now_ns, broker.barred))
        if broker.is_stopping:
            self.seal()

    def _follow(self, leader_epoch: int) -> None:
        broker = self.broker
        self.follower = broker.rules.follower(
            self.log, leader_epoch, broker.incarnation, broker.settings
        )

    def step_down(self, leader_epoch: int) -> None:
        """Lead no more."""
        if self.leader is not None:
            leader, self.leader = self.leader, None
            self.log.high_watermark = leader.high_watermark
            self._proposal = None
            self._apply(leader.stop())
            self._follow(max(leader_epoch, leader.leader_epoch))
            self.broker.note("leads no more", self.partition)

    def seal(self) -> None:
        """Hand the leadership over."""
        if self.leader is not None and self.broker.rules.seals:
            self._apply(self.leader.seal(self.now_ns()))

    # --- messages -------------------------------------------------------------------------------------------

    def received(self, sender: int, message: ReplicationMessage) -> None:
        match message:
            case Answer() | Progress() | Fenced() | Lost():
                if self.leader is not None:
                    self._apply(self.leader.received(sender, message, self.now_ns()))
            case _:
                if self.leader is not None:
                    if message.leader_epoch <= self.leader.leader_epoch:
                        fenced = Fenced(self.leader.leader_epoch)
                        if message.leader_epoch < self.leader.leader_epoch:
                            self.broker.send(sender, self.partition, fenced)
                        return
                    self.step_down(message.leader_epoch)
                if self.follower is not None:
                    before = self.log.log_end_offset
                    self._apply(self.follower.received(sender, message))
                    if isinstance(message, Append) and self.log.log_end_offset > before:
                        self.broker.appended(self)

    def barred_changed(self) -> None:
        if self.leader is not None:
            self._apply(self.leader.barred_changed(self.broker.barred, self.now_ns()))

    def link_changed(self, peer: int, *, is_up: bool) -> None:
        if self.leader is not None:
            change = self.leader.link_up if is_up else self.leader.link_down
            self._apply(change(peer, self.now_ns()))

    # --- clients --------------------------------------------------------------------------------------------

    def produce(self, request: ProduceRequest) -> None:
        leader, now_ns = self.leader, self.now_ns()
        error = (
            ErrorCode.NOT_LEADER_OR_FOLLOWER
            if leader is None
            else leader.admit(request.acks, now_ns)
        )
        if leader is None or error is not None:
            self._answer(request, ProduceAnswer(request.number, error))
            return
        log = self.log
        verdict = log.producers.check(request.header)
        match verdict.kind:
            case VerdictKind.ACCEPT:
                try:
                    batch = log.append_own(request.header, request.values, leader.leader_epoch)
                except StorageError as full:
                    self._answer(request, ProduceAnswer(request.number, full.code))
                    return
                self._apply(
                    leader.appended(
                        batch.base_offset,
                        batch.end_offset,
                        (batch,),
                        len(batch.values) * RECORD_SIZE_BYTES,
                        request.acks,
                        Waiting(request, batch.base_offset),
                        now_ns,
                    )
                )
                self.broker.appended(self)
            case VerdictKind.DUPLICATE:
                stored_at = verdict.base_offset
                end = stored_at + len(request.values) if stored_at >= 0 else log.log_end_offset
                token = Waiting(request, stored_at)
                self._apply(leader.repeated(end, request.acks, token, now_ns))
            case VerdictKind.EARLY:
                expected = log.producers.expected_sequence(request.header.producer_id)
                if log.producers.epoch(request.header.producer_id) != request.header.producer_epoch:
                    expected = 0
                gap = expected < request.first_in_flight
                self._answer(request, ProduceAnswer(request.number, verdict.error, gap=gap))
            case VerdictKind.REJECT:
                self._answer(request, ProduceAnswer(request.number, verdict.error))

    def _answer(self, request: ProduceRequest, answer: ProduceAnswer) -> None:
        self.broker.answer(request.client, answer)

    def fetch(self, offset: int, max_bytes: int) -> FetchAnswer:
        leader = self.leader
        if leader is None:
            return FetchAnswer(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        high_watermark = leader.high_watermark
        if offset > high_watermark:
            waits = self.broker.rules.waits_for_the_end
            if waits and not leader.knows_the_end(self.now_ns()):
                return FetchAnswer(None, (), high_watermark)
            return FetchAnswer(ErrorCode.OFFSET_OUT_OF_RANGE, (), high_watermark)
        batches = self.log.read(offset, max_bytes, high_watermark)
        return FetchAnswer(None, batches, high_watermark)

    # --- time -----------------------------------------------------------------------------------------------

    def now_ns(self) -> int:
        return self.broker.clock.now_ns()

    def lease_renewed(self) -> None:
        if self.leader is not None:
            self._apply(self.leader.lease_renewed(self.now_ns()))

    def synced(self, end_offset: int) -> None:
        """A sync that began when the log ended there is done."""
        self.log.synced(end_offset)
        if not self.log.flush_batch:
            return
        if self.leader is not None:
            self._apply(self.leader.safe_moved(self.now_ns()))
        elif self.follower is not None:
            self._apply(self.follower.safe_moved())

    def checkpoint(self) -> None:
        """Save the high watermark."""
        role = self.leader or self.follower
        if role is not None:
            self.log.high_watermark = min(role.high_watermark, self.log.log_end_offset)

    def _tick(self, at_ns: int) -> None:
        if at_ns != self._next_tick_ns:
            return
        self._next_tick_ns = NEVER
        if self.leader is not None:
            self._apply(self.leader.tick(self.now_ns()))

    def _propose(self, leader: Leader, proposal: Propose) -> None:
        if self.leader is not leader or self._proposal is not proposal:
            return
        store = self.broker.store
        arguments = (self.partition, leader.leader_epoch, proposal)

        def answered(result: tuple[bool, PartitionState]) -> None:
            done, state = result
            if self.leader is not leader:
                return
            if not done and state.version == proposal.expected_version:
                if self._proposal is proposal:
                    self._proposal = None
                self._apply(leader.proposal_refused(proposal.expected_version, self.now_ns()))
            else:
                self._apply(leader.state_changed(state, self.broker.connected(), self.now_ns()))

        self.broker.ask(store.change_isr, arguments, answered)
        self.broker.later(PROPOSE_AGAIN_NS, self._propose, leader, proposal)

    # --- effects --------------------------------------------------------------------------------------------

    def _apply(self, effects: list[Effect]) -> None:
        broker = self.broker
        for effect in effects:
            match effect:
                case Send(to, message):
                    broker.send(to, self.partition, message)
                case Acknowledge(token, error):
                    self._acknowledge(token, error)
                case Advanced(high_watermark):
                    broker.history.advanced(
                        self.partition, broker.broker_id, self.log, high_watermark
                    )
                case Read():
                    broker.later(broker.disk_delay_ns(), self._read, self.leader, effect)
                case Cut():
                    broker.note("cuts", self.partition, effect, "from", self.log.position)
                    broker.later(broker.disk_delay_ns(), self._cut, self.follower, effect)
                case Propose():
                    if self.leader is not None:
                        broker.note("proposes", self.partition, effect)
                        self._proposal = effect
                        self._propose(self.leader, effect)
                case Deposed(leader_epoch):
                    self.step_down(leader_epoch)
                case Sealed():
                    broker.sealed(self)
                case AppendFailed(code):
                    broker.note("cannot append", self.partition, code.name)
        self._set_timer()

    def _set_timer(self) -> None:
        leader = self.leader
        if leader is None or leader.state is LeaderState.STOPPED:
            return
        if leader.deadline_ns < self._next_tick_ns:
            self._next_tick_ns = leader.deadline_ns
            self.broker.at(leader.deadline_ns, self._tick, leader.deadline_ns)

    def _acknowledge(self, token: object, error: ErrorCode | None) -> None:
        assert isinstance(token, Waiting)
        request, base_offset = token
        if error is None and request.acks != 0 and self.leader is not None:
            self.broker.history.acknowledged(
                self.partition,
                self.broker.broker_id,
                self.leader.leader_epoch,
                request,
                base_offset,
            )
        self._answer(request, ProduceAnswer(request.number, error, base_offset))

    def _read(self, leader: Leader | None, wanted: Read) -> None:
        if leader is None or self.leader is not leader:
            return
        batches = self.log.read(wanted.offset, wanted.max_bytes, self.log.log_end_offset)
        base = batches[0].base_offset if batches else wanted.offset
        end = batches[-1].end_offset if batches else base
        size = sum(len(batch.values) for batch in batches) * RECORD_SIZE_BYTES
        self._apply(
            leader.read_done(
                wanted.follower, wanted.stream, base, end, batches, size, self.now_ns()
            )
        )

    def _cut(self, follower: Follower | None, cut: Cut) -> None:
        if follower is None or self.follower is not follower:
            return
        if cut.reset:
            self.log.reset_to(cut.offset)
        else:
            self.log.cut_to(cut.offset)
        self._apply(follower.cut_done())
        self._take_role()
