"""The driver of NATS JetStream against a real nats-server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from frieda.bench.systems.nats import NatsSystem, RunningNats
from frieda.testing.driver_clauses import DriverConformance
from frieda.testing.presence import require


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNats]:
    require(NatsSystem())
    folder: Path = tmp_path_factory.mktemp("nats")
    with NatsSystem().running(folder, "cache") as system:
        yield system
        system.require_alive()


class TestNats(DriverConformance):
    driver_name = "nats"

    def address_at(self, port: int) -> str:
        return f"nats://127.0.0.1:{port}"
