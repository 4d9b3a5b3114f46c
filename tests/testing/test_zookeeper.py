from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from frieda.errors import ConfigError, FriedaError, MissingDependencyError
from frieda.testing.zookeeper import JARS_VARIABLE, ZooKeeper, missing


@pytest.fixture(autouse=True)
def _needs_zookeeper() -> None:
    if (sentence := missing()) is not None:
        if os.environ.get("CI") == "true":
            pytest.fail(sentence)
        pytest.skip(sentence)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def test_where_it_is_not_installed_a_sentence_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(JARS_VARIABLE, str(tmp_path))
    sentence = missing()
    assert sentence is not None
    assert "apt install zookeeper" in sentence
    with pytest.raises(MissingDependencyError, match="apt install zookeeper"), ZooKeeper():
        raise AssertionError("it was started without its jars")
    monkeypatch.delenv(JARS_VARIABLE)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert missing() == (
        "there is no java to run ZooKeeper: run 'apt install default-jre-headless'"
    )


@pytest.mark.parametrize("settings", [{"nodes": 0}, {"nodes": 10}, {"tick_ms": 1}])
def test_numbers_that_make_no_sense_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="must be 1 to 9 and at least 10"):
        ZooKeeper(**settings)


def test_it_serves_is_killed_started_again_at_its_port_and_leaves_nothing() -> None:
    with ZooKeeper() as ensemble:
        (node,) = ensemble.nodes
        folder, port, first = node.folder, node.port, node.pid
        assert ensemble.url == f"zk://127.0.0.1:{port}"
        assert node.mode == "standalone"
        node.kill()
        assert not node.running
        assert not is_alive(first)
        with pytest.raises(FriedaError, match="is not running"):
            node.pause()
        node.start()
        with pytest.raises(FriedaError, match="runs already"):
            node.start()
        node.wait_until_serving()
        second = node.pid
        assert "Mode: standalone" in node.ask("srvr")
        node.stop()
        assert not is_alive(second)
        node.start()
        third = node.pid
    assert not is_alive(third)
    assert not folder.exists()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_paused_server_is_silent_and_goes_on() -> None:
    with ZooKeeper() as ensemble:
        (node,) = ensemble.nodes
        node.pause()
        with pytest.raises(OSError, match="timed out"):
            node.ask("ruok", 0.2)
        node.resume()
        node.wait_until_serving()


def test_three_servers_have_one_leader_and_go_on_with_two() -> None:
    with ZooKeeper(nodes=3) as ensemble:
        assert sorted(node.mode for node in ensemble.nodes) == ["follower", "follower", "leader"]
        leader = ensemble.node_of("leader")
        leader.kill()
        for node in ensemble.nodes:
            if node is not leader:
                node.wait_until_serving()
        assert ensemble.node_of("follower").running
        with pytest.raises(FriedaError, match="no running ZooKeeper of this ensemble is observer"):
            ensemble.node_of("observer")


def test_it_does_not_outlive_a_process_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from frieda.testing.zookeeper import ZooKeeper\n"
        "with ZooKeeper() as ensemble:\n"
        "    print(ensemble.nodes[0].pid, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    ) as owner:
        assert owner.stdout is not None
        server = int(owner.stdout.readline())
        handle = os.pidfd_open(server)
        assert is_alive(server)
        owner.send_signal(signal.SIGKILL)
        owner.wait(60)
    with open(handle, "rb"):
        waiting = select.poll()
        waiting.register(handle)
        assert waiting.poll(60_000), "it runs on without its owner"
    assert not is_alive(server)
