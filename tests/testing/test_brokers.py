"""Broker processes for tests: one that cannot start says why, and nobody waits for ever for one that does not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from frieda.testing.brokers import BrokerProcess


def test_a_broker_that_is_not_ready_in_time_is_killed(tmp_path: Path) -> None:
    # It waits for whoever may write its settings into this pipe.
    os.mkfifo(tmp_path / "settings.toml")
    broker = BrokerProcess(tmp_path / "data", "--config", str(tmp_path / "settings.toml"))
    with pytest.raises(
        RuntimeError, match=r"the broker was not ready within 0\.5 s \(exit code -9\)"
    ):
        broker.start(timeout_s=0.5)
    assert broker.ended
    assert not (tmp_path / "data").exists()


def test_a_broker_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    broker = BrokerProcess(tmp_path / "data")
    with pytest.raises(
        RuntimeError,
        match=r"the broker did not start \(exit code \d+\): .*the data folder .*is a file",
    ):
        broker.start()
    assert broker.ended


def test_a_broker_starts_again_at_its_address(tmp_path: Path) -> None:
    with BrokerProcess(tmp_path) as broker:
        first_url, first_pid = broker.url, broker.pid
        assert broker.stop() == (0, "")
        broker.start()
        assert broker.url == first_url
        assert broker.pid != first_pid
        assert broker.stop() == (0, "")
