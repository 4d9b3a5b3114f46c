"""The transports without eager flush, which exists for comparison: everything else must hold as well."""

import asyncio
from dataclasses import replace
from itertools import count

import pytest

from frieda.testing.transport_pair import make_runtime
from frieda.testing.transports import TransportConformance
from frieda.transports.address import parse_host_port
from frieda.transports.base import Transport, TransportRuntime
from frieda.transports.memory import MemoryTransport, RawMemoryPeer
from frieda.transports.registry import open_transport

numbers = count()


class HeldSends(TransportConformance):
    """Every connection holds what it sends for a millisecond."""

    def open_transport(self, url: str, runtime: TransportRuntime) -> Transport:
        return open_transport(url, replace(runtime, send_hold_s=0.001))


class TestHeldMemory(HeldSends):
    def make_url(self) -> str:
        return f"memory://held-{next(numbers)}"

    async def raw_peer(self, url: str) -> RawMemoryPeer:
        return MemoryTransport(make_runtime()).connect_raw(url)


class RawTcpPeer:
    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.write = writer.write
        self.close = writer.close


class TestHeldTcp(HeldSends):
    def make_url(self) -> str:
        return "tcp://127.0.0.1:0"

    async def raw_peer(self, url: str) -> RawTcpPeer:
        _, writer = await asyncio.open_connection(*parse_host_port(url))
        return RawTcpPeer(writer)


class TestHeldShm(HeldSends):
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path_factory):
        self._folder = tmp_path_factory.mktemp("shm")

    def make_url(self) -> str:
        return f"shm://{self._folder}/{next(numbers)}.sock"
