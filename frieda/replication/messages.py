"""What a leader and a follower say to each other about one partition. PURE.

A *stream* is one run of appends from a leader to a follower: question, answer, begin, then appends, each of which
is answered with the follower's end. It has a number that grows within a leader epoch; whatever goes wrong (a lost
message, a restart, a broken connection), the cure is the next stream. A message of another stream says nothing.

    leader                                   follower
      Question(epoch, stream)      ---->       which epochs have you, and where does your log end?
                                   <----     Answer(epochs, end, incarnation)
      Begin(cut to here)           ---->       cuts, if it has to
                                   <----     Progress(end)
      Append(...) Append(...)      ---->
                                   <----     Progress(end), for each
      Beat(high watermark)         ---->       when there was news and no append to carry it
                                   <----     Progress(end)
                                   <----     Fenced(epoch): there is a younger leadership
                                   <----     Lost(stream): I am in no such stream (a restart); ask me

Nothing relies on the order in which messages arrive, nor on each arriving once. The high watermark and the start of
the log ride on every message from the leader. Sources: KIP-101, KIP-279 (cutting by epochs), KIP-903 (incarnations).
"""

from __future__ import annotations

from typing import Final, NamedTuple

LATEST_EPOCH: Final = 2**31 - 1
MAX_EPOCHS: Final = 1000
"""Entries in one Answer. A leader that needs older ones asks again."""


class EpochEnd(NamedTuple):
    """In this log, `epoch` ends at `end_offset` (where the next one begins, or the log ends)."""

    epoch: int
    end_offset: int


class Question(NamedTuple):
    """Leader: begin a stream by telling me what you have. `up_to_epoch`: of your epochs, those not above it."""

    leader_epoch: int
    stream: int
    up_to_epoch: int = LATEST_EPOCH


class Answer(NamedTuple):
    """Follower: what my log holds. `epochs` ascending, the newest MAX_EPOCHS; `more`: there are older ones."""

    leader_epoch: int
    stream: int
    incarnation: str
    epochs: tuple[EpochEnd, ...]
    more: bool
    log_start_offset: int
    log_end_offset: int


class Begin(NamedTuple):
    """Leader: our logs agree up to `offset`; cut what you have beyond it. `reset`: drop all, and start there."""

    leader_epoch: int
    stream: int
    incarnation: str
    offset: int
    reset: bool
    high_watermark: int
    log_start_offset: int


class Append(NamedTuple):
    """Leader: whole batches from `base_offset` up to `end_offset`. `batches` is a reference, never copied here."""

    leader_epoch: int
    stream: int
    base_offset: int
    end_offset: int
    size_bytes: int
    high_watermark: int
    log_start_offset: int
    batches: object


class Beat(NamedTuple):
    """Leader: nothing to append, but news."""

    leader_epoch: int
    stream: int
    high_watermark: int
    log_start_offset: int


class Progress(NamedTuple):
    """Follower: how far my log goes, and how far it is as safe as the topic's `flush` demands."""

    leader_epoch: int
    stream: int
    log_end_offset: int
    safe_offset: int


class Fenced(NamedTuple):
    """Follower: I know of a younger leadership, `leader_epoch`."""

    leader_epoch: int


class Lost(NamedTuple):
    """Follower: I am not in this stream."""

    leader_epoch: int
    stream: int


ToFollower = Question | Begin | Append | Beat
ToLeader = Answer | Progress | Fenced | Lost
ReplicationMessage = ToFollower | ToLeader
