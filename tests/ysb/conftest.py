"""A real redis-server for the tests of this folder, emptied for each of them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from frieda.bench.systems.processes import find_program
from frieda.bench.systems.redis import RedisSystem, RunningRedis
from frieda.testing.presence import require


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRedis]:
    system = RedisSystem()
    require(system)
    with system.running(tmp_path_factory.mktemp("redis"), "cache") as running:
        yield running


@pytest.fixture
def redis_url(redis_server: RunningRedis) -> str:
    """The address of an empty database."""
    client = find_program("redis-cli")
    assert client is not None, "redis-cli comes with redis-server"
    subprocess.run(
        [client, "-s", redis_server.unix_socket, "flushall"], check=True, capture_output=True
    )
    return redis_server.unix_address
