"""redis-server as a system, asked by a client that is not ours."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from frieda.bench.systems.base import DURABILITIES, Durability
from frieda.bench.systems.processes import resident_bytes
from frieda.bench.systems.redis import RedisSystem
from frieda.errors import ConfigError, FriedaError
from frieda.testing.presence import require

SYSTEM = RedisSystem()


@pytest.fixture(autouse=True)
def _present() -> None:
    require(SYSTEM)


@pytest.mark.parametrize("durability", DURABILITIES)
def test_it_runs_with_the_settings_that_it_tells(tmp_path: Path, durability: Durability) -> None:
    with SYSTEM.running(tmp_path, durability) as running:
        with redis.Redis.from_url(running.address) as client:
            found = {name: client.config_get(name)[name] for name in running.settings}
            assert found == dict(running.settings)
            assert client.info("server")["redis_version"] == running.version
            client.xadd("stream", {"v": "x" * 1_000_000})
        with redis.Redis.from_url(running.unix_address) as client:
            assert client.xlen("stream") == 1
        running.require_alive()
        assert running.cpu_seconds() > 0
        assert running.memory_bytes() == pytest.approx(
            resident_bytes(running.process.pids), rel=0.5
        )
        pids = running.process.pids
    assert found["appendfsync"] == {"cache": "everysec", "disk": "always"}[durability]
    assert found["save"] == ""
    assert pids
    assert resident_bytes(pids) == 0, "nothing of it runs any more"
    assert not running.unix_socket.exists()
    assert (tmp_path / "appendonlydir").is_dir(), "its data lay on the folder that was given"


def test_what_was_written_is_there_after_a_restart_on_the_same_folder(tmp_path: Path) -> None:
    for expected in (1, 2):
        with (
            SYSTEM.running(tmp_path, "disk") as running,
            redis.Redis.from_url(running.address) as client,
        ):
            client.xadd("stream", {"v": "x"})
            assert client.xlen("stream") == expected


def test_a_long_folder_still_has_a_unix_socket(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    with (
        SYSTEM.running(folder, "cache") as running,
        redis.Redis.from_url(running.unix_address) as client,
    ):
        assert client.ping()
    assert not running.unix_socket.parent.exists()


def test_one_that_died_is_told_with_its_log(tmp_path: Path) -> None:
    with SYSTEM.running(tmp_path, "cache") as running:
        running.process.kill()
        with pytest.raises(
            FriedaError, match=r"redis-server does not run any more.*end of its log"
        ):
            running.require_alive()


def test_one_that_cannot_start_is_told_with_its_log(tmp_path: Path) -> None:
    (tmp_path / "appendonlydir").write_text("in the way")
    with (
        pytest.raises(FriedaError, match=r"(?s)redis-server does not run any more.*appendonlydir"),
        SYSTEM.running(tmp_path, "cache"),
    ):
        pytest.fail("it runs")


def test_more_than_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="brokers = 2"), SYSTEM.running(tmp_path, "cache", 2):
        pytest.fail("it runs")


def test_without_the_program_it_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("frieda.bench.systems.redis.find_program", lambda _: None)
    assert SYSTEM.missing() == (
        "redis-server is not installed: run 'make peers', or 'apt install redis-server'"
    )
    with (
        pytest.raises(FriedaError, match="redis-server is not installed"),
        SYSTEM.running(tmp_path, "cache"),
    ):
        pytest.fail("it runs")
