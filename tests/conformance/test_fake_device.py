"""The RDMA channel on a device that is late, stingy and in no hurry."""

from contextlib import asynccontextmanager
from itertools import count

from frieda.testing.fake_device import FakePlan, FakeTransport
from frieda.testing.rdma_clauses import RdmaConformance

numbers = count()


class TestFakeDevice(RdmaConformance):
    plan = FakePlan()

    def make_url(self):
        return f"fake://conformance-{next(numbers)}"

    @asynccontextmanager
    async def pair(self, **settings):
        async with super().pair(**settings) as pair:
            yield pair
        for transport in (pair.client, pair.server):
            assert transport.device.violations == []
            assert not transport.device.queue_pairs

    def open_transport(self, url, runtime):
        return FakeTransport(runtime, self.plan)

    async def raw_queue_pair(self, pair):
        return pair.client.connect_queue_pair(pair.listener.url)


class TestLateFakeDevice(TestFakeDevice):
    """The same, with completions put off, and few in each poll."""

    plan = FakePlan(seed=3, lateness=0.4, per_poll=3)
