"""Produce and its answer, the two messages with a fixed header: every acknowledged record pays for both.

    request   u8 1 | u8 version | i8 acks | u8 0 | i32 partition | u32 timeout_ms | topic id, 16 bytes
              | i64 correlation id | record batch
    answer    u8 2 | 7 bytes of 0 | i64 correlation id | i64 base offset | i64 log start offset

Everything is big-endian. The first byte tells them from all other messages (`frieda.wire.envelope`), which begin
with the size of their header and so with a 0. An error is answered as for every other request.
"""

from __future__ import annotations

from struct import Struct
from struct import error as StructError
from typing import Final, NamedTuple

from frieda.errors import LocalProtocolError, RemoteProtocolError
from frieda.wire.batch import HEADER_SIZE_BYTES, MAGIC, Buffer
from frieda.wire.crc import crc32c
from frieda.wire.messages import ProduceRequest, ProduceResponse
from frieda.wire.records import MAX_TIMESTAMP_MS, MIN_RECORD_BYTES

REQUEST_MARK: Final = 1
ANSWER_MARK: Final = 2
REQUEST_HEADER_BYTES: Final = 36

_PREFIX: Final = Struct(">BBbxiI16s")
_REQUEST: Final = Struct(">BBbxiI16sq")
_ANSWER: Final = Struct(">B7xqqq")
_CORRELATION_ID: Final = Struct(">q")
# The header of the message and that of the batch behind it, in one go.
_BOTH: Final = Struct(">BBbxiI16sqqiibIhiqqqhii")
ACKS_AT: Final = 2
"""Where `acks` lies in a request's header."""
ANSWER_BYTES: Final = _ANSWER.size
_LEAST_BYTES: Final = REQUEST_HEADER_BYTES + HEADER_SIZE_BYTES
_CRC_STARTS_AT: Final = REQUEST_HEADER_BYTES + 21
_LENGTH_STARTS_AT: Final = REQUEST_HEADER_BYTES + 12
_VERSION: Final = 0

pack_correlation_id: Final = _CORRELATION_ID.pack
"""The end of a request's header: `produce_prefix(...) + pack_correlation_id(number)` is the whole of it."""


unpack_produced: Final = _ANSWER.unpack
"""An answer of ANSWER_BYTES as (mark, correlation id, base offset, log start offset)."""


class ProduceHeader(NamedTuple):
    """A request's header; the batch behind it has not been looked at."""

    version: int
    correlation_id: int
    request: ProduceRequest


class PlainProduce(NamedTuple):
    """All that a broker must know to store a batch that is sound and needs nothing special."""

    correlation_id: int
    topic_id: bytes
    partition: int
    acks: int
    batch: tuple[int, int, int, int, int]
    """Its BatchFacts."""


_new = tuple.__new__


def produce_prefix(request: ProduceRequest, version: int = _VERSION) -> bytes:
    """A request's header but for the correlation id. Raises LocalProtocolError for what has no room in it."""
    topic_id, partition, acks, timeout_ms = request
    try:
        if len(topic_id) != 16:
            raise LocalProtocolError(f"a topic id has 16 bytes, not {len(topic_id)}")
        return _PREFIX.pack(REQUEST_MARK, version, acks, partition, timeout_ms, topic_id)
    except StructError as error:
        raise LocalProtocolError(f"{request} has no room in a request: {error}") from None


def encode_produce(correlation_id: int, request: ProduceRequest, version: int = _VERSION) -> bytes:
    """The head of a request message; the batch follows it. Raises LocalProtocolError."""
    return produce_prefix(request, version) + pack_correlation_id(correlation_id)


def split_produce(message: Buffer) -> ProduceHeader:
    """The header of a message whose first byte is REQUEST_MARK. Raises RemoteProtocolError when it is cut short."""
    if len(message) < REQUEST_HEADER_BYTES:
        raise RemoteProtocolError(
            f"a Produce of {len(message)} bytes; its header alone has {REQUEST_HEADER_BYTES}"
        )
    _, version, acks, partition, timeout_ms, topic_id, correlation_id = _REQUEST.unpack_from(
        message
    )
    if correlation_id < 0:
        raise RemoteProtocolError("the correlation id of a request must be from 0 to 2^63 - 1")
    request = ProduceRequest(topic_id, partition, acks, timeout_ms)
    return ProduceHeader(version, correlation_id, request)


def plain_produce(message: memoryview) -> PlainProduce | None:
    """What is in a whole, sound, uncompressed Produce; None for one that has to be looked at more closely.

    It holds for this what `split_produce` and `frieda.wire.batch.check_batch` demand, checked at once; they find out
    what is the matter with the rest, and say it.
    """
    size = len(message)
    if size < _LEAST_BYTES:
        return None
    (
        mark,
        version,
        acks,
        partition,
        _,
        topic_id,
        correlation_id,
        base_offset,
        length,
        _,
        magic,
        crc,
        attributes,
        last_delta,
        first_ms,
        newest_ms,
        producer_id,
        epoch,
        first,
        count,
    ) = _BOTH.unpack_from(message)
    if (
        attributes == 0
        and mark == REQUEST_MARK
        and version == _VERSION
        and magic == MAGIC
        and -1 <= acks <= 1
        and correlation_id >= 0
        and base_offset >= 0
        and length + _LENGTH_STARTS_AT == size
        and 0 < count == last_delta + 1
        and count * MIN_RECORD_BYTES <= size - _LEAST_BYTES
        and -1 <= first_ms <= MAX_TIMESTAMP_MS
        and -1 <= newest_ms <= MAX_TIMESTAMP_MS
        and (producer_id < 0 or (first >= 0 and epoch >= 0))
        and crc32c(message, _CRC_STARTS_AT) == crc
    ):
        batch = (producer_id, epoch, first, last_delta, newest_ms)
        return _new(PlainProduce, (correlation_id, topic_id, partition, acks, batch))
    return None


def encode_produced(correlation_id: int, base_offset: int, log_start_offset: int) -> bytes:
    """A whole answer."""
    return _ANSWER.pack(ANSWER_MARK, correlation_id, base_offset, log_start_offset)


def split_produced(message: Buffer) -> tuple[int, ProduceResponse]:
    """Correlation id and answer of a message whose first byte is ANSWER_MARK. Raises RemoteProtocolError."""
    if len(message) != ANSWER_BYTES:
        raise RemoteProtocolError(
            f"an answer to Produce has {ANSWER_BYTES} bytes, not {len(message)}"
        )
    _, correlation_id, base_offset, log_start_offset = unpack_produced(message)
    return correlation_id, ProduceResponse(base_offset, log_start_offset)
