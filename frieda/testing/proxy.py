"""A TCP proxy that misbehaves on command, for tests of clients and brokers over a real socket.

async with FaultProxy("tcp://127.0.0.1:9500") as proxy:
    client = connect(proxy.url)
    proxy.stall()          # bytes stay where they are
    proxy.resume()
    proxy.drop()           # every connection is reset; new ones are let through
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from typing import Final, Self

from frieda.transports.address import HostPort, join_host_port, parse_host_port

_CHUNK_BYTES: Final = 64 * 1024


class FaultProxy:
    """Forwards connections to `target`. Owner: the test, which uses it as an async context manager.

    The fields may be changed at any time; they hold for bytes that are forwarded from then on.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        """Where to forward to; a later value holds for new connections (a broker that moved)."""
        self.delay_s = 0.0
        """Every chunk is held back this long."""
        self.cut_after_bytes: int | None = None
        """Reset a connection once one direction of it has carried so many bytes."""
        self.refuse = False
        """Reset new connections at once."""
        self.forwarded_bytes = 0
        self.accepted = 0
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server: asyncio.Server | None = None
        self._address = HostPort("127.0.0.1", 0)
        self._links: dict[_Link, asyncio.Task[None]] = {}

    @property
    def url(self) -> str:
        """Where clients connect to; stays the same when the proxy is stopped and started again."""
        return join_host_port("tcp", *self._address)

    @property
    def open_connections(self) -> int:
        """How many connections pass through now."""
        return len(self._links)

    async def start(self) -> None:
        """Accept connections, at the same address as before if there was one."""
        self._server = await asyncio.start_server(self._accept, *self._address)
        self._address = HostPort(*self._server.sockets[0].getsockname()[:2])

    async def stop(self) -> None:
        """Accept no more and reset every connection. May be repeated."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._flowing.set()
        tasks = list(self._links.values())
        self.drop()
        if tasks:
            await asyncio.wait(tasks)

    def stall(self) -> None:
        """Forward nothing until `resume`; the connections stay open."""
        self._flowing.clear()

    def resume(self) -> None:
        """Forward again, nothing lost."""
        self._flowing.set()

    def drop(self) -> None:
        """Reset every connection that passes through now."""
        for link in list(self._links):
            link.reset()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        link = _Link(writer)
        self._links[link] = task
        try:
            if self.refuse:
                link.reset()
                return
            host, port = parse_host_port(self.target)
            try:
                far_reader, far_writer = await asyncio.open_connection(host, port)
            except OSError:
                link.reset()
                return
            link.writers.append(far_writer)
            if link.was_reset:  # meanwhile
                link.reset()
                return
            there = asyncio.ensure_future(self._forward(link, reader, far_writer))
            back = asyncio.ensure_future(self._forward(link, far_reader, writer))
            link.tasks += (there, back)
            await asyncio.wait((there, back))
        finally:
            del self._links[link]
            await link.finish()

    async def _forward(
        self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        carried = 0
        try:
            while chunk := await reader.read(_CHUNK_BYTES):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                await self._flowing.wait()
                cut = self.cut_after_bytes
                if cut is not None and carried + len(chunk) >= cut:
                    writer.write(chunk[: max(0, cut - carried)])
                    await writer.drain()
                    link.reset()
                    return
                carried += len(chunk)
                self.forwarded_bytes += len(chunk)
                writer.write(chunk)
                await writer.drain()
            await self._flowing.wait()
            writer.write_eof()
        except OSError:
            link.reset()


class _Link:
    """One connection through the proxy: two sockets that end together."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writers = [writer]
        self.tasks: list[asyncio.Future[None]] = []
        self.was_reset = False

    def reset(self) -> None:
        """End both sockets with a reset, so that neither side takes it for a clean end."""
        self.was_reset = True
        for writer in self.writers:
            sock = writer.get_extra_info("socket")
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        for task in self.tasks:
            if task is not asyncio.current_task():
                task.cancel()

    async def finish(self) -> None:
        """Close both sockets and wait until they are."""
        for writer in self.writers:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
