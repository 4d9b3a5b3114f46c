"""Zigzag varints, as Protocol Buffers and Kafka's record format write whole numbers.

Small numbers of either sign take few bytes: 0 -> 00, -1 -> 01, 1 -> 02, ... seven bits a byte, lowest
first. The record loops in `frieda.wire.records` have their own copy inlined; this one is for everybody
else, and what the tests hold them against.
Source: https://protobuf.dev/programming-guides/encoding/#varints
"""

from __future__ import annotations

from typing import Final

from frieda.errors import BrokerError, ErrorCode

MAX_VARINT_BYTES: Final = 10


def encode_varint(value: int) -> bytes:
    """The zigzag varint of a signed 64-bit `value`: 1 to 10 bytes. OverflowError when it is larger."""
    if not -(1 << 63) <= value < 1 << 63:
        raise OverflowError(f"{value} does not fit into the 64 bits of a varint")
    rest = (value << 1) ^ (value >> 63)
    out = bytearray()
    while rest >= 0x80:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def decode_varint(buffer: bytes | bytearray | memoryview, position: int = 0) -> tuple[int, int]:
    """Read one varint: (value, position after it).

    Raises BrokerError(CORRUPT_MESSAGE) when the buffer ends inside it or it is longer than 64 bits.
    """
    rest = 0
    for index in range(MAX_VARINT_BYTES):
        if position >= len(buffer):
            raise BrokerError(
                ErrorCode.CORRUPT_MESSAGE, f"the bytes end inside a varint at position {position}"
            )
        byte = buffer[position]
        position += 1
        rest |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if rest >> 64:
                break
            return (rest >> 1) ^ -(rest & 1), position
    raise BrokerError(
        ErrorCode.CORRUPT_MESSAGE, f"the varint before position {position} has more than 64 bits"
    )


def varint_size_bytes(value: int) -> int:
    """How many bytes `encode_varint(value)` takes, for a signed 64-bit `value`."""
    rest = (value << 1) ^ (value >> 63)
    return max(1, (rest.bit_length() + 6) // 7)
