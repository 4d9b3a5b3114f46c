"""A comparison as a whole: fresh systems in turns, rates found first, failures told and nothing left behind."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from frieda.bench import compare
from frieda.bench.compare import Comparison
from frieda.bench.drive import DriveSettings
from frieda.bench.histogram import LatencyHistogram
from frieda.bench.plan import BATCHING_CANDIDATES, Contender, Method, Plan, Point
from frieda.bench.report import latencies_us
from frieda.bench.results import Results, Run
from frieda.bench.systems.base import Durability, RunningSystem
from frieda.cli.frieda_system import FriedaSystem
from frieda.errors import ConfigError, FriedaError


@dataclass
class Running:
    """RunningSystem in memory."""

    address: str
    version: str = "1.2"
    settings: Mapping[str, object] = field(default_factory=lambda: {"flush": "never"})

    def cpu_seconds(self) -> float:
        return 0.0

    def memory_bytes(self) -> int:
        return 0

    def require_alive(self) -> None: ...


class StandIn:
    """A system that is started and stopped in a list, and can be one broker only."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self._log = log

    def missing(self) -> str | None:
        return None

    @contextlib.contextmanager
    def running(
        self, folder: Path, durability: Durability, brokers: int = 1
    ) -> Iterator[RunningSystem]:
        if brokers != 1:
            raise ConfigError(f"brokers = {brokers}: only one")
        assert list(folder.iterdir()) == []
        (folder / "data").write_text(durability)
        self._log.append(f"start {self.name}")
        try:
            yield Running(self.name)
        finally:
            self._log.append(f"stop {self.name}")


class Heard:
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.told: list[str] = []
        self.rounds: list[int] = []

    def measured(self, run: Run) -> None:
        self.runs.append(run)

    def probed(self, what: str) -> None:
        self.told.append(what)

    def skipped(self, what: str) -> None:
        self.told.append(what)

    def round_ended(self, results: Results) -> None:
        self.rounds.append(len(results.runs))


RATES = {"fast": 9000.0, "slow": 1000.0}


def a_run(settings: DriveSettings, case: str, number: int = 0) -> Run:
    histogram = LatencyHistogram()
    histogram.record(1_000, settings.load.records)
    batched = 1.0 + (settings.batch_bytes > 100_000) + settings.linger_ms / 10
    return Run(
        case=case,
        round=number,
        system="redis",
        driver=settings.driver,
        settings=dict(settings.facts) | {"rate": settings.load.rate},
        records=settings.load.records,
        elapsed_s=1.0,
        records_per_sec=RATES[settings.address] * batched,
        latency_us=latencies_us(histogram),
        histogram=histogram.encode(),
    )


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was started, loaded and stopped, in order; no load process is started."""
    log: list[str] = []

    def run_drive(
        settings: DriveSettings, *, case: str, round_number: int = 0, server: object = None
    ) -> Run:
        log.append(f"load {settings.address} at {settings.load.rate}")
        return a_run(settings, case, round_number)

    monkeypatch.setattr(compare, "run_drive", run_drive)
    return log


def contenders(log: list[str], driver: str = "redis") -> tuple[Contender, ...]:
    return tuple(
        Contender(label=name, driver=driver, system=StandIn(name, log)) for name in ("fast", "slow")
    )


def comparison(plan: Plan, folder: Path, heard: Heard, **more: Any) -> Comparison:
    return Comparison(
        plan=plan, kind="compare", command="frieda", folder=folder, listener=heard, **more
    )


def test_every_run_has_a_fresh_system_one_at_a_time_and_the_contenders_take_turns(
    tmp_path: Path, log: list[str]
) -> None:
    heard = Heard()
    plan = Plan(contenders=contenders(log), points=(Point(), Point(producers=2)), rounds=2)
    results = comparison(plan, tmp_path, heard).run()
    systems = [line.split()[1] for line in log if line.startswith("load")]
    assert systems == ["fast", "slow"] * 2 + ["slow", "fast"] * 2
    assert [line.split()[0] for line in log] == ["start", "load", "stop"] * 8
    assert heard.rounds == [4, 8]
    assert results.runs == tuple(heard.runs)
    assert len(results.cases()) == 4
    assert all(run.server_settings == {"version": "1.2", "flush": "never"} for run in results.runs)
    assert results.environment["filesystem"]
    assert list(tmp_path.iterdir()) == []


def test_a_share_of_a_rate_is_of_what_the_slowest_sustains_and_is_kept(
    tmp_path: Path, log: list[str]
) -> None:
    heard = Heard()
    plan = Plan(contenders=contenders(log), points=(Point(rate_share=0.5),), rounds=1)
    results = comparison(plan, tmp_path, heard).run()
    assert [line for line in log if line.startswith("load")] == [
        *("load fast at None", "load slow at None", "load fast at 500.0", "load slow at 500.0"),
    ]
    assert results.extra["rates"] == [
        {
            "point": "1 producer, 100 B, 50% load",
            "rate": 500.0,
            "of": "slow",
            "sustained": {"fast": 9000.0, "slow": 1000.0},
        }
    ]
    assert "slow sustains 1,000 records/s, so 500 records/s are sent" in heard.told[0]
    assert {run.settings["rate"] for run in results.runs} == {500.0}


def test_the_reference_may_be_named(tmp_path: Path, log: list[str]) -> None:
    plan = Plan(
        contenders=contenders(log), points=(Point(rate_share=0.1),), rounds=1, reference="fast"
    )
    comparison(plan, tmp_path, Heard()).run()
    assert "load slow at None" not in log
    assert "load slow at 900.0" in log


def test_each_contender_gets_the_batching_that_it_is_fastest_with(
    tmp_path: Path, log: list[str]
) -> None:
    method = Method(kind="throughput", batching=None)
    plan = Plan(
        contenders=contenders(log, "confluent-kafka"), points=(Point(),), rounds=1, method=method
    )
    results = comparison(plan, tmp_path, Heard()).run()
    tried = results.extra["batching"]
    assert isinstance(tried, list)
    assert len(tried[0]["tried"]) == len(BATCHING_CANDIDATES)
    # The stand-in is fastest with the longest linger and the largest batches: 1 + 1 + 0.5 times its rate.
    assert [run.records_per_sec for run in results.runs] == [22_500.0, 2_500.0]


def test_a_driver_without_batching_is_not_probed_for_one(tmp_path: Path, log: list[str]) -> None:
    method = Method(kind="throughput", batching=None)
    plan = Plan(contenders=contenders(log), points=(Point(),), rounds=1, method=method)
    comparison(plan, tmp_path, Heard()).run()
    assert sum(line.startswith("load") for line in log) == 2


def test_a_run_that_fails_is_an_invalid_one_and_the_others_go_on(
    tmp_path: Path, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drive = compare.run_drive

    def failing(settings: DriveSettings, **more: Any) -> Run:
        if settings.address == "slow":
            raise FriedaError("it broke")
        return drive(settings, **more)

    monkeypatch.setattr(compare, "run_drive", failing)
    plan = Plan(contenders=contenders(log), points=(Point(),), rounds=1)
    results = comparison(plan, tmp_path, Heard()).run()
    assert [(run.valid, run.records) for run in results.runs] == [(True, 100_000), (False, 0)]
    assert results.runs[1].invalid_because == "it failed: it broke"
    assert results.runs[1].settings["contender"] == "slow"
    assert log[-1] == "stop slow"
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_in_the_settings_ends_the_comparison(
    tmp_path: Path, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(settings: DriveSettings, **_: Any) -> Run:
        raise ConfigError("no such setting")

    monkeypatch.setattr(compare, "run_drive", refusing)
    plan = Plan(contenders=contenders(log), points=(Point(),), rounds=1)
    with pytest.raises(ConfigError, match="no such setting"):
        comparison(plan, tmp_path, Heard()).run()
    assert log == ["start fast", "stop fast"]


def test_a_system_that_cannot_have_so_many_brokers_is_left_out_there(
    tmp_path: Path, log: list[str]
) -> None:
    heard = Heard()
    there = Contender(label="there", driver="redis", address="fast")
    points = (Point(), Point(brokers=4))
    plan = Plan(contenders=(contenders(log)[1], there), points=points, rounds=2)
    results = comparison(plan, tmp_path, heard).run()
    assert [len(runs) for runs in results.cases().values()] == [2, 2, 2]
    assert results.extra["skipped"] == [
        {"case": "slow, 1 producer, 100 B, 4 brokers", "why": "brokers = 4: only one"}
    ]
    assert len(heard.told) == 1


def test_a_system_that_is_there_is_neither_started_nor_called_ours(
    tmp_path: Path, log: list[str]
) -> None:
    there = Contender(label="there", driver="redis", address="fast")
    results = comparison(Plan(contenders=(there,), points=(Point(),)), tmp_path, Heard()).run()
    assert set(log) == {"load fast at None"}
    assert results.runs[0].settings["started"] is False
    assert results.runs[0].server_settings["version"] is None


def test_the_systems_own_load_generator_is_a_check_beside_the_results(
    tmp_path: Path, log: list[str]
) -> None:
    def check(address: str, settings: DriveSettings) -> dict[str, object]:
        if address == "slow":
            raise FriedaError("no answer")
        return {"address": address, "rate": settings.load.rate}

    plan = Plan(contenders=contenders(log), points=(Point(rate=70.0),), rounds=1)
    results = comparison(plan, tmp_path, Heard(), cross_checks={"redis": check}).run()
    assert results.extra["cross_check"] == [
        {"case": "fast, 1 producer, 100 B, 70/s", "address": "fast", "rate": 70.0},
        {"case": "slow, 1 producer, 100 B, 70/s", "failed": "no answer"},
    ]


@pytest.mark.parametrize("kind", ["latency", "end-to-end"])
def test_a_real_broker_is_measured_and_nothing_of_it_is_left(tmp_path: Path, kind: Any) -> None:
    ours = Contender(label="frieda tcp", driver="frieda", system=FriedaSystem("tcp", "event"))
    method = Method(kind=kind, records=400, polling="event")
    plan = Plan(contenders=(ours,), points=(Point(producers=2),), rounds=1, method=method)
    (run,) = comparison(plan, tmp_path, Heard()).run().runs
    assert (run.records, run.errors, run.valid) == (400, 0, True)
    assert run.server_settings["flush"] == "never"
    assert run.server_settings["version"]
    assert ("consumers" in run.settings) == (kind == "end-to-end")
    assert list(tmp_path.iterdir()) == []
