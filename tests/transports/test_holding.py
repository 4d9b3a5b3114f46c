"""Held sends: when they leave, and that they leave together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from frieda.testing.transport_pair import make_runtime
from frieda.transports.base import HELD_BYTES, Connection, Listener, TransportRuntime
from frieda.transports.holding import HeldSends
from frieda.transports.registry import open_transport

LONG_S = 60.0
numbers = count()


class Collector:
    """The receiver of either end."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[bytes] = asyncio.Queue()

    def message_received(self, message: memoryview, lease: object) -> None:
        self.messages.put_nowait(bytes(message))

    def sending_paused(self) -> None: ...

    def sending_resumed(self) -> None: ...

    def connection_lost(self, error: object) -> None: ...


@pytest.fixture
async def runtime() -> AsyncIterator[TransportRuntime]:
    made = replace(make_runtime(), send_hold_s=LONG_S)
    yield made
    made.engine.close()
    assert made.pool.close() == ()


@pytest.fixture(params=["memory", "tcp", "shm"])
async def pair(
    request: pytest.FixtureRequest, runtime: TransportRuntime, tmp_path: Path
) -> AsyncIterator[tuple[Connection, Collector]]:
    """A connection that holds for a minute what it sends, and who gets it."""
    url = {
        "memory": f"memory://holding-{next(numbers)}",
        "tcp": "tcp://127.0.0.1:0",
        "shm": f"shm://{tmp_path}/x.sock",
    }[request.param]
    far = Collector()
    transport = open_transport(url, runtime)
    listener: Listener = await transport.listen(url, lambda _: far)
    near = await transport.connect(listener.url, lambda _: Collector())
    yield near, far
    await near.close()
    await listener.close()


async def test_what_is_held_leaves_once_a_buffers_worth_has_gathered(
    pair: tuple[Connection, Collector],
) -> None:
    near, far = pair
    part = bytes(HELD_BYTES // 4)
    for _ in range(3):
        near.send(b"head", part)
    for _ in range(20):
        await asyncio.sleep(0)
    assert far.messages.empty()
    assert near.queued_bytes >= 3 * len(part)
    near.send(b"head", part)
    async with asyncio.timeout(10):
        for _ in range(4):
            assert await far.messages.get() == b"head" + part
    assert near.queued_bytes == 0


async def test_what_is_held_leaves_before_an_orderly_end(
    pair: tuple[Connection, Collector],
) -> None:
    near, far = pair
    near.send(b"last words")
    await near.close()
    async with asyncio.timeout(10):
        assert await far.messages.get() == b"last words"


async def test_after_its_time_it_leaves_and_the_next_time_begins_with_the_next_message() -> None:
    let_go = asyncio.Event()
    held = HeldSends(0.001, let_go.set)
    for _ in range(2):
        let_go.clear()
        held.grew(1)
        held.grew(2)
        async with asyncio.timeout(10):
            await let_go.wait()


async def test_after_the_end_nothing_is_let_go() -> None:
    calls: list[None] = []
    held = HeldSends(0.0001, lambda: calls.append(None))
    held.grew(1)
    held.cancel()
    held.cancel()
    await asyncio.sleep(0.01)
    assert calls == []
