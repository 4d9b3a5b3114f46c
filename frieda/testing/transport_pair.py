"""A listener and its clients on one loop, with receivers that remember, for tests of anything on a transport."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

from frieda.config import PollingMode
from frieda.errors import TransportError
from frieda.transports.base import (
    ORDERED_BYTES,
    Connection,
    Listener,
    Transport,
    TransportLimits,
    TransportRuntime,
)
from frieda.transports.buffers import BufferPool, Lease
from frieda.transports.polling import PollingEngine
from frieda.transports.registry import open_transport

KIB = 1024
TEST_BUFFERS = {4 * KIB: 64, 64 * KIB: 32, 256 * KIB: 16, 1024 * KIB: 8}
TEST_LIMITS = TransportLimits(
    max_message_bytes=1024 * KIB,
    high_water_bytes=256 * KIB,
    hard_limit_bytes=4 * 1024 * KIB,
    message_timeout_s=5.0,
    write_timeout_s=5.0,
)


async def eventually(condition: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
    """Let the loop run until `condition` holds. Raises AssertionError naming `what` after `timeout_s`."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"not within {timeout_s:g} s: {what}"
        await asyncio.sleep(0.001)


async def turns(count: int = 20) -> None:
    """Let the loop run that many times, each with a look at its sockets."""
    for _ in range(count):
        await asyncio.sleep(0)


def open_descriptors() -> int:
    """How many file descriptors this process has, but for /dev/null (libuv keeps one of those in reserve)."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the descriptor of the listing itself
            count += os.readlink(f"/proc/self/fd/{name}") != os.devnull
    return count


class Recorder:
    """A receiver that remembers everything; `on_message` may do more, also raise."""

    def __init__(
        self,
        connection: Connection,
        on_message: Callable[[Recorder, memoryview, Lease | None], None] | None = None,
    ) -> None:
        self.connection = connection
        self.messages: list[bytes] = []
        self.paused = 0
        self.resumed = 0
        self.losses: list[TransportError | None] = []
        self.on_message = on_message

    def message_received(self, message: memoryview, lease: Lease | None) -> None:
        assert not self.losses, "a message was delivered after connection_lost"
        self.messages.append(bytes(message))
        if self.on_message is not None:
            self.on_message(self, message, lease)

    def sending_paused(self) -> None:
        self.paused += 1

    def sending_resumed(self) -> None:
        self.resumed += 1

    def connection_lost(self, error: TransportError | None) -> None:
        self.losses.append(error)

    async def received(self, count: int, timeout_s: float = 60.0) -> list[bytes]:
        """The messages, once there are `count`."""
        await eventually(
            lambda: len(self.messages) >= count or bool(self.losses), f"{count} messages", timeout_s
        )
        assert len(self.messages) >= count, (
            f"lost after {len(self.messages)} messages: {self.losses}"
        )
        return self.messages

    async def lost(self, timeout_s: float = 60.0) -> TransportError | None:
        """What connection_lost was called with; fails when it was called twice."""
        await eventually(lambda: bool(self.losses), "connection_lost", timeout_s)
        await turns()
        assert len(self.losses) == 1, f"connection_lost was called {len(self.losses)} times"
        return self.losses[0]


class TransportPair:
    """A server and a client transport with a pool each, and every receiver they made."""

    def __init__(self, server: Transport, client: Transport) -> None:
        self.server = server
        self.client = client
        self.listener: Listener
        self.accepted: list[Recorder] = []
        self.connected: list[Recorder] = []
        self.on_message: Callable[[Recorder, memoryview, Lease | None], None] | None = None
        """For the receivers that the server makes from now on."""

    @property
    def server_pool(self) -> BufferPool:
        return self.server.runtime.pool

    @property
    def client_pool(self) -> BufferPool:
        return self.client.runtime.pool

    def check_arrival(self, arrived: list[bytes], sent: list[bytes]) -> None:
        """Each message once, and as much of their order kept as this transport promises."""
        if self.client.ordered:
            assert arrived == sent
            return
        assert Counter(arrived) == Counter(sent)
        in_order = [
            [each for each in some if len(each) <= ORDERED_BYTES] for some in (arrived, sent)
        ]
        assert in_order[0] == in_order[1]

    async def listen(self, url: str) -> None:
        """Listen and remember the listener."""
        self.listener = await self.server.listen(url, self._accept)

    async def connect(self) -> tuple[Recorder, Recorder]:
        """A new connection: the client's receiver and the server's."""
        count = len(self.accepted)
        await self.client.connect(self.listener.url, self.make_client)
        await eventually(lambda: len(self.accepted) > count, "the accepted connection")
        return self.connected[-1], self.accepted[-1]

    def make_client(self, connection: Connection) -> Recorder:
        """A receiver for a client's connection."""
        self.connected.append(Recorder(connection))
        return self.connected[-1]

    def _accept(self, connection: Connection) -> Recorder:
        self.accepted.append(Recorder(connection, self.on_message))
        return self.accepted[-1]


def make_runtime(
    limits: TransportLimits = TEST_LIMITS,
    buffers: dict[int, int] | None = None,
    polling: PollingMode = "event",
) -> TransportRuntime:
    """A runtime with small bounds and a loop that sleeps, or not. Close its engine and its pool."""
    engine = PollingEngine(polling)
    engine.start()
    return TransportRuntime(
        pool=BufferPool(buffers or TEST_BUFFERS, trace=True), engine=engine, limits=limits
    )


@asynccontextmanager
async def transport_pair(
    url: str,
    *,
    open_with: Callable[[str, TransportRuntime], Transport] = open_transport,
    buffers: dict[int, int] | None = None,
    polling: PollingMode = "event",
    **limits: float,
) -> AsyncIterator[TransportPair]:
    """A pair that listens at `url`; `limits` are fields of TransportLimits.

    At the end every connection is aborted, and then nothing may be left: no lease, no descriptor, and every
    receiver was told of its end exactly once.
    """
    descriptors = open_descriptors()
    bounds = replace(TEST_LIMITS, **limits)  # type: ignore[arg-type]
    server, client = (make_runtime(bounds, buffers, polling) for _ in range(2))
    pair = TransportPair(open_with(url, server), open_with(url, client))
    await pair.listen(url)
    try:
        yield pair
    finally:
        await pair.listener.close()
        for recorder in (*pair.accepted, *pair.connected):
            recorder.connection.abort()
        everyone = [*pair.accepted, *pair.connected]
        await eventually(lambda: all(each.losses for each in everyone), "connection_lost for all")
        await turns()
        leaks: list[str] = []
        for runtime in (server, client):
            runtime.engine.close()
            leaks += runtime.pool.close()  # a device that registered the pool goes with it
        await eventually(lambda: open_descriptors() <= descriptors, "descriptors closed")
    assert [len(each.losses) for each in everyone] == [1] * len(everyone)
    assert leaks == []
