"""The model of a sweep as a table and as charts."""

from __future__ import annotations

from collections.abc import Callable

from frieda.bench.model_figures import model_charts, model_table, models_of
from frieda.bench.results import Results, Run

MakeRun = Callable[..., Run]
MakeResults = Callable[..., Results]


def sweep(make_run: MakeRun, system: str, *, windows: tuple[int, ...] = (1, 4, 16)) -> list[Run]:
    return [
        make_run(
            system,
            producers=1,
            record_size=size,
            round=round,
            median_us=50 + size / 1000 + (window - 1) * 5,
            tail=0.1,
            samples=3000,
            rate=None,
            in_flight=window,
            case=f"{system} {size} {window}",
        )
        for size in (100, 10_000, 100_000)
        for window in windows
        for round in (0, 1)
    ]


def test_every_series_has_a_row_for_the_average_and_for_the_tail(
    make_run: MakeRun, make_results: MakeResults
) -> None:
    results = make_results(*sweep(make_run, "frieda"), *sweep(make_run, "kafka"), kind="model")
    table = model_table(models_of(results))
    assert [tuple(row[:2]) for row in table.rows] == [
        ("Frieda tcp", "average"),
        ("Kafka", "average"),
        ("Frieda tcp", "tail (p99)"),
        ("Kafka", "tail (p99)"),
    ]
    assert all("%" in row[-1] and "%" in row[-2] for row in table.rows)
    assert all(len(row) == len(table.headings) for row in table.rows)


def test_predictions_stand_beside_what_was_measured(
    make_run: MakeRun, make_results: MakeResults
) -> None:
    results = make_results(*sweep(make_run, "frieda"), kind="model")
    charts = {chart.name: chart for chart in model_charts(results)}
    assert set(charts) == {
        f"model-{statistic}-{which}"
        for statistic in ("mean", "p99")
        for which in ("predicted-beside-measured", "frieda-tcp")
    }
    overall = charts["model-mean-predicted-beside-measured"]
    assert overall.equal_axes
    assert len(overall.dots["Frieda tcp"]) == 9
    assert all(0.5 < dot.y / dot.x < 2 for dot in overall.dots["Frieda tcp"])
    over_sizes = charts["model-mean-frieda-tcp"]
    assert list(over_sizes.dots) == list(over_sizes.lines) == ["W = 1", "W = 4", "W = 16"]
    assert "median (greatest) error" in over_sizes.subtitle


def test_without_windows_there_is_no_overhead_in_table_or_chart(
    make_run: MakeRun, make_results: MakeResults
) -> None:
    results = make_results(*sweep(make_run, "frieda", windows=(1,)), kind="model")
    assert model_table(models_of(results)).rows[0][4:7] == ["–", "–", "–"]
    assert not any("(W - 1)^1.00" in chart.subtitle for chart in model_charts(results))


def test_a_series_that_cannot_be_fitted_is_named_with_the_reason(
    make_run: MakeRun, make_results: MakeResults
) -> None:
    lone = make_run("kafka", record_size=100, rate=None, in_flight=1, case="lone")
    failed = make_run("kafka", rate=None, in_flight=1, case="spoiled", invalid_because="it failed")
    results = make_results(*sweep(make_run, "frieda"), lone, failed, kind="model")
    models = models_of(results)
    assert {each.series for each in models.fitted} == {"Frieda tcp"}
    assert any(
        problem.startswith("Kafka, average: the model needs two sizes")
        for problem in models.problems
    )
    assert "spoiled: a round is left out: it failed" in models.problems
    assert set(models.problems) <= set(model_table(models).notes)


def test_a_sweep_without_a_valid_run_has_no_figure(
    make_run: MakeRun, make_results: MakeResults
) -> None:
    assert model_charts(make_results(make_run(invalid_because="it failed"), kind="model")) == []
