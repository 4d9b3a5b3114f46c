"""`frieda bench compare`, `matrix`, `end-to-end` and `diff`: tables, files, exit codes, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from frieda.bench.compare import failed_run
from frieda.bench.drive import DriveSettings
from frieda.bench.load import Load
from frieda.bench.results import Results, read_results, write_results
from frieda.cli.comparing import listed, size_of
from frieda.cli.main import run
from frieda.errors import ConfigError, FriedaError

SHORT = ["--records", "400", "--polling", "event"]


@pytest.fixture(autouse=True)
def _own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command leaves behind is seen."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))


def left_behind(tmp_path: Path) -> list[str]:
    return sorted(file.name for file in (tmp_path / "tmp").iterdir())


def test_compare_prints_a_table_and_writes_results_with_all_that_shaped_them(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    flags = ["--frieda", "tcp,shm", "--rounds", "2", "--producers", "1,2", "--output", str(out)]
    assert run(["bench", "compare", *flags, *SHORT]) == 0
    printed = capfd.readouterr().out
    assert "round 1 of 2  frieda tcp, 1 producer, 100 B: p50" in printed
    assert "Medians over the rounds" in printed
    results = read_results(out)
    assert results.kind == "compare"
    assert list(results.cases()) == [
        *("frieda tcp, 1 producer, 100 B", "frieda shm, 1 producer, 100 B"),
        *("frieda tcp, 2 producers, 100 B", "frieda shm, 2 producers, 100 B"),
    ]
    assert all([r.round for r in runs] == [0, 1] for runs in results.cases().values())
    assert all(r.valid and r.records == 400 for r in results.runs)
    assert {r.settings["transport"] for r in results.runs} == {"tcp", "shm"}
    assert results.settings["durability"] == "cache"
    assert results.settings["seed"] == 1
    assert results.environment["filesystem"]
    assert "load_average_at_start" in results.extra
    assert all(r.server_settings["flush"] == "never" for r in results.runs)
    assert (out / "frieda-tcp-1-producer-100-B.1.hlog").read_text().startswith("#[Histogram log")
    assert "#[Mean" in (out / "frieda-tcp-1-producer-100-B.1.hgrm").read_text()
    assert left_behind(tmp_path) == []


def test_compare_in_bulk_finds_the_batching_first(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    flags = ["--frieda", "tcp", "--rounds", "1", "--throughput", "--output", str(out)]
    assert run(["bench", "compare", *flags, *SHORT]) == 0
    assert "fastest with linger" in capfd.readouterr().out
    results = read_results(out)
    (found,) = results.extra["batching"]  # type: ignore[misc]
    best = max(found["tried"], key=lambda each: each["records_per_sec"])
    (only,) = results.runs
    assert only.settings["mode"] == "throughput"
    assert only.settings["linger_ms"] == best["linger_ms"]
    assert only.settings["batch_bytes"] == best["batch_bytes"]


def test_end_to_end_keeps_the_producers_latencies_beside_those_of_the_consumers(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    flags = ["--frieda", "tcp", "--rounds", "1", "--partitions", "2", "--consumers", "2"]
    flags += ["--rate", "500", "--keys", "7", "--key-distribution", "zipf", "--output", str(out)]
    assert run(["bench", "end-to-end", *flags, *SHORT]) == 0
    assert "frieda tcp, 1 producer, 100 B, 500/s" in capfd.readouterr().out
    (only,) = read_results(out).runs
    assert (only.records, only.settings["consumers"], only.settings["keys"]) == (400, 2, 7)
    assert "acknowledged_us" in only.extra


def test_a_matrix_is_measured_as_its_file_says(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "matrix.toml", tmp_path / "out"
    file.write_text(
        'frieda = ["tcp"]\n[method]\nrecords = 300\npolling = "event"\n'
        '[[points]]\nproducers = 1\nrecord_size = [100, 1024]\nacks = [1, "all"]\n'
        "[[points]]\nproducers = 1\nbrokers = 4\n"
    )
    flags = [str(file), "--rounds", "1", "--output", str(out)]
    assert run(["bench", "matrix", *flags]) == 0
    captured = capfd.readouterr()
    assert "frieda tcp, 1 producer, 100 B, 4 brokers: left out: brokers = 4" in captured.err
    results = read_results(out)
    assert results.kind == "matrix"
    assert [case.removeprefix("frieda tcp, 1 producer, ") for case in results.cases()] == [
        *("100 B", "100 B, acks=all", "1 KiB", "1 KiB, acks=all"),
    ]
    assert results.runs[1].settings["acks"] == "all"


def test_a_matrix_with_a_key_that_is_unknown_is_refused_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "matrix.toml"
    file.write_text("speed = 1\n")
    assert run(["bench", "matrix", str(file)]) == 2
    error = capfd.readouterr().err
    assert "speed: unknown; allowed are" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--frieda", "", "--peers", ""], "no system is left"),
        (["--acks", "2"], "--acks 2: not a list"),
        (["--producers", "few"], "--producers few: not a list"),
        (["--rate", "5", "--rate-share", "0.5"], "a rate or a share of a rate"),
        (["--throughput", "--rate", "5"], "throughput is measured without a rate"),
        (["--replication", "2"], "replication = 2: needs as many brokers"),
        (["--frieda", "verbs"], "give the address of a broker"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_started(
    flags: list[str], words: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["bench", "compare", *flags]) == 2
    assert words in capfd.readouterr().err
    assert left_behind(tmp_path) == []


def test_a_system_that_is_not_to_be_reached_is_told_and_the_exit_code_is_1(
    capfd: pytest.CaptureFixture[str],
) -> None:
    flags = ["--frieda", "tcp=tcp://127.0.0.1:1", "--rounds", "1"]
    assert run(["bench", "compare", *flags, *SHORT]) == 1
    captured = capfd.readouterr()
    assert "it failed: " in captured.out
    assert "no run came to a result: frieda tcp, 1 producer, 100 B" in captured.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_comparison_that_is_stopped_leaves_no_process_and_no_folder(
    tmp_path: Path, number: signal.Signals
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    command = [sys.executable, "-m", "frieda", "bench", "compare", "--frieda", "tcp"]
    command += ["--records", "100000000", "--polling", "event", "--folder", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        wait_until(lambda: len(descendants(process.pid)) >= 3)  # broker, its watcher, a worker
        children = descendants(process.pid)
        process.send_signal(number)
        process.communicate(timeout=60)
        assert process.returncode == 130
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children))
    assert list(folder.iterdir()) == []


def wait_until(done: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Look until it is so."""
    deadline_s = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def descendants(pid: int) -> list[int]:
    """The processes that this one has started, and those that they have."""
    children: dict[int, list[int]] = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            stat = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(stat[1]), []).append(int(entry))
    found, rest = [], [pid]
    while rest:
        rest += (more := children.get(rest.pop(), []))
        found += more
    return found


def results_of(path: Path, values: list[float]) -> Path:
    """A file of one case with these rates."""
    settings = DriveSettings(driver="frieda", address="tcp://h:1", load=Load(records=1))
    blank = failed_run(settings, "frieda tcp", 0, FriedaError("x"))
    runs = tuple(
        replace(blank, round=number, records_per_sec=value, invalid_because=None, records=1)
        for number, value in enumerate(values)
    )
    return write_results(path, Results(kind="compare", command="c", environment={}, runs=runs))


def test_diff_says_what_got_slower_and_fails_when_it_is_asked_to(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = results_of(tmp_path / "a", [100.0, 101.0, 102.0, 103.0])
    after = results_of(tmp_path / "b", [50.0, 51.0, 52.0, 53.0])
    assert run(["bench", "diff", str(before), str(after), "--format", "json"]) == 0
    captured = capfd.readouterr()
    rows = {row["metric"]: row for row in json.loads(captured.out)}
    assert rows["records_per_sec"]["verdict"] == "slower"
    assert rows["records_per_sec"]["percent"] == -49.3
    assert rows["p50"]["verdict"] == "cannot tell"
    assert "1 of 4 values can be told" in captured.err
    assert run(["bench", "diff", str(before), str(after), "--fail"]) == 1
    assert run(["bench", "diff", str(after), str(before), "--fail"]) == 0
    assert run(["bench", "diff", str(before), str(after), "--fail", "--least", "60"]) == 0
    assert run(["bench", "diff", str(before), str(tmp_path / "none")]) == 2


def test_lists_and_sizes_are_read() -> None:
    assert listed("--producers", "2, 4,2", int) == [2, 4]
    assert [size_of(text) for text in ("100", "16KiB", "1MiB")] == [100, 16_384, 1_048_576]
    with pytest.raises(ConfigError, match="--record-size 1GB: not a list"):
        listed("--record-size", "1GB", size_of)
