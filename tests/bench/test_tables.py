"""The tables of a report."""

from __future__ import annotations

from collections.abc import Callable

from frieda.bench.contests import Contest, contests
from frieda.bench.histogram import LatencyHistogram
from frieda.bench.results import Results, Run
from frieda.bench.tables import Table, change_table, markdown, measured_table, share_table
from frieda.bench.ticks import duration

MakeRun = Callable[..., Run]
MakeResults = Callable[..., Results]


def contest_of(results: Results) -> Contest:
    (contest,) = contests([results])
    return contest


def cell(table: Table, series: str, heading: str) -> str:
    (row,) = [row for row in table.rows if series in row]
    return row[list(table.headings).index(heading)]


def p50(run: Run) -> float:
    value = run.latency_us["p50"]
    assert value is not None
    return value


def test_a_cell_is_the_median_with_the_least_and_the_greatest(
    make_run: MakeRun, make_results: MakeResults
) -> None:
    runs = [make_run(round=number, median_us=100.0 * (number + 1)) for number in range(3)]
    table = measured_table(contest_of(make_results(*runs)))
    least, middle, most = (duration(p50(run) * 1000) for run in runs)
    assert cell(table, "Frieda tcp", "p50") == f"{middle} ({least} to {most})"
    assert cell(table, "Frieda tcp", "valid rounds") == "3 of 3"


def test_processor_time_is_told_for_a_million_records(
    make_run: MakeRun, make_results: MakeResults
) -> None:
    table = measured_table(contest_of(make_results(make_run(rate=5000.0))))
    # 0.6 cores busy at 5,000 records/s.
    assert cell(table, "Frieda tcp", "server CPU, s/M records") == "120"


def test_an_invalid_round_counts_in_no_cell_and_says_why(
    make_run: MakeRun, make_results: MakeResults
) -> None:
    good = make_run(round=0)
    bad = make_run(round=1, median_us=9e6, invalid_because="the load generator was late")
    table = measured_table(contest_of(make_results(good, bad)))
    assert cell(table, "Frieda tcp", "p50") == duration(p50(good) * 1000)
    assert cell(table, "Frieda tcp", "valid rounds") == "1 of 2"
    expected = "Frieda tcp, 8 producers, 100 B, round 2: the load generator was late"
    assert list(table.notes) == [expected]


def test_a_percentile_that_only_all_rounds_together_can_carry_has_a_star(
    make_run: MakeRun, make_results: MakeResults
) -> None:
    runs = [make_run(round=number, samples=12_000) for number in range(2)]
    table = measured_table(contest_of(make_results(*runs)))
    total = LatencyHistogram()
    for run in runs:
        total.merge(run.histogram)
    assert cell(table, "Frieda tcp", "p99.9") == f"{duration(total.percentile(99.9) or 0)}*"
    assert table.notes[-1] == "* of all rounds together"
    assert "p99.99" not in table.headings


def test_latencies_of_bulk_are_not_in_the_table(
    make_run: MakeRun, make_results: MakeResults
) -> None:
    results = make_results(make_run(rate=None, mode="throughput"))
    assert "p50" not in measured_table(contest_of(results)).headings


def test_a_change_is_that_of_each_round_in_percent_against_each_peer(
    make_run: MakeRun, make_results: MakeResults
) -> None:
    ours = [make_run(round=number, median_us=50.0) for number in range(3)]
    kafka = [make_run("kafka", round=number, median_us=100.0 * (1 + number)) for number in range(3)]
    redis = [make_run("redis", round=number, median_us=50.0) for number in range(3)]
    table = change_table(contest_of(make_results(*ours, *kafka, *redis)))
    assert table is not None
    assert [row[:3] for row in table.rows] == [
        ["8 producers, 100 B", "Frieda tcp", "Kafka"],
        ["8 producers, 100 B", "Frieda tcp", "Redis Streams"],
    ]
    changes = sorted((p50(a) / p50(b) - 1) * 100 for a, b in zip(ours, kafka, strict=True))
    least, middle, most = (f"{percent:+,.1f}%" for percent in changes)
    assert table.rows[0][3] == f"{middle} ({least} to {most})"


def test_without_a_peer_there_is_no_change(make_run: MakeRun, make_results: MakeResults) -> None:
    assert change_table(contest_of(make_results(make_run()))) is None


def test_throughput_changes_by_records_a_second(
    make_run: MakeRun, make_results: MakeResults
) -> None:
    runs = [
        make_run(rate=None, mode="throughput", median_us=10.0),
        make_run("kafka", rate=None, mode="throughput", median_us=100.0),
    ]
    table = change_table(contest_of(make_results(*runs)))
    assert table is not None
    assert list(table.headings) == ["load", "system", "against", "records/s"]
    assert table.rows[0][3] == "+900.0%"


def test_the_share_of_the_broker_is_a_table_of_its_own(
    make_run: MakeRun, make_results: MakeResults
) -> None:
    share = LatencyHistogram()
    share.record(3_000_000, 5000)
    run = make_run(mode="ysb", extra={"broker_share_histogram": share.encode()})
    table = share_table(contest_of(make_results(run, kind="ysb")))
    assert table is not None
    assert cell(table, "Frieda tcp", "p99") == duration(share.percentile(99.0) or 0)
    assert share_table(contest_of(make_results(make_run()))) is None


def test_markdown_is_one_line_a_row_whatever_a_cell_holds() -> None:
    table = Table(headings=["load", "p|50"], rows=[["a\nb <i> `x`", "1_2"]], names=1)
    assert markdown(table).splitlines() == [
        r"| load | p\|50 |",
        r"| --- | ---: |",
        r"| a b \<i\> \`x\` | 1\_2 |",
    ]
