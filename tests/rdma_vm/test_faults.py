"""What goes wrong on a verbs connection, with the kernel's rxe driver at both ends, and what is left of it: nothing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from frieda.errors import BrokenError, ConfigError, ConnectError
from frieda.testing.transport_pair import (
    KIB,
    TEST_LIMITS,
    Recorder,
    eventually,
    open_descriptors,
    transport_pair,
)
from frieda.transports.base import RdmaSettings, TransportRuntime
from frieda.transports.buffers import BufferPool
from frieda.transports.polling import PollingEngine
from frieda.transports.rdma.bootstrap import HEADER, MAGIC, Hello, Ready, encode
from frieda.transports.rdma.link import Link
from frieda.transports.rdma.provider import ChannelLimits
from frieda.transports.registry import open_transport

URL = "verbs://10.77.0.2:0"
PEER = Path(__file__).with_name("peer.py")
FIELDS = {
    "queue_pair": 4711,
    "first_sequence": 1,
    "link_layer": "Ethernet",
    "lid": 0,
    "gid": "::ffff:10.77.0.1",
    "mtu": 5,
}


def in_use() -> dict[str, dict[str, int]]:
    """What the kernel counts on each device: protection domains, completion queues, queue pairs, regions..."""
    shown = subprocess.run(["rdma", "-j", "resource", "show"], capture_output=True, check=True)
    return {each.pop("ifname"): each for each in json.loads(shown.stdout)}


@pytest.fixture(autouse=True)
def nothing_is_left():
    """After each test the kernel counts what it counted before, in queue pairs, regions, queues and contexts."""
    before, descriptors = in_use(), open_descriptors()
    yield
    deadline = time.monotonic() + 10
    while (in_use() != before or open_descriptors() > descriptors) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert in_use() == before
    assert open_descriptors() <= descriptors


def link(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


async def lost_after_kill(pair, *role: str, wait_for) -> float:
    """Start a peer process, let it do its part until `wait_for` holds, kill it; how long until that was noticed."""
    peer = await asyncio.create_subprocess_exec(sys.executable, PEER, pair.listener.url, *role)
    await eventually(lambda: bool(pair.accepted), "the peer")
    server = pair.accepted[0]
    await eventually(lambda: wait_for(server), "its messages")
    peer.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    await eventually(lambda: bool(server.losses), "connection_lost")
    noticed_s = time.monotonic() - killed
    await peer.wait()
    assert len(server.losses) == 1
    return noticed_s


async def test_a_peer_killed_in_a_burst_of_eager_messages_is_noticed_and_leaves_nothing():
    async with transport_pair(URL) as pair:
        noticed_s = await lost_after_kill(
            pair, "send", "500", wait_for=lambda server: len(server.messages) > 100
        )
        assert noticed_s < 5
        assert set(pair.accepted[0].messages) == {bytes(range(256)) + bytes(244)}
        assert pair.server_pool.in_use == 0


async def test_a_peer_killed_while_we_read_its_memory_is_noticed_and_leaves_nothing():
    size = 900 * KIB
    async with transport_pair(URL) as pair:
        # A lease is out while its READs are under way: kill in the middle of one.
        noticed_s = await lost_after_kill(
            pair,
            "send",
            str(size),
            wait_for=lambda server: len(server.messages) >= 1 and pair.server_pool.in_use > 0,
        )
        assert noticed_s < 5
        assert set(pair.accepted[0].messages) == {bytes(range(256)) * (size // 256)}
        assert pair.server_pool.in_use == 0


async def test_a_peer_killed_while_it_reads_our_memory_is_noticed_and_leaves_nothing():
    async with transport_pair(URL) as pair:

        def keep_sending(server: Recorder) -> bool:
            keep_sending.count += 1
            if server.connection.queued_bytes == 0:
                server.connection.send(bytes(900 * KIB))
            return keep_sending.count > 100

        keep_sending.count = 0
        assert await lost_after_kill(pair, "receive", wait_for=keep_sending) < 5


async def test_a_wire_that_is_down_for_a_moment_loses_nothing():
    messages = [bytes([n]) * size for n, size in enumerate((10, 5000, 300_000, 20, 100_000))]
    async with transport_pair(URL) as pair:
        client, server = await pair.connect()
        client.connection.send(b"before")
        await server.received(1)
        link("link", "set", "veth1", "down")
        for message in messages:
            client.connection.send(message)
        await asyncio.sleep(1)
        assert server.messages == [b"before"]
        link("link", "set", "veth1", "up")
        link("route", "replace", "10.77.0.1", "dev", "veth1", "src", "10.77.0.2", "table", "101")
        assert sorted((await server.received(6))[1:]) == sorted(messages)
        server.connection.send(b"back")
        assert await client.received(1) == [b"back"]
        assert not client.losses
        assert not server.losses


async def test_a_wire_that_stays_down_breaks_the_connection_and_the_next_one_works():
    async with transport_pair(URL) as pair:
        client, server = await pair.connect()
        link("link", "set", "veth1", "down")
        client.connection.send(b"into the dark")
        error = await client.lost(timeout_s=30)
        assert isinstance(error, BrokenError)
        assert "does not answer" in str(error)
        link("link", "set", "veth1", "up")
        link("route", "replace", "10.77.0.1", "dev", "veth1", "src", "10.77.0.2", "table", "101")
        await server.lost(timeout_s=30)  # the end of the bootstrap socket came through at last
        client, server = await pair.connect()
        client.connection.send(b"light")
        assert await server.received(1) == [b"light"]


async def bootstrap_socket(url: str) -> socket.socket:
    host, port = url.removeprefix("verbs://").split(":")
    sock = socket.create_connection((host, int(port)))
    sock.setblocking(False)
    return sock


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b""),
        (HEADER.pack(MAGIC, 1, 0, 65535), b""),
        (encode(Hello(provider="verbs", limits=ChannelLimits(window=1), fields=FIELDS)), b""),
        (encode(Hello(provider="verbs", limits=ChannelLimits(slot_bytes=2**40))), b""),
        (encode(Hello(provider="shm", limits=ChannelLimits())), b"scheme in the URL"),
        (encode(Hello(provider="verbs", limits=ChannelLimits())), b"'gid' is None"),
        (
            encode(Hello(provider="verbs", limits=ChannelLimits(), fields={**FIELDS, "gid": "x"})),
            b"no address",
        ),
        (
            encode(Hello(provider="verbs", limits=ChannelLimits(), fields={**FIELDS, "mtu": 0})),
            b"MTU is 0",
        ),
        (
            encode(
                Hello(
                    provider="verbs", limits=ChannelLimits(), fields={**FIELDS, "queue_pair": 2**24}
                )
            ),
            b"queue_pair",
        ),
        (
            encode(
                Hello(
                    provider="verbs",
                    limits=ChannelLimits(),
                    fields={**FIELDS, "link_layer": "InfiniBand"},
                )
            ),
            b"?device=",
        ),
    ],
)
async def test_a_bootstrap_that_lies_is_refused_before_memory_is_taken(said, answer):
    async with transport_pair(URL) as pair:
        await pair.connect()
        before = in_use()
        loop = asyncio.get_running_loop()
        heard = b""
        with await bootstrap_socket(pair.listener.url) as sock:
            await loop.sock_sendall(sock, said)
            with suppress(ConnectionResetError):  # it was closed with bytes of ours unread
                while part := await asyncio.wait_for(loop.sock_recv(sock, 4096), 20):
                    heard += part
        assert answer in heard
        assert in_use() == before
        client, server = await pair.connect()
        client.connection.send(b"fine")
        assert await server.received(1) == [b"fine"]


async def test_a_bootstrap_that_names_a_queue_pair_of_nobody_gets_a_connection_that_breaks():
    async with transport_pair(URL) as pair:
        sock = await bootstrap_socket(pair.listener.url)
        liar = Link(sock, "the listener")
        await liar.send(Hello(provider="verbs", limits=ChannelLimits(), fields=FIELDS))
        await liar.expect(Hello)
        await liar.send(Ready())
        await liar.expect(Ready)
        await eventually(lambda: bool(pair.accepted), "the connection")
        pair.accepted[0].connection.send(b"hello?")
        error = await pair.accepted[0].lost(timeout_s=30)
        assert "does not answer" in str(error)
        liar.close()


async def test_a_listener_that_agrees_to_more_than_was_offered_is_left():
    listening = socket.create_server(("10.77.0.2", 0))
    listening.setblocking(False)
    url = f"verbs://10.77.0.2:{listening.getsockname()[1]}"

    async def lie() -> None:
        sock, _ = await asyncio.get_running_loop().sock_accept(listening)
        liar = Link(sock, "the client")
        await liar.expect(Hello)
        more = ChannelLimits(window=4096)
        await liar.send(Hello(provider="verbs", limits=more, fields=FIELDS))
        with pytest.raises(ConnectError, match="more than our"):
            await liar.expect(Ready)
        liar.close()

    async with transport_pair(URL) as pair:
        lying = asyncio.ensure_future(lie())
        with pytest.raises(ConnectError, match="more than our"):
            await pair.client.connect(url, pair.make_client)
        await lying
    listening.close()


async def test_three_hundred_connections_come_and_go_and_leave_no_region_and_no_descriptor():
    def runtime() -> TransportRuntime:
        engine = PollingEngine("event")
        engine.start()
        return TransportRuntime(
            pool=BufferPool({4 * KIB: 8, 1024 * KIB: 2}, trace=True),
            engine=engine,
            limits=TEST_LIMITS,
            rdma=RdmaSettings(slot_bytes=2 * KIB, window=8, source_bytes=64 * KIB),
        )

    server_runtime, client_runtime = runtime(), runtime()
    server, client = open_transport(URL, server_runtime), open_transport(URL, client_runtime)
    accepted: list[Recorder] = []

    def accept(connection) -> Recorder:
        accepted.append(Recorder(connection))
        return accepted[-1]

    listener = await server.listen(URL, accept)
    for number in range(300):
        recorders: list[Recorder] = []
        connection = await client.connect(
            listener.url, lambda c, r=recorders: r.append(Recorder(c)) or r[0]
        )
        connection.send(b"%d" % number)
        if number % 25 == 0:
            connection.send(bytes(20 * KIB))  # by rendezvous
        await eventually(lambda n=number: len(accepted) > n, "the connection")
        await accepted[-1].received(1 + (number % 25 == 0))
        if number == 1:
            after_two = in_use(), open_descriptors()
        if number % 2:
            connection.abort()
        else:
            await connection.close()
        await accepted[-1].lost()
        await recorders[0].lost()
    connection = await client.connect(listener.url, Recorder)
    await eventually(lambda: len(accepted) == 301, "the last connection")
    now = in_use(), open_descriptors()
    assert now[0] == after_two[0]
    assert now[1] <= after_two[1]
    connection.abort()
    await listener.close()
    await accepted[-1].lost()
    for each in (server_runtime, client_runtime):
        each.engine.close()
        assert each.pool.close() == ()


def test_too_little_locked_memory_is_one_sentence_that_says_how_to_raise_it(tmp_path):
    script = (
        "import asyncio, resource\n"
        "from frieda.testing.transport_pair import make_runtime\n"
        "from frieda.transports.registry import open_transport\n"
        "async def main():\n"
        f"    await open_transport({URL!r}, make_runtime()).listen({URL!r}, None)\n"
        "resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))\n"
        "asyncio.run(main())\n"
    )
    without = ["setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock"]
    done = subprocess.run(
        [*without, sys.executable, "-c", script], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"frieda.errors.{ConfigError.__name__}: RDMA cannot lock the memory of")
    assert "64 KiB (ulimit -l)" in last
    assert "LimitMEMLOCK=infinity" in last
    assert "tcp://" in last
