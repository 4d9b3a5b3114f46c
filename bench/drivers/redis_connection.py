"""One connection to Redis: commands out, replies in their order, parsed by Redis's own C library (hiredis)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

from frieda.bench.drivers.wire import Wire
from frieda.errors import (
    ClientClosedError,
    FriedaError,
    MissingDependencyError,
    RemoteProtocolError,
)

hiredis: Any = import_module("hiredis") if find_spec("hiredis") else None

ASK_TIMEOUT_S: Final = 10.0
Argument = bytes | str | int


def missing_library() -> str | None:
    """None when hiredis is there, else how to get it."""
    return "hiredis is not installed: pip install 'frieda[peers]'" if hiredis is None else None


class RedisError(FriedaError):
    """Redis answered with an error."""


class RedisConnection:
    """`ask` for one reply; the replies to what is written to `wire` go to `on_replies`. Not both at one time.

    Raises MissingDependencyError.
    """

    def __init__(
        self,
        on_replies: Callable[[list[Any]], None] = lambda _: None,
        on_lost: Callable[[FriedaError], None] = lambda _: None,
        on_writable: Callable[[], None] = lambda: None,
    ) -> None:
        if (missing := missing_library()) is not None:
            raise MissingDependencyError(missing)
        self.wire = Wire("redis", self._received, self._lost, on_writable)
        self._on_replies = on_replies
        self._on_lost = on_lost
        self._reader = hiredis.Reader()
        self._asked: deque[asyncio.Future[Any]] = deque()
        self._error: FriedaError | None = None

    async def connect(self, address: str) -> None:
        """`address`: redis://host:port or unix:///path. Raises ConnectError."""
        await self.wire.connect(address)

    async def ask(self, *command: Argument, timeout_s: float = ASK_TIMEOUT_S) -> Any:
        """The reply to a command. Raises RedisError for an error reply, TransportError."""
        future = self.asked(*command)
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            raise RedisError(
                f"redis did not answer {command[0]!r} within {timeout_s:g} s"
            ) from None

    def asked(self, *command: Argument) -> asyncio.Future[Any]:
        """The same as a future; cancelled, its reply is dropped."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self._error is not None:
            future.set_exception(self._error)
        else:
            self._asked.append(future)
            self.wire.write(command_bytes(*command))
        return future

    async def close(self) -> None:
        """End it. May be repeated."""
        await self.wire.close()
        self._error = self._error or ClientClosedError("this connection is closed")
        while self._asked:
            self._asked.popleft().cancel()

    def _received(self, data: bytes) -> None:
        replies: list[Any] = []
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not False:
                replies.append(reply)
        except hiredis.ProtocolError as error:
            self.wire.fail(RemoteProtocolError(f"redis sent what is not its protocol: {error}"))
            return
        while self._asked and replies:
            future, reply = self._asked.popleft(), replies.pop(0)
            if future.done():
                continue
            if isinstance(reply, hiredis.ReplyError):
                future.set_exception(error_in(reply))
            else:
                future.set_result(reply)
        if replies:
            self._on_replies(replies)

    def _lost(self, error: FriedaError) -> None:
        self._error = error
        while self._asked:
            future = self._asked.popleft()
            if not future.done():
                future.set_exception(error)
        self._on_lost(error)


def error_in(reply: object) -> FriedaError:
    """The error that a reply is, of which something else was expected."""
    if isinstance(reply, hiredis.ReplyError):
        return RedisError(f"redis answered: {reply}")
    return RemoteProtocolError(f"redis gave an answer that was not expected: {reply!r:.100}")


def command_bytes(*command: Argument) -> bytes:
    """A command as it is sent."""
    packed: bytes = hiredis.pack_command(command)
    return packed
