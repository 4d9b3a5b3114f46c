"""What a partition knows of its idempotent producers: which batch of each may come next. PURE.

The rules are Kafka's (KIP-98, ProducerStateManager), but for three, which follow from overlapped processing
and a longer memory:

- A sequence that lies ahead is `early`, not an error: a batch sent before it may still be on its way, so the
  owner parks it. If the gap is not filled in time the owner answers with the verdict's `error`.
- A producer that is not known here must begin with sequence 0. Kafka accepts any sequence since KIP-360, since
  it forgets producers with their records; here they are kept until they expire, so a gap means that a batch is
  on its way (early), or else that this producer was silent for longer than the expiry. Then the answer is
  UNKNOWN_PRODUCER_ID, upon which a client takes a new epoch and begins at 0. Accepting any sequence would let
  the second batch of a new producer overtake its first one, which would then be lost.
- A batch that lies behind and is older than those remembered is a duplicate at an unknown offset (-1): every
  sequence behind was accepted, without a gap, so it is stored. (Kafka's clients treat its
  DUPLICATE_SEQUENCE_NUMBER in the same way.)

Sequences run from 0 to 2^31 - 1 and begin again at 0.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Iterator
from enum import IntEnum
from struct import Struct
from struct import error as StructError
from typing import Final, NamedTuple

from frieda.errors import ErrorCode
from frieda.wire.batch import BatchHeader, facts_of

REMEMBERED_BATCHES: Final = 64
"""Batches remembered for each producer: as many as a client may have in flight."""

Facts = tuple[int, ...]
"""The fields of BatchFacts."""

_SEQUENCES: Final = 1 << 31
_HALF: Final = 1 << 30
_SNAPSHOT_MAGIC: Final = b"FPS1"
_SNAPSHOT_HEAD: Final = Struct(">4sqI")  # magic, offset, number of producers
_SNAPSHOT_PRODUCER: Final = Struct(">qhiqH")  # id, epoch, last sequence, last active, batches
_SNAPSHOT_BATCH: Final = Struct(">qqq")
_SNAPSHOT_TAIL: Final = Struct(">I")


class VerdictKind(IntEnum):
    """What is to be done with a batch."""

    ACCEPT = 0
    DUPLICATE = 1
    EARLY = 2
    REJECT = 3


class Verdict(NamedTuple):
    """The answer of `ProducerState.check`.

    DUPLICATE: `base_offset` and `timestamp_ms` of the stored batch (-1: too old to be remembered).
    EARLY: `error` is the answer once waiting is given up. REJECT: `error` is the answer.
    """

    kind: VerdictKind
    base_offset: int = -1
    timestamp_ms: int = -1
    error: ErrorCode = ErrorCode.NONE
    detail: str = ""


ACCEPT: Final = Verdict(VerdictKind.ACCEPT)


class SnapshotDamagedError(ValueError):
    """The bytes are not a whole snapshot; build the state again from the log."""


class _Producer:
    """One producer: its epoch, and the sequence that comes next.

    `batches` holds three numbers a batch: first << 32 | last sequence, base offset, timestamp.
    born_at: the base offset with which this epoch began here; -1: from a snapshot. before: its earlier epoch.
    """

    __slots__ = ("active_ms", "batches", "before", "born_at", "epoch", "next_sequence", "next_slot")

    def __init__(
        self,
        epoch: int,
        next_sequence: int,
        active_ms: int,
        born_at: int = -1,
        before: _Producer | None = None,
    ) -> None:
        self.born_at = born_at
        self.before = before
        self.epoch = epoch
        self.next_sequence = next_sequence
        self.active_ms = active_ms
        self.batches = array("q")
        self.next_slot = 0

    def remember(self, first: int, last: int, base_offset: int, timestamp_ms: int) -> None:
        batches, slot = self.batches, self.next_slot
        if slot < len(batches):
            batches[slot] = first << 32 | last
            batches[slot + 1] = base_offset
            batches[slot + 2] = timestamp_ms
        else:
            batches.extend((first << 32 | last, base_offset, timestamp_ms))
        slot += 3
        self.next_slot = 0 if slot == REMEMBERED_BATCHES * 3 else slot

    def newest_offset(self) -> int:
        """The base offset of the newest batch, or -1."""
        return self.batches[self.next_slot - 2] if self.batches else -1

    def as_of(self, offset: int) -> _Producer | None:
        """What it was before the batch at `offset`; None: not known then. LookupError: not remembered."""
        if self.newest_offset() < offset:
            return self
        if self.born_at >= offset:
            return self.before.as_of(offset) if self.before is not None else None
        oldest = self.next_slot if len(self.batches) == REMEMBERED_BATCHES * 3 else 0
        kept = self.batches[oldest:] + self.batches[:oldest]
        while kept and kept[-2] >= offset:
            del kept[-3:]
        if not kept:
            raise LookupError
        following = (kept[-3] + 1) & (_SEQUENCES - 1)
        older = _Producer(self.epoch, following, self.active_ms, self.born_at, self.before)
        older.batches, older.next_slot = kept, len(kept)
        return older

    def in_order(self) -> Iterator[tuple[int, int, int]]:
        """The remembered batches, oldest first."""
        batches = self.batches
        cut = self.next_slot if len(batches) == REMEMBERED_BATCHES * 3 else 0
        for at in (*range(cut, len(batches), 3), *range(0, cut, 3)):
            yield batches[at], batches[at + 1], batches[at + 2]


class ProducerState:
    """The producers of one partition.

    max_producers: when one more comes, one that has been silent the longest (roughly) is forgotten.
    now_ms: a coarse wall clock that the owner sets; a producer's last activity is measured by it.
    """

    __slots__ = ("_producers", "max_producers", "now_ms")

    def __init__(self, max_producers: int = 100_000, now_ms: int = 0) -> None:
        self.max_producers = max_producers
        self.now_ms = now_ms
        self._producers: dict[int, _Producer] = {}

    def __len__(self) -> int:
        return len(self._producers)

    def expected_sequence(self, producer_id: int) -> int:
        """The first sequence of the batch that may come next; 0 for a producer that is not known."""
        known = self._producers.get(producer_id)
        return known.next_sequence if known is not None else 0

    def epoch(self, producer_id: int) -> int:
        """The epoch of a producer, or -1 when it is not known."""
        known = self._producers.get(producer_id)
        return known.epoch if known is not None else -1

    def is_next(self, batch: Facts) -> bool:
        """By its BatchFacts: is it what is expected of a producer that is known? (`check` says ACCEPT then.)"""
        producer_id, epoch, first, _, _ = batch
        known = self._producers.get(producer_id)
        return known is not None and known.next_sequence == first and known.epoch == epoch

    def check(self, header: BatchHeader) -> Verdict:
        """May this batch be appended now? Changes nothing."""
        producer_id, epoch, first, _, _ = facts_of(header)
        if producer_id < 0:
            return ACCEPT
        if first < 0 or epoch < 0:
            return Verdict(
                VerdictKind.REJECT,
                error=ErrorCode.INVALID_RECORD,
                detail=f"producer {producer_id} sent a batch with epoch {epoch} and sequence {first}",
            )
        known = self._producers.get(producer_id)
        if known is None:
            if first == 0:
                return ACCEPT
            return Verdict(
                VerdictKind.EARLY,
                error=ErrorCode.UNKNOWN_PRODUCER_ID,
                detail=f"producer {producer_id} is not known here, so it must begin with sequence 0, not {first}",
            )
        if epoch != known.epoch:
            return self._check_other_epoch(known, header)
        ahead = (first - known.next_sequence) & (_SEQUENCES - 1)
        if ahead == 0:
            return ACCEPT
        if ahead < _HALF:
            return Verdict(
                VerdictKind.EARLY,
                error=ErrorCode.OUT_OF_ORDER_SEQUENCE,
                detail=f"producer {producer_id} sent sequence {first} where "
                f"{self.expected_sequence(producer_id)} is next",
            )
        return self._check_behind(known, header)

    def _check_other_epoch(self, known: _Producer, header: BatchHeader) -> Verdict:
        producer_id, epoch, first = header.producer_id, header.producer_epoch, header.base_sequence
        if epoch < known.epoch:
            return Verdict(
                VerdictKind.REJECT,
                error=ErrorCode.INVALID_PRODUCER_EPOCH,
                detail=f"producer {producer_id} has epoch {known.epoch} by now; this batch has {epoch}",
            )
        if first == 0:
            return ACCEPT
        return Verdict(
            VerdictKind.EARLY,
            error=ErrorCode.OUT_OF_ORDER_SEQUENCE,
            detail=f"producer {producer_id} must begin its epoch {epoch} with sequence 0, not {first}",
        )

    def _check_behind(self, known: _Producer, header: BatchHeader) -> Verdict:
        first = header.base_sequence
        last = (first + header.last_offset_delta) & (_SEQUENCES - 1)
        wanted = first << 32 | last
        oldest = -1
        for both, base_offset, timestamp_ms in known.in_order():
            if both == wanted:
                return Verdict(VerdictKind.DUPLICATE, base_offset, timestamp_ms)
            if oldest < 0:
                oldest = both >> 32
        before_oldest = oldest < 0 or 0 < ((oldest - last) & (_SEQUENCES - 1)) < _HALF
        if before_oldest and (last + 1 - known.next_sequence) & (_SEQUENCES - 1) >= _HALF:
            return Verdict(VerdictKind.DUPLICATE)
        return Verdict(
            VerdictKind.REJECT,
            error=ErrorCode.OUT_OF_ORDER_SEQUENCE,
            detail=f"producer {header.producer_id} sent sequences {first} to {last}, "
            "which were stored in batches cut elsewhere",
        )

    def update(self, header: BatchHeader, base_offset: int) -> None:
        """Note a batch that was appended (it was accepted, or it comes from a log that is read again)."""
        self.note(facts_of(header), base_offset)

    def note(self, batch: Facts, base_offset: int) -> None:
        """As `update`, by the batch's BatchFacts."""
        producer_id, epoch, first, last_offset_delta, newest_ms = batch
        if producer_id < 0 or first < 0:
            return
        last = (first + last_offset_delta) & (_SEQUENCES - 1)
        known = self._producers.get(producer_id)
        if known is None or known.epoch != epoch:
            if known is None and len(self._producers) >= self.max_producers:
                self._forget_one()
            if known is not None and known.before is not None:
                known.before, known.born_at = None, -1  # one epoch back is remembered, no more
            known = self._producers[producer_id] = _Producer(epoch, 0, 0, base_offset, known)
        known.next_sequence = (last + 1) & (_SEQUENCES - 1)
        known.active_ms = self.now_ms
        known.remember(first, last, base_offset, newest_ms)

    def _forget_one(self) -> None:
        # The oldest of the first few: a full search would cost as much as there are producers.
        first_few = [next_id for next_id, _ in zip(self._producers, range(16), strict=False)]
        del self._producers[min(first_few, key=lambda i: self._producers[i].active_ms)]

    def expire(self, silent_since_ms: int) -> int:
        """Forget the producers that were last active before `silent_since_ms`; returns how many."""
        silent = [i for i, p in self._producers.items() if p.active_ms < silent_since_ms]
        for producer_id in silent:
            del self._producers[producer_id]
        return len(silent)

    def cut_end(self, offset: int) -> bool:
        """Be as before the batch at `offset`, by what is remembered: the log was cut there.

        False when that does not reach back far enough for some producer (all its remembered batches were cut, or two
        of its epochs). Nothing has changed then; the state must be made again from a snapshot and the log. May
        remember fewer batches of a producer than before, and as many more than its client can have under way.
        """
        changed: dict[int, _Producer | None] = {}
        try:
            for producer_id, known in self._producers.items():
                if known.newest_offset() >= offset:
                    changed[producer_id] = known.as_of(offset)
        except LookupError:
            return False
        for producer_id, older in changed.items():
            if older is None:
                del self._producers[producer_id]
            else:
                self._producers[producer_id] = older
        return True

    def take_over(self, other: ProducerState) -> None:
        """Be what `other` is, which is not used any more."""
        self._producers = other._producers

    def clear(self) -> None:
        """Forget all."""
        self._producers.clear()

    def encode(self, offset: int) -> bytes:
        """A snapshot of the state as it is before `offset`, with a checksum."""
        parts = [_SNAPSHOT_HEAD.pack(_SNAPSHOT_MAGIC, offset, len(self._producers))]
        for producer_id, p in self._producers.items():
            count = len(p.batches) // 3
            parts.append(
                _SNAPSHOT_PRODUCER.pack(
                    producer_id,
                    p.epoch,
                    (p.next_sequence - 1) & (_SEQUENCES - 1),
                    p.active_ms,
                    count,
                )
            )
            parts.extend(_SNAPSHOT_BATCH.pack(*batch) for batch in p.in_order())
        body = b"".join(parts)
        return body + _SNAPSHOT_TAIL.pack(zlib.crc32(body))

    def restore(self, snapshot: bytes, offset: int) -> None:
        """Take over a snapshot made at `offset`. Raises SnapshotDamagedError and then holds what it held before."""
        body, tail = snapshot[: -_SNAPSHOT_TAIL.size], snapshot[-_SNAPSHOT_TAIL.size :]
        producers: dict[int, _Producer] = {}
        try:
            if _SNAPSHOT_TAIL.unpack(tail)[0] != zlib.crc32(body):
                raise SnapshotDamagedError("the checksum of the snapshot is wrong")
            magic, made_at, count = _SNAPSHOT_HEAD.unpack_from(body)
            if magic != _SNAPSHOT_MAGIC or made_at != offset:
                raise SnapshotDamagedError("the snapshot is of another kind or offset")
            at = _SNAPSHOT_HEAD.size
            for _ in range(count):
                producer_id, epoch, last, active_ms, batches = _SNAPSHOT_PRODUCER.unpack_from(
                    body, at
                )
                at += _SNAPSHOT_PRODUCER.size
                following = (last + 1) & (_SEQUENCES - 1)
                entry = producers[producer_id] = _Producer(epoch, following, active_ms)
                for _ in range(batches):
                    both, base_offset, timestamp_ms = _SNAPSHOT_BATCH.unpack_from(body, at)
                    entry.remember(both >> 32, both & 0xFFFFFFFF, base_offset, timestamp_ms)
                    at += _SNAPSHOT_BATCH.size
        except StructError as error:
            raise SnapshotDamagedError(f"the snapshot is cut short: {error}") from None
        self._producers = producers
