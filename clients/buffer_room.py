"""The producer's buffer as a number of bytes: who finds no room waits in turn. PURE but for its futures."""

from __future__ import annotations

import asyncio
from collections import deque

from frieda.errors import BrokerError, ErrorCode


class BufferRoom:
    """Bytes in use of a limit. The hot path looks at the fields by itself, since a call costs as much as the rest."""

    __slots__ = ("_queue", "limit_bytes", "used_bytes", "waiting")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self.waiting = 0
        """Those without room, and those who were given room and did not run since."""
        self._queue: deque[tuple[asyncio.Future[None], int]] = deque()

    def take_now(self, size_bytes: int) -> bool:
        """Take room at once; False when there is none or others wait for it."""
        if self.waiting or self.used_bytes + size_bytes > self.limit_bytes:
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
        self._queue.append(place)
        self.waiting += 1
        try:
            await granted
        except asyncio.CancelledError:
            if not granted.cancelled() and granted.exception() is None:
                self.give_back(size_bytes)
            elif place in self._queue:
                self._queue.remove(place)
            raise
        finally:
            # Who came while this one was about to run had to queue, though there may be room for them.
            self.waiting -= 1
            self._serve()

    def give_back(self, size_bytes: int) -> None:
        """Room came free: the first in the queue gets it, nobody overtakes."""
        self.used_bytes -= size_bytes
        if self._queue:
            self._serve()

    def fail(self, error: Exception) -> None:
        """Nobody will get room any more."""
        queue, self._queue = self._queue, deque()
        for granted, _ in queue:
            if not granted.done():
                granted.set_exception(error)

    def _serve(self) -> None:
        while self._queue:
            granted, size_bytes = self._queue[0]
            if not granted.done():
                if self.used_bytes + size_bytes > self.limit_bytes:
                    return
                self.used_bytes += size_bytes
                granted.set_result(None)
            self._queue.popleft()
