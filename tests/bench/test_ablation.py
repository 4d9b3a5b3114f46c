"""The ablation: what each design switches, what the table says, and that the command runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from frieda.bench.ablation import (
    ALL_ON,
    DESIGNS,
    SCENES,
    Design,
    ablation_cases,
    ablation_rows,
    case_name,
)
from frieda.bench.load import Load
from frieda.bench.producer import Mix, ProducerSettings
from frieda.bench.under_test import BrokerUnderTest
from frieda.cli.exit_codes import ExitCode
from frieda.cli.main import run
from frieda.config import BrokerConfig, ProducerConfig
from frieda.config_sources import load_settings
from frieda.errors import ConfigError


def no_broker(polling: str, flush: str, transport: str = "tcp", *settings: str) -> BrokerUnderTest:
    raise AssertionError("a plan starts no broker before it is run")


@pytest.mark.parametrize("design", DESIGNS, ids=lambda design: design.name)
def test_every_switch_is_a_setting_that_both_sides_know(design: Design) -> None:
    flags = dict(setting.split("=") for setting in design.broker_settings)
    loaded = load_settings(BrokerConfig, flags=flags).settings
    changed = {name for name in flags if getattr(loaded, name) != getattr(BrokerConfig(), name)}
    assert changed == set(flags)
    ProducerConfig(polling=design.polling, **dict(design.both))  # type: ignore[arg-type]
    assert bool(flags) or design.polling == "event" or design.name == ALL_ON


def test_every_design_meets_every_load_on_every_transport_and_first_of_all_with_all_on() -> None:
    cases = ablation_cases(no_broker, 1000, ("tcp", "shm"), SCENES, DESIGNS)  # type: ignore[arg-type]
    names = [case.name for case in cases]
    assert len(set(names)) == len(names) == 2 * len(SCENES) * len(DESIGNS)
    assert names[0] == case_name("tcp", SCENES[0], Design(ALL_ON))


def test_the_table_has_medians_and_ratios_of_the_same_round() -> None:
    scene, off = SCENES[0], Design("off")
    measured = {
        case_name("tcp", scene, Design(ALL_ON)): [values(10.0), values(100.0), values(20.0)],
        case_name("tcp", scene, off): [values(20.0), values(50.0), values(60.0)],
    }
    rows = ablation_rows(measured, ("tcp",), (scene,), (Design(ALL_ON), off))
    assert [row["p50"] for row in rows] == [20.0, 50.0]
    assert [row["p50_ratio"] for row in rows] == [1.0, 2.0]
    assert [row["p99.9_ratio"] for row in rows] == [None, None], "too few samples stay that"
    assert [row["records_per_sec"] for row in rows] == [7.0, 7.0]


def values(p50: float) -> dict[str, float | None]:
    return {"p50": p50, "p99": p50, "p99.9": None, "records_per_sec": 7.0, "mb_per_sec": 1.0}


def test_a_mix_sends_every_so_manieth_record_large() -> None:
    mix = Mix(spread=4, large_every=5)
    assert mix.partitions == 5
    assert [number for number in range(12) if mix.is_large(number)] == [4, 9]
    assert Mix(spread=4).partitions == 4
    assert not any(Mix(spread=4).is_large(number) for number in range(12))
    with pytest.raises(ConfigError, match="a mix of records needs a rate"):
        ProducerSettings(load=Load(records=10), topic="t", mix=mix)


def test_the_command_measures_prints_the_table_and_leaves_only_its_result(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    file = tmp_path / "result.json"
    only = ["--load", "mixed", "--transport", "shm", "--design", "no overlap"]
    flags = ["--rounds", "1", "--records", "500", *only, "--json", str(file)]
    assert run(["bench", "ablation", *flags]) == 0
    out = capfd.readouterr().out
    assert "round 1 of 1  shm, mixed, no overlap" in out
    result = json.loads(file.read_text())
    assert [row["design"] for row in result["rows"]] == [ALL_ON, "no overlap"]
    assert result["designs"]["no overlap"] == {"polling": "adaptive", "overlapped": False}
    for (measured,) in result["measurements"].values():
        assert measured["errors"] == 0
        assert measured["records_per_sec"] > 0
    assert list(tmp_path.iterdir()) == [file]


def test_a_load_or_design_that_is_not_there_is_named_with_those_that_are(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert run(["bench", "ablation", "--load", "smal"]) == ExitCode.USAGE
    assert "there is no load 'smal' (known: small, mixed, " in capfd.readouterr().err
    assert run(["bench", "ablation", "--design", "polling"]) == ExitCode.USAGE
    assert "there is no design 'polling' (known: all on, " in capfd.readouterr().err
