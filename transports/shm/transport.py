"""shm:///absolute/path.sock: the RDMA data path between processes of one user on one host.

A connection costs, with the default limits: one mapping of 10 MiB shared and one of 1 MiB of private address
space, of which pages are taken when first touched: about 0.3 MiB once both sides have sent `window` small
messages, and what the largest rendezvous in flight needed, until the connection rests or ends. Each side holds
four descriptors (socket, two eventfds, and the one that Python keeps for a mapping).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import ClassVar

from frieda.errors import ConnectError, ProtocolError, TransportError
from frieda.transports.base import Connection, Listener, Receiver, Transport, TransportRuntime
from frieda.transports.rdma.bootstrap import check_limits
from frieda.transports.rdma.connection import RdmaConnection, RdmaShare
from frieda.transports.rdma.link import LinkListener
from frieda.transports.rdma.provider import ChannelLimits
from frieda.transports.shm import handshake, socket_file
from frieda.transports.shm.provider import ShmProvider
from frieda.transports.shm.queue_pair import ShmQueuePair
from frieda.transports.shm.socket_file import SocketFile

MakeReceiver = Callable[[Connection], Receiver]


class ShmTransport(Transport):
    """Shared memory, brought up over a Unix socket. One for each event loop."""

    scheme = "shm"
    ordered: ClassVar[bool] = False

    def __init__(self, runtime: TransportRuntime) -> None:
        super().__init__(runtime)
        self._share = RdmaShare(runtime)
        self._provider = ShmProvider(runtime)
        self._limits = check_limits(
            ChannelLimits(
                slot_bytes=runtime.rdma.slot_bytes,
                window=runtime.rdma.window,
                source_bytes=runtime.rdma.source_bytes,
                max_message_bytes=runtime.limits.max_message_bytes,
            )
        )

    async def connect(
        self, url: str, make_receiver: MakeReceiver, *, timeout_s: float = 10.0
    ) -> Connection:
        try:
            async with asyncio.timeout(timeout_s):
                sock = await socket_file.connect(url)
                pair = await handshake.connect(self._provider, sock, url, self._limits)
        except TimeoutError:
            raise ConnectError(f"{url}: no connection within {timeout_s:g} s") from None
        except (TransportError, ProtocolError) as error:
            if isinstance(error, ConnectError) and url in str(error):
                raise
            raise ConnectError(f"{url}: cannot connect: {error}") from error
        return self._adopt(pair, make_receiver)

    async def listen(self, url: str, make_receiver: MakeReceiver) -> Listener:
        file = await SocketFile.listen(url, self.runtime.limits.backlog)

        async def accept(sock: socket.socket, _: object) -> None:
            pair = await handshake.accept(self._provider, sock, url, self._limits)
            self._adopt(pair, make_receiver)

        return ShmListener(url, file, LinkListener([file.sock], url, accept))

    def _adopt(self, pair: ShmQueuePair, make_receiver: MakeReceiver) -> Connection:
        try:
            connection = RdmaConnection(pair, self._share)
        except BaseException:
            pair.close()
            raise
        connection.ready(make_receiver)
        return connection


class ShmListener(Listener):
    """A socket file that accepts connections until it is closed, and is removed then."""

    def __init__(self, url: str, file: SocketFile, links: LinkListener) -> None:
        self._url = url
        self._file = file
        self._links = links

    @property
    def url(self) -> str:
        return self._url

    async def close(self) -> None:
        self._file.remove()
        await self._links.close()
