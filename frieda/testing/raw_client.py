"""A client for tests that sends what it is told, right or wrong, and shows what comes back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from struct import Struct
from typing import Any
from urllib.parse import urlsplit

from frieda.errors import BrokerError, ErrorCode
from frieda.protocol.client import request_head
from frieda.testing.message_streams import MessageWriter, message_streams
from frieda.wire.envelope import AnswerEnvelope, split_answer
from frieda.wire.messages import API_OF_REQUEST, PROTOCOL_VERSION, HelloRequest
from frieda.wire.produce import ANSWER_MARK, split_produced
from frieda.wire.schema import decode_fields

_SIZE = Struct(">I")


@contextlib.asynccontextmanager
async def raw_client(url: str, *, hello: bool = True) -> AsyncIterator[RawClient]:
    """A connection to `url` that, unless told not to, has said Hello; closed at the end."""
    writer: asyncio.StreamWriter | MessageWriter
    parts = urlsplit(url)
    if parts.scheme == "tcp":
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=1 << 26)
    else:
        reader, writer = await message_streams(url)
    client = RawClient(reader, writer)
    try:
        if hello:
            await client.call(
                HelloRequest(PROTOCOL_VERSION, PROTOCOL_VERSION, "raw/1", "raw", 1 << 26)
            )
        yield client
    finally:
        writer.close()
        # The broker may have been quicker.
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


class RawClient:
    """One connection to a broker, made by `raw_client`."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter | MessageWriter
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._next_id = 0
        self._early: dict[int, AnswerEnvelope] = {}

    def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(data)

    def send_message(self, message: bytes) -> None:
        """Send one message in a frame."""
        self._writer.write(_SIZE.pack(len(message)) + message)

    def send(self, request: Any, body: bytes = b"", *, version: int = 0) -> int:
        """Send a request; its correlation id."""
        correlation_id = self._next_id
        self._next_id += 1
        self.send_message(request_head(correlation_id, request, version) + body)
        return correlation_id

    async def next_answer(self) -> AnswerEnvelope:
        """The next message of the broker. Raises IncompleteReadError at the end of the connection."""
        (size,) = _SIZE.unpack(await self._reader.readexactly(4))
        message = memoryview(await self._reader.readexactly(size))
        if message[0] == ANSWER_MARK:
            correlation_id, response = split_produced(message)
            return AnswerEnvelope(correlation_id, 0, tuple(response), message[:0])
        return split_answer(message)

    async def answer_to(self, correlation_id: int) -> AnswerEnvelope:
        """The answer to one request; others that come before it are kept."""
        while correlation_id not in self._early:
            envelope = await self.next_answer()
            self._early[envelope.correlation_id] = envelope
        return self._early.pop(correlation_id)

    async def call(self, request: Any, body: bytes = b"") -> Any:
        """Send a request and decode its answer. Raises BrokerError."""
        envelope = await self.answer_to(self.send(request, body))
        return decoded(request, envelope)

    async def at_end(self) -> bool:
        """Whether the broker ends the connection without another message."""
        try:
            return await self._reader.read(1) == b""
        except ConnectionError:
            return True


def decoded(request: Any, envelope: AnswerEnvelope) -> Any:
    """The response in an answer to `request`. Raises BrokerError."""
    if envelope.error_code:
        raise BrokerError(ErrorCode(envelope.error_code), envelope.fields[0])
    return decode_fields(API_OF_REQUEST[type(request)].response, envelope.fields)
