"""Source memory: which part of one's own is taken, and how a part of the peer's is read.

PURE. The allocator is for few, large and short-lived ranges. At most `most` are out at once, so there are never
more than `most` + 1 free ones, and going through them all is quick. First fit from the low end keeps reusing the
same pages, which are in memory and in cache. Where nothing is large enough, the largest free range is granted
instead, unless it is so small that reading through it would be all overhead.
"""

from __future__ import annotations

from typing import Final

from frieda.errors import LocalProtocolError
from frieda.transports.shm.layout import PAGE

SMALLEST_GRANT_BYTES: Final = 64 * 1024
"""A range smaller than this is granted only to who asked for no more."""
READ_STEP_BYTES: Final = 256 * 1024
"""How much of a READ one poll copies (about 30 us), so that small messages pass between."""


class SourceAllocator:
    """Ranges of `size_bytes` bytes of memory, in whole pages. Offsets count from its start."""

    __slots__ = ("_free", "_most", "_taken", "touched_bytes")

    def __init__(self, size_bytes: int, most: int) -> None:
        self._free: list[tuple[int, int]] = [
            (0, size_bytes // PAGE * PAGE)
        ]  # (offset, size), by offset
        self._taken: dict[int, int] = {}
        self._most = most
        self.touched_bytes = 0
        """Beyond this offset nothing was ever granted, or not since it was set back."""

    @property
    def in_use(self) -> int:
        """How many ranges are out."""
        return len(self._taken)

    @property
    def free(self) -> tuple[tuple[int, int], ...]:
        """The free ranges as (offset, size), lowest first; no two touch each other."""
        return tuple(self._free)

    def take(self, size_bytes: int) -> tuple[int, int] | None:
        """The offset and size of a range for `size_bytes` or less, or None while too much is out."""
        if len(self._taken) >= self._most:
            return None
        wanted = (size_bytes + PAGE - 1) // PAGE * PAGE
        largest = -1
        for index, (_, size) in enumerate(self._free):
            if size >= wanted:
                largest = index
                break
            if largest < 0 or size > self._free[largest][1]:
                largest = index
        if largest < 0:
            return None
        offset, size = self._free[largest]
        if size < min(wanted, SMALLEST_GRANT_BYTES):
            return None
        used = min(size, wanted)
        if used == size:
            del self._free[largest]
        else:
            self._free[largest] = (offset + used, size - used)
        self._taken[offset] = used
        self.touched_bytes = max(self.touched_bytes, offset + used)
        return offset, min(used, size_bytes)

    def give_back(self, offset: int) -> None:
        """The range that began at `offset` is free. Raises LocalProtocolError when none did."""
        size = self._taken.pop(offset, 0)
        if not size:
            raise LocalProtocolError(f"a source at {offset} was released that is not in use")
        free = self._free
        index = 0
        while index < len(free) and free[index][0] < offset:
            index += 1
        if index < len(free) and offset + size == free[index][0]:
            size += free.pop(index)[1]
        if index and free[index - 1][0] + free[index - 1][1] == offset:
            offset, before = free[index - 1]
            free[index - 1] = (offset, before + size)
        else:
            free.insert(index, (offset, size))


class Read:
    """A READ under way: from `source`, which the peer may change meanwhile, to `target` of the same size."""

    __slots__ = ("done", "size", "source", "target", "work_id")

    def __init__(self, work_id: int, target: memoryview, source: memoryview) -> None:
        self.work_id = work_id
        self.target = target
        self.source = source
        self.size = len(source)
        self.done = 0

    def step(self) -> bool:
        """Copy the next part; True after the last."""
        begin, end = self.done, min(self.done + READ_STEP_BYTES, self.size)
        self.target[begin:end] = self.source[begin:end]
        self.done = end
        if end < self.size:
            return False
        self.release()
        return True

    def release(self) -> None:
        """Let go of both views."""
        self.target.release()
        self.source.release()
