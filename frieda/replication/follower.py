"""One replica that follows: who may tell it what, and what it appends or cuts. PURE.

    state        meaning                                     what moves it on
    ---------    ------------------------------------------  ----------------------------------------------
    IDLE         in no stream                                Question -> ASKED
    ASKED        a Question is answered                      Begin -> CUTTING, or STREAMING if there is nothing to cut
    CUTTING      the log is being cut                        cut_done -> STREAMING
    STREAMING    appends of this stream are taken            a younger Question -> ASKED

Rules, in the order in which they are applied:

1. A message of an older leader epoch is answered with Fenced and changes nothing. One of a younger epoch is adopted:
   the stream is over. (Epochs are issued by compare-and-set in the metadata store alone, so the younger one is right.)
2. A Question of an older stream is dropped: a leader never goes back to it. While the log is being cut the newest
   Question waits for the end of that.
3. A Begin counts once, in ASKED, and only when it names this incarnation: one that was meant for the life before a
   restart would cut what has been acknowledged since.
4. Only a Begin cuts, and only to the offset in it; never does the high watermark.
5. An Append is taken in STREAMING and in its own stream. It is appended when it begins where the log ends, kept (within
   bounds) when it lies ahead, and answered again when it is known. After a restart it is answered with Lost; after an
   append that failed it is not answered at all, so that the leader comes again only when its patience is over.
6. The high watermark of a follower never passes its own end, and goes back only with a cut.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from frieda.errors import BrokerError
from frieda.replication.effects import AppendFailed, Cut, Effect, Send
from frieda.replication.epochs import ReplicaLog, epoch_ends
from frieda.replication.messages import (
    Answer,
    Append,
    Beat,
    Begin,
    Fenced,
    Lost,
    Progress,
    Question,
    ToFollower,
    ToLeader,
)
from frieda.replication.settings import ReplicationSettings

NO_STREAM: Final = -1


class FollowerState(IntEnum):
    """See the table of the module."""

    IDLE = 0
    ASKED = 1
    CUTTING = 2
    STREAMING = 3


class Follower:
    """One partition followed by this broker. Its driver carries out the effects and owns the log.

    leader_epoch: the youngest known; at the start that of the metadata, read after this broker registered.
    high_watermark: the leader's, as far as it is known here and covered by this log.
    log_start_offset: the leader's; the driver may delete what lies before it.
    """

    __slots__ = (
        "_asker",
        "_epoch",
        "_given_up",
        "_incarnation",
        "_log",
        "_out",
        "_parked",
        "_parked_bytes",
        "_question",
        "_settings",
        "_stream",
        "high_watermark",
        "log_start_offset",
        "state",
    )

    def __init__(
        self,
        log: ReplicaLog,
        leader_epoch: int,
        incarnation: str,
        settings: ReplicationSettings,
    ) -> None:
        """`incarnation`: this life of this broker, as it is registered."""
        self._log = log
        self._epoch = max(leader_epoch, log.epochs.latest)
        self._incarnation = incarnation
        self._settings = settings
        self._stream = self._given_up = NO_STREAM
        self._asker = -1
        self._question: tuple[int, Question] | None = None
        self._parked: dict[int, Append] = {}
        self._parked_bytes = 0
        self._out: list[Effect] = []
        self.state = FollowerState.IDLE
        self.high_watermark = min(log.high_watermark, log.log_end_offset)
        self.log_start_offset = log.log_start_offset

    @property
    def leader_epoch(self) -> int:
        """The youngest known; what is older is fenced."""
        return self._epoch

    @property
    def parked(self) -> int:
        """Appends that wait for an earlier one."""
        return len(self._parked)

    def leader_changed(self, leader_epoch: int) -> None:
        """The metadata tell of a leadership."""
        if leader_epoch > self._epoch:
            self._adopt(leader_epoch)

    def received(self, sender: int, message: ToFollower) -> list[Effect]:
        """A message from `sender`, which leads or thinks it does."""
        if message.leader_epoch < self._epoch:
            return [Send(sender, Fenced(self._epoch))]
        if message.leader_epoch > self._epoch:
            self._adopt(message.leader_epoch)
        match message:
            case Append():
                self._on_append(sender, message)
            case Beat():
                self._on_beat(sender, message)
            case Question():
                self._on_question(sender, message)
            case Begin():
                self._on_begin(sender, message)
        return self._take()

    def cut_done(self) -> list[Effect]:
        """The log was cut (or dropped and begun anew) as Cut said."""
        self.high_watermark = min(self.high_watermark, self._log.log_end_offset)
        if self._question is not None:
            sender, question = self._question
            self._question = None
            self._stream = NO_STREAM
            self.state = FollowerState.IDLE
            self._on_question(sender, question)
        elif self._stream == NO_STREAM:
            self.state = FollowerState.IDLE
        else:
            self.state = FollowerState.STREAMING
            self._report(self._asker)
        return self._take()

    def safe_moved(self) -> list[Effect]:
        """flush=batch: a sync is done, and the log is safe further than it was."""
        if self.state is FollowerState.STREAMING:
            self._report(self._asker)
        return self._take()

    def stop(self) -> None:
        """This broker does not follow any more, or cannot write its log: it is in no stream."""
        self._leave()

    def _adopt(self, leader_epoch: int) -> None:
        self._epoch = leader_epoch
        self._leave()

    def _leave(self) -> None:
        self._stream = self._given_up = NO_STREAM
        self._question = None
        self._forget_parked()
        if self.state is not FollowerState.CUTTING:
            self.state = FollowerState.IDLE

    def _on_question(self, sender: int, question: Question) -> None:
        if question.stream < self._stream or (
            question.stream == self._stream and self.state is not FollowerState.ASKED
        ):
            return
        self._stream = question.stream
        self._forget_parked()
        if self.state is FollowerState.CUTTING:
            self._question = (sender, question)
            return
        self.state = FollowerState.ASKED
        log = self._log
        ends, more = epoch_ends(log, question.up_to_epoch)
        answer = Answer(
            self._epoch,
            question.stream,
            self._incarnation,
            ends,
            more,
            log.log_start_offset,
            log.log_end_offset,
        )
        self._out.append(Send(sender, answer))

    def _on_begin(self, sender: int, begin: Begin) -> None:
        if self._is_out_of_stream(sender, begin):
            return
        if self.state is not FollowerState.ASKED or not self._is_meant_for_this_life(begin):
            return
        log = self._log
        self._asker = sender
        self.log_start_offset = max(self.log_start_offset, begin.log_start_offset)
        if begin.reset or begin.offset < log.log_end_offset:
            self.state = FollowerState.CUTTING
            below = begin.offset < self.high_watermark
            self._out.append(Cut(begin.offset, begin.reset, below))
            return
        self.state = FollowerState.STREAMING
        self._learn(begin)
        self._report(sender)

    def _is_meant_for_this_life(self, begin: Begin) -> bool:
        return begin.incarnation == self._incarnation

    def _on_append(self, sender: int, append: Append) -> None:
        if self._is_out_of_stream(sender, append) or self.state is not FollowerState.STREAMING:
            return
        end = self._log.log_end_offset
        if append.base_offset == end:
            self._append(append)
            while self._parked:
                following = self._parked.pop(self._log.log_end_offset, None)
                if following is None:
                    break
                self._parked_bytes -= following.size_bytes
                self._append(following)
        elif append.base_offset > end:
            self._park(append)
            return
        self._learn(append)
        if self.state is FollowerState.STREAMING:
            self._report(sender)

    def _on_beat(self, sender: int, beat: Beat) -> None:
        if self._is_out_of_stream(sender, beat) or self.state is not FollowerState.STREAMING:
            return
        self._learn(beat)
        self._report(sender)

    def _is_out_of_stream(self, sender: int, message: Begin | Append | Beat) -> bool:
        if message.stream == self._stream:
            return False
        if message.stream > self._stream and message.stream != self._given_up:
            self._out.append(Send(sender, Lost(self._epoch, message.stream)))
        return True

    def _append(self, append: Append) -> None:
        try:
            self._log.append_replicated(append.batches, self._epoch)
        except BrokerError as error:  # the disk, or bytes that were damaged on their way
            # The leader gets no answer, so it comes again, but not at once; until then nothing more is taken.
            given_up = self._stream
            self._leave()
            self._given_up = given_up
            self._out.append(AppendFailed(error.code, error.detail))

    def _park(self, append: Append) -> None:
        settings = self._settings
        if (
            len(self._parked) < settings.max_parked
            and self._parked_bytes + append.size_bytes <= settings.max_parked_bytes
            and append.base_offset not in self._parked
        ):
            self._parked[append.base_offset] = append
            self._parked_bytes += append.size_bytes

    def _forget_parked(self) -> None:
        self._parked.clear()
        self._parked_bytes = 0

    def _learn(self, message: Begin | Append | Beat) -> None:
        known = min(message.high_watermark, self._log.log_end_offset)
        self.high_watermark = max(self.high_watermark, known)
        self.log_start_offset = max(self.log_start_offset, message.log_start_offset)

    def _report(self, leader: int) -> None:
        log = self._log
        progress: ToLeader = Progress(
            self._epoch, self._stream, log.log_end_offset, log.safe_offset
        )
        self._out.append(Send(leader, progress))

    def _take(self) -> list[Effect]:
        out = self._out
        self._out = []
        return out
