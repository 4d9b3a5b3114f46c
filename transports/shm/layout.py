"""Where everything lies in the memory that the two sides of a connection share.

PURE: numbers in, numbers out; both sides work it out from the agreed limits.

    control     one page: for each direction `consumed` and `sleeping`, each in a pair of cache lines of its own
                (processors fetch lines in pairs), so that neither is moved about by a store to another
    rings       for each direction `window` slots
    sources     for each direction the memory that its sender offers for READ

A slot is one word, 12 unused bytes, and room for the payload. The word is written last and says at once that
the slot is filled, in which lap of the ring, and how large the payload is: a short message costs the transfer
of the one or two lines it lies in, and no index is moved for it. The stride of the slots is no multiple
of a page, or they would all fall on the same lines of the first-level cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from frieda.transports.rdma.provider import ChannelLimits

PAGE: Final = 4096
LINE_PAIR: Final = 128
LINE: Final = 64
WORD: Final = 4
PAYLOAD_AT: Final = 16
"""Where the payload begins in its slot."""
SIZE_BITS: Final = 24
"""Bits of a slot's word that hold the size of the payload; the lap is above them."""
LAPS: Final = 63
"""Laps count from 1 to this and begin again, so that words stay below 2**30, where Python is quick."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectionLayout:
    """The places of one direction, in bytes from the start of the region."""

    consumed_at: int
    sleeping_at: int
    ring_at: int
    sources_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The places of everything. `directions` are client to broker, then broker to client."""

    size_bytes: int
    slot_bytes: int
    window: int
    stride: int
    source_bytes: int
    directions: tuple[DirectionLayout, DirectionLayout]

    @classmethod
    def of(cls, limits: ChannelLimits) -> Layout:
        """The layout for these limits, which the bootstrap has checked to be in range."""
        stride = _up(PAYLOAD_AT + limits.slot_bytes, LINE)
        if stride % PAGE == 0:
            stride += LINE
        ring = _up(stride * limits.window, PAGE)
        sources = _up(limits.source_bytes, PAGE)
        directions = [
            DirectionLayout(
                consumed_at=2 * LINE_PAIR * number,
                sleeping_at=2 * LINE_PAIR * number + LINE_PAIR,
                ring_at=PAGE + ring * number,
                sources_at=PAGE + 2 * ring + sources * number,
            )
            for number in (0, 1)
        ]
        return cls(
            size_bytes=PAGE + 2 * ring + 2 * sources,
            slot_bytes=limits.slot_bytes,
            window=limits.window,
            stride=stride,
            source_bytes=sources,
            directions=(directions[0], directions[1]),
        )


def _up(size: int, to: int) -> int:
    return (size + to - 1) // to * to
