"""Clients that do not read, stall, idle, or are too many: bounded memory, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from struct import pack
from typing import Any
from urllib.parse import urlsplit

import pytest

from frieda.broker.server import Server
from frieda.protocol.client import request_head
from frieda.testing.batches import make_batch
from frieda.testing.brokers import BrokerProcess, running_server
from frieda.testing.conversation import (
    create_topic,
    eventually,
    fetch_of,
    fetch_values,
    health_of,
    produce,
    unharmed,
)
from frieda.testing.raw_client import raw_client
from frieda.wire.messages import (
    PROTOCOL_VERSION,
    HelloRequest,
    MetadataRequest,
    ProduceRequest,
)

HELLO = HelloRequest(PROTOCOL_VERSION, PROTOCOL_VERSION, "raw/1", "raw", 1 << 26)
WRITE_TIMEOUT_S = 1.0
HIGH_WATER_BYTES = 1 << 12
LARGEST_ANSWER_BYTES = 5 << 20


def framed(request: Any, correlation_id: int, body: bytes = b"") -> bytes:
    message = request_head(correlation_id, request) + body
    return pack(">I", len(message)) + message


@contextlib.asynccontextmanager
async def deaf_client(url: str) -> AsyncIterator[socket.socket]:
    """A connection that has said Hello and whose owner, who has little room for answers, never reads them."""
    address = urlsplit(url)
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, (address.hostname, address.port))
        await loop.sock_sendall(sock, framed(HELLO, 0))
        yield sock


def little_room(server: Server) -> None:
    """Let the kernel keep little of what the broker sends, so that small answers fill its queue soon."""
    for session in server._sessions:
        with socket.socket(fileno=os.dup(session.connection._wire._fd)) as sock:  # type: ignore[attr-defined]
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)


async def send_until_cut_off(sock: socket.socket, requests: bytes) -> int:
    """Send the same again and again, until the broker ends the connection; how many bytes went out."""
    loop = asyncio.get_running_loop()
    sent = 0
    with contextlib.suppress(ConnectionError):
        while True:
            await loop.sock_sendall(sock, requests)
            sent += len(requests)
    return sent


@pytest.mark.parametrize("what", ["large fetches", "long metadata", "produces"])
async def test_a_client_that_never_reads_is_held_within_bounds_and_then_cut_off(
    tmp_path: Path, what: str
) -> None:
    limits = {"write_timeout_s": WRITE_TIMEOUT_S, "high_water_bytes": HIGH_WATER_BYTES}
    async with (
        running_server(tmp_path, limits=limits, max_in_flight_requests=32) as server,
        unharmed(server),
        raw_client(server.urls[0]) as other,
    ):
        topic_id = await create_topic(other, "busy", 50)
        for _ in range(4):
            await produce(other, topic_id, bytes(1 << 20))
        request, body = {
            "large fetches": (fetch_of(topic_id, max_bytes=4 << 20), b""),
            "long metadata": (MetadataRequest(None, False), b""),
            "produces": (ProduceRequest(topic_id, 1, 1, 1000), bytes(make_batch([b"x"]))),
        }[what]
        broken = server.broker.counters.broken_connections
        async with deaf_client(server.urls[0]) as sock:
            await eventually(lambda: server.connections == 2, "the deaf client is accepted")
            little_room(server)
            sending = asyncio.ensure_future(
                send_until_cut_off(sock, framed(request, 1, body) * 100)
            )
            served = most_queued = most_in_flight = most_buffers = 0
            async with asyncio.timeout(60):
                while not sending.done():
                    # The other client is served all the while.
                    await produce(other, topic_id, b"y", partition=2)
                    served += 1
                    for session in server._sessions:
                        most_queued = max(most_queued, session.connection.queued_bytes)
                        most_in_flight = max(most_in_flight, session.in_flight)
                    most_buffers = max(most_buffers, server.runtime.pool.in_use)
            assert served > 4
            assert HIGH_WATER_BYTES < most_queued < HIGH_WATER_BYTES + 2 * LARGEST_ANSWER_BYTES
            assert most_in_flight <= 32
            assert most_buffers <= 4
            assert sending.result() < 64 << 20, "the broker took requests without end"
        assert server.broker.counters.broken_connections == broken + 1
        assert len(await fetch_values(other, topic_id, partition=2)) == served


@pytest.mark.parametrize(
    "begun",
    [b"\0", b"\0\0\0", pack(">I", 100), pack(">I", 100) + b"\0\0\0\x30\x93", pack(">I", 1 << 20)],
    ids=["1 byte", "3 bytes of a size", "a size", "half a header", "a size of 1 MiB"],
)
async def test_a_client_that_stalls_in_a_message_is_cut_off_in_time(
    tmp_path: Path, begun: bytes
) -> None:
    async with (
        running_server(tmp_path, limits={"message_timeout_s": 0.2}) as server,
        unharmed(server),
        raw_client(server.urls[0]) as patient,
        raw_client(server.urls[0]) as stalling,
    ):
        stalling.write(begun)
        async with asyncio.timeout(60):
            assert await stalling.at_end()
        # A client that says nothing at all is no client that stalls.
        assert (await health_of(patient)).status == "ok"
        assert server.connections == 1


async def test_who_stalls_in_a_large_message_is_seen_in_health_and_then_gives_its_buffer_back(
    tmp_path: Path,
) -> None:
    size = 17 << 20
    async with (
        running_server(tmp_path, limits={"message_timeout_s": 0.5}) as server,
        unharmed(server),
        raw_client(server.urls[0]) as stalling,
    ):
        pool = server.runtime.pool
        stalling.write(pack(">I", size) + b"\0\0\0\x30\x93")
        await eventually(lambda: pool.arriving_bytes == size, "the large buffer is lent")
        assert await stalling.at_end()
        async with raw_client(server.urls[0]) as other:
            facts = (await health_of(other)).facts
        assert (facts["buffers_arriving_bytes"], facts["buffers_late_messages"]) == (0, 1)


async def test_no_more_requests_of_a_connection_are_under_way_than_allowed_and_all_are_answered(
    tmp_path: Path,
) -> None:
    async with (
        running_server(tmp_path, max_in_flight_requests=4) as server,
        unharmed(server),
        raw_client(server.urls[0]) as eager,
        raw_client(server.urls[0]) as other,
    ):
        topic_id = await create_topic(other)
        polls = [eager.send(fetch_of(topic_id, wait_ms=60_000)) for _ in range(50)]
        sessions = server._sessions
        await eventually(lambda: max(s.in_flight for s in sessions) == 4, "4 polls are under way")
        assert (await health_of(other)).status == "ok"
        assert max(session.in_flight for session in sessions) == 4
        await produce(other, topic_id, b"news")
        async with asyncio.timeout(60):
            for poll in polls:
                assert b"news" in bytes((await eager.answer_to(poll)).body)


async def test_answers_that_wait_for_their_turn_give_their_buffers_back_when_the_client_leaves(
    tmp_path: Path,
) -> None:
    async with (
        running_server(tmp_path, reorder_responses=True) as server,
        unharmed(server),
        raw_client(server.urls[0]) as client,
    ):
        topic_id = await create_topic(client, partitions=2)
        await produce(client, topic_id, b"x")
        client.send(fetch_of(topic_id, partition=1, wait_ms=60_000))
        for _ in range(3):
            client.send(fetch_of(topic_id))
        await eventually(lambda: server.runtime.pool.in_use == 3, "three answers wait")


async def test_connections_beyond_the_limit_are_refused_and_those_that_exist_live_on(
    tmp_path: Path,
) -> None:
    async with running_server(tmp_path, max_connections=3) as server:
        async with contextlib.AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(raw_client(server.urls[0])) for _ in range(3)
            ]
            topic_id = await create_topic(clients[0])
            for _ in range(20):
                async with raw_client(server.urls[0], hello=False) as refused:
                    assert await refused.at_end()
            assert server.broker.counters.connections_refused == 20
            assert server.connections == 3
            for client in clients:
                await produce(client, topic_id, b"x")
        await eventually(lambda: server.connections == 0, "the three have left")
        async with raw_client(server.urls[0]) as client:
            assert len(await fetch_values(client, topic_id)) == 3


@contextlib.contextmanager
def idle_connections(url: str, count: int) -> Any:
    """So many connections that have said Hello, had their answer and say nothing more."""
    address = urlsplit(url)
    sockets: list[socket.socket] = []
    try:
        for _ in range(count):
            sockets.append(socket.create_connection((address.hostname, address.port), 10))
            sockets[-1].sendall(framed(HELLO, 0))
        for sock in sockets:
            assert sock.recv(4096)
        yield
    finally:
        for sock in sockets:
            sock.close()


async def test_a_thousand_idle_connections_cost_little_and_hold_nobody_up(tmp_path: Path) -> None:
    with BrokerProcess(tmp_path) as broker:
        async with raw_client(broker.url) as client:
            topic_id = await create_topic(client)
            before = broker.memory_bytes()
            with idle_connections(broker.url, 1000):
                assert (await health_of(client)).facts["connections_accepted"] == 1001
                for number in range(100):
                    assert await produce(client, topic_id, b"%d" % number) == number
                assert (broker.memory_bytes() - before) / 1000 < 16 * 1024, "for each connection"
            assert len(await fetch_values(client, topic_id)) == 100
        assert broker.stop() == (0, "")


async def test_a_crowd_that_vanishes_is_forgotten(server: Server) -> None:
    async with unharmed(server):
        for _ in range(3):
            clients = [raw_client(server.urls[0]) for _ in range(100)]
            await asyncio.gather(*(client.__aenter__() for client in clients))
            assert server.connections == 100
            await asyncio.gather(*(client.__aexit__(None, None, None) for client in clients))
            await eventually(lambda: server.connections == 0, "the crowd has left")
