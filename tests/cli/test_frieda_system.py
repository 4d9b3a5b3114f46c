"""Frieda's broker as a system that the benchmarks start."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import frieda
from frieda.bench.systems.base import DURABILITIES, Durability
from frieda.bench.systems.processes import resident_bytes
from frieda.cli.frieda_system import FriedaSystem
from frieda.clients.admin import Admin
from frieda.errors import ConfigError, FriedaError


async def settings_of_broker(address: str) -> tuple[str, str]:
    async with Admin(address, polling="event") as admin:
        await admin.create_topic("topic", config={})
        flush = (await admin.describe_topic("topic")).configs["flush"]
        return flush, (await admin.broker_health()).settings["polling"]


@pytest.mark.parametrize("transport", ["tcp", "shm"])
@pytest.mark.parametrize("durability", DURABILITIES)
def test_it_runs_on_its_folder_with_the_settings_that_it_tells(
    tmp_path: Path, transport: str, durability: Durability
) -> None:
    system = FriedaSystem(transport, polling="event", settings=("max_producers=7",))
    assert system.missing() is None
    with system.running(tmp_path, durability) as running:
        assert running.address.startswith(f"{transport}://")
        flush, polling = asyncio.run(settings_of_broker(running.address))
        assert running.settings == {
            "transport": transport,
            "polling": polling,
            "flush": flush,
            "max_producers": "7",
        }
        assert flush == {"cache": "never", "disk": "batch"}[durability]
        assert running.version == frieda.__version__
        running.require_alive()
        assert running.cpu_seconds() > 0
        assert running.memory_bytes() > 1_000_000
        pids = running.process.pids
    assert len(pids) == 1
    assert resident_bytes(pids) == 0, "nothing of it runs any more"
    assert list((tmp_path / "data").iterdir())


def test_one_that_died_is_told(tmp_path: Path) -> None:
    with FriedaSystem(polling="event").running(tmp_path, "cache") as running:
        running.process.kill()
        with pytest.raises(FriedaError, match="frieda-broker does not run any more"):
            running.require_alive()


def test_one_that_cannot_start_is_told_why(tmp_path: Path) -> None:
    system = FriedaSystem(settings=("flash=batch",))
    with (
        pytest.raises(FriedaError, match=r"(?s)frieda-broker does not run.*did you mean 'flush'"),
        system.running(tmp_path, "cache"),
    ):
        pytest.fail("it runs")


def test_shared_memory_works_on_a_folder_whose_path_is_too_long_for_a_socket(
    tmp_path: Path,
) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    with FriedaSystem("shm", polling="event").running(folder, "cache") as running:
        assert asyncio.run(settings_of_broker(running.address)) == ("never", "event")
        assert (folder / "data").is_dir()
    assert not Path(running.address.removeprefix("shm://")).parent.exists()


def test_settings_of_ours_in_the_environment_do_not_reach_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRIEDA_BROKER_FLUSH", "batch")
    monkeypatch.setenv("FRIEDA_BROKER_LISTEN", "tcp://127.0.0.1:1")
    with FriedaSystem(polling="event").running(tmp_path, "cache") as running:
        assert asyncio.run(settings_of_broker(running.address)) == ("never", "event")


def test_what_it_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="transport 'verbs': a broker is started over tcp or shm"):
        FriedaSystem("verbs")
    with (
        pytest.raises(ConfigError, match="brokers = 4: Frieda does not replicate yet"),
        FriedaSystem().running(tmp_path, "cache", 4),
    ):
        pytest.fail("it runs")
