"""Which runs make which figure, and what is named as absent."""

from __future__ import annotations

from collections.abc import Callable

from frieda.bench.charts import CurveChart, PanelChart
from frieda.bench.histogram import LatencyHistogram
from frieda.bench.published import absent, charts
from frieda.bench.results import Results, Run

MakeRun = Callable[..., Run]
MakeResults = Callable[..., Results]


def panel_charts(files: list[Results]) -> dict[str, PanelChart]:
    return {chart.name: chart for chart in charts(files) if isinstance(chart, PanelChart)}


def curve_charts(files: list[Results]) -> dict[str, CurveChart]:
    return {chart.name: chart for chart in charts(files) if isinstance(chart, CurveChart)}


def test_over_message_sizes_there_is_a_figure_for_each_percentile_and_a_panel_for_each_crowd(
    make_run: MakeRun, make_results: MakeResults
) -> None:
    runs = [
        make_run(system, producers=producers, record_size=size, round=round)
        for system in ("frieda", "kafka")
        for producers in (2, 4, 8, 16)
        for size in (100, 1024)
        for round in (0, 1, 2)
    ]
    found = panel_charts([make_results(*runs)])
    assert [name.rpartition("-")[2] for name in found] == ["p50", "p99", "p99.9"]
    chart = found["latency-cache-acks-1-p99.9"]
    assert [panel.title for panel in chart.panels] == [
        *("2 producers", "4 producers", "8 producers", "16 producers")
    ]
    assert chart.categories == ["100 B", "1 KiB"]
    by_round = sorted(
        run.latency_us["p99.9"] or 0.0
        for run in runs
        if (run.system, run.settings["producers"], run.settings["record_size"])
        == ("kafka", 8, 1024)
    )
    mark = chart.panels[2].marks["Kafka"][1]
    assert (mark.at, mark.least / 1000, mark.median / 1000, mark.greatest / 1000) == (
        1,
        *by_round,
    )


def test_the_subtitle_says_durability_acks_arrivals_and_rate(
    make_run: MakeRun, make_results: MakeResults
) -> None:
    (chart, *_) = panel_charts([make_results(make_run(), make_run("kafka"))]).values()
    for told in (
        *("durability cache (acknowledged from the page cache)", "acks=1", "1 broker"),
        "open loop, Poisson arrivals, 5,000 records/s",
    ):
        assert told in chart.subtitle


def test_with_one_size_the_producers_are_the_axis_and_the_percentiles_are_the_panels(
    make_run: MakeRun, make_results: MakeResults
) -> None:
    runs = [
        make_run("kafka", producers=producers, brokers=4, replication=4, acks="all")
        for producers in (16, 32, 64)
    ]
    found = panel_charts([make_results(*runs)])
    (chart,) = found.values()
    assert "4-brokers-replication-4" in chart.name
    assert chart.categories == ["16", "32", "64"]
    assert [panel.title for panel in chart.panels] == ["p50", "p99", "p99.9"]
    assert [mark.at for mark in chart.panels[0].marks["Kafka"]] == [0, 1, 2]


def test_durability_classes_have_figures_of_their_own(
    make_run: MakeRun, make_results: MakeResults
) -> None:
    found = panel_charts([make_results(make_run(), make_run(durability="disk"))])
    assert {name.split("-")[1] for name in found} == {"cache", "disk"}
    assert all(
        ("page cache" in chart.subtitle) != ("fsync" in chart.subtitle) for chart in found.values()
    )


def test_throughput_stands_beside_the_processors_it_took(
    make_run: MakeRun, make_results: MakeResults
) -> None:
    runs = [make_run(record_size=size, rate=None, mode="throughput") for size in (100, 1024)]
    (chart,) = panel_charts([make_results(*runs)]).values()
    assert chart.title == "Throughput of one broker"
    assert [panel.unit for panel in chart.panels] == ["MB/s", "cores", "cores"]
    medians = [mark.median for mark in chart.panels[0].marks["Frieda tcp"]]
    assert medians == [run.mb_per_sec for run in runs]
    assert not curve_charts([make_results(*runs)])


def test_a_percentile_that_a_round_cannot_carry_is_named_and_not_drawn(
    make_run: MakeRun, make_results: MakeResults
) -> None:
    runs = [make_run(samples=30_000), make_run("kafka", samples=5_000)]
    found = panel_charts([make_results(*runs)])
    assert found["latency-cache-acks-1-p99"].panels[0].marks["Kafka"]
    tail = found["latency-cache-acks-1-p99.9"]
    assert not tail.panels[0].marks["Kafka"]
    assert tail.notes == ["Kafka: too few samples for p99.9: 8 producers, 100 B"]


def test_an_invalid_round_is_left_out_and_named(
    make_run: MakeRun, make_results: MakeResults
) -> None:
    runs = [make_run(round=0), make_run(round=1, median_us=9e5, invalid_because="it was late")]
    found = panel_charts([make_results(*runs)])
    (mark,) = found["latency-cache-acks-1-p50"].panels[0].marks["Frieda tcp"]
    assert mark.greatest == (runs[0].latency_us["p50"] or 0.0) * 1000
    (note,) = found["latency-cache-acks-1-p50"].notes
    assert note == "Frieda tcp: 1 of 2 rounds left out (it was late): 8 producers, 100 B"


def test_a_place_that_a_system_was_not_run_at_is_named(
    make_run: MakeRun, make_results: MakeResults
) -> None:
    runs = [make_run(producers=16), make_run(producers=64), make_run("kafka", producers=16)]
    (chart,) = panel_charts([make_results(*runs)]).values()
    assert chart.notes == ["Kafka: no run: 64 producers, 100 B"]


def test_a_contest_without_a_valid_run_draws_nothing(
    make_run: MakeRun, make_results: MakeResults
) -> None:
    assert charts([make_results(make_run(invalid_because="it failed"))]) == []


def test_the_curve_of_a_place_has_every_system_and_every_round(
    make_run: MakeRun, make_results: MakeResults
) -> None:
    runs = [make_run(system, round=round) for system in ("frieda", "kafka") for round in (0, 1)]
    (chart,) = curve_charts([make_results(*runs)]).values()
    assert list(chart.curves) == ["Frieda tcp", "Kafka"]
    assert [len(curve.rounds) for curve in chart.curves.values()] == [2, 2]
    assert chart.curves["Kafka"].total[-1].percent > chart.curves["Kafka"].rounds[0][-1].percent


def test_the_yahoo_streaming_benchmark_is_a_curve_with_the_share_of_the_broker(
    make_run: MakeRun, make_results: MakeResults
) -> None:
    share = LatencyHistogram()
    share.record(1_000_000, 500)
    extra = {"broker_share_histogram": share.encode()}
    run = make_run("kafka", None, mode="ysb", loop=None, rate=120_000.0, extra=extra)
    (chart,) = curve_charts([make_results(run, kind="ysb")]).values()
    assert "Yahoo Streaming Benchmark" in chart.title
    assert "120,000 events/s" in chart.subtitle
    assert chart.curves["Kafka"].share
    assert {point.value_ns for point in chart.curves["Kafka"].share} == {share.percentile(50.0)}


def test_names_of_figures_are_unique(make_run: MakeRun, make_results: MakeResults) -> None:
    files = [make_results(make_run()), make_results(make_run()), make_results(make_run(rate=1.0))]
    names = [chart.name for chart in charts(files)]
    assert len(names) == len(set(names)) == 12


def test_what_the_published_evaluation_has_and_the_files_do_not_is_named(
    make_run: MakeRun, make_results: MakeResults
) -> None:
    everything = absent([])
    assert len(everything) == 12
    assert all(sentence.endswith("not in the files") for sentence in everything)
    runs = [
        make_run(producers=2),
        make_run("kafka", producers=2),
        make_run("kafka", producers=16, brokers=4, replication=4, invalid_because="it failed"),
    ]
    sentences = absent([make_results(*runs)])
    assert not any(
        sentence.startswith("percentile latency of 2 producers") for sentence in sentences
    )
    replicated = "percentile latency of 16 producers, 4 brokers with replication 4"
    assert f"{replicated}: no run of Frieda in the files" in sentences
    assert f"{replicated}: no valid run of Kafka: it failed" in sentences


def test_a_roofline_that_could_not_be_measured_says_why(make_results: MakeResults) -> None:
    nothing = make_results(kind="roofline", extra={"missing": "this machine has no counters"})
    assert "roofline of the broker: this machine has no counters" in absent([nothing])
    assert charts([nothing]) == []
