"""Messages that go within a SEND: up to which size, and the queue where they wait for credits.

PURE: it never sends. The threshold, unless it is set, is the largest SEND while at least half the window is
free. Below that it falls with the credits to a quarter of a slot: then messages have begun to queue, those
that queue leave together, and large ones among them would fill frames that many small ones could share.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from frieda.errors import ConfigError
from frieda.transports.base import ORDERED_BYTES, Bytes
from frieda.transports.rdma.credits import RESERVED
from frieda.transports.rdma.frames import (
    BATCH,
    EAGER,
    HEADER,
    HEADER_BYTES,
    MAX_BATCH,
    SIZE,
    SIZE_BYTES,
)

if TYPE_CHECKING:
    from frieda.transports.buffers import Lease


def thresholds(window: int, slot_bytes: int, eager_bytes: int | None) -> tuple[int, ...]:
    """The largest message that goes within a SEND, by the number of credits left (0 to `window`).

    `eager_bytes` sets it. Raises ConfigError when that is outside ORDERED_BYTES to the largest SEND.
    """
    largest = slot_bytes - HEADER_BYTES
    if eager_bytes is not None:
        if not eager_bytes >= ORDERED_BYTES:
            raise ConfigError(f"rdma_eager_bytes = {eager_bytes}: must be at least {ORDERED_BYTES}")
        return (min(eager_bytes, largest),) * (window + 1)
    least = max(ORDERED_BYTES, largest // 4)
    steps = window // 2 - RESERVED
    return tuple(
        least + (largest - least) * min(max(credits - RESERVED, 0), steps) // steps
        for credits in range(window + 1)
    )


class EagerQueue:
    """Messages in send order. Owner: the channel, which calls `discard` at the end."""

    __slots__ = ("_messages", "_room_bytes", "queued_bytes")

    def __init__(self, slot_bytes: int) -> None:
        self.queued_bytes = 0
        self._room_bytes = slot_bytes - HEADER_BYTES
        self._messages: deque[tuple[Bytes, Bytes | None, Lease | None, int]] = deque()

    def __bool__(self) -> bool:
        return bool(self._messages)

    def append(self, head: Bytes, body: Bytes | None, lease: Lease | None, size_bytes: int) -> None:
        """Queue a message that fits into one frame."""
        self._messages.append((head, body, lease, size_bytes))
        self.queued_bytes += size_bytes

    def frame(self, credits: int) -> tuple[int, list[Bytes]]:
        """The next frame: how many messages it has, and its pieces. They stay queued until `taken`."""
        room = self._room_bytes
        count = 0
        pieces: list[Bytes] = [HEADER.pack(BATCH, credits)]
        for head, body, _, size in self._messages:
            room -= size + SIZE_BYTES
            if room < 0 or count == MAX_BATCH:
                break
            count += 1
            pieces += (SIZE.pack(size), head)
            if body is not None:
                pieces.append(body)
        if count < 2:
            head, body, _, _ = self._messages[0]
            pieces = [HEADER.pack(EAGER, credits), head]
            if body is not None:
                pieces.append(body)
            return 1, pieces
        return count, pieces

    def taken(self, count: int) -> None:
        """The device has the bytes of the next `count` messages."""
        for _ in range(count):
            _, _, lease, size = self._messages.popleft()
            self.queued_bytes -= size
            if lease is not None:
                lease.release()

    def discard(self) -> None:
        """Forget everything and release every lease. May be repeated."""
        messages, self._messages = self._messages, deque()
        self.queued_bytes = 0
        for _, _, lease, _ in messages:
            if lease is not None:
                lease.release()
