import asyncio
import os
import socket
from contextlib import suppress

import pytest

from frieda.errors import BrokenError, ConnectError, RemoteProtocolError
from frieda.testing.transport_pair import eventually, open_descriptors, turns
from frieda.transports.rdma import link as link_module
from frieda.transports.rdma.bootstrap import HEADER, Hello, Ready, Refused, encode
from frieda.transports.rdma.link import Link, LinkListener
from frieda.transports.rdma.provider import ChannelLimits

HELLO = Hello(provider="shm", limits=ChannelLimits(), fields={"key": 1})


@pytest.fixture
async def descriptors():
    """How many are open at the start; the test must end with as many."""
    await asyncio.to_thread(int)  # what a loop opens once, when it first needs it
    before = open_descriptors()
    yield before
    assert open_descriptors() == before


@pytest.fixture
async def pair(descriptors):
    here, there = socket.socketpair()
    links = Link(here, "here", step_timeout_s=1.0), Link(there, "there", step_timeout_s=1.0)
    yield links
    for each in links:
        each.close()
        each.close()
        assert each.closed


@pytest.fixture
async def raw(descriptors):
    """A link, and the far end as a bare socket."""
    here, there = socket.socketpair()
    link = Link(here, "the peer", step_timeout_s=0.1)
    there.setblocking(False)
    yield link, there
    link.close()
    there.close()


async def test_messages_cross_both_ways_and_may_come_in_pieces(pair, raw):
    here, there = pair
    await here.send(HELLO)
    await here.send(Ready())
    assert await there.expect(Hello) == HELLO
    await there.send(Ready(fields={"a": "b"}))
    assert await there.expect(Ready) == Ready()
    assert await here.receive() == (Ready(fields={"a": "b"}), ())
    link, far = raw
    receiving = asyncio.ensure_future(link.receive())
    for byte in encode(HELLO):
        far.send(bytes([byte]))
        await turns(1)
    assert await receiving == (HELLO, ())


async def test_descriptors_cross_with_a_message_and_are_closed_on_exec(pair):
    here, there = pair
    reader, writer = os.pipe()
    await here.send(HELLO, [writer])
    os.close(writer)
    _, (received,) = await there.receive(1)
    assert not os.get_inheritable(received)
    os.write(received, b"through the copy")
    assert os.read(reader, 100) == b"through the copy"
    os.close(reader)
    os.close(received)


@pytest.mark.parametrize("allowed", [0, 1, 3])
async def test_more_descriptors_than_belong_there_are_closed_and_refused(pair, allowed):
    here, there = pair
    await here.send(HELLO, [0] * (allowed + 1))
    with pytest.raises(RemoteProtocolError, match=f"more than the {allowed}"):
        await there.receive(allowed)


async def test_descriptors_that_come_with_nonsense_are_closed(raw):
    link, far = raw
    socket.send_fds(far, [HEADER.pack(b"FrQP", 9, 0, 2) + b"{}"], [0, 0])
    with pytest.raises(RemoteProtocolError, match="kind 9"):
        await link.receive(2)


async def test_a_peer_that_stops_in_the_middle_is_given_up_after_the_steps_time(raw):
    link, far = raw
    far.send(encode(HELLO)[:-1])
    with pytest.raises(BrokenError, match=r"0\.1 s"):
        await link.receive()


async def test_a_peer_that_ends_in_the_middle_is_a_broken_error(raw):
    link, far = raw
    far.send(encode(HELLO)[:11])
    far.close()
    with pytest.raises(BrokenError, match="middle of the handshake"):
        await link.receive()
    with pytest.raises(BrokenError):
        await link.send(HELLO)


async def test_a_peer_that_does_not_read_is_given_up(raw):
    link, _ = raw
    with suppress(BlockingIOError):
        while True:
            link._sock.send(bytes(1000))
    with pytest.raises(BrokenError, match="did not read"):
        await link.send(HELLO)


async def test_a_refusal_carries_the_sentence_of_the_peer(pair):
    here, there = pair
    await here.send(Refused(why="too many connections"))
    with pytest.raises(ConnectError, match="refused the connection: too many connections"):
        await there.receive()


async def test_another_message_than_expected_is_nonsense(pair):
    here, there = pair
    await here.send(Ready())
    with pytest.raises(RemoteProtocolError, match="sent Ready where the handshake wants Hello"):
        await there.expect(Hello)


async def test_cancelling_a_step_leaves_no_watcher_behind(raw):
    link, far = raw
    receiving = asyncio.ensure_future(link.receive(1))
    await turns(2)
    socket.send_fds(far, [encode(HELLO)[:20]], [0])
    await turns(2)
    receiving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await receiving
    assert not asyncio.get_running_loop().remove_reader(link._sock.fileno())


async def test_the_end_of_the_peer_is_told_once_and_without_an_error(raw):
    link, far = raw
    ends = []
    link.watch(ends.append)
    await turns()
    assert ends == []
    far.close()
    await eventually(lambda: ends == [None], "the end is seen")
    await turns()
    assert ends == [None]


async def test_a_byte_after_the_handshake_is_an_error(raw):
    link, far = raw
    ends = []
    link.watch(ends.append)
    far.send(b"x")
    await eventually(lambda: len(ends) == 1, "the byte is seen")
    assert "sent a byte" in str(ends[0])


async def test_nothing_is_told_after_close(raw):
    link, far = raw
    ends = []
    link.watch(ends.append)
    far.close()
    link.close()
    await turns()
    assert ends == []


# ---- the listener


def listening():
    sock = socket.socket(socket.AF_UNIX)
    sock.bind("")  # an abstract name that the kernel chooses
    sock.listen(1000)
    return sock, sock.getsockname()


def dial(address):
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    sock.connect(address)
    return sock


async def test_each_accepted_socket_gets_a_handshake_and_close_cancels_those_under_way(descriptors):
    sock, address = listening()
    begun, cancelled, finished = [], [], []

    async def handshake(accepted, _):
        link = Link(accepted, "a client")
        begun.append(link)
        try:
            finished.append(await link.expect(Ready))
        except asyncio.CancelledError:
            cancelled.append(link)
            raise
        finally:
            link.close()

    listener = LinkListener([sock], "test://", handshake)
    clients = [dial(address) for _ in range(5)]
    await eventually(lambda: len(begun) == 5, "all are accepted")
    clients[0].send(encode(Ready()))
    await eventually(lambda: len(finished) == 1, "one is ready")
    late = dial(address)
    await listener.close()
    await listener.close()
    assert len(cancelled) == 4
    for each in (*clients, late):
        each.close()


async def test_a_socket_whose_handshake_never_began_is_closed(descriptors):
    sock, address = listening()

    async def handshake(accepted, _):
        raise AssertionError("it began")

    listener = LinkListener([sock], "test://", handshake)
    client = dial(address)
    listener._accept(sock)
    await listener.close()
    client.setblocking(True)
    assert client.recv(1) == b""
    client.close()


async def test_a_handshake_that_fails_ends_only_its_own_link(descriptors, caplog):
    sock, address = listening()
    caplog.set_level("INFO")
    reports = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    good = []

    async def handshake(accepted, _):
        link = Link(accepted, "a client")
        try:
            message = await link.expect(Ready)
            if message.fields:
                raise ValueError("a bug")
            good.append(message)
        finally:
            link.close()

    listener = LinkListener([sock], "test://", handshake)
    clients = [dial(address) for _ in range(3)]
    clients[0].send(b"GET / HTTP/1.1\r\n")
    clients[1].send(encode(Ready(fields={"a": 1})))
    await eventually(lambda: len(reports) == 1, "the bug is reported")
    clients[2].send(encode(Ready()))
    await eventually(lambda: len(good) == 1, "the good one")
    assert "another kind of listener" in caplog.text
    await listener.close()
    for each in clients:
        each.close()


async def test_the_handshakes_under_way_are_bounded_and_go_on_as_they_end(descriptors, monkeypatch):
    monkeypatch.setattr(link_module, "MAX_HANDSHAKES", 3)
    sock, address = listening()
    running, most, done = [], [], []

    async def handshake(accepted, _):
        link = Link(accepted, "a client")
        running.append(link)
        most.append(len(running))
        try:
            await link.expect(Ready)
            done.append(link)
        finally:
            running.remove(link)
            link.close()

    listener = LinkListener([sock], "test://", handshake)
    clients = [dial(address) for _ in range(10)]
    await eventually(lambda: len(running) == 3, "the first three")
    for each in clients:
        each.send(encode(Ready()))
    await eventually(lambda: len(done) == 10, "all of them")
    assert max(most) == 3
    await listener.close()
    for each in clients:
        each.close()


async def test_a_process_without_descriptors_accepts_again_later(descriptors, monkeypatch):
    monkeypatch.setattr(link_module, "RETRY_ACCEPT_S", 0.01)
    sock, address = listening()
    accepted_ones = []

    async def handshake(accepted, _):
        accepted_ones.append(accepted)
        accepted.close()

    class Full:
        refusals = 3

        def __getattr__(self, name):
            return getattr(sock, name)

        def accept(self):
            if self.refusals:
                self.refusals -= 1
                raise OSError(24, "Too many open files")
            return sock.accept()

    listener = LinkListener([Full()], "test://", handshake)
    client = dial(address)
    await eventually(lambda: len(accepted_ones) == 1, "accepted in the end")
    await listener.close()
    client.close()
