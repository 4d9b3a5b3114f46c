"""Both sides of the handshake against a peer that lies, leaves or is slow; the fixture sees what stays open."""

import asyncio
import os
import socket
from dataclasses import replace

import pytest

from frieda.errors import BrokenError, ConnectError, RemoteProtocolError, TransportError
from frieda.testing.transport_pair import turns
from frieda.transports.rdma import link as link_module
from frieda.transports.rdma.bootstrap import VERSION, Hello, Ready, Refused
from frieda.transports.rdma.link import Link
from frieda.transports.rdma.provider import ChannelLimits
from frieda.transports.shm import handshake, region
from frieda.transports.shm.layout import Layout
from frieda.transports.shm.region import create_region, make_bell

SMALL = ChannelLimits(slot_bytes=512, window=8, source_bytes=1024 * 1024, max_reads=4)
HELLO = Hello(provider="shm", limits=SMALL)
ANSWER = Hello(provider="shm", limits=SMALL, fields={"key": 3})


@pytest.fixture
async def far(provider):
    """The far end as a bare link, and the near end as a socket."""
    here, there = socket.socketpair()
    link = Link(there, "the test")
    yield link, here
    link.close()
    here.close()


@pytest.fixture
def accepting(provider, far):
    link, here = far
    return link, asyncio.ensure_future(handshake.accept(provider, here, "shm:///test", SMALL))


@pytest.fixture
def connecting(provider, far):
    link, here = far
    return link, asyncio.ensure_future(handshake.connect(provider, here, "shm:///test", SMALL))


class Parcel:
    """The descriptors that a broker sends, the sender's copies."""

    def __init__(self):
        self.region, memory = create_region(Layout.of(SMALL).size_bytes)
        self.descriptors = [memory, make_bell(), make_bell()]

    def close(self):
        self.region.close()
        for each in self.descriptors:
            os.close(each)


@pytest.fixture
def parcel():
    made = Parcel()
    yield made
    made.close()


async def test_both_sides_agree_on_the_smaller_of_each_limit(provider):
    here, there = socket.socketpair()
    ours, theirs = replace(SMALL, window=16), replace(SMALL, slot_bytes=1000, max_reads=2)
    client, broker = await asyncio.gather(
        handshake.connect(provider, here, "shm:///test", ours),
        handshake.accept(provider, there, "shm:///test", theirs),
    )
    assert client.limits == broker.limits == replace(SMALL, max_reads=2)
    assert str(os.getpid()) in client.peer
    assert str(os.getpid()) in broker.peer
    client.close()
    broker.close()


# ---- the broker's side


@pytest.mark.parametrize(
    ("hello", "says"),
    [
        (replace(HELLO, provider="verbs"), "scheme"),
        (replace(HELLO, version=VERSION + 1), "same version"),
    ],
)
async def test_a_client_that_does_not_fit_is_told_why(accepting, hello, says):
    link, broker = accepting
    await link.send(hello)
    with pytest.raises(ConnectError, match=says):
        await link.receive()
    with pytest.raises(RemoteProtocolError, match=says):
        await broker


async def test_a_broker_without_memory_tells_the_client(accepting, monkeypatch):
    def full(*_):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(region.os, "eventfd", full)
    link, broker = accepting
    await link.send(HELLO)
    with pytest.raises(ConnectError, match="Too many open files"):
        await link.receive()
    with pytest.raises(TransportError, match="Too many open files"):
        await broker


async def test_limits_outside_of_any_reason_end_it_before_memory_is_taken(accepting, monkeypatch):
    monkeypatch.setattr(handshake, "create_region", lambda size: pytest.fail(f"took {size}"))
    link, broker = accepting
    await link.send(replace(HELLO, limits=ChannelLimits(window=2**40)))
    with pytest.raises(RemoteProtocolError, match="window"):
        await broker


@pytest.mark.parametrize("step", ["before Hello", "after Hello", "instead of Ready"])
async def test_a_client_that_leaves_is_a_broken_error(accepting, step):
    link, broker = accepting
    if step != "before Hello":
        await link.send(HELLO)
    if step == "instead of Ready":
        _, descriptors = await link.receive(3)
        for each in descriptors:
            os.close(each)
    link.close()
    with pytest.raises(BrokenError):
        await broker


@pytest.mark.parametrize("step", ["before Hello", "instead of Ready"])
async def test_a_client_that_says_nothing_is_given_up(provider, far, step, monkeypatch):
    monkeypatch.setattr(link_module.Link.__init__, "__kwdefaults__", {"step_timeout_s": 0.05})
    link, here = far
    broker = asyncio.ensure_future(handshake.accept(provider, here, "shm:///test", SMALL))
    if step == "instead of Ready":
        await link.send(HELLO)
    with pytest.raises(BrokenError, match=r"0\.05 s"):
        await broker


async def test_a_client_that_sends_descriptors_is_refused(accepting):
    link, broker = accepting
    await link.send(HELLO, [0, 1])
    with pytest.raises(RemoteProtocolError, match="more than the 0"):
        await broker


@pytest.mark.parametrize("turns_before", range(8))
async def test_a_cancelled_accept_leaves_nothing(accepting, turns_before):
    link, broker = accepting
    await link.send(HELLO)
    await turns(turns_before)
    broker.cancel()
    with pytest.raises(asyncio.CancelledError):
        await broker


# ---- the client's side


async def test_an_honest_broker_is_believed(connecting, parcel):
    link, client = connecting
    assert await link.expect(Hello) == HELLO
    await link.send(ANSWER, parcel.descriptors)
    assert await link.expect(Ready) == Ready()
    assert not client.done()
    await link.send(Ready())
    (await client).close()


@pytest.mark.parametrize("count", [0, 1, 2, 4, 5])
async def test_another_number_of_descriptors_is_refused(connecting, parcel, count):
    link, client = connecting
    await link.send(ANSWER, (parcel.descriptors * 2)[:count])
    with pytest.raises(RemoteProtocolError, match="descriptors"):
        await client


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (Refused(why="not today"), "not today"),
        (Ready(), "where the handshake wants Hello"),
        (replace(ANSWER, provider="verbs"), "scheme"),
        (replace(ANSWER, version=9), "same version"),
        (replace(ANSWER, limits=replace(SMALL, window=9)), "more than our"),
        (replace(ANSWER, fields={}), "key"),
        (replace(ANSWER, fields={"key": 2**32}), "key"),
        (replace(ANSWER, fields={"key": "x"}), "key"),
        (replace(ANSWER, limits=replace(SMALL, source_bytes=64 * 1024)), "the agreed limits make"),
    ],
)
async def test_a_broker_that_answers_wrongly_is_refused(connecting, parcel, answer, says):
    link, client = connecting
    await link.send(answer, parcel.descriptors)
    with pytest.raises((ConnectError, RemoteProtocolError), match=says):
        await client


@pytest.mark.parametrize("order", [(1, 0, 2), (1, 2, 0), (0, 0, 1), (0, 1, 0)])
async def test_descriptors_in_the_wrong_places_are_refused(connecting, parcel, order):
    link, client = connecting
    await link.send(ANSWER, [parcel.descriptors[each] for each in order])
    with pytest.raises(RemoteProtocolError):
        await client


@pytest.mark.parametrize("step", ["before Hello", "after Hello", "instead of Ready"])
async def test_a_broker_that_leaves_is_a_broken_error(connecting, parcel, step):
    link, client = connecting
    if step != "before Hello":
        await link.expect(Hello)
    if step == "instead of Ready":
        await link.send(ANSWER, parcel.descriptors)
        await link.expect(Ready)
    link.close()
    with pytest.raises(BrokenError):
        await client


@pytest.mark.parametrize("turns_before", range(8))
async def test_a_cancelled_connect_leaves_nothing(connecting, parcel, turns_before):
    link, client = connecting
    await link.send(ANSWER, parcel.descriptors)
    await turns(turns_before)
    client.cancel()
    with pytest.raises(asyncio.CancelledError):
        await client


async def test_a_stranger_is_refused_before_a_word_is_said(provider, monkeypatch):
    def stranger(sock):
        raise ConnectError("belongs to user 1234")

    monkeypatch.setattr(handshake, "peer_credentials", stranger)
    for side in (handshake.accept, handshake.connect):
        here, there = socket.socketpair()
        with pytest.raises(ConnectError, match="1234"):
            await side(provider, here, "shm:///test", SMALL)
        there.setblocking(True)
        assert there.recv(1) == b""
        there.close()
