"""`frieda bench figures`, `report`, `model` and `roofline` as commands."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from frieda.bench import perf_stat
from frieda.bench.histogram import LatencyHistogram
from frieda.bench.report import latencies_us
from frieda.bench.results import Results, Run, read_results, write_results
from frieda.cli.exit_codes import ExitCode
from frieda.cli.main import run


@pytest.fixture
def result(tmp_path: Path) -> Path:
    """A small file of results."""
    histogram = LatencyHistogram()
    histogram.record(50_000, 30_000)
    made = Run(
        case="frieda tcp, 8 producers, 100 B",
        round=0,
        system="frieda",
        driver="frieda",
        settings={"producers": 8, "record_size": 100, "acks": 1, "durability": "cache"},
        records=30_000,
        elapsed_s=1.0,
        records_per_sec=30_000.0,
        latency_us=latencies_us(histogram),
        histogram=histogram.encode(),
    )
    results = Results(kind="compare", command="frieda bench compare", environment={}, runs=(made,))
    return write_results(tmp_path / "results", results)


def test_figures_are_written_as_png_and_svg_and_what_is_missing_is_named(
    result: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "figures"
    assert run(["bench", "figures", str(result), "--output", str(output)]) == ExitCode.OK
    told = capsys.readouterr()
    assert sorted(told.out.splitlines()) == sorted(str(path) for path in output.iterdir())
    names = {path.name for path in output.iterdir()}
    assert {"latency-cache-acks-1-p99.png", "latency-cache-acks-1-p99.svg"} <= names
    assert "not drawn: throughput of four brokers: not in the files" in told.err


def test_one_format_is_enough_and_a_folder_of_results_will_do(result: Path, tmp_path: Path) -> None:
    output = tmp_path / "figures"
    flags = ["--output", str(output), "--format", "svg"]
    assert run(["bench", "figures", str(result.parent), *flags]) == ExitCode.OK
    assert {path.suffix for path in output.iterdir()} == {".svg"}


@pytest.mark.parametrize("command", ["figures", "report"])
def test_what_is_no_file_of_results_is_one_sentence(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.json"
    other.write_text("{}")
    flags = ["--output", str(tmp_path / "out")]
    assert run(["bench", command, str(other), *flags]) == ExitCode.USAGE
    assert "is not a file of results" in capsys.readouterr().err


def test_a_report_is_one_page(result: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert run(["bench", "report", str(result), "--output", str(page)]) == ExitCode.OK
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert "data:image/svg+xml;base64," in text


def test_markdown_goes_to_the_terminal_and_a_page_needs_a_file(
    result: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["bench", "report", str(result), "--markdown"]) == ExitCode.OK
    assert "| 8 producers, 100 B | Frieda" in capsys.readouterr().out
    assert run(["bench", "report", str(result)]) == ExitCode.USAGE
    assert "give --output FILE" in capsys.readouterr().err


def test_without_matplotlib_the_page_can_be_had_without_figures(
    result: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    page = tmp_path / "report.html"
    command = ["bench", "report", str(result), "--output", str(page)]
    assert run(command) == ExitCode.USAGE
    told = capsys.readouterr().err
    assert "pip install 'frieda[plots]'" in told
    assert "--no-figures" in told
    assert not page.exists()
    assert run([*command, "--no-figures"]) == ExitCode.OK
    assert "<img" not in page.read_text(encoding="utf-8")


def test_a_model_is_swept_fitted_shown_and_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "model"
    flags = ["--frieda", "tcp", "--polling", "event", "--rounds", "1", "--records", "2000"]
    sweep = ["--record-size", "100,4KiB", "--windows", "1,4", "--folder", str(tmp_path)]
    assert run(["bench", "model", *flags, *sweep, "--output", str(output)]) == ExitCode.OK
    told = capsys.readouterr().out
    assert "Latency = L + size / B + (W - 1)^k (o + size / C)" in told
    assert told.count("Frieda tcp") == 2
    assert read_results(output).kind == "model"
    assert (output / "model-mean-predicted-beside-measured.png").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--windows", "4"], "needs a window of 1"),
        (["--windows", "one"], "--windows one"),
        (["--record-size", "100"], "two sizes or more"),
        (["--records", "10"], "p99, needs 2000"),
        (["--peers", "rabbit"], "--peers rabbit"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_one_sentence(
    flags: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["bench", "model", *flags, "--output", str(tmp_path)]) == ExitCode.USAGE
    assert sentence in capsys.readouterr().err


def test_without_counters_there_is_a_sentence_a_result_that_says_so_and_an_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(perf_stat, "find_program", lambda _: None)
    output = tmp_path / "roofline"
    assert run(["bench", "roofline", "--output", str(output)]) == ExitCode.USAGE
    told = capsys.readouterr()
    assert "there is no roofline: perf is not installed" in told.err
    results = read_results(output)
    assert not results.runs
    assert "perf is not installed" in str(results.extra["missing"])
    assert not list(output.glob("*.png"))
