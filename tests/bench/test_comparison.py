"""The tables of a comparison: medians of the valid rounds, and changes within each round."""

from __future__ import annotations

from typing import Any

import pytest

from frieda.bench.comparison import Spread, change_rows, changes, rows, spread, value_of
from frieda.bench.histogram import LatencyHistogram
from frieda.bench.results import Results, Run

EMPTY = LatencyHistogram().encode()


def run(contender: str, number: int, p99: float | None, **more: Any) -> Run:
    system, _, transport = contender.partition(" ")
    settings = {
        "contender": contender,
        "point": more.pop("point", "1 producer"),
        "transport": transport or "tcp",
        "mode": more.pop("mode", "latency"),
    }
    values: dict[str, Any] = {
        "case": f"{contender}, {settings['point']}",
        "round": number,
        "system": system,
        "driver": system,
        "settings": settings,
        "records": 1_000,
        "elapsed_s": 1.0,
        "records_per_sec": 1_000.0,
        "latency_us": {"p50": 10.0, "p99": p99, "p99.9": None, "max": 500.0},
        "cpu_s": {"clients": 0.5},
        "histogram": EMPTY,
    }
    return Run(**values | more)


def results(*of: Run) -> Results:
    return Results(kind="compare", command="c", environment={}, runs=of)


def test_a_change_is_that_within_each_round_and_the_median_is_stated() -> None:
    ours = [run("frieda tcp", number, p99) for number, p99 in enumerate([50.0, 90.0, 30.0])]
    theirs = [run("kafka", number, p99) for number, p99 in enumerate([100.0, 100.0, 300.0])]
    found = {change.metric: change for change in changes(results(*ours, *theirs))}
    assert set(found) == {"p50", "p99"}
    percent = found["p99"].percent
    assert (percent.median, percent.least, percent.greatest) == pytest.approx((-50, -90, -10))
    assert percent.rounds == 3
    (row,) = change_rows(results(*ours, *theirs))
    assert row["p99"] == "-50.0% (-90.0..-10.0)"
    assert (row["what"], row["against"], row["rounds"]) == ("frieda tcp", "kafka", 3)


def test_a_round_that_is_invalid_on_either_side_is_in_no_change() -> None:
    ours = [run("frieda tcp", 0, 50.0), run("frieda tcp", 1, 1.0, invalid_because="late")]
    theirs = [run("kafka", 0, 100.0), run("kafka", 1, 100.0), run("kafka", 2, 5.0)]
    found = [change for change in changes(results(*ours, *theirs)) if change.metric == "p99"]
    assert [(change.percent.median, change.percent.rounds) for change in found] == [(-50.0, 1)]


def test_tcp_stands_first_at_every_point_and_peers_are_not_compared_with_each_other() -> None:
    of = [
        run(contender, 0, 10.0, point=point)
        for point in ("1 producer", "2 producers")
        for contender in ("frieda shm", "redis", "frieda tcp", "kafka")
    ]
    assert [str(row["case"]).partition(",")[0] for row in rows(results(*of))] == [
        *("redis", "frieda tcp", "kafka", "frieda shm") * 2,
    ]
    pairs = [(each.point, each.ours, each.peer) for each in changes(results(*of))]
    assert list(dict.fromkeys(pairs))[:4] == [
        ("1 producer", "frieda tcp", "redis"),
        ("1 producer", "frieda tcp", "kafka"),
        ("1 producer", "frieda shm", "redis"),
        ("1 producer", "frieda shm", "kafka"),
    ]


def test_of_throughput_the_rate_is_compared() -> None:
    ours = run("frieda tcp", 0, 10.0, mode="throughput", records_per_sec=300.0)
    theirs = run("kafka", 0, 10.0, mode="throughput", records_per_sec=100.0)
    (change,) = changes(results(ours, theirs))
    assert (change.metric, change.percent.median) == ("records_per_sec", 200.0)


def test_a_row_has_medians_of_the_valid_runs_and_says_why_others_are_not() -> None:
    of = [run("kafka", number, p99) for number, p99 in enumerate([30.0, 10.0, 20.0])]
    of.append(run("kafka", 3, 1e6, invalid_because="it was late"))
    (row,) = rows(results(*of))
    assert (row["valid"], row["p99"], row["p99.9"]) == ("3/4", 20.0, None)
    assert row["clients_cpu"] == 500.0
    assert row["server_cpu"] is None
    assert row["invalid_because"] == "it was late"


def test_a_case_without_a_valid_run_has_no_figures() -> None:
    (row,) = rows(results(run("kafka", 0, 10.0, invalid_because="late")))
    assert (row["valid"], row["p50"], row["records_per_sec"], row["clients_cpu"]) == (
        *("0/1", None, None, None),
    )
    assert spread([], "p50") is None
    assert Spread.of([2.0, 1.0]) == Spread(1.5, 1.0, 2.0, 2)


def test_a_value_is_a_percentile_a_rate_or_processor_time() -> None:
    one = run("kafka", 0, 10.0, mb_per_sec=3.0)
    values = [value_of(one, name) for name in ("p99", "records_per_sec", "mb_per_sec", "clients")]
    assert values == [10.0, 1000.0, 3.0, 0.5]
    assert value_of(one, "server") is None
