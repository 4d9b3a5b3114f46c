"""One partition led by this broker under one leader epoch. PURE.

    state      meaning                                       what moves it on
    --------   --------------------------------------------  -------------------------------------------------
    LEADING    takes produces, acknowledges under the lease  seal -> SEALING; stop, a younger epoch -> STOPPED
    SEALING    takes no more, brings those in sync to the    unseal -> LEADING; stop, a younger epoch -> STOPPED
               end, so that it can be handed over
    STOPPED    for good: another leadership is another
               object, under another epoch

Rules:

1. A leader never cuts its own log. Its first offset of this epoch, `epoch_start_offset`, is where the log ended when
   it was elected.
2. The high watermark is the smallest safe end among the maximal ISR (KIP-497, see `isr`), this broker among them. It
   never goes back, and stays where it was while one of them has not said what it holds.
3. An acknowledgement (acks=1: appended here and safe; acks=all: below the high watermark) and the high watermark wait
   while the lease does not hold. What waits is released when it holds again; nobody else can lead until then.
4. acks=all is refused before the append when fewer than min_insync_replicas are agreed to be in sync, and answered with
   NOT_ENOUGH_REPLICAS_AFTER_APPEND when that became so since. Nothing is taken while the lease does not hold.
5. A follower joins the ISR when it has reached the high watermark and the start of this epoch, unless it is barred (it
   is about to stop, or its tail is doubtful still); it leaves when it has not been caught up for replica_lag_ms. Both
   only through the metadata store.
6. A retry of a batch that is stored already waits as the batch itself does: to be stored is not to be committed.
7. `knows_the_end`: the high watermark has reached the start of this epoch, so that no earlier leader can have shown a
   reader more; and the lease holds, so that no later one can. Otherwise a reader that is ahead must wait, and must not
   be told that its offset is out of range.

One object for each leader epoch: its streams are numbered from one, so a second object of the same epoch would take the
answers meant for the first. A broker that is started anew must resign what the metadata say it leads.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from frieda.cluster.state import PartitionState
from frieda.errors import ErrorCode
from frieda.replication.effects import Acknowledge, Advanced, Deposed, Effect, Propose, Sealed
from frieda.replication.epochs import ReplicaLog
from frieda.replication.isr import InSync
from frieda.replication.lease import Lease
from frieda.replication.messages import Answer, Fenced, Lost, Progress, ToLeader
from frieda.replication.pending import Pending
from frieda.replication.settings import ReplicationSettings
from frieda.replication.stream import NEVER, UNKNOWN, Led, Stream

ACKS_NONE: Final = 0
ACKS_LEADER: Final = 1
ACKS_ALL: Final = -1
_NS_PER_MS: Final = 1_000_000


class LeaderState(IntEnum):
    """See the table of the module."""

    LEADING = 0
    SEALING = 1
    STOPPED = 2


class Leader:
    """A leadership. Every method that returns effects wants them carried out, in order.

    After data (a produce, a member's progress) only what data can change is looked at; the rest goes through `_done`.
    """

    __slots__ = (
        "_barred",
        "_broker_id",
        "_committed",
        "_in_sync",
        "_lease",
        "_led",
        "_propose_from_ns",
        "_safe",
        "_settings",
        "_told_sealed",
        "epoch_start_offset",
        "leader_epoch",
        "state",
        "streams",
    )

    def __init__(
        self,
        broker_id: int,
        state: PartitionState,
        log: ReplicaLog,
        lease: Lease,
        settings: ReplicationSettings,
        now_ns: int,
    ) -> None:
        """`state` says that `broker_id` leads. The caller goes on with `start`."""
        self._barred: frozenset[int] = frozenset()
        self._broker_id = broker_id
        self._settings = settings
        self._lease = lease
        self._led = Led(state.leader_epoch, log, settings)
        self._in_sync = InSync(state)
        self._safe = Pending()
        self._committed = Pending()
        self.leader_epoch = state.leader_epoch
        self.epoch_start_offset = log.log_end_offset
        self.state = LeaderState.LEADING
        self._told_sealed = False
        self._propose_from_ns = now_ns
        self.streams = {
            replica: Stream(self._led, replica, now_ns)
            for replica in state.replicas
            if replica != broker_id
        }

    @property
    def high_watermark(self) -> int:
        """The end of what readers may see."""
        return self._led.high_watermark

    def knows_the_end(self, now_ns: int) -> bool:
        """May a reader beyond the high watermark be told that there is no such offset? See rule 7."""
        return self._led.high_watermark >= self.epoch_start_offset and self._lease.holds(now_ns)

    @property
    def deadline_ns(self) -> int:
        """When to call `tick`: perhaps early, never late, and NEVER for a partition where nothing is due."""
        return self._led.deadline_ns

    @property
    def isr(self) -> tuple[int, ...]:
        """As agreed on, as far as is known here."""
        return self._in_sync.agreed

    @property
    def pending(self) -> int:
        """Produces that wait for their acknowledgement."""
        return len(self._safe) + len(self._committed)

    def lag(self, follower: int) -> int:
        """How many records a follower is known to lack; all, while nothing is known of it."""
        return self._led.log.log_end_offset - max(self.streams[follower].match_offset, 0)

    # --- the beginning and the end ------------------------------------------------------------------------

    def start(
        self, connected: frozenset[int], now_ns: int, barred: frozenset[int] = frozenset()
    ) -> list[Effect]:
        """Begin: ask the followers that are `connected` what they have. `barred`: see `barred_changed`."""
        self._barred = barred
        for follower, stream in self.streams.items():
            if follower in connected:
                stream.up(now_ns)
        return self._done(now_ns)

    def seal(self, now_ns: int) -> list[Effect]:
        """Take no more, so that the leadership can be handed over: Sealed follows when all in sync have all."""
        if self.state is LeaderState.LEADING:
            self.state = LeaderState.SEALING
            self._told_sealed = False
        return self._done(now_ns)

    def unseal(self) -> None:
        """Nobody took over: go on."""
        if self.state is LeaderState.SEALING:
            self.state = LeaderState.LEADING

    def stop(self) -> list[Effect]:
        """This broker leads no more, or must suppose so. What waits is told to look for the leader."""
        self.state = LeaderState.STOPPED
        self._led.deadline_ns = NEVER
        code = ErrorCode.NOT_LEADER_OR_FOLLOWER
        waiting = self._safe.clear() + self._committed.clear()
        self._led.out += [Acknowledge(token, code) for token in waiting]
        return self._take()

    # --- produce ------------------------------------------------------------------------------------------

    def admit(self, acks: int, now_ns: int) -> ErrorCode | None:
        """May a batch be appended? None, or the error to answer with."""
        if self.state is not LeaderState.LEADING or not self._lease.holds(now_ns):
            return ErrorCode.NOT_LEADER_OR_FOLLOWER
        if acks == ACKS_ALL and len(self._in_sync.agreed) < self._settings.min_insync_replicas:
            return ErrorCode.NOT_ENOUGH_REPLICAS
        if self.pending >= self._settings.max_pending:
            return ErrorCode.BUSY
        return None

    def appended(
        self,
        base_offset: int,
        end_offset: int,
        batches: object,
        size_bytes: int,
        acks: int,
        token: object,
        now_ns: int,
    ) -> list[Effect]:
        """A batch was admitted and appended to the log: push it, and acknowledge it when its promise holds.

        `batches` must stay as it is until the Sends that refer to it are done.
        """
        for stream in self.streams.values():
            stream.push(base_offset, end_offset, batches, size_bytes, now_ns)
        self._await(end_offset, acks, token, now_ns)
        return self._after_data(now_ns)

    def repeated(self, end_offset: int, acks: int, token: object, now_ns: int) -> list[Effect]:
        """A retry of a batch that is stored already, up to `end_offset`."""
        self._await(end_offset, acks, token, now_ns)
        return self._after_data(now_ns)

    def _await(self, end_offset: int, acks: int, token: object, now_ns: int) -> None:
        if acks == ACKS_NONE:
            self._led.out.append(Acknowledge(token, None))
            return
        deadline_ns = now_ns + self._settings.request_timeout_ms * _NS_PER_MS
        pending = self._safe if acks == ACKS_LEADER else self._committed
        pending.add(end_offset, deadline_ns, token)
        self._led.due(deadline_ns)

    def safe_moved(self, now_ns: int) -> list[Effect]:
        """flush=batch: a sync is done, and the own log is safe further than it was."""
        return self._after_data(now_ns)

    def lease_renewed(self, now_ns: int) -> list[Effect]:
        """The lease had run out, and holds again."""
        return self._done(now_ns)

    # --- followers ----------------------------------------------------------------------------------------

    def received(self, sender: int, message: ToLeader, now_ns: int) -> list[Effect]:
        """A message from a follower."""
        if self.state is LeaderState.STOPPED:
            return []
        if message.leader_epoch > self.leader_epoch:
            self._led.out.append(Deposed(message.leader_epoch))
            return self.stop()
        stream = self.streams.get(sender)
        if stream is None or message.leader_epoch < self.leader_epoch:
            return []
        match message:
            case Progress():
                stream.on_progress(message, now_ns)
                if sender in self._in_sync.agreed:
                    return self._after_data(now_ns)
            case Answer():
                stream.on_answer(message, now_ns)
            case Lost():
                stream.on_lost(message.stream, now_ns)
            case Fenced():
                pass
        return self._done(now_ns)

    def read_done(
        self,
        follower: int,
        stream: int,
        base_offset: int,
        end_offset: int,
        batches: object,
        size_bytes: int,
        now_ns: int,
    ) -> list[Effect]:
        """What a Read asked for. `end_offset` == `base_offset`: nothing could be read."""
        if self.state is not LeaderState.STOPPED and follower in self.streams:
            self.streams[follower].on_read(
                stream, base_offset, end_offset, batches, size_bytes, now_ns
            )
        return self._done(now_ns)

    def link_up(self, follower: int, now_ns: int) -> list[Effect]:
        """There is a connection to this broker."""
        if self.state is not LeaderState.STOPPED and follower in self.streams:
            self.streams[follower].up(now_ns)
        return self._done(now_ns)

    def link_down(self, follower: int, now_ns: int) -> list[Effect]:
        """The connection to this broker was lost."""
        if self.state is not LeaderState.STOPPED and follower in self.streams:
            self.streams[follower].down(now_ns)
        return self._done(now_ns)

    # --- the metadata -------------------------------------------------------------------------------------

    def state_changed(
        self, state: PartitionState, connected: frozenset[int], now_ns: int
    ) -> list[Effect]:
        """The metadata have this state: from a watch, a read, or the answer to a proposal; in any order."""
        if self.state is LeaderState.STOPPED or state.leader_epoch < self.leader_epoch:
            return []
        if state.leader_epoch > self.leader_epoch or (
            state.version > self._in_sync.version and state.leader != self._broker_id
        ):
            self._led.out.append(Deposed(state.leader_epoch))
            return self.stop()
        if self._in_sync.learned(state):
            followers = [replica for replica in state.replicas if replica != self._broker_id]
            for gone in self.streams.keys() - followers:
                del self.streams[gone]
            for follower in followers:
                if follower not in self.streams:
                    stream = self.streams[follower] = Stream(self._led, follower, now_ns)
                    if follower in connected:
                        stream.up(now_ns)
        return self._done(now_ns)

    def barred_changed(self, barred: frozenset[int], now_ns: int) -> list[Effect]:
        """Brokers that must not join the ISR now: those that want to stop, or are not certain of their tail.

        The controller takes them out of it, so that to let them in would only go to and fro.
        """
        self._barred = barred
        return self._done(now_ns)

    def proposal_refused(self, expected_version: int, now_ns: int) -> list[Effect]:
        """The store will not make the change: a member was registered anew, or is gone. Another try comes later.

        Not for a conflict of versions, which `state_changed` settles.
        """
        if self.state is not LeaderState.STOPPED:
            self._in_sync.refused(expected_version)
            self._propose_from_ns = now_ns + self._settings.answer_timeout_ms * _NS_PER_MS
        return self._done(now_ns)

    # --- time ---------------------------------------------------------------------------------------------

    def tick(self, now_ns: int) -> list[Effect]:
        """Do what is due at `now_ns`."""
        if self.state is LeaderState.STOPPED:
            return []
        timed_out = ErrorCode.REQUEST_TIMED_OUT
        for pending in (self._safe, self._committed):
            for token in pending.expired(now_ns):
                self._led.out.append(Acknowledge(token, timed_out))
        for stream in self.streams.values():
            stream.tick(now_ns)
        return self._done(now_ns)

    # --- what follows from any of them --------------------------------------------------------------------

    def _after_data(self, now_ns: int) -> list[Effect]:
        if self.state is LeaderState.LEADING:
            if self._lease_holds(now_ns):
                self._advance(now_ns)
                self._acknowledge()
            return self._take()
        return self._done(now_ns)

    def _done(self, now_ns: int) -> list[Effect]:
        if self.state is not LeaderState.STOPPED:
            if self._lease_holds(now_ns):
                self._advance(now_ns)
                self._acknowledge()
            if self._in_sync.proposed is None and now_ns >= self._propose_from_ns:
                self._consider_isr(now_ns)
            if self.state is LeaderState.SEALING:
                self._consider_seal()
            self._set_deadline(now_ns)
        return self._take()

    def _lease_holds(self, now_ns: int) -> bool:
        return self._lease.holds(now_ns)

    def _advance(self, now_ns: int) -> None:
        committed = self._committed_offset()
        if committed > self._led.high_watermark:
            self._led.high_watermark = committed
            self._led.out.append(Advanced(committed))
            for stream in self.streams.values():
                stream.news(now_ns)

    def _committed_offset(self) -> int:
        smallest = self._led.log.safe_offset
        streams = self.streams
        for member in self._in_sync.maximal:
            if member != self._broker_id:
                stream = streams.get(member)
                match_offset = stream.match_offset if stream is not None else UNKNOWN
                smallest = min(smallest, match_offset)
        return smallest

    def _acknowledge(self) -> None:
        out = self._led.out
        if self._safe:
            for token in self._safe.reached(self._led.log.safe_offset):
                out.append(Acknowledge(token, None))
        first = self._committed.first_end_offset
        if first is None or first > self._led.high_watermark:
            return
        enough = len(self._in_sync.agreed) >= self._settings.min_insync_replicas
        error = None if enough else ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND
        for token in self._committed.reached(self._led.high_watermark):
            out.append(Acknowledge(token, error))

    def _consider_isr(self, now_ns: int) -> None:
        agreed = self._in_sync.agreed
        limit_ns = self._led.lag_limit_ns
        joining, leaving = [], []
        for follower, stream in self.streams.items():
            if follower in agreed:
                if stream.lag_ns(now_ns) > limit_ns:
                    leaving.append(follower)
            elif follower not in self._barred and self._may_join(stream):
                joining.append(follower)
        gone = [
            member for member in agreed if member != self._broker_id and member not in self.streams
        ]
        if not joining and not leaving and not gone:
            return
        kept = [member for member in agreed if member not in leaving and member not in gone]
        self._propose(tuple(kept + joining), joining)

    def _may_join(self, stream: Stream) -> bool:
        return stream.match_offset >= max(self._led.high_watermark, self.epoch_start_offset)

    def _propose(self, isr: tuple[int, ...], joining: list[int]) -> None:
        incarnations = tuple((member, self.streams[member].incarnation) for member in joining)
        self._in_sync.propose(isr)
        self._led.out.append(Propose(self._in_sync.version, isr, incarnations))

    def _consider_seal(self) -> None:
        end_offset = self._led.log.log_end_offset
        if self._led.high_watermark >= end_offset and not self.pending and not self._told_sealed:
            self._told_sealed = True
            self._led.out.append(Sealed(end_offset))

    def _set_deadline(self, now_ns: int) -> None:
        deadline_ns = self._propose_from_ns if now_ns < self._propose_from_ns else NEVER
        for pending in (self._safe, self._committed):
            if pending.deadline_ns is not None:
                deadline_ns = min(deadline_ns, pending.deadline_ns)
        limit_ns = self._led.lag_limit_ns
        watched = self._in_sync.agreed if self._in_sync.proposed is None else ()
        for follower, stream in self.streams.items():
            deadline_ns = min(deadline_ns, stream.deadline_ns)
            if follower in watched and not stream.holds_everything:
                leaves_ns = max(stream.caught_up_ns + limit_ns + 1, self._propose_from_ns)
                deadline_ns = min(deadline_ns, leaves_ns)
        self._led.deadline_ns = deadline_ns

    def _take(self) -> list[Effect]:
        out = self._led.out
        self._led.out = []
        return out
