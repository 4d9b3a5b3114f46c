"""One connection to a NATS server: publish, subscribe, and the requests of JetStream's own interface."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from secrets import token_hex
from typing import Any, Final

from frieda.bench.drivers.nats_protocol import Message, NatsReader, Notice, status_of
from frieda.bench.drivers.wire import CONNECT_TIMEOUT_S, Wire
from frieda.errors import BrokenError, ConnectError, FriedaError, RemoteProtocolError

ASK_TIMEOUT_S: Final = 10.0
NO_RESPONDERS: Final = 503
_ASK_SID: Final = 1
_HELLO: Final = {
    "verbose": False,
    "pedantic": False,
    "headers": True,
    "no_responders": True,
    "name": "frieda-bench",
    "lang": "python",
    "version": "1",
    "protocol": 1,
}

OnMessages = Callable[[list[Message]], None]


class NatsError(FriedaError):
    """NATS or JetStream answered with an error; `code` is JetStream's number, 0 when it has none."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class NatsConnection:
    """Messages that come are handed to `on_messages` (those together in one list), answers to `ask` apart.

    `inbox` is a subject prefix of this connection's own.
    """

    def __init__(
        self,
        on_messages: OnMessages = lambda _: None,
        on_lost: Callable[[FriedaError], None] = lambda _: None,
        on_writable: Callable[[], None] = lambda: None,
    ) -> None:
        self.wire = Wire("nats", self._received, self._lost, on_writable)
        self.info: dict[str, Any] = {}
        """What the server said of itself."""
        self.inbox = f"_INBOX.{token_hex(8)}"
        self._on_messages = on_messages
        self._on_lost = on_lost
        self._reader = NatsReader()
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked: dict[bytes, asyncio.Future[Message]] = {}
        self._asked_count = 0
        self._last_sid = _ASK_SID
        self._error: FriedaError | None = None

    async def connect(self, address: str) -> None:
        """`address`: nats://host:port. Raises ConnectError, NatsError."""
        await self.wire.connect(address)
        hello = f"CONNECT {json.dumps(_HELLO)}\r\nSUB {self.inbox}.a.* {_ASK_SID}\r\nPING\r\n"
        self.wire.write(hello.encode())
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await asyncio.shield(self._ready)
        except TimeoutError:
            await self.close()
            raise ConnectError(
                f"{address} did not say hello within {CONNECT_TIMEOUT_S:g} s"
            ) from None
        except BaseException:
            await self.close()
            raise

    def subscribe(self, subject: str) -> int:
        """Messages to `subject` come to `on_messages` from now on, with the number returned as their sid."""
        self._last_sid += 1
        self.wire.write(f"SUB {subject} {self._last_sid}\r\n".encode())
        return self._last_sid

    async def ask(self, subject: str, request: object) -> dict[str, Any]:
        """The answer of JetStream's interface at $JS.API.`subject`. Raises NatsError for an error, TransportError."""
        if self._error is not None:
            raise self._error
        self._asked_count += 1
        reply = f"{self.inbox}.a.{self._asked_count}".encode()
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._asked[reply] = future
        body = json.dumps(request).encode() if request is not None else b""
        self.wire.write(publication(f"$JS.API.{subject}".encode(), reply, body))
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                message = await future
        except TimeoutError:
            raise NatsError(f"nats did not answer {subject} within {ASK_TIMEOUT_S:g} s") from None
        finally:
            self._asked.pop(reply, None)
        if status_of(message.headers)[0] == NO_RESPONDERS:
            raise NatsError("this nats-server has no JetStream: start it with -js")
        try:
            answer = json.loads(message.payload)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise RemoteProtocolError(f"nats answered {subject} with something else than an object")
        if (error := answer.get("error")) is not None:
            raise error_of(error)
        return answer

    async def close(self) -> None:
        """End it. May be repeated."""
        await self.wire.close()
        for future in self._asked.values():
            future.cancel()
        if self._ready.done() and not self._ready.cancelled():
            self._ready.exception()  # nobody may have asked for it
        self._ready.cancel()

    def _received(self, data: bytes) -> None:
        try:
            found = self._reader.feed(data)
        except RemoteProtocolError as error:
            self.wire.fail(error)
            return
        messages: list[Message] = []
        for each in found:
            if isinstance(each, Notice):
                self._noticed(each)
            elif each.sid == _ASK_SID:
                future = self._asked.get(each.subject)
                if future is not None and not future.done():
                    future.set_result(each)
            else:
                messages.append(each)
        if messages:
            self._on_messages(messages)

    def _noticed(self, notice: Notice) -> None:
        match notice.kind:
            case b"PING":
                self.wire.write(b"PONG\r\n")
            case b"PONG":
                if not self._ready.done():
                    self._ready.set_result(None)
            case b"INFO":
                try:
                    self.info = dict(json.loads(notice.text))
                except (ValueError, TypeError):
                    self.wire.fail(RemoteProtocolError("nats: INFO is not JSON"))
            case _:
                text = notice.text.decode(errors="replace")
                self.wire.fail(BrokenError(f"nats ended the connection: {text}"))

    def _lost(self, error: FriedaError) -> None:
        self._error = error
        if not self._ready.done():
            self._ready.set_exception(error)
        for future in self._asked.values():
            if not future.done():
                future.set_exception(error)
        self._on_lost(error)


def publication(subject: bytes, reply: bytes, payload: bytes) -> bytes:
    """A publication as it is sent."""
    return b"PUB %b %b %d\r\n%b\r\n" % (subject, reply, len(payload), payload)


def error_of(error: Any) -> NatsError:
    """An error in an answer of JetStream's."""
    if not isinstance(error, dict):
        return NatsError(f"nats answered: {error!r:.200}")
    code = error.get("err_code")
    description = error.get("description", "an error without a description")
    return NatsError(f"nats answered: {description}", code if isinstance(code, int) else 0)
