"""Records under way on one connection: bounded in number, each told of when it is answered or fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from frieda.bench.drivers.base import Done
from frieda.bench.drivers.wire import Wire
from frieda.errors import ClientClosedError, DeliveryTimeoutError, FriedaError

CHUNK_BYTES: Final = 256 * 1024
"""submit_many: about so much goes to the socket with one call."""

Encode = Callable[[int, bytes, bytes | None], bytes]
"""`encode(number, value, key)`: the bytes that send a record; `number` counts the records of the connection."""


class Pipeline:
    """Sends records over a Wire without waiting for the answers to those before.

    At most `limit` are under way. The owner calls `answered` for each answer, `answered_all` after those that came
    together, `fail` when the connection is lost and `close` at the end.
    """

    def __init__(self, wire: Wire, encode: Encode, limit: int, timeout_s: float, peer: str) -> None:
        self._wire = wire
        self._encode = encode
        self._limit = limit
        self._timeout_s = timeout_s
        self._peer = peer
        self._loop = asyncio.get_running_loop()
        self._number = 0
        self._waiting: dict[int, tuple[Done, bool, int]] = {}
        """Number -> who is told, whether by itself, and when it was sent; in send order."""
        self._told: Done | None = None
        self._told_count = 0
        self._timer: asyncio.TimerHandle | None = None
        self._room: asyncio.Future[None] | None = None
        self._error: FriedaError | None = None

    def submit(self, value: bytes, key: bytes | None, done: Done) -> bool:
        """Send one record; False when `limit` are under way or the socket takes no more."""
        if self._error is not None:
            self._loop.call_soon(done, 1, time.monotonic_ns(), self._error)
            return True
        if len(self._waiting) >= self._limit or not self._wire.writable:
            return False
        message = self._encode(self._number, value, key)
        self._waiting[self._number] = (done, True, time.monotonic_ns())
        self._number += 1
        self._wire.write(message)
        if self._timer is None:
            self._watch(self._timeout_s)
        return True

    async def submit_many(self, values: Sequence[bytes], done: Done) -> None:
        """Send all, in pieces of about CHUNK_BYTES, waiting while there is no room."""
        position = 0
        while position < len(values) and self._error is None:
            room = min(self._limit - len(self._waiting), len(values) - position)
            if room <= 0 or not self._wire.writable:
                await self._wait_for_room()
                continue
            messages: list[bytes] = []
            size_bytes = 0
            for value in values[position : position + room]:
                message = self._encode(self._number + len(messages), value, None)
                messages.append(message)
                size_bytes += len(message)
                if size_bytes >= CHUNK_BYTES:
                    break
            # Noted only now: a value that cannot be encoded leaves nothing behind that is never answered.
            entry = (done, False, time.monotonic_ns())
            for _ in messages:
                self._waiting[self._number] = entry
                self._number += 1
            position += len(messages)
            self._wire.write(b"".join(messages))
            if self._timer is None:
                self._watch(self._timeout_s)
        if position < len(values):
            done(len(values) - position, time.monotonic_ns(), self._error)

    def answered(self, number: int, error: FriedaError | None = None) -> None:
        """The answer to record `number`; nothing when it has failed before."""
        entry = self._waiting.pop(number, None)
        if entry is None:
            return
        done, alone, _ = entry
        if alone or error is not None:
            done(1, time.monotonic_ns(), error)
            return
        if done is not self._told:
            self._tell()
            self._told = done
        self._told_count += 1

    def answered_all(self) -> None:
        """What came together has been told one by one."""
        self._tell()
        self.make_room()

    def make_room(self) -> None:
        """Whoever waits for room shall look again."""
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def fail(self, error: FriedaError) -> None:
        """Nothing more is answered: everything under way fails, and all that is submitted from now on."""
        if self._error is not None:
            return
        self._error = error
        if self._timer is not None:
            self._timer.cancel()
        self._tell()
        for number in list(self._waiting):
            self.answered(number, error)
        self.make_room()

    def close(self) -> None:
        """The end: what is under way fails with ClientClosedError. May be repeated."""
        self.fail(ClientClosedError("the producer was closed before this record was answered"))

    async def _wait_for_room(self) -> None:
        self._room = self._loop.create_future()
        try:
            await self._room
        finally:
            self._room = None

    def _tell(self) -> None:
        done, count = self._told, self._told_count
        self._told, self._told_count = None, 0
        if done is not None:
            done(count, time.monotonic_ns(), None)

    def _watch(self, in_s: float) -> None:
        self._timer = self._loop.call_later(in_s, self._look)

    def _look(self) -> None:
        """Answers come in order: when the first record is overdue the peer has stopped, and everything fails."""
        self._timer = None
        if not self._waiting:
            return
        _, _, sent_ns = next(iter(self._waiting.values()))
        left_s = self._timeout_s - (time.monotonic_ns() - sent_ns) / 1e9
        if left_s > 0:
            self._watch(left_s)
        else:
            self.fail(
                DeliveryTimeoutError(
                    f"{self._peer} did not answer a record within {self._timeout_s:g} s"
                )
            )
