"""kill -9 of either side, at every step of the handshake and in the middle of traffic."""

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest

from frieda.errors import AddressInUseError, ConnectError
from frieda.testing.transport_pair import Recorder, eventually
from frieda.transports.shm.transport import ShmTransport

PEER = Path(__file__).with_name("peer_process.py")
NOTICED_S = 1.0


def mappings():
    with open("/proc/self/maps") as file:
        return sum("frieda-shm" in line or "/dev/shm/" in line for line in file)


class Peer:
    """The other process."""

    def __init__(self, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, str(PEER), *arguments], stdout=subprocess.PIPE, text=True
        )

    async def says(self, word):
        async with asyncio.timeout(20):
            line = await asyncio.to_thread(self.process.stdout.readline)
        assert line.strip() == word

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def start_peer():
    started = []

    def start(*arguments):
        started.append(Peer(*arguments))
        return started[-1]

    yield start
    for peer in started:
        peer.kill()


@pytest.fixture
def url(tmp_path):
    return f"shm://{tmp_path}/broker.sock"


@pytest.fixture
def transport(runtime):
    assert mappings() == 0
    yield ShmTransport(runtime)
    assert mappings() == 0
    assert runtime.pool.in_use == 0


@pytest.fixture
async def broker(transport, url):
    """The listener of a broker, and the receivers of what it accepted."""
    accepted = []

    def receiver(connection):
        accepted.append(Recorder(connection, lambda recorder, *_: count(recorder)))
        return accepted[-1]

    listener = await transport.listen(url, receiver)
    yield listener, accepted
    await listener.close()
    for each in accepted:
        each.connection.abort()
        await each.lost()


def count(recorder):
    recorder.seen = getattr(recorder, "seen", 0) + len(recorder.messages)
    recorder.messages.clear()


@pytest.mark.parametrize("step", ["0", "1", "2", "3"])
async def test_a_client_that_dies_in_the_handshake_leaves_nothing_with_the_broker(
    broker, url, start_peer, step
):
    listener, accepted = broker
    peer = start_peer("client", step, url)
    await peer.says("here")
    killed = time.monotonic()
    peer.kill()
    await eventually(lambda: not listener._links._tasks, "the handshake ends", NOTICED_S)
    for each in accepted:  # the last step is the client's own business
        await each.lost(NOTICED_S)
    await eventually(lambda: mappings() == 0, "the memory is gone", NOTICED_S)
    assert time.monotonic() - killed < NOTICED_S


@pytest.mark.parametrize("step", ["0", "1", "2", "3"])
async def test_a_broker_that_dies_in_the_handshake_fails_the_connect_at_once(
    transport, url, start_peer, step
):
    peer = start_peer("broker", step, url)
    await peer.says("listening")
    connecting = asyncio.ensure_future(transport.connect(url, Recorder))
    await peer.says("here")
    killed = time.monotonic()
    peer.kill()
    with pytest.raises(ConnectError, match=r"broker\.sock"):
        await connecting
    assert time.monotonic() - killed < NOTICED_S


@pytest.mark.parametrize("traffic", ["talk", "large", "quiet"])
async def test_a_client_that_dies_in_mid_traffic_is_noticed_and_others_live_on(
    broker, url, start_peer, traffic
):
    _, accepted = broker
    peer, other = start_peer("client", traffic, url), start_peer("client", "talk", url)
    await peer.says("here")
    await other.says("here")
    await eventually(lambda: len(accepted) == 2, "both are connected")
    pid = f"process {peer.process.pid}"
    dying, living = sorted(accepted, key=lambda each: pid not in each.connection.peer)
    if traffic != "quiet":
        await eventually(lambda: getattr(dying, "seen", 0) > 10, "messages flow")
    for _ in range(50):  # for this side has its own messages under way too
        dying.connection.send(bytes(50_000))
    killed = time.monotonic()
    peer.kill()
    await dying.lost(NOTICED_S)
    assert time.monotonic() - killed < NOTICED_S
    seen = living.seen
    await eventually(lambda: living.seen > seen, "the other is not disturbed")
    assert mappings() == 1
    other.kill()
    await living.lost(NOTICED_S)


@pytest.mark.parametrize("traffic", ["talk", "large", "quiet"])
async def test_a_broker_that_dies_in_mid_traffic_is_noticed_and_its_socket_replaced(
    transport, url, start_peer, traffic
):
    peer = start_peer("broker", traffic, url)
    await peer.says("listening")
    receivers = []

    def receiver(connection):
        receivers.append(Recorder(connection, lambda recorder, *_: count(recorder)))
        return receivers[-1]

    await transport.connect(url, receiver)
    await peer.says("here")
    with pytest.raises(AddressInUseError):
        await transport.listen(url, Recorder)
    if traffic != "quiet":
        await eventually(lambda: getattr(receivers[0], "seen", 0) > 10, "messages flow")
    killed = time.monotonic()
    peer.kill()
    await receivers[0].lost(NOTICED_S)
    assert time.monotonic() - killed < NOTICED_S
    with pytest.raises(ConnectError):
        await transport.connect(url, Recorder)
    listener = await transport.listen(url, Recorder)
    await listener.close()
