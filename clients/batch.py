"""A batch of records on the sending side: who waits for each record, the bytes, and what became of them. PURE."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from frieda.errors import FriedaError
from frieda.model import NO_SEQUENCE, Header, Record
from frieda.wire.batch import BatchBuilder, decode_batch, restamp, stamp_of

OnDone = Callable[[int, int, "FriedaError | None"], None]

RECORD_OVERHEAD_BYTES: Final = 36
"""The most that the fields of a record take beside its key, value and headers (seven varints)."""


class Span:
    """Several records in a row with one callback: `on_done(count, base_offset, error)`.

    It is called once for each stretch of them that shares an outcome, in order.
    """

    __slots__ = ("count", "on_done")

    def __init__(self, count: int, on_done: OnDone) -> None:
        self.count = count
        self.on_done = on_done


class Outcome(NamedTuple):
    """What became of so many records in a row."""

    record_count: int
    base_offset: int
    error: FriedaError | None


class Batch:
    """Records of one partition that travel together. Plain and slotted: one is made for each send at linger 0."""

    __slots__ = (
        "attempts",
        "base_offset",
        "builder",
        "charged_bytes",
        "deadline_ns",
        "encoded",
        "entries",
        "error",
        "first_ordinal",
        "is_done",
        "lane",
        "parent",
        "parts",
        "record_count",
        "retry_at_ns",
        "sequence",
        "settled",
        "slots",
        "timestamps_ms",
        "uncertain",
        "unreleased",
        "unsettled_parts",
    )

    def __init__(
        self, first_ordinal: int, deadline_ns: int, lane: Any = None, batch_bytes: int = 0
    ) -> None:
        self.first_ordinal = first_ordinal
        """The number of its first record in the partition's send order; never wraps."""
        self.deadline_ns = deadline_ns
        self.lane = lane
        """The partition it is for."""
        self.builder: BatchBuilder | None = BatchBuilder(batch_bytes) if batch_bytes else None
        self.entries: list[Any] = []
        """Who waits: a future for one record, or a Span."""
        self.timestamps_ms: list[int] = []
        self.slots: list[int] | None = None
        """ordering = producer: the place of each entry in the producer's window."""
        self.record_count = 0
        self.charged_bytes = 0
        """What it takes of the producer's buffer."""
        # The journey (delivery.py).
        self.sequence = NO_SEQUENCE
        self.attempts = 0
        self.retry_at_ns = 0
        self.uncertain = False
        """An attempt ended without an answer: it may be stored."""
        self.settled = False
        self.encoded: Any = None
        """The bytes, with the id, epoch and sequence of the last attempt."""
        # The outcome.
        self.is_done = False
        """It has an outcome; its results leave once those before it have left."""
        self.base_offset = -1
        self.error: FriedaError | None = None
        self.parent: Batch | None = None
        self.parts: list[Batch] | None = None
        self.unsettled_parts = 0
        self.unreleased = 0
        """ordering = producer: entries whose results are not out yet."""

    def encode(self, producer_id: int, producer_epoch: int, compression: str) -> Any:
        """The bytes to send, under this producer and the batch's sequence number."""
        if self.encoded is None:
            assert self.builder is not None
            self.encoded = self.builder.build(
                producer_id, producer_epoch, self.sequence, compression
            )
            self.builder = None
        elif stamp_of(self.encoded) != (producer_id, producer_epoch, self.sequence):
            restamp(self.encoded, producer_id, producer_epoch, self.sequence)
        return self.encoded

    def split(self) -> list[Batch]:
        """The same records in two batches of about half the bytes; both report to this one."""
        records = decode_batch(memoryview(self.encoded), "", 0)
        cut = _middle(records)
        parts: list[Batch] = []
        for first, chosen in ((0, records[:cut]), (cut, records[cut:])):
            ordinal = self.first_ordinal + first
            part = Batch(ordinal, self.deadline_ns, self.lane, len(self.encoded))
            assert part.builder is not None
            for record in chosen:
                part.builder.append(record.timestamp_ms, record.key, record.value, record.headers)
            part.record_count = len(chosen)
            part.parent = self
            parts.append(part)
        self.parts = parts
        self.unsettled_parts = len(parts)
        self.encoded = None
        return parts

    def outcomes(self) -> Iterator[Outcome]:
        """What became of its records: one stretch, or one for each part."""
        if self.parts is None:
            yield Outcome(self.record_count, self.base_offset, self.error)
        else:
            for part in self.parts:
                yield from part.outcomes()


def record_charge_bytes(key: bytes | None, value: bytes | None, headers: Any = ()) -> int:
    """What a record takes of the buffer: at least its encoded size."""
    size_bytes = RECORD_OVERHEAD_BYTES
    if value is not None:
        size_bytes += len(value)
    if key is not None:
        size_bytes += len(key)
    if headers:
        size_bytes += _headers_bytes(headers)
    return size_bytes


def _headers_bytes(headers: list[Header] | tuple[Header, ...]) -> int:
    # A name takes up to four bytes a character in UTF-8.
    return sum(10 + 4 * len(name) + len(value or b"") for name, value in headers)


def _middle(records: list[Record]) -> int:
    """Where to cut so that both halves hold about the same bytes, and at least one record each."""
    sizes = [record_charge_bytes(record.key, record.value, record.headers) for record in records]
    half, cut, seen = sum(sizes) // 2, 0, 0
    while cut < len(records) - 1 and seen < half:
        seen += sizes[cut]
        cut += 1
    return max(cut, 1)
