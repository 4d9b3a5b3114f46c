import pytest

from frieda.testing.rdma_clauses import RdmaConformance
from frieda.transports.shm import handshake, socket_file


class TestShm(RdmaConformance):
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path_factory):
        self._folder = tmp_path_factory.mktemp("shm")
        self._count = 0

    def make_url(self) -> str:
        self._count += 1
        return f"shm://{self._folder}/{self._count}.sock"

    async def raw_queue_pair(self, pair):
        url, transport = pair.listener.url, pair.client
        sock = await socket_file.connect(url)
        return await handshake.connect(transport._provider, sock, url, transport._limits)


class TestShmAdaptive(TestShm):
    polling = "adaptive"
