"""The log of one replica as the simulation has it: batches in memory, and what a power cut leaves of them. PURE."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from operator import attrgetter
from random import Random
from typing import Final, NamedTuple

from frieda.errors import ErrorCode, StorageError
from frieda.replication.messages import EpochEnd
from frieda.storage.leader_epochs import LeaderEpochs
from frieda.storage.producer_state import ProducerState
from frieda.wire.batch import BatchHeader

_end_offset = attrgetter("end_offset")


class StoredBatch(NamedTuple):
    """A batch in a log. The value that record k of producer n carries is (n, k)."""

    base_offset: int
    end_offset: int
    leader_epoch: int
    header: BatchHeader
    values: tuple[tuple[int, int], ...]


RECORD_SIZE_BYTES: Final = 100
"""What a record counts for."""


class SimulatedLog:
    """Fits frieda.replication.epochs.ReplicaLog. `flush_batch`: an acknowledgement wants a sync before it.

    A killed process loses nothing of it; a power cut loses what was not synced, from some batch on (the rest of a torn
    one is cut when the log is opened). A cut of the log is synced when it is done.
    """

    def __init__(self, *, flush_batch: bool) -> None:
        self.flush_batch = flush_batch
        self.batches: list[StoredBatch] = []
        self.log_start_offset = 0
        self.log_end_offset = 0
        self.synced_offset = 0
        self.high_watermark = 0
        """As checkpointed."""
        self.epochs = LeaderEpochs()
        self.producers = ProducerState()
        self.full = False
        self.lost_up_to = 0
        """Where it ended before a power cut took some of it."""

    @property
    def safe_offset(self) -> int:
        return self.synced_offset if self.flush_batch else self.log_end_offset

    @property
    def position(self) -> EpochEnd:
        """What an election compares: the latest leader epoch, and the end."""
        return EpochEnd(self.epochs.latest, self.log_end_offset)

    def append_own(
        self, header: BatchHeader, values: tuple[tuple[int, int], ...], leader_epoch: int
    ) -> StoredBatch:
        """As the leader: give it its offset. Raises StorageError."""
        base_offset = self.log_end_offset
        batch = StoredBatch(base_offset, base_offset + len(values), leader_epoch, header, values)
        self._append(batch)
        return batch

    def append_replicated(self, batches: tuple[StoredBatch, ...], leader_epoch: int) -> int:
        """As a follower of the leader of that epoch. Returns the end. Raises StorageError."""
        for batch in batches:
            if batch.leader_epoch > leader_epoch:
                raise AssertionError(f"epoch {leader_epoch} sends a batch of {batch.leader_epoch}")
            self._append(batch)
        return self.log_end_offset

    def _append(self, batch: StoredBatch) -> None:
        if self.full:
            raise StorageError(ErrorCode.DISK_FULL, "the simulated disk is full")
        if batch.base_offset != self.log_end_offset or batch.leader_epoch < self.epochs.latest:
            raise AssertionError(
                f"a batch of epoch {batch.leader_epoch} at {batch.base_offset} does not follow "
                f"epoch {self.epochs.latest} at {self.log_end_offset}"
            )
        self.batches.append(batch)
        self.log_end_offset = batch.end_offset
        self.epochs.note(batch.leader_epoch, batch.base_offset)
        self.producers.update(batch.header, batch.base_offset)

    def read(self, offset: int, max_bytes: int, up_to_offset: int) -> tuple[StoredBatch, ...]:
        """Whole batches from the one that holds `offset`; at least one, if there is one."""
        at = bisect_right(self.batches, offset, key=_end_offset)
        found: list[StoredBatch] = []
        room = max_bytes
        while at < len(self.batches) and self.batches[at].end_offset <= up_to_offset:
            batch = self.batches[at]
            room -= len(batch.values) * RECORD_SIZE_BYTES
            if found and room < 0:
                break
            found.append(batch)
            at += 1
        return tuple(found)

    def cut_to(self, offset: int) -> None:
        """Cut every batch that reaches beyond `offset`; what is left is synced."""
        del self.batches[bisect_right(self.batches, offset, key=_end_offset) :]
        end = self.batches[-1].end_offset if self.batches else self.log_start_offset
        self.log_end_offset = self.synced_offset = end
        self.high_watermark = min(self.high_watermark, end)
        self.epochs.cut_end(end)
        self.producers.clear()
        for batch in self.batches:
            self.producers.update(batch.header, batch.base_offset)

    def reset_to(self, offset: int) -> None:
        """Drop all, and begin at `offset`."""
        self.log_start_offset = offset
        self.cut_to(-1)
        self.epochs = LeaderEpochs()

    def synced(self, offset: int) -> None:
        """A sync that began when the log ended at `offset` is done."""
        self.synced_offset = max(self.synced_offset, min(offset, self.log_end_offset))

    def lose_power(self, random: Random) -> bool:
        """Keep what was synced and some of what was not. Returns whether anything was lost."""
        before = self.log_end_offset
        first = bisect_left(self.batches, self.synced_offset + 1, key=_end_offset)
        kept = random.randint(first, len(self.batches))
        self.cut_to(self.batches[kept - 1].end_offset if kept else self.log_start_offset)
        if self.log_end_offset == before:
            return False
        self.lost_up_to = max(self.lost_up_to, before)
        return True

    def value_at(self, offset: int) -> tuple[int, int] | None:
        """The value of the record at `offset`, or None."""
        at = bisect_right(self.batches, offset, key=_end_offset)
        if at >= len(self.batches) or self.batches[at].base_offset > offset:
            return None
        batch = self.batches[at]
        return batch.values[offset - batch.base_offset]
