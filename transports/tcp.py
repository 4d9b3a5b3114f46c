"""tcp://host:port.

Reading goes through the loop's own transport (asyncio.BufferedProtocol): uvloop and asyncio both ask for a
buffer, receive into it and report it without anything in between (uvloop/handles/stream.pyx,
__uv_stream_buffered_alloc to __uv_stream_buffered_on_read, called in pairs by libuv's uv__read), which is what
lets all connections share one. Writing goes past it, straight to the socket: a write that returns has been
taken by the kernel, so a lease can go back at that moment, while what is handed to `transport.write` is held
until a callback that does not say which buffers it is about (uvloop), or is copied (asyncio before 3.12).
Where the socket is full, a duplicate of its descriptor is watched for room, because a loop does not let the
descriptor of a transport be watched.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

from frieda.errors import ConnectError
from frieda.transports.address import join_host_port, parse_host_port
from frieda.transports.base import (
    Bytes,
    Connection,
    Listener,
    Receiver,
    Transport,
    TransportRuntime,
)
from frieda.transports.sockets import connected_socket, listening_sockets
from frieda.transports.stream import StreamConnection, StreamShare

MakeReceiver = Callable[[Connection], Receiver]


class TcpTransport(Transport):
    """TCP with Nagle's algorithm off. One for each event loop."""

    scheme = "tcp"

    def __init__(self, runtime: TransportRuntime) -> None:
        super().__init__(runtime)
        self._share = StreamShare(runtime)

    async def connect(
        self, url: str, make_receiver: MakeReceiver, *, timeout_s: float = 10.0
    ) -> Connection:
        host, port = parse_host_port(url)
        if port == 0:
            raise ConnectError(f"{url}: port 0 cannot be connected to")
        try:
            async with asyncio.timeout(timeout_s):
                sock = await connected_socket(url, host, port)
                return await self._adopt(url, sock, make_receiver)
        except TimeoutError:
            raise ConnectError(f"{url}: no connection within {timeout_s:g} s") from None

    async def listen(self, url: str, make_receiver: MakeReceiver) -> Listener:
        host, port = parse_host_port(url)
        loop = asyncio.get_running_loop()
        sockets = await listening_sockets(url, host, port, self.runtime.limits.backlog)
        real_port = sockets[0].getsockname()[1]
        servers: list[asyncio.Server] = []
        try:
            for sock in sockets:
                server = await loop.create_server(
                    lambda: _TcpWire(self._share, make_receiver),
                    sock=sock,
                    backlog=self.runtime.limits.backlog,
                )
                servers.append(server)
        except BaseException:
            for server in servers:
                server.close()
            for sock in sockets[len(servers) :]:
                sock.close()
            raise
        return TcpListener(join_host_port(self.scheme, host, real_port), tuple(servers))

    async def _adopt(
        self, url: str, sock: socket.socket, make_receiver: MakeReceiver
    ) -> Connection:
        loop = asyncio.get_running_loop()
        wire = _TcpWire(self._share, make_receiver, connecting=True)
        try:
            await loop.create_connection(lambda: wire, sock=sock)
        except BaseException:
            wire.connection.abort()
            sock.close()
            raise
        if wire.lost and sock.fileno() >= 0:
            # uvloop closed the descriptor before it tied `sock` to the transport, so that closing `sock`
            # would close whoever has that number next (uvloop/loop.pyx, create_connection).
            sock.detach()
        if wire.gone is not None:
            raise ConnectError(f"{url}: the connection ended at once: {wire.gone}") from wire.gone
        if wire.failure is not None:
            raise wire.failure
        return wire.connection


class TcpListener(Listener):
    """The listening sockets of one URL."""

    def __init__(self, url: str, servers: tuple[asyncio.Server, ...]) -> None:
        self._url = url
        self._servers = servers

    @property
    def url(self) -> str:
        return self._url

    async def close(self) -> None:
        # Not wait_closed(): that waits for the connections too, and they live on.
        for server in self._servers:
            server.close()


class _TcpWire(asyncio.BufferedProtocol):
    """One socket as a `Wire`, and the protocol that its loop calls."""

    def __init__(
        self, share: StreamShare, make_receiver: MakeReceiver, *, connecting: bool = False
    ) -> None:
        self.failure: Exception | None = None
        """What make_receiver raised, for a connection that `connect` waits for."""
        self.gone: OSError | None = None
        """Why make_receiver was not even asked."""
        self.write: Callable[[Bytes], int] = _not_connected
        self.writev: Callable[[Sequence[Bytes]], int] = _not_connected
        self.lost = False
        self._make_receiver: MakeReceiver | None = make_receiver
        self._connecting = connecting
        self._transport: asyncio.Transport | None = None
        self._fd = -1
        self._watched_fd = -1
        self.connection = StreamConnection(self, share)
        # The loop calls these for every read, so nothing stands between.
        self.get_buffer = self.connection.assembler.get_buffer  # type: ignore[method-assign,assignment]
        self.buffer_updated = self.connection.bytes_arrived  # type: ignore[method-assign,assignment]

    # ---- asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        sock: socket.socket = transport.get_extra_info("socket")
        self._fd = sock.fileno()
        self.write = partial(os.write, self._fd)
        self.writev = partial(os.writev, self._fd)
        make_receiver, self._make_receiver = self._make_receiver, None
        assert make_receiver is not None
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            host, port = sock.getpeername()[:2]
        except OSError as error:  # the peer is gone already
            self.connection.abort()
            self.gone = error
            return
        try:
            self.connection.wire_ready(join_host_port("tcp", host, port), make_receiver)
        except Exception as error:
            self.connection.abort()
            if not self._connecting:
                raise  # to the loop's exception handler: nobody else can be told
            self.failure = error

    def eof_received(self) -> None:
        self.connection.peer_ended()

    def connection_lost(self, exc: Exception | None) -> None:
        self.watch_writable(None)
        self.write = self.writev = _not_connected  # the descriptor may soon belong to someone else
        self._transport = None
        self._fd = -1
        self.lost = True
        del (
            self.get_buffer,
            self.buffer_updated,
        )  # they tie this object and the connection into a cycle
        self.connection.wire_lost(exc)

    # ---- Wire

    def watch_writable(self, callback: Callable[[], None] | None) -> None:
        loop = asyncio.get_running_loop()
        if self._watched_fd >= 0:
            loop.remove_writer(self._watched_fd)
            os.close(self._watched_fd)
            self._watched_fd = -1
        if callback is not None and self._fd >= 0:
            self._watched_fd = os.dup(self._fd)
            loop.add_writer(self._watched_fd, callback)

    def set_reading(self, reading: bool) -> None:
        if self._transport is not None:
            if reading:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def end_output(self) -> None:
        if self._transport is not None:
            self._transport.write_eof()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _not_connected(_data: object, /) -> int:
    raise BrokenPipeError(errno.EPIPE, "not connected")
