"""How an shm connection comes up, over its Unix socket: the words of `rdma.bootstrap` and three descriptors.

    client                                  broker
    Hello(limits)                  ->
                                   <-       Hello(agreed limits, key) + memory, client's bell, broker's bell
    (checks the seals and the size, maps)
    Ready                          ->
                                   <-       Ready

Each step has its deadline. Whatever goes wrong, and when this is cancelled, all that was made is given back.
"""

from __future__ import annotations

import os
import secrets
import socket
from contextlib import ExitStack

from frieda.errors import FriedaError, RemoteProtocolError
from frieda.transports.rdma.bootstrap import (
    Hello,
    Ready,
    Refused,
    agree,
    check_agreed,
    check_hello,
    number_field,
)
from frieda.transports.rdma.link import Link
from frieda.transports.rdma.provider import ChannelLimits
from frieda.transports.shm.layout import Layout
from frieda.transports.shm.provider import ShmProvider
from frieda.transports.shm.queue_pair import ShmQueuePair
from frieda.transports.shm.region import check_bell, create_region, make_bell, open_region
from frieda.transports.shm.socket_file import peer_credentials

PROVIDER = "shm"
MAX_KEY = 2**32 - 2


async def connect(
    provider: ShmProvider, sock: socket.socket, url: str, ours: ChannelLimits
) -> ShmQueuePair:
    """The client's side, on a connected socket, which is the queue pair's from here on.

    Raises ConnectError (not our user, or refused), RemoteProtocolError, BrokenError, TransportError.
    """
    with ExitStack() as undo:
        undo.callback(sock.close)
        broker = peer_credentials(sock)
        link = Link(sock, f"{url} (process {broker.pid})")
        await link.send(Hello(provider=PROVIDER, limits=ours))
        hello, descriptors = await link.receive(most_descriptors=3)
        for each in descriptors:
            undo.callback(os.close, each)
        if not isinstance(hello, Hello) or len(descriptors) != 3:
            raise RemoteProtocolError(
                f"{link.peer} sent {type(hello).__name__} with {len(descriptors)} descriptors "
                "where the handshake wants Hello with 3"
            )
        check_hello(hello, PROVIDER)
        check_agreed(ours, hello.limits)
        key = number_field(hello.fields, "key", MAX_KEY)
        memory, own_bell, peer_bell = descriptors
        check_bell(own_bell)
        check_bell(peer_bell)
        region = open_region(memory, Layout.of(hello.limits).size_bytes)
        undo.callback(region.close)
        await link.send(Ready())
        await link.expect(Ready)
        pair = ShmQueuePair(
            provider,
            link,
            region,
            hello.limits,
            side=0,
            own_bell=own_bell,
            peer_bell=peer_bell,
            key=key,
        )
        undo.pop_all()
        os.close(memory)  # the mapping stays
        return pair


async def accept(
    provider: ShmProvider, sock: socket.socket, url: str, ours: ChannelLimits
) -> ShmQueuePair:
    """The broker's side, on an accepted socket, which is the queue pair's from here on. Errors as above."""
    with ExitStack() as undo:
        undo.callback(sock.close)
        client = peer_credentials(sock)
        link = Link(sock, f"{url} (client process {client.pid})")
        hello = await link.expect(Hello)
        try:
            check_hello(hello, PROVIDER)
            agreed = agree(ours, hello.limits)
            region, memory = create_region(Layout.of(agreed).size_bytes)
            undo.callback(region.close)
            undo.callback(os.close, memory)
            client_bell = make_bell()
            undo.callback(os.close, client_bell)
            own_bell = make_bell()
            undo.callback(os.close, own_bell)
        except FriedaError as error:
            await link.send(Refused(why=str(error)))
            raise
        key = secrets.randbelow(MAX_KEY + 1)
        answer = Hello(provider=PROVIDER, limits=agreed, fields={"key": key})
        await link.send(answer, (memory, client_bell, own_bell))
        await link.expect(Ready)
        await link.send(Ready())
        pair = ShmQueuePair(
            provider,
            link,
            region,
            agreed,
            side=1,
            own_bell=own_bell,
            peer_bell=client_bell,
            key=key,
        )
        undo.pop_all()
        os.close(memory)
        return pair
