"""Frieda's own driver, over each transport that a broker process can be started on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from frieda.bench.drivers.base import ConsumerOptions, ProducerOptions
from frieda.bench.drivers.registry import driver
from frieda.cli.frieda_system import FriedaSystem, RunningFrieda
from frieda.errors import ConfigError
from frieda.testing.driver_clauses import DriverConformance
from frieda.testing.driver_endings import EndedSystemConformance


@pytest.fixture(scope="module", params=["tcp", "shm"])
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningFrieda]:
    folder: Path = tmp_path_factory.mktemp("frieda")
    with FriedaSystem(request.param, polling="event").running(folder, "cache") as system:
        yield system
        system.require_alive()


class TestFrieda(DriverConformance):
    driver_name = "frieda"
    extra = {"connect_timeout_s": 2.0}  # noqa: RUF012

    def address_at(self, port: int) -> str:
        return f"tcp://127.0.0.1:{port}"

    async def test_the_transport_is_that_of_the_address(
        self, running: RunningFrieda, topic: str
    ) -> None:
        scheme = running.address.partition("://")[0]
        async with self.producer(running, topic) as producer:
            assert producer.settings["transport"] == scheme
        async with self.consumer(running, topic) as consumer:
            assert consumer.settings["transport"] == scheme


class TestFriedaThatDies(EndedSystemConformance):
    driver_name = "frieda"

    def start(self, folder: Path) -> AbstractContextManager[RunningFrieda]:
        return FriedaSystem("tcp", polling="event").running(folder, "cache")


def test_an_address_without_a_scheme_is_named() -> None:
    with pytest.raises(ConfigError, match="'localhost:9500': must be like tcp://host:port"):
        driver("frieda").producer(ProducerOptions(address="localhost:9500", topic="t"))


def test_a_position_that_is_no_offset_is_named() -> None:
    options = ConsumerOptions(address="tcp://127.0.0.1:1", topic="t", start={0: "1-1"})
    with pytest.raises(ConfigError, match="position '1-1': Frieda's positions are offsets"):
        driver("frieda").consumer(options)
