"""The RDMA channel on a device that is late, stingy and in no hurry."""

from itertools import count

from frieda.testing.fake_device import FakePlan, FakeTransport
from frieda.testing.transports import TransportConformance
from frieda.transports.base import Transport, TransportRuntime

numbers = count()


class TestFakeDevice(TransportConformance):
    def make_url(self) -> str:
        return f"fake://conformance-{next(numbers)}"

    def open_transport(self, url: str, runtime: TransportRuntime) -> Transport:
        return FakeTransport(runtime)


class TestLateFakeDevice(TestFakeDevice):
    """The same, with completions put off, few in each poll, and sources smaller than asked for."""

    def open_transport(self, url: str, runtime: TransportRuntime) -> Transport:
        return FakeTransport(runtime, FakePlan(seed=3, lateness=0.4, per_poll=3))
