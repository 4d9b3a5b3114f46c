# ruff: noqa: F821, PLR1730  # _new_record is filled in below; max() would be a call in plain Python
"""The records inside a batch, read: the consumer's hot loop.

Format (Kafka's record v2; all numbers zigzag varints except the attributes byte):

    length  attributes  timestamp_delta  offset_delta  key_length key  value_length value
    header_count  (key_length key  value_length value) ...

A null key or value has length -1. Source: https://kafka.apache.org/documentation/#record

This file is plain Python that Cython also compiles, typed by records.pxd (measured on records of 100 B:
0.06 us each compiled, 0.75 us plain). That is why it is flat: there a `bytes` local is a C pointer and a
varint costs no call. `COMPILED` says which one is running.

Reading is safe for any bytes because of two rules. The caller puts PADDING behind the records, and a zero
byte ends every varint, so the fixed fields of a record are read without looking for the end; and every
length is checked against what is left of the record before it is followed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from frieda.errors import BrokerError, ErrorCode
from frieda.model import NO_TIMESTAMP, Header, Record

COMPILED: Final = not __file__.endswith(".py")

MAX_TIMESTAMP_MS: Final = 1 << 62
MIN_RECORD_BYTES: Final = 7
PADDING: Final = bytes(16)

# The loop's own copies, which are C numbers when compiled.
_OLDEST_MS: Final = NO_TIMESTAMP
_LATEST_MS: Final = MAX_TIMESTAMP_MS
_LAST_OFFSET: Final = 1 << 62

if (Record.__basicsize__, Record.__itemsize__) != (tuple.__basicsize__, tuple.__itemsize__):
    raise TypeError("Record must be laid out as a plain tuple: records.pxd relies on it")

# Compiled, records.pxd defines this in C. The assignment goes through globals() because Cython would
# refuse one to a C function.
_new_record: Callable[[type[Record], tuple[Any, ...]], Record]
if not COMPILED:
    globals()["_new_record"] = tuple.__new__


def read_records(
    data: bytes,
    start: int,
    count: int,
    last_offset_delta: int,
    topic: str,
    partition: int,
    base_offset: int,
    base_timestamp_ms: int,
    append_timestamp_ms: int,
    from_offset: int,
    out: list[Record] | None,
) -> int:
    """Walk the `count` records in `data[start:]`, whose last 16 bytes must be PADDING.

    Records of `from_offset` and later are appended to `out`; with `out` None they are only checked. With
    `append_timestamp_ms` not -1 that is the timestamp of all. Returns the largest timestamp in the records.
    Raises BrokerError(INVALID_RECORD) for whatever the header or the format does not allow: lengths that
    leave the record, offsets that do not rise or pass the last, bytes that no record holds.
    """
    p = data
    end = len(data) - len(PADDING)
    position = start
    previous_delta = -1
    newest_ms = _OLDEST_MS
    record_type = Record
    headers: tuple[Header, ...]
    if start < 0 or end < start or data[end:] != PADDING:
        raise ValueError("the records need zero padding behind them")
    if base_timestamp_ms < _OLDEST_MS or base_timestamp_ms > _LATEST_MS:
        raise _invalid(0, base_offset, "has an impossible base timestamp")
    if base_offset < 0 or base_offset > _LAST_OFFSET:
        raise _invalid(0, base_offset, "has an impossible offset")

    for index in range(count):
        # The record's length. Each varint: one and two bytes here, which is nearly all of them; more by call.
        number = p[position]
        position += 1
        if number >= 0x80:
            second = p[position]
            if second < 0x80:
                number += (second << 7) - 0x80
                position += 1
            else:
                number, position = _read_varint(p, position - 1)
                if position < 0:
                    raise _invalid(index, base_offset, "has a length of too many bytes")
        size = number >> 1
        if number & 1 or size > end - position:
            raise _invalid(index, base_offset, "reaches past the end of its batch")
        record_end = position + size
        position += 1  # attributes: none are in use

        number = p[position]
        position += 1
        if number >= 0x80:
            second = p[position]
            if second < 0x80:
                number += (second << 7) - 0x80
                position += 1
            else:
                number, position = _read_varint(p, position - 1)
                if position < 0:
                    raise _invalid(index, base_offset, "has a timestamp of too many bytes")
        timestamp_ms = (number >> 1) ^ -(number & 1)
        if timestamp_ms > _LATEST_MS + 1 or timestamp_ms < -_LATEST_MS - 1:
            raise _invalid(index, base_offset, "has an impossible timestamp")
        timestamp_ms += base_timestamp_ms
        if timestamp_ms > newest_ms:
            newest_ms = timestamp_ms

        number = p[position]
        position += 1
        if number >= 0x80:
            second = p[position]
            if second < 0x80:
                number += (second << 7) - 0x80
                position += 1
            else:
                number, position = _read_varint(p, position - 1)
                if position < 0:
                    raise _invalid(index, base_offset, "has an offset of too many bytes")
        offset_delta = number >> 1
        if number & 1 or offset_delta <= previous_delta or offset_delta > last_offset_delta:
            raise _invalid(index, base_offset, "has an offset out of order")
        previous_delta = offset_delta

        number = p[position]
        position += 1
        if number >= 0x80:
            second = p[position]
            if second < 0x80:
                number += (second << 7) - 0x80
                position += 1
            else:
                number, position = _read_varint(p, position - 1)
                if position < 0:
                    raise _invalid(index, base_offset, "has a key length of too many bytes")
        key_start = position
        key_size = -1
        if number != 1:
            key_size = number >> 1
            if number & 1 or key_size > record_end - position:
                raise _invalid(index, base_offset, "has a key that leaves the record")
            position += key_size

        number = p[position]
        position += 1
        if number >= 0x80:
            second = p[position]
            if second < 0x80:
                number += (second << 7) - 0x80
                position += 1
            else:
                number, position = _read_varint(p, position - 1)
                if position < 0:
                    raise _invalid(index, base_offset, "has a value length of too many bytes")
        value_start = position
        value_size = -1
        if number != 1:
            value_size = number >> 1
            if number & 1 or value_size > record_end - position:
                raise _invalid(index, base_offset, "has a value that leaves the record")
            position += value_size

        if p[position] == 0:
            headers = ()
            position += 1
        else:
            headers, position = _read_headers(data, position, record_end, index, base_offset)
        if position != record_end:
            raise _invalid(index, base_offset, "does not fill its length")

        if out is not None and base_offset + offset_delta >= from_offset:
            if append_timestamp_ms != _OLDEST_MS:
                timestamp_ms = append_timestamp_ms
            out.append(
                _new_record(
                    record_type,
                    (
                        topic,
                        partition,
                        base_offset + offset_delta,
                        timestamp_ms,
                        None if key_size < 0 else p[key_start : key_start + key_size],
                        None if value_size < 0 else p[value_start : value_start + value_size],
                        headers,
                    ),
                )
            )
    if position != end:
        raise BrokerError(
            ErrorCode.INVALID_RECORD,
            f"{end - position} bytes follow the {count} records of the batch at offset {base_offset}",
        )
    return newest_ms


def _read_headers(
    data: bytes, position: int, record_end: int, index: int, base_offset: int
) -> tuple[tuple[Header, ...], int]:
    count, position = _read_length(data, position)
    # A header takes two bytes at least, so a larger count is a lie and nothing is allocated for it.
    if position < 0 or count < 0 or 2 * count > record_end - position:
        raise _invalid(index, base_offset, "has an impossible header count")
    headers: list[Header] = []
    for _ in range(count):
        size, position = _read_length(data, position)
        if position < 0 or size < 0 or size > record_end - position:
            raise _invalid(index, base_offset, "has a header key that leaves the record")
        try:
            key = data[position : position + size].decode()
        except UnicodeDecodeError:
            raise _invalid(index, base_offset, "has a header key that is not UTF-8") from None
        position += size
        size, position = _read_length(data, position)
        if position < 0 or size < -1 or size > record_end - position:
            raise _invalid(index, base_offset, "has a header value that leaves the record")
        if size < 0:
            headers.append((key, None))
        else:
            headers.append((key, data[position : position + size]))
            position += size
    return tuple(headers), position


def _read_length(data: bytes, position: int) -> tuple[int, int]:
    number, position = _read_varint(data, position)
    return (number >> 1) ^ -(number & 1), position


def _read_varint(p: bytes, position: int) -> tuple[int, int]:
    """(bits before zigzag is undone, position behind it); the position is -1 when it has over 64 bits."""
    number = 0
    shift = 0
    while shift < 63:
        byte = p[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
        shift += 7
    byte = p[position]
    if byte > 1:
        return 0, -1
    return number | byte << 63, position + 1


def _invalid(index: int, base_offset: int, why: str) -> BrokerError:
    return BrokerError(
        ErrorCode.INVALID_RECORD, f"record {index} of the batch at offset {base_offset} {why}"
    )
