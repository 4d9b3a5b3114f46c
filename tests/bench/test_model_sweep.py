"""The sweep of the latency model: what it refuses, and what it measures on a real broker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from frieda.bench.model_figures import models_of
from frieda.bench.model_sweep import SweepSettings, run_sweep
from frieda.bench.plan import Contender
from frieda.bench.results import Results, Run, read_results, write_results
from frieda.cli.frieda_system import FriedaSystem
from frieda.errors import ConfigError


class Silent:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.runs: list[Run] = []

    def measured(self, run: Run) -> None:
        self.runs.append(run)

    def probed(self, what: str) -> None:
        raise AssertionError(f"nothing is to be found out beforehand: {what}")

    def skipped(self, what: str) -> None:
        raise AssertionError(what)

    def round_ended(self, results: Results) -> None:
        assert results.kind == "model"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"records": 1999}, "needs 2000 at least"),
        ({"sizes": (100,)}, "two sizes or more"),
        ({"sizes": (100, 100)}, "two sizes or more"),
        ({"windows": (4, 16)}, "a window of 1"),
        ({"rounds": 0}, "must be from 1 to 1000"),
    ],
)
def test_a_sweep_that_the_model_cannot_be_fitted_to_is_refused(
    changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        SweepSettings(**changes)


def test_large_records_are_fewer_and_never_too_few_for_the_tail() -> None:
    settings = SweepSettings(records=20_000)
    assert settings.records_of(100) == 20_000
    assert settings.records_of(64 * 1024) == 4096
    assert settings.records_of(16 * 1024 * 1024) == 2000


def test_every_size_and_window_is_measured_in_every_round_and_can_be_fitted(
    tmp_path: Path,
) -> None:
    settings = SweepSettings(
        sizes=(100, 4096), windows=(1, 4), records=2000, rounds=1, polling="event"
    )
    contender = Contender(label="frieda tcp", driver="frieda", system=FriedaSystem("tcp", "event"))
    listener = Silent()
    results = run_sweep([contender], settings, "frieda bench model", tmp_path, listener)
    assert len(listener.runs) == len(results.runs) == 4
    assert all(run.valid and run.records == 2000 for run in results.runs)
    cells = {(run.settings["record_size"], run.settings["in_flight"]) for run in results.runs}
    assert cells == {(100, 1), (100, 4), (4096, 1), (4096, 4)}
    assert len(results.cases()) == 4
    again = read_results(write_results(tmp_path / "written", results))
    models = models_of(again)
    assert [each.series for each in models.fitted] == ["Frieda tcp", "Frieda tcp"]
    assert not models.problems
