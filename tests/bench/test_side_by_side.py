"""Targets beside measurements: how runs take turns, what a ratio is, and that the whole thing runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from frieda.bench import shared_memory
from frieda.bench.rounds import (
    Case,
    Target,
    Values,
    as_rows,
    interleaved,
    judge,
    run_side_by_side,
)
from frieda.bench.side_by_side import PARTS, Plan
from frieda.bench.under_test import BrokerUnderTest
from frieda.cli.main import run


def case(name: str, values: Values | None = None) -> Case:
    return Case(name, lambda: values or {})


def test_every_round_has_every_case_and_begins_with_another_one() -> None:
    order = [(number, each.name) for number, each in interleaved([case("a"), case("b")], 3)]
    assert order == [(0, "a"), (0, "b"), (1, "b"), (1, "a"), (2, "a"), (2, "b")]


RATIO = Target("ours to theirs", "ours", "p50", "theirs", 0.5)


def test_a_ratio_is_that_of_one_round_and_the_median_counts() -> None:
    measured = {
        "ours": [{"p50": 10.0}, {"p50": 90.0}, {"p50": 12.0}],
        "theirs": [{"p50": 40.0}, {"p50": 90.0}, {"p50": 30.0}],
    }
    outcome = judge(RATIO, measured)
    assert outcome.values == (0.25, 1.0, 0.4)
    assert outcome.median == 0.4
    assert outcome.met is True
    (row,) = as_rows([outcome])
    assert (row["target"], row["least"], row["greatest"]) == ("<= 0.5", 0.25, 1.0)
    assert row["met"] == "yes"


def test_a_target_may_be_a_least_value_of_one_case() -> None:
    target = Target("rate", "ours", "records_per_sec", None, 100.0, at_most=False, unit="1/s")
    assert judge(target, {"ours": [{"records_per_sec": 101.0}]}).met is True
    missed = judge(target, {"ours": [{"records_per_sec": 99.0}]})
    assert missed.met is False
    assert as_rows([missed])[0]["met"] == "NO"
    assert as_rows([missed])[0]["target"] == ">= 100"


def test_a_percentile_that_one_round_cannot_carry_gives_no_ratio() -> None:
    measured = {
        "ours": [{"p50": 10.0}, {"p50": None}],
        "theirs": [{"p50": 40.0}, {"p50": 40.0}],
    }
    outcome = judge(RATIO, measured)
    assert (outcome.median, outcome.met) == (None, None)
    assert as_rows([outcome])[0]["met"] == "too few samples"


def test_what_each_case_measured_is_kept_and_told() -> None:
    told: list[tuple[int, str]] = []
    done = run_side_by_side(
        [case("ours", {"p50": 1.0}), case("theirs", {"p50": 4.0})],
        [RATIO],
        rounds=2,
        on_measured=lambda number, name, _: told.append((number, name)),
    )
    assert done.measurements == {"ours": [{"p50": 1.0}] * 2, "theirs": [{"p50": 4.0}] * 2}
    assert done.outcomes[0].values == (0.25, 0.25)
    assert told == [(0, "ours"), (0, "theirs"), (1, "theirs"), (1, "ours")]


def no_broker(polling: str, flush: str, transport: str = "tcp", *settings: str) -> BrokerUnderTest:
    raise AssertionError("a plan starts no broker before it is run")


@pytest.mark.parametrize("part", PARTS)
def test_every_target_names_cases_of_its_own_part(part: str) -> None:
    cases, targets = Plan(no_broker, 20_000).part(part)  # type: ignore[arg-type]
    names = {each.name for each in cases}
    assert len(names) == len(cases)
    assert targets
    for target in targets:
        assert target.case in names
        assert target.against is None or target.against in names


def test_the_command_prints_the_table_and_leaves_only_its_result(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    file = tmp_path / "result.json"
    flags = ["--latency", "--rounds", "1", "--records", "2000", "--json", str(file)]
    assert run(["bench", "side-by-side", *flags]) == 0
    out = capfd.readouterr().out
    assert "round 1 of 1  frieda adaptive" in out
    result = json.loads(file.read_text())
    rows = {row["what"]: row for row in result["targets"]}
    assert len(rows) == 5
    assert rows["p50, event / event echo"]["median"] > 0
    # 2,000 records cannot carry a p99.9, and the table says so.
    assert rows["p99.9, adaptive / event echo"]["met"] == "too few samples"
    ours = result["measurements"]["frieda adaptive"][0]
    assert ours["errors"] == 0
    assert ours["p50"] > 0
    assert list(tmp_path.iterdir()) == [file]


def test_shared_memory_is_measured_beside_tcp(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(shared_memory, "CROWDS", (2,))
    file = tmp_path / "result.json"
    flags = ["--shm", "--rounds", "1", "--records", "2000", "--json", str(file)]
    assert run(["bench", "side-by-side", *flags]) == 0
    assert "round 1 of 1  2 producers, shm" in capfd.readouterr().out
    result = json.loads(file.read_text())
    rows = {row["what"]: row for row in result["targets"]}
    assert len(rows) == 5 + 2 + 2 + 2
    assert rows["MB/s of 1 MiB messages, shm / tcp"]["median"] > 0
    crowds = [result["measurements"][f"2 producers, {way}"][0] for way in ("tcp event", "shm")]
    assert crowds[0]["rate"] == crowds[1]["rate"] > 1
    assert all(rounds[0]["errors"] == 0 for rounds in result["measurements"].values())
    assert list(tmp_path.iterdir()) == [file]
