"""What one SEND carries: a 4-byte header and what follows it. Little endian.

    header   kind u8 | 0 u8 | credits u16: so many receives the sender has posted again
    EAGER    header, one message
    BATCH    header, then for each message: its size u32, its bytes
    RTS      header, id u32 | total u32 | position u32 | size u32 | key u64 | address u64: "READ these bytes of mine,
             which are a chunk of a message of `total` bytes". The chunks of a message are announced in order,
             and those of the next one begin when the last is announced
    FIN      header, ids u32...: these chunks have been READ, or thrown away; their memory is free
    CREDIT   header: nothing but credits
    CLOSE    header: no message follows, and everything before has left this side's memory

PURE. Every value is read once and then checked, because the memory may be the peer's too. Whatever bytes a
peer sends, reading gives values within their bounds or raises RemoteProtocolError.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct
from typing import Final, NamedTuple

from frieda.errors import RemoteProtocolError
from frieda.transports.rdma.provider import RemoteMemory

EAGER: Final = 1
BATCH: Final = 2
RTS: Final = 3
FIN: Final = 4
CREDIT: Final = 5
CLOSE: Final = 6

HEADER: Final = Struct("<BxH")
HEADER_BYTES: Final = 4
SIZE: Final = Struct("<I")
SIZE_BYTES: Final = 4
_RTS: Final = Struct("<BxHIIIIQQ")
RTS_BYTES: Final = _RTS.size
MAX_BATCH: Final = 128
"""At most so many messages in one BATCH, so that one frame does not hold the receiver's loop."""
MAX_FINS: Final = 63
"""At most so many chunks in one FIN, so that it fits into the smallest slot."""


class Chunk(NamedTuple):
    """One chunk of a large message, as its sender announces it."""

    id: int
    total_bytes: int
    position: int
    memory: RemoteMemory


def headers(kind: int, window: int) -> tuple[bytes, ...]:
    """The header of `kind` for each number of credits from 0 to `window`: made once, so sending packs nothing."""
    return tuple(HEADER.pack(kind, credits) for credits in range(window + 1))


def pack_rts(credits: int, chunk: Chunk) -> bytes:
    """A whole RTS frame."""
    address, key, size_bytes = chunk.memory
    return _RTS.pack(
        RTS, credits, chunk.id, chunk.total_bytes, chunk.position, size_bytes, key, address
    )


def read_rts(frame: memoryview, max_message_bytes: int) -> Chunk:
    """The chunk that a whole RTS frame announces. Raises RemoteProtocolError."""
    if len(frame) != RTS_BYTES:
        raise RemoteProtocolError(f"an RTS has {len(frame)} bytes; it must have {RTS_BYTES}")
    _, _, id_, total, position, size, key, address = _RTS.unpack(frame)
    if not 0 < total <= max_message_bytes:
        raise RemoteProtocolError(
            f"an RTS announces a message of {total} bytes; it must have from 1 to {max_message_bytes}"
        )
    if not 0 < size <= total - position:
        raise RemoteProtocolError(
            f"an RTS announces {size} bytes at position {position} of a message of {total}"
        )
    return Chunk(id_, total, position, RemoteMemory(address, key, size))


def pack_fin(credits: int, ids: Iterable[int]) -> bytes:
    """A whole FIN frame."""
    return HEADER.pack(FIN, credits) + b"".join(map(SIZE.pack, ids))


def read_fin(frame: memoryview) -> tuple[int, ...]:
    """The ids in a whole FIN frame. Raises RemoteProtocolError."""
    count, rest = divmod(len(frame) - HEADER_BYTES, SIZE_BYTES)
    if rest or not count:
        raise RemoteProtocolError(
            f"a FIN has {len(frame)} bytes, which is no whole number of chunks"
        )
    return tuple(each[0] for each in SIZE.iter_unpack(frame[HEADER_BYTES:]))


def read_messages(frame: memoryview, max_message_bytes: int) -> list[memoryview]:
    """The messages in a whole EAGER or BATCH frame, each a view of it. Raises RemoteProtocolError."""
    messages: list[memoryview] = []
    end = len(frame)
    if frame[0] == EAGER:
        messages.append(frame[HEADER_BYTES:])
    else:
        position = HEADER_BYTES
        while position < end and len(messages) <= MAX_BATCH:
            start = position + SIZE_BYTES
            if start > end:
                raise RemoteProtocolError("a batch of messages ends inside a size")
            (size,) = SIZE.unpack_from(frame, position)
            position = start + size
            if position > end:
                raise RemoteProtocolError(
                    f"a batch of messages has {end - start} bytes left where it announces {size}"
                )
            messages.append(frame[start:position])
        if not 0 < len(messages) <= MAX_BATCH:
            raise RemoteProtocolError(
                f"a batch of {len(messages)} messages; it must have from 1 to {MAX_BATCH}"
            )
    for message in messages:
        if not 0 < len(message) <= max_message_bytes:
            raise RemoteProtocolError(
                f"a message of {len(message)} bytes; it must have from 1 to {max_message_bytes}"
            )
    return messages
