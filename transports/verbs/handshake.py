"""How a verbs connection comes up over its TCP socket, in the words of `rdma.bootstrap`.

    client                                  broker
    INIT
    Hello(limits, where its queue pair is) ->
                                            takes memory, posts receives, INIT, RTR, RTS
                                   <-       Hello(agreed limits, where its queue pair is)
    takes memory, posts receives, RTR, RTS
    Ready                          ->
                                   <-       Ready

So each side's receives are posted before the other can send. Each step has its deadline. Whatever goes wrong, and when
this is cancelled, all that was made is given back.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

from frieda.errors import ConfigError, FriedaError
from frieda.transports.rdma.bootstrap import (
    Hello,
    Ready,
    Refused,
    agree,
    check_agreed,
    check_hello,
)
from frieda.transports.rdma.link import Link
from frieda.transports.rdma.provider import ChannelLimits
from frieda.transports.verbs.bring_up import PeerAddress
from frieda.transports.verbs.completion import VerbsProvider
from frieda.transports.verbs.queue_pair import VerbsQueuePair

PROVIDER = "verbs"


async def connect(provider: VerbsProvider, link: Link, ours: ChannelLimits) -> VerbsQueuePair:
    """The client's side, on a connected link, which is the queue pair's from here on.

    Raises ConnectError (refused), RemoteProtocolError, BrokenError, TransportError, ConfigError (no memory).
    """
    with ExitStack() as undo:
        undo.callback(link.close)
        ours = _possible(provider, ours)
        pair = VerbsQueuePair(provider, ours)
        undo.callback(pair.close)
        await link.send(Hello(provider=PROVIDER, limits=ours, fields=pair.fields))
        hello = await link.expect(Hello)
        try:
            check_hello(hello, PROVIDER)
            check_agreed(ours, hello.limits)
            peer = PeerAddress.from_fields(hello.fields)
            pair.prepare(hello.limits)
            pair.connect_to(peer)
        except FriedaError as error:
            await link.send(Refused(why=str(error)))
            raise
        await link.send(Ready())
        await link.expect(Ready)
        pair.attach(link)
        undo.pop_all()
        return pair


async def accept(provider: VerbsProvider, link: Link, ours: ChannelLimits) -> VerbsQueuePair:
    """The broker's side, on an accepted link, which is the queue pair's from here on. Errors as above."""
    with ExitStack() as undo:
        undo.callback(link.close)
        hello = await link.expect(Hello)
        try:
            check_hello(hello, PROVIDER)
            peer = PeerAddress.from_fields(hello.fields)
            agreed = agree(_possible(provider, ours), hello.limits)
            pair = VerbsQueuePair(provider, agreed)
            undo.callback(pair.close)
            pair.prepare(agreed)
            pair.connect_to(peer)
        except FriedaError as error:
            await link.send(Refused(why=str(error)))
            raise
        await link.send(Hello(provider=PROVIDER, limits=agreed, fields=pair.fields))
        await link.expect(Ready)
        await link.send(Ready())
        pair.attach(link)
        undo.pop_all()
        return pair


def _possible(provider: VerbsProvider, limits: ChannelLimits) -> ChannelLimits:
    """`limits`, or less where the device can do less."""
    device = provider.attributes
    reads = min(limits.max_reads, device.max_qp_rd_atom, device.max_qp_init_rd_atom)
    if reads < 1:
        raise ConfigError(f"the device {provider.route.device} can do no RDMA READ")
    return replace(limits, max_reads=reads)
