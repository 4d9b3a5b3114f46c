"""Where the logs of a leader and a follower part. PURE.

Two rules make this exact. A leader epoch has one leader, so two records of one epoch at one offset are the same record;
and who holds a record of an epoch holds what came before it in that leader's log. So the logs agree up to the end,
in the shorter of the two, of the newest epoch that both have: KIP-279, which mends KIP-101. The high watermark plays
no part in it: a follower learns it late, and to cut by it loses committed records (the reason for KIP-101).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from frieda.replication.messages import MAX_EPOCHS, Answer, EpochEnd
from frieda.storage.leader_epochs import LeaderEpochs


class ReplicaLog(Protocol):
    """What replication needs of a partition's log.

    safe_offset: up to here it is as safe as the topic's `flush` demands: the synced end with flush=batch, else the end.
    """

    @property
    def log_start_offset(self) -> int: ...
    @property
    def log_end_offset(self) -> int: ...
    @property
    def safe_offset(self) -> int: ...
    @property
    def high_watermark(self) -> int:
        """The last that is known, also from before a restart; never beyond the end."""
        ...

    @property
    def epochs(self) -> LeaderEpochs: ...

    def append_replicated(self, batches: Any, leader_epoch: int) -> int:
        """Append batches as the leader of that epoch stored them; returns the end. Raises BrokerError."""
        ...


class Agreement(NamedTuple):
    """The logs agree up to `offset`. `reset`: they share nothing, and the follower must start anew there.

    older_than: not decided: the follower must name its epochs below this one. -1 when it is decided.
    """

    offset: int
    reset: bool = False
    older_than: int = -1


def epoch_ends(log: ReplicaLog, up_to_epoch: int) -> tuple[tuple[EpochEnd, ...], bool]:
    """The newest MAX_EPOCHS epochs of a log not above `up_to_epoch`, ascending; and are there older ones?"""
    entries = log.epochs.entries()
    following = [start for _, start in entries[1:]] + [log.log_end_offset]
    wanted = [
        EpochEnd(epoch, end)
        for (epoch, _), end in zip(entries, following, strict=False)
        if epoch <= up_to_epoch
    ]
    return tuple(wanted[-MAX_EPOCHS:]), len(wanted) > MAX_EPOCHS


def agreement(log: ReplicaLog, answer: Answer) -> Agreement:
    """Up to where the leader's `log` and the log that `answer` tells of agree."""
    start = log.log_start_offset
    if answer.log_end_offset < start:
        return Agreement(start, reset=True)
    if answer.log_start_offset == answer.log_end_offset:
        # It holds nothing: let it have all there is.
        return Agreement(start, reset=answer.log_end_offset != start)
    common = _newest_common(log, answer.epochs)
    if common is None:
        if answer.more and answer.epochs:
            return Agreement(start, older_than=answer.epochs[0].epoch)
        return Agreement(start, reset=True)
    offset = min(common, answer.log_end_offset)
    if offset < max(start, answer.log_start_offset):
        return Agreement(start, reset=True)
    return Agreement(offset)


def _newest_common(log: ReplicaLog, theirs: Sequence[EpochEnd]) -> int | None:
    """The smaller end of the newest epoch that both have; None when they have none in common."""
    ours = log.epochs
    for epoch, their_end in reversed(theirs):
        found, our_end = ours.end_offset(epoch, log.log_end_offset)
        if found == epoch:
            return min(our_end, their_end)
    return None
