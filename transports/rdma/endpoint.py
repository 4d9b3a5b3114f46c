"""How a transport over queue pairs connects and accepts, whatever the device: limits, errors, the connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from frieda.errors import ConnectError, ProtocolError, TransportError
from frieda.transports.base import Connection, Receiver, TransportRuntime
from frieda.transports.rdma.bootstrap import check_limits
from frieda.transports.rdma.connection import RdmaConnection, RdmaShare
from frieda.transports.rdma.provider import ChannelLimits, QueuePair

MakeReceiver = Callable[[Connection], Receiver]


def offered_limits(runtime: TransportRuntime) -> ChannelLimits:
    """What this side offers in a bootstrap. Raises ConfigError for what cannot be agreed on."""
    return check_limits(
        ChannelLimits(
            slot_bytes=runtime.rdma.slot_bytes,
            window=runtime.rdma.window,
            source_bytes=runtime.rdma.source_bytes,
            max_message_bytes=runtime.limits.max_message_bytes,
        )
    )


@asynccontextmanager
async def connecting(url: str, timeout_s: float) -> AsyncIterator[None]:
    """Whatever goes wrong inside, or takes longer, is a ConnectError that names the url."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError:
        raise ConnectError(f"{url}: no connection within {timeout_s:g} s") from None
    except (TransportError, ProtocolError) as error:
        if isinstance(error, ConnectError) and url in str(error):
            raise
        raise ConnectError(f"{url}: cannot connect: {error}") from error


def adopt(queue_pair: QueuePair, share: RdmaShare, make_receiver: MakeReceiver) -> Connection:
    """The connection over a queue pair whose bootstrap is done; the queue pair is closed when there is none.

    Raises what `make_receiver` raises, and ConfigError for limits that no channel works with.
    """
    try:
        connection = RdmaConnection(queue_pair, share)
    except BaseException:
        queue_pair.close()
        raise
    connection.ready(make_receiver)
    return connection
