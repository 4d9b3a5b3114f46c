import gc
import os
import socket
import weakref

import pytest

from frieda.errors import AddressInUseError, BrokenError, ConfigError, ConnectError, TransportError
from frieda.testing.transport_pair import (
    KIB,
    Recorder,
    eventually,
    make_runtime,
    open_descriptors,
    transport_pair,
    turns,
)
from frieda.transports.address import parse_host_port
from frieda.transports.tcp import TcpTransport

URL = "tcp://127.0.0.1:0"


@pytest.fixture
async def transport():
    runtime = make_runtime()
    yield TcpTransport(runtime)
    runtime.engine.close()
    assert runtime.pool.close() == ()


def full_listener():
    """A listening socket whose queue of connections is full, so that connecting to it takes forever."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(0)
    waiting = []
    for _ in range(3):
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(sock.getsockname())
        waiting.append(client)
    return sock, waiting


async def test_a_connect_that_takes_too_long_is_a_connect_error_that_says_so(transport):
    sock, waiting = full_listener()
    url = f"tcp://127.0.0.1:{sock.getsockname()[1]}"
    with pytest.raises(ConnectError) as caught:
        await transport.connect(url, Recorder, timeout_s=0.05)
    assert url in str(caught.value)
    assert "0.05 s" in str(caught.value)
    for each in (sock, *waiting):
        each.close()


@pytest.mark.parametrize(
    "url", ["tcp://name.invalid:1", "tcp://" + "x" * 70 + ".invalid:1", "tcp://127.0.0.1:0"]
)
async def test_a_host_that_cannot_be_found_is_a_connect_error_that_names_the_url(transport, url):
    with pytest.raises(ConnectError) as caught:
        await transport.connect(url, Recorder)
    assert url in str(caught.value)


async def test_an_address_of_another_machine_cannot_be_listened_at(transport):
    with pytest.raises(TransportError, match=r"192\.0\.2\.1"):
        await transport.listen("tcp://192.0.2.1:0", Recorder)


async def test_a_port_in_use_is_an_address_in_use_error_and_leaves_no_socket(transport):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(AddressInUseError):
            await transport.listen(f"tcp://127.0.0.1:{taken.getsockname()[1]}", Recorder)
        assert len(os.listdir("/proc/self/fd")) == before


async def test_a_name_with_several_addresses_listens_on_all_with_one_port(transport):
    accepted = []
    listener = await transport.listen(
        "tcp://localhost:0", lambda c: accepted.append(Recorder(c)) or accepted[-1]
    )
    host, port = parse_host_port(listener.url)
    assert host == "localhost"
    assert port > 0
    for number, (*_, address) in enumerate(
        socket.getaddrinfo("localhost", port, type=socket.SOCK_STREAM)
    ):
        with socket.create_connection(address[:2]):
            await eventually(lambda number=number: len(accepted) > number, "accepted")
    for each in accepted:
        await each.lost()
    await listener.close()


async def test_nagle_is_off_on_both_sides():
    async with transport_pair(URL) as pair:
        client, server = await pair.connect()
        for recorder in (client, server):
            sock = socket.socket(fileno=os.dup(recorder.connection._wire._fd))
            with sock:
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


async def test_a_reset_is_a_broken_error_that_names_the_peer():
    async with transport_pair(URL) as pair:
        with socket.create_connection(parse_host_port(pair.listener.url)) as raw:
            await eventually(lambda: len(pair.accepted) == 1, "accepted")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            name = "{}:{}".format(*raw.getsockname())
        error = await pair.accepted[0].lost()
        assert isinstance(error, BrokenError)
        assert name in str(error)


async def test_a_peer_that_resets_before_the_connection_is_ours_is_a_connect_error(
    transport, monkeypatch
):
    async def reset_at_once(url, host, port):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            ours = socket.create_connection(listener.getsockname())
            theirs, _ = listener.accept()
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            theirs.close()
        ours.setblocking(False)
        return ours

    monkeypatch.setattr("frieda.transports.tcp.connected_socket", reset_at_once)
    recorders = []
    before = open_descriptors()
    with pytest.raises(ConnectError, match=r"tcp://127\.0\.0\.1:9: the connection ended at once"):
        await transport.connect("tcp://127.0.0.1:9", recorders.append)
    await eventually(lambda: open_descriptors() == before, "the socket is closed")
    assert recorders == []


async def test_what_queued_while_the_wire_was_busy_leaves_in_few_writes(monkeypatch):
    async with transport_pair(URL) as pair:
        client, server = await pair.connect()
        server.connection.pause_receiving()
        sent = 0
        while not client.connection.queued_bytes:
            client.connection.send(b"x" * 60_000)
            sent += 1
        for _ in range(50):
            client.connection.send(b"small")
        wire = client.connection._wire
        writes = []
        original = wire.writev
        wire.writev = lambda pieces: writes.append(len(pieces)) or original(pieces)
        server.connection.resume_receiving()
        await server.received(sent + 50)
        assert 0 < len(writes) < 25
        assert max(writes) > 10


async def test_an_ended_connection_leaves_no_cycles_for_the_garbage_collector():
    async with transport_pair(URL) as pair:
        client, server = await pair.connect()
        await client.connection.close()
        await server.lost()
        await turns()
        seen = [weakref.ref(recorder.connection) for recorder in (client, server)]
        gc.disable()
        try:
            pair.connected.clear()
            pair.accepted.clear()
            del client, server
            await turns()
            assert [ref() for ref in seen] == [None, None]
        finally:
            gc.enable()


async def test_a_pool_without_a_buffer_for_the_largest_message_is_a_config_error():
    runtime = make_runtime(buffers={4 * KIB: 1})
    with pytest.raises(ConfigError, match="max_message_bytes"):
        TcpTransport(runtime)
    runtime.engine.close()
    runtime.pool.close()
