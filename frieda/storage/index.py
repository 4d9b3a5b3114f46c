"""The two sparse indexes of a segment, in Kafka's file formats: offset -> position, timestamp -> offset. PURE.

`.index`: entries of u32 relative offset, u32 position. As in Kafka, an entry carries the offset of the *last*
record of a batch and the position at which that batch begins. `.timeindex`: i64 timestamp, u32 relative offset;
an entry says that no record up to that offset is newer than that timestamp. Both are big-endian and strictly
increasing (source: Kafka's OffsetIndex and TimeIndex).

Kept as arrays, 8 and 12 bytes an entry. One thread appends; others may look up meanwhile, since an entry
counts only once its second half is there.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import pairwise
from struct import Struct
from typing import Final

OFFSET_ENTRY_BYTES: Final = 8
TIME_ENTRY_BYTES: Final = 12

_TIME_ENTRY: Final = Struct(">qI")
_SWAP: Final = sys.byteorder == "little"


class IndexDamagedError(ValueError):
    """The bytes are not an index that fits its segment; build it again from the segment."""


class OffsetIndex:
    """Last offset of a batch -> position of that batch, for every so many bytes of a segment."""

    __slots__ = ("_offsets", "_positions")

    def __init__(self) -> None:
        self._offsets = array("I")
        self._positions = array("I")

    def __len__(self) -> int:
        return len(self._positions)

    def append(self, relative_offset: int, position: int) -> None:
        """Add an entry; both numbers are larger than those of the last one."""
        self._offsets.append(relative_offset)
        self._positions.append(position)

    def lookup(self, relative_offset: int) -> tuple[int, int]:
        """The last entry at or below `relative_offset` as (relative offset, position); (-1, 0) when there is none."""
        count = len(self._positions)
        at = bisect_right(self._offsets, relative_offset, 0, count) - 1
        return (self._offsets[at], self._positions[at]) if at >= 0 else (-1, 0)

    def last(self) -> tuple[int, int]:
        """The last entry; (-1, 0) when there is none."""
        return (self._offsets[-1], self._positions[-1]) if self._positions else (-1, 0)

    def up_to(self, position: int) -> OffsetIndex:
        """A copy with the entries of batches that begin before `position`."""
        kept = bisect_left(self._positions, position)
        index = OffsetIndex()
        index._offsets, index._positions = self._offsets[:kept], self._positions[:kept]
        return index

    def entries(self) -> Iterator[tuple[int, int]]:
        """Every entry as (relative offset, position)."""
        return zip(self._offsets, self._positions, strict=False)

    def encode(self) -> bytes:
        """The content of an `.index` file."""
        count = len(self._positions)
        both = array("I", bytes(OFFSET_ENTRY_BYTES * count))
        both[0::2] = self._offsets[:count]
        both[1::2] = self._positions[:count]
        if _SWAP:
            both.byteswap()
        return both.tobytes()

    @classmethod
    def decode(cls, data: bytes, segment_size_bytes: int, offset_count: int) -> OffsetIndex:
        """Read an `.index` file of a segment of that size that holds at most that many offsets.

        Raises IndexDamagedError when the entries cannot be right.
        """
        if len(data) % OFFSET_ENTRY_BYTES:
            raise IndexDamagedError("the offset index ends within an entry")
        both = array("I", data)
        if _SWAP:
            both.byteswap()
        index = cls()
        index._offsets, index._positions = both[0::2], both[1::2]
        if both and (
            index._offsets[-1] >= offset_count or index._positions[-1] >= segment_size_bytes
        ):
            raise IndexDamagedError("the offset index points beyond its segment")
        if not _increases(index._offsets) or not _increases(index._positions):
            raise IndexDamagedError("the entries of the offset index are out of order")
        return index


class TimeIndex:
    """Highest timestamp so far -> offset that has it, for every so many bytes of a segment."""

    __slots__ = ("_offsets", "_timestamps")

    def __init__(self) -> None:
        self._timestamps = array("q")
        self._offsets = array("I")

    def __len__(self) -> int:
        return len(self._offsets)

    def append(self, timestamp_ms: int, relative_offset: int) -> None:
        """Add an entry, unless it says nothing new (its timestamp is not above the last one's)."""
        if self._offsets and timestamp_ms <= self._timestamps[-1]:
            return
        self._timestamps.append(timestamp_ms)
        self._offsets.append(relative_offset)

    def lookup(self, timestamp_ms: int) -> int:
        """A relative offset at or before the first record of `timestamp_ms` or later."""
        count = len(self._offsets)
        at = bisect_right(self._timestamps, timestamp_ms - 1, 0, count) - 1
        return self._offsets[at] if at >= 0 else 0

    def up_to(self, relative_offset: int) -> TimeIndex:
        """A copy with the entries of offsets below `relative_offset`."""
        kept = bisect_left(self._offsets, relative_offset)
        index = TimeIndex()
        index._timestamps, index._offsets = self._timestamps[:kept], self._offsets[:kept]
        return index

    def last(self) -> tuple[int, int]:
        """The last entry as (timestamp, relative offset); (-1, 0) when there is none."""
        return (self._timestamps[-1], self._offsets[-1]) if self._offsets else (-1, 0)

    def encode(self) -> bytes:
        """The content of a `.timeindex` file."""
        count = len(self._offsets)
        pack = _TIME_ENTRY.pack
        return b"".join(map(pack, self._timestamps[:count], self._offsets[:count]))

    @classmethod
    def decode(cls, data: bytes, offset_count: int) -> TimeIndex:
        """Read a `.timeindex` file of a segment of at most `offset_count` offsets. Raises IndexDamagedError."""
        if len(data) % TIME_ENTRY_BYTES:
            raise IndexDamagedError("the time index ends within an entry")
        index = cls()
        for timestamp_ms, relative_offset in _TIME_ENTRY.iter_unpack(data):
            index._timestamps.append(timestamp_ms)
            index._offsets.append(relative_offset)
        if index._offsets and index._offsets[-1] >= offset_count:
            raise IndexDamagedError("the time index points beyond its segment")
        if not _increases(index._timestamps) or not _increases(index._offsets):
            raise IndexDamagedError("the entries of the time index are out of order")
        return index


def _increases(numbers: array[int]) -> bool:
    return all(a < b for a, b in pairwise(numbers))
