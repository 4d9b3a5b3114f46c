"""`frieda config dump`: what is printed, and that a dump is a file that can be given back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from frieda.cli.config import load_broker_settings
from frieda.cli.main import run
from frieda.config import BrokerConfig


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FRIEDA_BROKER_CONFIG", "FRIEDA_BROKER_FLUSH"):
        monkeypatch.delenv(name, raising=False)


def test_a_dump_given_back_as_the_file_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRIEDA_BROKER_FLUSH", "batch")
    assert run(["config", "dump", "--set", "topic.retention.ms=5", "--set", "broker-id=3"]) == 0
    file = tmp_path / "frieda.toml"
    file.write_text(capsys.readouterr().out, encoding="utf-8")
    monkeypatch.delenv("FRIEDA_BROKER_FLUSH")
    settings = load_broker_settings(file, {}).settings
    assert (settings.flush, settings.broker_id, settings.topic.retention_ms) == ("batch", 3, 5)


def test_the_file_may_be_named_by_the_environment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "frieda.toml"
    file.write_text('data = "/elsewhere"\n', encoding="utf-8")
    monkeypatch.setenv("FRIEDA_BROKER_CONFIG", str(file))
    assert run(["config", "dump", "--format", "json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert (rows["data"]["value"], rows["data"]["source"]) == ("/elsewhere", f"file {file}")


def test_an_unknown_key_exits_with_2_and_names_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["config", "dump", "--set", "flsh=batch"]) == 2
    err = capsys.readouterr().err
    assert err == "frieda: flag: unknown setting 'flsh'; did you mean 'flush'?\n"


def test_a_setting_without_a_value_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "dump", "--set", "flush"]) == 2
    assert "must be NAME=VALUE" in capsys.readouterr().err


def test_without_sources_a_broker_has_the_default_settings() -> None:
    assert load_broker_settings(None, {}).settings == BrokerConfig()
