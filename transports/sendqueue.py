"""What `send` has taken and the wire has not: a queue of byte ranges, each with the lease it came with.

PURE: it never writes. The connection asks for the front of the queue, hands it to the wire and says how much
was taken. A lease is released when the last byte of its message was taken, and not before.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from frieda.transports.base import Bytes
    from frieda.transports.buffers import Lease

MAX_PIECES: Final = 64
"""At most this many ranges in one vectored write (the kernel's own limit is 1024)."""
MAX_WRITE_BYTES: Final = 1024 * 1024
"""About this much in one vectored write, so that one connection does not hold the loop."""


class SendQueue:
    """Byte ranges in send order. Owner: the connection, which calls `discard` at the end."""

    __slots__ = ("_pieces", "queued_bytes")

    def __init__(self) -> None:
        self.queued_bytes = 0
        self._pieces: deque[tuple[memoryview, Lease | None]] = deque()

    def append(self, data: Bytes, lease: Lease | None, skip: int = 0) -> None:
        """Queue `data` but for its first `skip` bytes; `lease` is released once the wire has taken it."""
        view = memoryview(data)[skip:]
        self.queued_bytes += len(view)
        self._pieces.append((view, lease))

    def front(self) -> list[memoryview]:
        """The next ranges to write, in order: at least one when anything is queued."""
        pieces: list[memoryview] = []
        size_bytes = 0
        for view, _ in self._pieces:
            pieces.append(view)
            size_bytes += len(view)
            if len(pieces) == MAX_PIECES or size_bytes >= MAX_WRITE_BYTES:
                break
        return pieces

    def taken(self, count: int) -> None:
        """The wire has taken the next `count` bytes."""
        self.queued_bytes -= count
        pieces = self._pieces
        while count:
            view, lease = pieces[0]
            if count < len(view):
                pieces[0] = (view[count:], lease)
                return
            count -= len(view)
            pieces.popleft()
            if lease is not None:
                lease.release()

    def discard(self) -> None:
        """Forget everything and release every lease. May be repeated."""
        pieces, self._pieces = self._pieces, deque()
        self.queued_bytes = 0
        for _, lease in pieces:
            if lease is not None:
                lease.release()
