"""The producer's buffer as a number of bytes: who finds no room waits in turn. PURE but for its futures."""

from __future__ import annotations

import asyncio
from collections import deque

from frieda.errors import BrokerError, ErrorCode


class BufferRoom:
    """Bytes in use of a limit. The hot path looks at the fields by itself, since a call costs as much as the rest."""

    __slots__ = ("limit_bytes", "used_bytes", "waiters")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self.waiters: deque[tuple[asyncio.Future[None], int]] = deque()

    def take_now(self, size_bytes: int) -> bool:
        """Take room at once; False when there is none or others wait for it."""
        if self.waiters or self.used_bytes + size_bytes > self.limit_bytes:
            return False
        self.used_bytes += size_bytes
        return True

    async def take(self, size_bytes: int) -> None:
        """Take room, waiting in turn for it. Cancellation leaves no place taken and no room in use.

        Raises BrokerError(MESSAGE_TOO_LARGE) for more than the whole buffer.
        """
        if self.take_now(size_bytes):
            return
        if size_bytes > self.limit_bytes:
            raise BrokerError(
                ErrorCode.MESSAGE_TOO_LARGE,
                f"a record of {size_bytes} bytes does not fit into the producer's whole buffer "
                f"(buffer_bytes = {self.limit_bytes})",
            )
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        place = (granted, size_bytes)
        self.waiters.append(place)
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled() and granted.exception() is None:
                self.give_back(size_bytes)
            elif place in self.waiters:
                self.waiters.remove(place)
                self._serve()
            raise

    def give_back(self, size_bytes: int) -> None:
        """Room came free: the first in the queue gets it, nobody overtakes."""
        self.used_bytes -= size_bytes
        if self.waiters:
            self._serve()

    def fail(self, error: Exception) -> None:
        """Nobody will get room any more."""
        waiters, self.waiters = self.waiters, deque()
        for granted, _ in waiters:
            if not granted.done():
                granted.set_exception(error)

    def _serve(self) -> None:
        while self.waiters:
            granted, size_bytes = self.waiters[0]
            if granted.done():
                self.waiters.popleft()
                continue
            if self.used_bytes + size_bytes > self.limit_bytes:
                return
            self.waiters.popleft()
            self.used_bytes += size_bytes
            granted.set_result(None)
