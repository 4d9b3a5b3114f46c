import pytest

from frieda.testing.transports import TransportConformance


class TestShm(TransportConformance):
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path_factory):
        self._folder = tmp_path_factory.mktemp("shm")
        self._count = 0

    def make_url(self) -> str:
        self._count += 1
        return f"shm://{self._folder}/{self._count}.sock"


class TestShmAdaptive(TestShm):
    polling = "adaptive"
