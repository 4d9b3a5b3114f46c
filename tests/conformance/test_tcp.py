import asyncio

from frieda.testing.transports import TransportConformance
from frieda.transports.address import parse_host_port


class RawTcpPeer:
    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    def close(self) -> None:
        self._writer.close()


class TestTcp(TransportConformance):
    def make_url(self) -> str:
        return "tcp://127.0.0.1:0"

    async def raw_peer(self, url: str) -> RawTcpPeer:
        _, writer = await asyncio.open_connection(*parse_host_port(url))
        return RawTcpPeer(writer)


class TestTcpOnIpv6(TestTcp):
    def make_url(self) -> str:
        return "tcp://[::1]:0"
