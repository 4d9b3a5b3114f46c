"""Produces that wait for an offset to be reached: answered in the order of their offsets. PURE."""

from __future__ import annotations

from heapq import heappop, heappush

_Entry = tuple[int, int, int, object]  # end offset, arrival, deadline in ns, the caller's token


class Pending:
    """A heap by end offset: a retry of what is stored already may wait for an offset before the others'."""

    __slots__ = ("_arrivals", "_entries")

    def __init__(self) -> None:
        self._entries: list[_Entry] = []
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def deadline_ns(self) -> int | None:
        """When the first in line has waited long enough; None when nothing waits."""
        return self._entries[0][2] if self._entries else None

    @property
    def first_end_offset(self) -> int | None:
        """The offset that the first in line waits for."""
        return self._entries[0][0] if self._entries else None

    def add(self, end_offset: int, deadline_ns: int, token: object) -> None:
        """`token` waits until everything below `end_offset` is there."""
        self._arrivals += 1
        heappush(self._entries, (end_offset, self._arrivals, deadline_ns, token))

    def reached(self, offset: int) -> list[object]:
        """Those whose wait is over, no longer pending."""
        entries = self._entries
        tokens = []
        while entries and entries[0][0] <= offset:
            tokens.append(heappop(entries)[3])
        return tokens

    def expired(self, now_ns: int) -> list[object]:
        """Those at the head of the line that have waited too long, no longer pending."""
        entries = self._entries
        tokens = []
        while entries and entries[0][2] <= now_ns:
            tokens.append(heappop(entries)[3])
        return tokens

    def clear(self) -> list[object]:
        """All, no longer pending."""
        tokens = [entry[3] for entry in sorted(self._entries, key=lambda entry: entry[:2])]
        self._entries.clear()
        return tokens
