from itertools import count

from frieda.testing.transport_pair import make_runtime
from frieda.testing.transports import TransportConformance
from frieda.transports.base import Transport, TransportRuntime
from frieda.transports.memory import MemoryFaults, MemoryTransport, RawMemoryPeer

numbers = count()


class TestMemory(TransportConformance):
    def make_url(self) -> str:
        return f"memory://conformance-{next(numbers)}"

    async def raw_peer(self, url: str) -> RawMemoryPeer:
        return MemoryTransport(make_runtime()).connect_raw(url)


class TestMemoryInSmallPieces(TestMemory):
    """The same, with every message torn into pieces of random sizes."""

    def open_transport(self, url: str, runtime: TransportRuntime) -> Transport:
        return MemoryTransport(runtime, MemoryFaults(seed=5, largest_piece_bytes=70_000))
