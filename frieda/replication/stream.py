"""What a leader knows of one follower, and what it sends to it. PURE.

    state       meaning                                    what moves it on
    ---------   -----------------------------------------  ----------------------------------------------------
    DOWN        no connection, or it was lost              link_up -> ASKING
    ASKING      a Question is on its way                   Answer -> BEGINNING (or a Question for older epochs)
    BEGINNING   a Begin is on its way                      Progress -> STREAMING
    STREAMING   appends leave as they come                 no answer in time, Lost -> ASKING, in a new stream
    any                                                    connection lost -> DOWN

Rules:

1. `match_offset`, what the follower is known to hold safely, begins unknown (-1) with every stream and grows only by
   Progress of this stream. It is never guessed from what was sent.
2. A new batch is pushed at once while the follower is at the end and the window has room (one batch always has).
   Otherwise the follower is behind and is fed from the log, one read at a time, until it is at the end again.
3. Caught up means: it holds all that the leader held a moment ago, `caught_up_ns` being that moment (Kafka's rule). A
   follower that holds all and whose connection is up is caught up now.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum
from typing import Final

from frieda.replication.effects import Effect, Read, Send
from frieda.replication.epochs import ReplicaLog, agreement
from frieda.replication.messages import (
    LATEST_EPOCH,
    Answer,
    Append,
    Beat,
    Begin,
    Progress,
    Question,
)
from frieda.replication.settings import ReplicationSettings

NEVER: Final = 1 << 62
"""A moment that does not come, in ns."""
UNKNOWN: Final = -1
_NS_PER_MS: Final = 1_000_000


class StreamState(IntEnum):
    """See the table of the module."""

    DOWN = 0
    ASKING = 1
    BEGINNING = 2
    STREAMING = 3


class Led:
    """What the streams of one led partition share with its leader. `deadline_ns`: never later than what is due."""

    __slots__ = (
        "answer_timeout_ns",
        "deadline_ns",
        "heartbeat_ns",
        "high_watermark",
        "lag_limit_ns",
        "leader_epoch",
        "log",
        "out",
        "settings",
    )

    def __init__(self, leader_epoch: int, log: ReplicaLog, settings: ReplicationSettings) -> None:
        self.leader_epoch = leader_epoch
        self.log = log
        self.settings = settings
        self.answer_timeout_ns = settings.answer_timeout_ms * _NS_PER_MS
        self.heartbeat_ns = settings.heartbeat_ms * _NS_PER_MS
        self.lag_limit_ns = settings.replica_lag_ms * _NS_PER_MS
        self.deadline_ns = NEVER
        self.high_watermark = min(log.high_watermark, log.log_end_offset)
        self.out: list[Effect] = []

    def due(self, at_ns: int) -> None:
        """There is something to do at `at_ns`."""
        self.deadline_ns = min(self.deadline_ns, at_ns)


class Stream:
    """The replication to one follower. Its leader calls it; effects go to `Led.out`.

    match_offset: what the follower holds safely; -1 while not known.  next_offset: the next to be sent.
    deadline_ns: when `tick` has something to do.
    """

    __slots__ = (
        "_answer_by_ns",
        "_beat_at_ns",
        "_begin_offset",
        "_in_flight",
        "_in_flight_bytes",
        "_led",
        "_mark_end",
        "_mark_ns",
        "_reading",
        "_told_high_watermark",
        "caught_up_ns",
        "follower",
        "incarnation",
        "match_offset",
        "next_offset",
        "number",
        "state",
    )

    def __init__(self, led: Led, follower: int, now_ns: int) -> None:
        self._led = led
        self.follower = follower
        self.number = 0
        self.state = StreamState.DOWN
        self.incarnation = ""
        self.caught_up_ns = now_ns
        self._restart()

    def _restart(self) -> None:
        self.match_offset = UNKNOWN
        self.next_offset = UNKNOWN
        self._begin_offset = UNKNOWN
        self._mark_end, self._mark_ns = NEVER, 0
        self._in_flight: deque[tuple[int, int]] = deque()
        self._in_flight_bytes = 0
        self._reading = False
        self._told_high_watermark = UNKNOWN
        self._answer_by_ns = self._beat_at_ns = NEVER

    @property
    def deadline_ns(self) -> int:
        return min(self._answer_by_ns, self._beat_at_ns)

    @property
    def holds_everything(self) -> bool:
        """It has all that the leader has, and answers."""
        return self.match_offset >= self._led.log.log_end_offset

    def lag_ns(self, now_ns: int) -> int:
        """For how long it has not been caught up."""
        if self.state is StreamState.STREAMING and self.holds_everything:
            return 0
        return now_ns - self.caught_up_ns

    # --- the connection -------------------------------------------------------------------------------

    def up(self, now_ns: int) -> None:
        """There is a connection."""
        if self.state is StreamState.DOWN:
            self.ask(now_ns)

    def down(self, now_ns: int) -> None:
        """The connection was lost."""
        self._note_caught_up_till(now_ns)
        self._restart()
        self.state = StreamState.DOWN

    def ask(self, now_ns: int) -> None:
        """Begin a new stream."""
        self._note_caught_up_till(now_ns)
        self._restart()
        self.state = StreamState.ASKING
        self._ask(LATEST_EPOCH, now_ns)

    def _ask(self, up_to_epoch: int, now_ns: int) -> None:
        self.number += 1
        self._send(Question(self._led.leader_epoch, self.number, up_to_epoch))
        self._answer_by_ns = due_ns = now_ns + self._led.answer_timeout_ns
        self._led.due(due_ns)

    def _note_caught_up_till(self, now_ns: int) -> None:
        if self.state is StreamState.STREAMING and self.holds_everything:
            self.caught_up_ns = now_ns

    # --- what the follower says -------------------------------------------------------------------------

    def on_answer(self, answer: Answer, now_ns: int) -> None:
        """It said what it has."""
        if self.state is not StreamState.ASKING or answer.stream != self.number:
            return
        led = self._led
        offset, reset, older_than = agreement(led.log, answer)
        if older_than >= 0:
            self._ask(older_than - 1, now_ns)
            return
        self.incarnation = answer.incarnation
        self.state = StreamState.BEGINNING
        self._begin_offset = offset
        self._told_high_watermark = led.high_watermark
        self._answer_by_ns = now_ns + led.answer_timeout_ns
        begin = Begin(
            led.leader_epoch,
            self.number,
            answer.incarnation,
            offset,
            reset,
            led.high_watermark,
            led.log.log_start_offset,
        )
        self._send(begin)

    def on_progress(self, progress: Progress, now_ns: int) -> bool:
        """It said how far it is. Returns whether `match_offset` grew."""
        if progress.stream != self.number:
            return False
        led = self._led
        log_end_offset = progress.log_end_offset
        if self.state is StreamState.BEGINNING:
            if log_end_offset > self._begin_offset:
                self.ask(now_ns)  # it did not cut: nothing that it says can be built on
                return False
            self.state = StreamState.STREAMING
            self.next_offset = log_end_offset
            self._mark_end, self._mark_ns = led.log.log_end_offset, now_ns
            self._answer_by_ns = NEVER
        elif self.state is not StreamState.STREAMING:
            return False
        in_flight = self._in_flight
        news = False
        while in_flight and in_flight[0][0] <= log_end_offset:
            self._in_flight_bytes -= in_flight.popleft()[1]
            news = True
        grew = progress.safe_offset > self.match_offset
        if grew:
            self.match_offset = progress.safe_offset
            if self.match_offset >= self._mark_end:
                self.caught_up_ns = self._mark_ns
                self._mark_end, self._mark_ns = led.log.log_end_offset, now_ns
        if grew or news:
            self._expect_answer(now_ns)
        if self.next_offset < led.log.log_end_offset:
            self.feed(now_ns)
        return grew

    def on_lost(self, stream: int, now_ns: int) -> None:
        """It is not in this stream: it was started anew, or gave up."""
        if stream == self.number and self.state is not StreamState.DOWN:
            self.ask(now_ns)

    # --- what the leader has for it ---------------------------------------------------------------------

    def push(
        self, base_offset: int, end_offset: int, batches: object, size_bytes: int, now_ns: int
    ) -> None:
        """These batches were appended at the leader just now."""
        if self.state is not StreamState.STREAMING:
            return
        if self.match_offset >= base_offset:  # till now it held everything
            self.caught_up_ns = now_ns
            self._mark_end, self._mark_ns = end_offset, now_ns
            self._led.due(now_ns + self._led.lag_limit_ns + 1)
        if self.next_offset == base_offset and not self._reading and self._has_room(size_bytes):
            self._append(base_offset, end_offset, batches, size_bytes, now_ns)
        else:
            self.feed(now_ns)

    def feed(self, now_ns: int) -> None:
        """Go on with what it lacks, from the log."""
        led = self._led
        if (
            self.state is StreamState.STREAMING
            and not self._reading
            and self.next_offset < led.log.log_end_offset
            and self._has_room(1)
        ):
            if self.next_offset < led.log.log_start_offset:
                self.ask(now_ns)  # retention was faster: it has to start anew
                return
            self._reading = True
            room = led.settings.window_bytes - self._in_flight_bytes
            size_bytes = max(min(led.settings.read_bytes, room), 1)
            led.out.append(Read(self.follower, self.number, self.next_offset, size_bytes))

    def on_read(
        self,
        stream: int,
        base_offset: int,
        end_offset: int,
        batches: object,
        size_bytes: int,
        now_ns: int,
    ) -> None:
        """A Read is done; `end_offset` == `base_offset` when there was nothing or it failed."""
        if stream != self.number or not self._reading:
            return
        self._reading = False
        if end_offset > base_offset == self.next_offset:
            self._append(base_offset, end_offset, batches, size_bytes, now_ns)
            self.feed(now_ns)
        else:
            self._answer_by_ns = min(self._answer_by_ns, now_ns + self._led.answer_timeout_ns)

    def _has_room(self, size_bytes: int) -> bool:
        settings = self._led.settings
        return not self._in_flight or (
            len(self._in_flight) < settings.window_batches
            and self._in_flight_bytes + size_bytes <= settings.window_bytes
        )

    def _append(
        self, base_offset: int, end_offset: int, batches: object, size_bytes: int, now_ns: int
    ) -> None:
        led = self._led
        high_watermark = led.high_watermark
        led.out.append(
            Send(
                self.follower,
                Append(
                    led.leader_epoch,
                    self.number,
                    base_offset,
                    end_offset,
                    size_bytes,
                    high_watermark,
                    led.log.log_start_offset,
                    batches,
                ),
            )
        )
        self._told_high_watermark = high_watermark
        self._beat_at_ns = NEVER
        self.next_offset = end_offset
        if not self._in_flight:
            self._answer_by_ns = due_ns = now_ns + led.answer_timeout_ns
            led.due(due_ns)
        self._in_flight.append((end_offset, size_bytes))
        self._in_flight_bytes += size_bytes

    def _expect_answer(self, now_ns: int) -> None:
        waits = self._in_flight or self.match_offset < self.next_offset
        self._answer_by_ns = now_ns + self._led.answer_timeout_ns if waits else NEVER

    # --- time -------------------------------------------------------------------------------------------

    def news(self, now_ns: int) -> None:
        """The high watermark moved: tell it soon, if no append does before."""
        if self._beat_at_ns == NEVER and self.state is StreamState.STREAMING:
            self._beat_at_ns = due_ns = now_ns + self._led.heartbeat_ns
            self._led.due(due_ns)

    def tick(self, now_ns: int) -> None:
        """Do what is due."""
        if self._answer_by_ns <= now_ns:
            self.ask(now_ns)
        elif self._beat_at_ns <= now_ns:
            self._beat_at_ns = NEVER
            led = self._led
            if self._told_high_watermark != led.high_watermark:
                self._told_high_watermark = led.high_watermark
                self._send(
                    Beat(
                        led.leader_epoch,
                        self.number,
                        led.high_watermark,
                        led.log.log_start_offset,
                    )
                )

    def _send(self, message: Question | Begin | Beat) -> None:
        self._led.out.append(Send(self.follower, message))
