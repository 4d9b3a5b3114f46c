"""shm:///absolute/path.sock: the RDMA data path between processes of one user on one host.

A connection costs, with the default limits: one mapping of 10 MiB shared and one of 1 MiB of private address
space, of which pages are taken when first touched: about 0.3 MiB once both sides have sent `window` small
messages, and what the largest rendezvous in flight needed, until the connection rests or ends. Each side holds
four descriptors (socket, two eventfds, and the one that Python keeps for a mapping).
"""

from __future__ import annotations

import socket
from typing import ClassVar

from frieda.transports.base import Connection, Listener, Transport, TransportRuntime
from frieda.transports.rdma.connection import RdmaShare
from frieda.transports.rdma.endpoint import MakeReceiver, adopt, connecting, offered_limits
from frieda.transports.rdma.link import LinkListener
from frieda.transports.shm import handshake, socket_file
from frieda.transports.shm.provider import ShmProvider
from frieda.transports.shm.socket_file import SocketFile


class ShmTransport(Transport):
    """Shared memory, brought up over a Unix socket. One for each event loop."""

    scheme = "shm"
    ordered: ClassVar[bool] = False

    def __init__(self, runtime: TransportRuntime) -> None:
        super().__init__(runtime)
        self._share = RdmaShare(runtime)
        self._provider = ShmProvider(runtime)
        self._limits = offered_limits(runtime)

    async def connect(
        self, url: str, make_receiver: MakeReceiver, *, timeout_s: float = 10.0
    ) -> Connection:
        async with connecting(url, timeout_s):
            sock = await socket_file.connect(url)
            pair = await handshake.connect(self._provider, sock, url, self._limits)
        return adopt(pair, self._share, make_receiver)

    async def listen(self, url: str, make_receiver: MakeReceiver) -> Listener:
        file = await SocketFile.listen(url, self.runtime.limits.backlog)

        async def accept(sock: socket.socket, _: object) -> None:
            pair = await handshake.accept(self._provider, sock, url, self._limits)
            adopt(pair, self._share, make_receiver)

        return ShmListener(url, file, LinkListener([file.sock], url, accept))


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
