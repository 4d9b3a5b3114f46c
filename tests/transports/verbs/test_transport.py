"""verbs:// as a whole on a stand-in for pyverbs: the conformance suite, the choice by URL, and bootstraps that lie."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager, suppress

import pytest
from fake_pyverbs import FakeVerbs

from frieda.errors import ConfigError, ConnectError, TransportError
from frieda.testing.rdma_clauses import RdmaConformance
from frieda.testing.transport_pair import eventually, make_runtime, transport_pair
from frieda.transports.rdma.bootstrap import HEADER, MAGIC, Hello, Ready, encode
from frieda.transports.rdma.link import Link
from frieda.transports.rdma.provider import ChannelLimits
from frieda.transports.sockets import connected_socket
from frieda.transports.verbs import handshake, transport
from frieda.transports.verbs.choice import parse_url

URL = "verbs://127.0.0.1:0"
FIELDS = {
    "queue_pair": 4711,
    "first_sequence": 1,
    "link_layer": "Ethernet",
    "lid": 0,
    "gid": "::ffff:127.0.0.1",
    "mtu": 4,
}


@pytest.fixture(autouse=True)
def verbs(monkeypatch):
    """The devices of the test; at its end nothing is left of what was made with them."""
    fake = FakeVerbs()
    monkeypatch.setattr(transport, "load", lambda: fake)
    yield fake
    assert fake.left() == {}


class TestVerbsOnStandIn(RdmaConformance):
    connections = 100

    def make_url(self) -> str:
        return URL

    async def raw_queue_pair(self, pair):
        url = pair.listener.url
        (host, port), wish = parse_url(url)
        sock = await connected_socket(url, host, port)
        return await pair.client._shake_hands(handshake.connect, sock, wish, url)


class TestVerbsWithoutWindows(TestVerbsOnStandIn):
    connections = 20

    @pytest.fixture(autouse=True)
    def no_windows(self, verbs):
        verbs.refuse_windows = True


async def test_a_connection_uses_the_device_of_its_own_address_and_a_url_another(verbs):
    async with transport_pair(URL) as pair:
        await pair.connect()
        assert [each.route.device for each in pair.client._providers] == ["fake0"]
        url = pair.listener.url + "?device=fake1"
        await pair.client.connect(url, pair.make_client)
        assert [each.route.device for each in pair.client._providers] == ["fake0", "fake1"]
        await pair.client.connect(pair.listener.url + "?device=fake0&gid=2", pair.make_client)
        await pair.client.connect(pair.listener.url + "?device=fake0", pair.make_client)
        assert len(pair.client._providers) == 2
        with pytest.raises(ConfigError, match="device=fake7"):
            await pair.client.connect(pair.listener.url + "?device=fake7", pair.make_client)
        await eventually(lambda: len(pair.accepted) == 4, "the connections")


async def test_a_listener_for_all_addresses_serves_each_connection_by_its_own(verbs):
    async with transport_pair("verbs://0.0.0.0:0") as pair:
        port = pair.listener.url.rpartition(":")[2]
        await pair.client.connect(f"verbs://127.0.0.1:{port}", pair.make_client)
        await eventually(lambda: len(pair.accepted) == 1, "the connection")
        pair.connected[0].connection.send(b"hello")
        assert await pair.accepted[0].received(1) == [b"hello"]


async def test_port_0_cannot_be_connected_to():
    async with transport_pair(URL) as pair:
        with pytest.raises(ConnectError, match="port 0"):
            await pair.client.connect(URL, pair.make_client)


async def test_without_a_device_listening_says_so_and_leaves_no_socket(verbs):
    verbs.gids.clear()
    runtime = make_runtime()
    with pytest.raises(ConfigError, match="this host has no RDMA device"):
        await transport.VerbsTransport(runtime).listen(URL, lambda connection: None)
    runtime.engine.close()
    assert runtime.pool.close() == ()


async def test_a_device_without_reads_is_refused_to_both_sides(verbs):
    async with transport_pair(URL) as pair:
        verbs.attributes["max_qp_rd_atom"] = 0
        pair.client._providers.clear()
        with pytest.raises(ConfigError, match="no RDMA READ"):
            await pair.client.connect(pair.listener.url, pair.make_client)


async def test_where_the_broker_has_no_memory_left_the_client_is_told_why(verbs):
    async with transport_pair(URL) as pair:
        await pair.connect()
        verbs.registrations_left = 0
        with pytest.raises(ConnectError, match=r"refused the connection: RDMA cannot lock"):
            await pair.client.connect(pair.listener.url, pair.make_client)
        verbs.registrations_left = 1  # the broker's slots, and none for the client's
        with pytest.raises(ConfigError, match="RDMA cannot lock"):
            await pair.client.connect(pair.listener.url, pair.make_client)
        verbs.registrations_left = 10**6
        await pair.connect()


async def test_a_listener_that_says_nothing_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"verbs://127.0.0.1:{silent.getsockname()[1]}"
        async with transport_pair(URL) as pair:
            with pytest.raises(ConnectError, match=r"no connection within 0.05 s"):
                await pair.client.connect(url, pair.make_client, timeout_s=0.05)


AGREED = ChannelLimits(max_message_bytes=1000)


def hello(**changes: int | str) -> bytes:
    return encode(Hello(provider="verbs", limits=ChannelLimits(), fields=FIELDS | changes))


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b""),
        (HEADER.pack(MAGIC, 1, 0, 65535), b""),
        (encode(Ready()), b""),
        (encode(Hello(provider="verbs", limits=ChannelLimits(slot_bytes=2**40))), b""),
        (encode(Hello(provider="shm", limits=ChannelLimits())), b"scheme in the URL"),
        (encode(Hello(provider="verbs", limits=ChannelLimits())), b"'gid' is None"),
        (hello(gid="x"), b"no address"),
        (hello(mtu=0), b"MTU is 0"),
        (hello(mtu=6), b"'mtu' is 6"),
        (hello(queue_pair=2**24), b"'queue_pair'"),
        (hello(lid=2**16), b"'lid'"),
        (hello(link_layer="InfiniBand"), b"?device="),
    ],
)
async def test_a_client_that_lies_in_the_bootstrap_is_refused_and_nothing_is_kept(
    verbs, said, answer
):
    async with transport_pair(URL) as pair:
        await pair.connect()
        before = verbs.left()
        host, port = parse_url(pair.listener.url)[0]
        loop, heard = asyncio.get_running_loop(), b""
        with await connected_socket(pair.listener.url, host, port) as sock:
            await loop.sock_sendall(sock, said)
            with suppress(ConnectionResetError):  # it was closed with bytes of ours unread
                while part := await loop.sock_recv(sock, 4096):
                    heard += part
        assert answer in heard
        await eventually(lambda: verbs.left() == before, "everything given back")
        client, server = await pair.connect()
        client.connection.send(b"fine")
        assert await server.received(1) == [b"fine"]


async def test_a_queue_pair_that_is_not_there_breaks_the_connection_at_its_first_message():
    async with transport_pair(URL) as pair:
        host, port = parse_url(pair.listener.url)[0]
        liar = Link(await connected_socket(pair.listener.url, host, port), "the listener")
        await liar.send(Hello(provider="verbs", limits=ChannelLimits(), fields=FIELDS))
        await liar.expect(Hello)
        await liar.send(Ready())
        await liar.expect(Ready)
        await eventually(lambda: bool(pair.accepted), "the connection")
        pair.accepted[0].connection.send(b"hello?")
        assert "does not answer" in str(await pair.accepted[0].lost())
        liar.close()


@asynccontextmanager
async def lying_listener(*answers):
    """A listener that answers each message with the next of these; its URL, and what it was told."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    heard = []

    async def lie() -> None:
        sock, _ = await asyncio.get_running_loop().sock_accept(listening)
        liar = Link(sock, "the client")
        try:
            for answer in answers:
                heard.append((await liar.receive())[0])
                await liar.send(answer)
            heard.append((await liar.receive())[0])
        except TransportError as error:
            heard.append(error)
        liar.close()

    lying = asyncio.ensure_future(lie())
    try:
        yield f"verbs://127.0.0.1:{listening.getsockname()[1]}", heard
        await lying
    finally:
        lying.cancel()
        listening.close()


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (
            Hello(provider="verbs", limits=ChannelLimits(window=4096), fields=FIELDS),
            "more than our",
        ),
        (Hello(provider="verbs", limits=AGREED, fields=FIELDS | {"gid": "?"}), "GID"),
        (Hello(provider="verbs", limits=AGREED, version=9, fields=FIELDS), "version 9"),
        (Ready(), "Ready where the handshake wants Hello"),
    ],
)
async def test_a_listener_that_lies_is_left_and_told_why(answer, named):
    async with transport_pair(URL) as pair, lying_listener(answer) as (url, heard):
        with pytest.raises(ConnectError, match=named) as caught:
            await pair.client.connect(url, pair.make_client)
        assert url in str(caught.value)
    if isinstance(answer, Hello):
        assert named in str(heard[-1])


async def test_a_byte_on_the_bootstrap_socket_after_the_handshake_breaks_the_connection():
    async with transport_pair(URL) as pair:
        client, server = await pair.connect()
        client.connection.send(b"before")
        await server.received(1)
        client.connection._channel._queue_pair._link._sock.send(b"x")
        assert "sent a byte on the bootstrap socket" in str(await server.lost())
