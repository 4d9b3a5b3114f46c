"""The record batch, Kafka's format v2: its 61-byte header, its checks, building one and reading one.

    0 base_offset int64          21 attributes int16            43 producer_id int64
    8 batch_length int32         23 last_offset_delta int32     51 producer_epoch int16
   12 leader_epoch int32         27 base_timestamp int64        53 base_sequence int32
   16 magic int8 = 2             35 max_timestamp int64         57 record_count int32
   17 crc uint32                                                61 records, perhaps compressed

Everything is big-endian; batch_length counts from byte 12; the CRC-32C covers byte 21 to the end, so that
a broker may set base_offset and leader_epoch without touching it. Attributes: bits 0 to 2 compression, bit
3 timestamps are the broker's append time, bit 4 transactional, bit 5 control batch.
Source: https://kafka.apache.org/documentation/#recordbatch (KIP-98).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import itemgetter
from struct import Struct
from typing import Final, NamedTuple

from frieda.errors import BrokerError, ErrorCode, LocalProtocolError
from frieda.model import NO_PRODUCER_ID, NO_SEQUENCE, NO_TIMESTAMP, Record
from frieda.wire.compression import COMPRESSIONS, compress, decompress, require
from frieda.wire.crc import crc32c
from frieda.wire.record_writer import (
    HEADER_SIZE_BYTES,
    MAX_BATCH_BYTES,
    RecordBuffer,
    batch_of_one,
    record_size_bytes,
)
from frieda.wire.records import MAX_TIMESTAMP_MS, MIN_RECORD_BYTES, PADDING, read_records

__all__ = [
    "HEADER_SIZE_BYTES",
    "MAX_BATCH_BYTES",
    "MAX_DECOMPRESSED_BYTES",
    "BatchBuilder",
    "BatchFacts",
    "BatchHeader",
    "batch_of_one",
    "check_batch",
    "check_records",
    "crc_matches",
    "decode_batch",
    "facts_of",
    "iterate_batches",
    "patch",
    "read_header",
    "restamp",
    "stamp_of",
]

Buffer = bytes | bytearray | memoryview

MAGIC: Final = 2
MAX_DECOMPRESSED_BYTES: Final = 128 << 20
"""What a reader lets the records of one batch unpack to, unless told otherwise."""

_HEADER: Final = Struct(">qiibIhiqqqhii")
_PLACE: Final = Struct(">qii")
_CRC: Final = Struct(">I")
_PRODUCER: Final = Struct(">qhi")

_LENGTH_STARTS_AT: Final = 12
_CRC_AT: Final = 17
_CRC_STARTS_AT: Final = 21
_PRODUCER_AT: Final = 43

_COMPRESSION_BITS: Final = 0x07
_APPEND_TIME_BIT: Final = 0x08
_CONTROL_BIT: Final = 0x20
_CHECK_ONLY: Final = (1 << 63) - 1


class BatchHeader(NamedTuple):
    """The fields as they lie in the batch. A tuple, since a broker makes one for each produce."""

    base_offset: int
    batch_length: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp_ms: int
    max_timestamp_ms: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    record_count: int

    @property
    def size_bytes(self) -> int:
        """The whole batch with its header."""
        return self.batch_length + _LENGTH_STARTS_AT

    @property
    def last_offset(self) -> int:
        """The offset of the last record (also when compaction has removed that record)."""
        return self.base_offset + self.last_offset_delta

    @property
    def next_offset(self) -> int:
        """The offset behind the batch."""
        return self.base_offset + self.last_offset_delta + 1

    @property
    def compression(self) -> str:
        """none, gzip, snappy, lz4 or zstd. BrokerError(UNSUPPORTED_COMPRESSION) for the unused numbers."""
        number = self.attributes & _COMPRESSION_BITS
        if number >= len(COMPRESSIONS):
            raise BrokerError(
                ErrorCode.UNSUPPORTED_COMPRESSION,
                f"the batch at offset {self.base_offset} has the unknown compression number {number}",
            )
        return COMPRESSIONS[number]

    @property
    def is_control(self) -> bool:
        """Does it hold markers of transactions rather than records for people?"""
        return bool(self.attributes & _CONTROL_BIT)

    @property
    def has_append_time(self) -> bool:
        """Is `max_timestamp_ms` the timestamp of every record?"""
        return bool(self.attributes & _APPEND_TIME_BIT)


class BatchFacts(NamedTuple):
    """What a log and its producer state have to know of a batch that is appended."""

    producer_id: int
    producer_epoch: int
    base_sequence: int
    last_offset_delta: int
    max_timestamp_ms: int


def header_fields(*names: str) -> Callable[[BatchHeader], tuple[int, ...]]:
    """A function that takes several fields of a header at once: half the time of looks by name on hot paths."""
    return itemgetter(*map(BatchHeader._fields.index, names))


facts_of: Final = header_fields(*BatchFacts._fields)
"""The BatchFacts of a header, as a plain tuple."""


def read_header(buffer: Buffer, position: int = 0) -> BatchHeader:
    """Read the header at `position`. Nothing behind the header need be there.

    Checked is only what leads to the end of the batch. Raises BrokerError: CORRUPT_MESSAGE when there are
    fewer than 61 bytes, or the length or base offset is impossible (a zero tail, say); INVALID_RECORD for
    the message formats before v2.
    """
    if not 0 <= position <= len(buffer) - HEADER_SIZE_BYTES:
        raise BrokerError(
            ErrorCode.CORRUPT_MESSAGE,
            f"{max(0, len(buffer) - position)} bytes cannot hold a batch header of {HEADER_SIZE_BYTES}",
        )
    header = tuple.__new__(BatchHeader, _HEADER.unpack_from(buffer, position))
    if header[3] != MAGIC or not 49 <= header[1] <= MAX_BATCH_BYTES or header[0] < 0:
        raise _bad_header(header, position)
    return header


def crc_matches(batch: Buffer, header: BatchHeader) -> bool:
    """Is the checksum right? `batch` must be exactly the bytes of the batch."""
    return crc32c(batch, _CRC_STARTS_AT) == header.crc


def check_batch(batch: Buffer) -> BatchHeader:
    """All that a produce is checked for short of walking its records.

    The header is sound, the batch fills `batch` exactly, the checksum is right, the count is what the
    offsets say and fits into the bytes, and nothing is set that only a broker may set. Raises BrokerError:
    CORRUPT_MESSAGE (damaged on its way: may be sent again), INVALID_RECORD (was made wrong) or
    UNSUPPORTED_COMPRESSION.
    """
    header = read_header(batch)
    # The sound, uncompressed batch, which nearly all are: one condition over local names (saves 0.7 us of 1.8).
    (
        _,
        length,
        _,
        _,
        crc,
        attributes,
        last_delta,
        first_ms,
        newest_ms,
        producer_id,
        epoch,
        first,
        count,
    ) = header
    if (
        attributes == 0
        and length + _LENGTH_STARTS_AT == len(batch)
        and 0 < count == last_delta + 1
        and count * MIN_RECORD_BYTES <= length - 49
        and NO_TIMESTAMP <= first_ms <= MAX_TIMESTAMP_MS
        and NO_TIMESTAMP <= newest_ms <= MAX_TIMESTAMP_MS
        and (producer_id < 0 or (first >= 0 and epoch >= 0))
        and crc32c(batch, _CRC_STARTS_AT) == crc
    ):
        return header
    return _check_each(batch, header)


def _check_each(batch: Buffer, header: BatchHeader) -> BatchHeader:
    """The checks of `check_batch` one by one, each with its own error."""
    if header.batch_length + _LENGTH_STARTS_AT != len(batch):
        raise BrokerError(
            ErrorCode.CORRUPT_MESSAGE,
            f"{len(batch)} bytes hold a batch that says it has {header.size_bytes}",
        )
    if crc32c(batch, _CRC_STARTS_AT) != header.crc:
        raise _bad_crc(header)
    _check_counts(header)
    count = header.record_count
    attributes = header.attributes
    if count != header.last_offset_delta + 1 or count < 1:
        raise _invalid(
            header, f"says {count} records and last offset delta {header.last_offset_delta}"
        )
    if not attributes & _COMPRESSION_BITS:
        if count * MIN_RECORD_BYTES > header.batch_length - 49:
            raise _invalid(header, f"says {count} records, more than its bytes can hold")
    else:
        header.compression  # noqa: B018  (raises for an unknown one)
    if attributes & (_CONTROL_BIT | _APPEND_TIME_BIT):
        raise _invalid(header, "sets an attribute that only a broker may set")
    if header.producer_id >= 0 and (header.base_sequence < 0 or header.producer_epoch < 0):
        raise _invalid(header, "has a producer id without an epoch and a sequence")
    return header


def check_records(
    batch: Buffer, header: BatchHeader, max_bytes: int = MAX_DECOMPRESSED_BYTES
) -> None:
    """Walk every record of a batch that `check_batch` let pass: the deep validation.

    `max_bytes` bounds what compressed records may unpack to. Raises BrokerError as `decode_batch`, and
    INVALID_RECORD when the largest timestamp isn't what the header says (the time index relies on it).
    """
    newest_ms = _walk(batch, header, "", 0, _CHECK_ONLY, None, max_bytes)
    if newest_ms != header.max_timestamp_ms:
        raise _invalid(
            header, f"says largest timestamp {header.max_timestamp_ms} but holds {newest_ms}"
        )


def decode_batch(
    batch: Buffer,
    topic: str,
    partition: int,
    from_offset: int = 0,
    *,
    check_crc: bool = True,
    max_bytes: int = MAX_DECOMPRESSED_BYTES,
) -> list[Record]:
    """The records of one whole batch from `from_offset` on; none for a control batch.

    Legal here and not in a produce: a batch that compaction has thinned out, or emptied. `max_bytes`
    bounds what compressed records may unpack to. Safe for any bytes: raises BrokerError (CORRUPT_MESSAGE
    when damaged, INVALID_RECORD when made wrong, UNSUPPORTED_COMPRESSION), and MissingDependencyError when
    the codec is not installed.
    """
    header = read_header(batch)
    if header.batch_length + _LENGTH_STARTS_AT != len(batch):
        raise BrokerError(
            ErrorCode.CORRUPT_MESSAGE,
            f"{len(batch)} bytes hold a batch that says it has {header.size_bytes}",
        )
    if check_crc and crc32c(batch, _CRC_STARTS_AT) != header.crc:
        raise _bad_crc(header)
    _check_counts(header)
    records: list[Record] = []
    if not header.attributes & _CONTROL_BIT:
        _walk(batch, header, topic, partition, from_offset, records, max_bytes)
    return records


def iterate_batches(buffer: Buffer) -> Iterator[tuple[int, BatchHeader]]:
    """(position, header) of each whole batch in a fetch answer; a last one that is cut off is left out.

    Raises BrokerError as `read_header`. Checksums are not looked at.
    """
    position = 0
    size = len(buffer)
    while size - position >= HEADER_SIZE_BYTES:
        header = read_header(buffer, position)
        end = position + header.batch_length + _LENGTH_STARTS_AT
        if end > size:
            return
        yield position, header
        position = end


def patch(batch: bytearray | memoryview, base_offset: int, leader_epoch: int) -> None:
    """Set, in place, the two fields that the broker decides; they lie outside the checksum.

    `batch` is exactly one batch: its length, between the two, is written again.
    """
    _PLACE.pack_into(batch, 0, base_offset, len(batch) - _LENGTH_STARTS_AT, leader_epoch)


def stamp_of(batch: Buffer) -> tuple[int, int, int]:
    """Producer id, epoch and base sequence of a built batch."""
    producer_id, epoch, sequence = _PRODUCER.unpack_from(batch, _PRODUCER_AT)
    return producer_id, epoch, sequence


def restamp(
    batch: bytearray | memoryview, producer_id: int, producer_epoch: int, base_sequence: int
) -> None:
    """Give a built batch another producer id, epoch and sequence in place, and its new checksum.

    For a retry after the producer got a new epoch. `batch` must be exactly one built batch.
    """
    _PRODUCER.pack_into(batch, _PRODUCER_AT, producer_id, producer_epoch, base_sequence)
    _CRC.pack_into(batch, _CRC_AT, crc32c(batch, _CRC_STARTS_AT))


class BatchBuilder(RecordBuffer):
    """Builds one batch: `append` or `append_values` records, then `build` once.

    A subclass and not a wrapper, since a call more for each record is what `append` itself costs.
    """

    __slots__ = ()

    record_size_bytes = staticmethod(record_size_bytes)

    def build(
        self,
        producer_id: int = NO_PRODUCER_ID,
        producer_epoch: int = -1,
        base_sequence: int = NO_SEQUENCE,
        compression: str = "none",
    ) -> bytearray:
        """The finished batch with base offset 0, ready to send. The builder is spent afterwards.

        Raises LocalProtocolError when it is empty or was built already; BrokerError
        (UNSUPPORTED_COMPRESSION) and MissingDependencyError as `compress`, and then it is not spent.
        """
        count = self.record_count
        if count == 0:
            raise LocalProtocolError("a record batch needs at least one record")
        batch = self.finish() if compression == "none" else self._compressed(compression)
        _HEADER.pack_into(
            batch,
            0,
            0,
            len(batch) - _LENGTH_STARTS_AT,
            -1,
            MAGIC,
            0,
            COMPRESSIONS.index(compression),
            count - 1,
            self.first_timestamp_ms,
            self.max_timestamp_ms,
            producer_id,
            producer_epoch,
            base_sequence,
            count,
        )
        _CRC.pack_into(batch, _CRC_AT, crc32c(batch, _CRC_STARTS_AT))
        return batch

    def _compressed(self, compression: str) -> bytearray:
        require(compression)
        plain = self.finish()
        with memoryview(plain) as view:
            packed = compress(view[HEADER_SIZE_BYTES:], compression)
        return bytearray(HEADER_SIZE_BYTES) + packed


def _walk(
    batch: Buffer,
    header: BatchHeader,
    topic: str,
    partition: int,
    from_offset: int,
    out: list[Record] | None,
    max_bytes: int,
) -> int:
    if header.attributes & _COMPRESSION_BITS:
        with memoryview(batch) as view:
            plain = decompress(view[HEADER_SIZE_BYTES:], header.compression, max_bytes)
        data, start = plain + PADDING, 0
    else:
        # One copy makes the bytes immutable (the batch may lie in shared memory) and gives the padding.
        data, start = b"".join((batch, PADDING)), HEADER_SIZE_BYTES
    return read_records(
        data,
        start,
        header.record_count,
        header.last_offset_delta,
        topic,
        partition,
        header.base_offset,
        header.base_timestamp_ms,
        header.max_timestamp_ms if header.attributes & _APPEND_TIME_BIT else NO_TIMESTAMP,
        from_offset,
        out,
    )


def _check_counts(header: BatchHeader) -> None:
    """What the checksum covers and every reader relies on."""
    if not 0 <= header.record_count <= header.last_offset_delta + 1:
        raise _invalid(
            header,
            f"says {header.record_count} records and last offset delta {header.last_offset_delta}",
        )
    if not (
        NO_TIMESTAMP <= header.base_timestamp_ms <= MAX_TIMESTAMP_MS
        and NO_TIMESTAMP <= header.max_timestamp_ms <= MAX_TIMESTAMP_MS
    ):
        raise _invalid(header, "has an impossible timestamp")


def _bad_header(header: BatchHeader, position: int) -> BrokerError:
    if header.magic in (0, 1) and header.batch_length > 0:
        return BrokerError(
            ErrorCode.INVALID_RECORD,
            f"the batch at byte {position} has message format v{header.magic}; only v2 is supported",
        )
    return BrokerError(
        ErrorCode.CORRUPT_MESSAGE,
        f"no record batch begins at byte {position}: magic {header.magic}, "
        f"length {header.batch_length}, base offset {header.base_offset}",
    )


def _bad_crc(header: BatchHeader) -> BrokerError:
    return BrokerError(
        ErrorCode.CORRUPT_MESSAGE,
        f"the checksum of the batch at offset {header.base_offset} is wrong: it was damaged",
    )


def _invalid(header: BatchHeader, why: str) -> BrokerError:
    return BrokerError(ErrorCode.INVALID_RECORD, f"the batch at offset {header.base_offset} {why}")
