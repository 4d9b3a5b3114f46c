"""Two ends of an shm connection on one loop, with handlers that remember."""

import asyncio
import socket

import pytest

from frieda.testing.transport_pair import eventually, make_runtime, open_descriptors
from frieda.transports.rdma.provider import ChannelLimits
from frieda.transports.shm import handshake
from frieda.transports.shm.provider import ShmProvider

SMALL = ChannelLimits(slot_bytes=512, window=8, source_bytes=1024 * 1024, max_reads=4)


class Remembering:
    """A CompletionHandler. Each slot is posted again at once, unless `hold`."""

    def __init__(self, pair):
        self.pair = pair
        self.messages = []
        self.log = []
        self.sent_count = 0
        self.reads = []
        self.failures = []
        self.hold = False

    def received(self, slot, size_bytes):
        assert not self.failures
        self.log.append("message")
        self.messages.append(bytes(self.pair.receive_slots[slot][:size_bytes]))
        if not self.hold:
            self.pair.post_receive(slot)

    def sent(self, count):
        self.sent_count += count

    def read_finished(self, work_id):
        self.log.append("read")
        self.reads.append(work_id)

    def failed(self, error):
        self.failures.append(error)


class Ends:
    """Both queue pairs, and what their handlers saw."""

    def __init__(self, client, broker):
        self.client = client
        self.broker = broker
        self.at_client = Remembering(client)
        self.at_broker = Remembering(broker)
        client.start(self.at_client)
        broker.start(self.at_broker)

    def close(self):
        self.client.close()
        self.broker.close()


@pytest.fixture
async def runtime():
    """A runtime whose engine sleeps. At the end no descriptor may be left."""
    await asyncio.to_thread(int)  # what a loop opens once, when it first needs it
    before = open_descriptors()
    made = make_runtime()
    yield made
    made.engine.close()
    assert made.pool.close() == ()
    await eventually(lambda: open_descriptors() <= before, "descriptors closed")


@pytest.fixture
def provider(runtime):
    return ShmProvider(runtime)


@pytest.fixture
async def bring_up(provider):
    """Makes a connection; closed at the end."""
    made = []

    async def bring(limits=SMALL, client_provider=provider, broker_provider=provider):
        here, there = socket.socketpair()
        client, broker = await asyncio.gather(
            handshake.connect(client_provider, here, "shm:///test", limits),
            handshake.accept(broker_provider, there, "shm:///test", limits),
        )
        made.append(Ends(client, broker))
        return made[-1]

    yield bring
    for each in made:
        each.close()


@pytest.fixture
async def ends(bring_up):
    return await bring_up()
