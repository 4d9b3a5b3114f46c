"""The driver of Redis Streams against a real redis-server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from frieda.bench.systems.redis import RedisSystem, RunningRedis
from frieda.testing.driver_clauses import DriverConformance
from frieda.testing.presence import require


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRedis]:
    require(RedisSystem())
    folder: Path = tmp_path_factory.mktemp("redis")
    with RedisSystem().running(folder, "cache") as system:
        yield system
        system.require_alive()


class TestRedis(DriverConformance):
    driver_name = "redis"

    def address_at(self, port: int) -> str:
        return f"redis://127.0.0.1:{port}"
