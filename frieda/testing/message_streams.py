"""A connection of any transport as the pair of streams that a TCP client has: frames in, frames out."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from frieda.config import KIB, MIB
from frieda.transports.base import Connection, TransportLimits, TransportRuntime
from frieda.transports.buffers import BufferPool
from frieda.transports.framing import SIZE_BYTES, pack_size
from frieda.transports.polling import PollingEngine
from frieda.transports.registry import open_transport

if TYPE_CHECKING:
    from frieda.errors import TransportError
    from frieda.transports.buffers import Lease

_MAX_MESSAGE_BYTES: Final = 17 * MIB


async def message_streams(url: str) -> tuple[asyncio.StreamReader, MessageWriter]:
    """Connect to `url`. Whole frames that are written leave as messages; messages can be read as frames."""
    engine = PollingEngine("event")
    pool = BufferPool({4 * KIB: 16, 64 * KIB: 8, MIB: 4, _MAX_MESSAGE_BYTES: 2})
    limits = TransportLimits(max_message_bytes=_MAX_MESSAGE_BYTES)
    runtime = TransportRuntime(pool=pool, engine=engine, limits=limits)
    engine.start(asyncio.get_running_loop())
    writer = MessageWriter(runtime)
    try:
        await open_transport(url, runtime).connect(url, writer.take)
    except BaseException:
        writer.give_back()
        raise
    return writer.reader, writer


class MessageWriter:
    """The writing half, the receiver of the connection, and the owner of its runtime."""

    def __init__(self, runtime: TransportRuntime) -> None:
        self.reader = asyncio.StreamReader(limit=64 * MIB)
        self._runtime = runtime
        self._connection: Connection | None = None
        self._unsent = bytearray()
        self._ended = asyncio.Event()

    def take(self, connection: Connection) -> MessageWriter:
        """This is the connection."""
        self._connection = connection
        return self

    def give_back(self) -> None:
        """Close what `message_streams` made."""
        self._runtime.engine.close()
        self._runtime.pool.close()

    def write(self, data: bytes) -> None:
        """Send every frame that is whole by now."""
        assert self._connection is not None, "connect comes first"
        self._unsent += data
        while len(self._unsent) >= SIZE_BYTES:
            end = SIZE_BYTES + int.from_bytes(self._unsent[:SIZE_BYTES], "big")
            if len(self._unsent) < end:
                return
            message = bytes(self._unsent[SIZE_BYTES:end])
            del self._unsent[:end]
            self._connection.send(message)

    async def drain(self) -> None:
        """Whatever was written was handed over already, or waits in the connection's bounded queue."""

    def close(self) -> None:
        """End the connection; what is queued still leaves."""

    async def wait_closed(self) -> None:
        """Wait for the end and give everything back."""
        assert self._connection is not None, "connect comes first"
        await self._connection.close()
        await self._ended.wait()
        self.give_back()

    # --- what the transport calls -------------------------------------------------------------------------

    def message_received(self, message: memoryview, lease: Lease | None) -> None:
        self.reader.feed_data(pack_size(len(message)) + bytes(message))

    def sending_paused(self) -> None: ...

    def sending_resumed(self) -> None: ...

    def connection_lost(self, error: TransportError | None) -> None:
        self.reader.feed_eof()
        self._ended.set()
