"""verbs://host:port[?device=..&port=..&gid=..]: the RDMA data path between hosts, through libibverbs.

The host and port are those of a TCP socket, over which a connection comes up and by whose end a peer's death is
noticed; the data goes past it. Both sides must reach each other on the device too: which one that is, `choice` says.

A connection pins, with the default limits, 1 MiB of receive slots and 1.5 MiB of send slots, and 4 MiB of sources
from its first large message on; a process pins its buffer pool once for each device in use. A device stays open until
the buffer pool is closed.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import ClassVar, Final

from frieda.errors import ConnectError
from frieda.transports.address import join_host_port
from frieda.transports.base import Connection, Listener, Transport, TransportRuntime
from frieda.transports.rdma.connection import RdmaShare
from frieda.transports.rdma.endpoint import MakeReceiver, adopt, connecting, offered_limits
from frieda.transports.rdma.link import Link, LinkListener
from frieda.transports.rdma.provider import ChannelLimits
from frieda.transports.sockets import connected_socket, listening_sockets
from frieda.transports.verbs import handshake
from frieda.transports.verbs.binding import load
from frieda.transports.verbs.choice import Wish, choose, fits, parse_url
from frieda.transports.verbs.completion import VerbsProvider
from frieda.transports.verbs.devices import read_devices
from frieda.transports.verbs.queue_pair import VerbsQueuePair

Handshake = Callable[[VerbsProvider, Link, ChannelLimits], Awaitable[VerbsQueuePair]]

_ANY: Final = ("0.0.0.0", "::")


class VerbsTransport(Transport):
    """RDMA through pyverbs. One for each event loop, made while it runs. Raises MissingDependencyError."""

    scheme = "verbs"
    ordered: ClassVar[bool] = False

    def __init__(self, runtime: TransportRuntime) -> None:
        super().__init__(runtime)
        self._verbs = load()
        self._share = RdmaShare(runtime)
        self._providers: list[VerbsProvider] = []
        self._limits = offered_limits(runtime)

    async def connect(
        self, url: str, make_receiver: MakeReceiver, *, timeout_s: float = 10.0
    ) -> Connection:
        (host, port), wish = parse_url(url)
        if port == 0:
            raise ConnectError(f"{url}: port 0 cannot be connected to")
        async with connecting(url, timeout_s):
            sock = await connected_socket(url, host, port)
            pair = await self._shake_hands(handshake.connect, sock, wish, url)
        return adopt(pair, self._share, make_receiver)

    async def listen(self, url: str, make_receiver: MakeReceiver) -> Listener:
        (host, port), wish = parse_url(url)
        sockets = await listening_sockets(url, host, port, self.runtime.limits.backlog)
        try:
            # Held by the listener, so that the pool is registered once, and a host that cannot do it says so now.
            provider = self._provider(wish, _local_address(sockets[0]), url).hold()
        except BaseException:
            for sock in sockets:
                sock.close()
            raise

        async def accept(sock: socket.socket, _: object) -> None:
            pair = await self._shake_hands(handshake.accept, sock, wish, url)
            adopt(pair, self._share, make_receiver)

        real_port = sockets[0].getsockname()[1]
        links = LinkListener(sockets, url, accept)
        return VerbsListener(join_host_port(self.scheme, host, real_port), provider, links)

    async def _shake_hands(
        self, handshake_of_side: Handshake, sock: socket.socket, wish: Wish, url: str
    ) -> VerbsQueuePair:
        """A queue pair that is up, on `sock`, which is given to it or closed."""
        try:
            provider = self._provider(wish, _local_address(sock), url)
            link = _link(sock, url)
        except BaseException:
            sock.close()
            raise
        provider.hold()
        try:
            return await handshake_of_side(provider, link, self._limits)
        finally:
            provider.let_go()

    def _provider(self, wish: Wish, local_address: str | None, url: str) -> VerbsProvider:
        """The device for this connection, open. Raises ConfigError and TransportError."""
        self._providers = [each for each in self._providers if not each.closed]
        for each in self._providers:
            if fits(each.route, wish, local_address):
                return each
        route = choose(read_devices(self._verbs), wish, local_address, url)
        for each in self._providers:
            if (each.route.device, each.route.port.number, each.route.gid) == (
                route.device,
                route.port.number,
                route.gid,
            ):
                return each
        provider = VerbsProvider(self._verbs, self.runtime, route)
        self._providers.append(provider)
        return provider


class VerbsListener(Listener):
    """The bootstrap sockets of one URL, and a hold on the device."""

    def __init__(self, url: str, provider: VerbsProvider, links: LinkListener) -> None:
        self._url = url
        self._provider: VerbsProvider | None = provider
        self._links = links

    @property
    def url(self) -> str:
        return self._url

    async def close(self) -> None:
        await self._links.close()
        provider, self._provider = self._provider, None
        if provider is not None:
            provider.let_go()


def _link(sock: socket.socket, url: str) -> Link:
    """The link on a connected socket. Raises TransportError when the peer is gone already."""
    try:
        host, port = sock.getpeername()[:2]
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    except OSError as error:
        raise ConnectError(f"{url}: the peer is gone: {error.strerror or error}") from error
    return Link(sock, join_host_port("verbs", host, port))


def _local_address(sock: socket.socket) -> str | None:
    address: str = sock.getsockname()[0]
    return None if address in _ANY else address
