"""`frieda ysb` as a user runs it: processes, files, exit codes, and nothing left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from frieda.bench.results import read_results
from frieda.bench.systems.redis import RedisSystem
from frieda.cli.exit_codes import ExitCode
from frieda.cli.main import run
from frieda.testing.presence import require

TIMEOUT_S = 240.0
SMALL = (
    *("--rate", "3000", "--producers", "2", "--processes", "1"),
    *("--window-ms", "500", "--warm-up", "0"),
)


@pytest.fixture(autouse=True)
def _redis_server() -> None:
    require(RedisSystem())


def environment(folder: Path) -> dict[str, str]:
    """With a folder of its own for what is temporary, so that what is left can be told."""
    return {**os.environ, "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}


def frieda(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "frieda", "ysb", *arguments],
        capture_output=True,
        text=True,
        env=environment(folder),
        timeout=TIMEOUT_S,
        check=False,
    )


def processes_of(folder: Path) -> list[str]:
    """The command lines of all processes that were started with `folder` for what is temporary."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                variables = (entry / "environ").read_bytes().split(b"\0")
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if f"TMPDIR={folder}".encode() in variables and command:
                found.append(command.replace(b"\0", b" ").decode(errors="replace"))
    return found


def test_a_run_prints_its_progress_the_table_and_writes_a_result(tmp_path: Path) -> None:
    temporary, output = tmp_path / "t", tmp_path / "output"
    temporary.mkdir()
    done = frieda(
        temporary,
        *("run", "--own-broker", "--duration", "3", "--sink-ms", "50", *SMALL),
        *("--broker-polling", "event", "--polling", "event", "--output", str(output)),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "events/s sent" in done.stdout
    assert "window end to last write" in done.stdout
    assert "of it broker and clients (sampled)" in done.stdout
    assert "counts exact: " in done.stdout
    results = read_results(output)
    assert (results.kind, len(results.runs)) == ("ysb", 1)
    assert results.command.startswith("frieda ysb run --own-broker --duration 3")
    (measured,) = results.runs
    assert (measured.case, measured.system, measured.records) == ("frieda tcp", "frieda", 9000)
    assert measured.server_settings["flush"] == "never"
    assert measured.cpu_s["server"] > 0
    assert list(temporary.iterdir()) == []
    assert processes_of(temporary) == []


def test_a_check_says_that_counts_are_exact_though_workers_were_killed(tmp_path: Path) -> None:
    done = frieda(
        tmp_path,
        *("check", "--own-broker", "--transport", "shm", "--duration", "3", "--kills", "2", *SMALL),
        *("--workers", "2", "--sink-ms", "20", "--skew", "--late-every", "100"),
        *("--allowed-lateness-ms", "1000"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "workers killed: 2" in done.stdout
    assert "\nexact: " in done.stdout
    assert "dropped for coming too late" in done.stdout


def test_a_check_whose_counts_are_wrong_fails(tmp_path: Path) -> None:
    # Somebody else counts one more view for every campaign's window there is.
    with RedisSystem().running(tmp_path, "cache") as redis:
        script = (
            "for _,c in ipairs(redis.call('smembers','campaigns')) do "
            "for _,w in ipairs(redis.call('lrange',redis.call('hget',c,'windows'),0,-1)) do "
            "redis.call('hincrby',redis.call('hget',c,w),'seen_count',1) end end"
        )
        command = [sys.executable, "-m", "frieda", "ysb", "check", "--own-broker", "--redis"]
        process = subprocess.Popen(
            [*command, redis.unix_address, "--duration", "3", *SMALL],
            stdout=subprocess.PIPE,
            text=True,
            env=environment(tmp_path),
        )
        assert process.stdout is not None
        assert "events/s sent" in process.stdout.readline()
        cli = ["redis-cli", "-s", str(redis.unix_socket), "eval", script, "0"]
        subprocess.run(cli, check=True, capture_output=True)
        rest, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == ExitCode.FAILURE
    assert re.search(r"WRONG: \d+ counts of \d+ views in \d+ windows of campaigns: campaign ", rest)
    named = re.findall(r"expected (\d+), counted (\d+), dropped 0", rest)
    assert len(named) == 5
    assert all(int(counted) == int(expected) + 1 for expected, counted in named)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_interrupted_leaves_no_process_and_no_folder(
    tmp_path: Path, number: signal.Signals
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "frieda", "ysb", "run", "--own-broker", "--duration", "120", *SMALL],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(tmp_path),
        start_new_session=True,
    )
    assert process.stdout is not None
    assert "events/s sent" in process.stdout.readline()
    assert len(processes_of(tmp_path)) >= 5
    process.send_signal(number)
    process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == ExitCode.INTERRUPTED
    deadline = time.monotonic() + TIMEOUT_S
    while processes_of(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_of(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_comparison_takes_turns_and_leaves_out_who_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "output"
    monkeypatch.setenv("FRIEDA_PEERS", str(tmp_path / "none"))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "none"))
    code = run(
        [
            *("ysb", "compare", "--peers", "kafka", "--rounds", "2", "--duration", "1", *SMALL),
            *("--sink-ms", "50", "--polling", "event", "--broker-polling", "event"),
            *("--output", str(output)),
        ]
    )
    printed = capsys.readouterr()
    assert code == ExitCode.OK, printed.err
    assert "kafka is left out: " in printed.err
    order = [line for line in printed.out.splitlines() if line.startswith("round ")]
    assert order == [
        "round 1 of 2: frieda tcp",
        "round 1 of 2: frieda shm",
        "round 2 of 2: frieda shm",
        "round 2 of 2: frieda tcp",
    ]
    runs = read_results(output).runs
    assert [(each.case, each.round) for each in runs] == [
        ("frieda tcp", 0),
        ("frieda shm", 0),
        ("frieda shm", 1),
        ("frieda tcp", 1),
    ]
    assert all(each.extra["exact"] for each in runs)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("run", "--workers", "5"), "workers = 5: must not exceed partitions = 4"),
        (("run", "--driver", "confluent-kafka"), "where is kafka?"),
        (("run", "-b", "tcp://127.0.0.1:1", "--own-broker"), "give one of them"),
        (("compare", "--peers", "rabbit"), "--peers rabbit: must be one of kafka, redis, nats"),
        (("compare", "--frieda", "udp"), "--frieda udp: must be one of tcp, shm"),
        (("run", "--own-broker", "--redis", "unix:///nowhere"), "Redis at unix:///nowhere"),
    ],
)
def test_a_mistake_is_one_sentence(
    arguments: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["ysb", *arguments]) not in (ExitCode.OK, ExitCode.FAILURE)
    printed = capsys.readouterr().err
    assert says in printed
    assert printed.count("\n") == 1


def test_without_a_redis_server_one_sentence_says_how_to_get_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("FRIEDA_PEERS", str(tmp_path))
    assert run(["ysb", "run", "--own-broker"]) == ExitCode.USAGE
    printed = capsys.readouterr().err
    assert "redis-server is not installed" in printed
    assert "--redis URL" in printed


def test_the_help_names_every_flag_with_its_default() -> None:
    from frieda.cli.ysb import ysb  # noqa: PLC0415

    for command in ("run", "check", "compare"):
        shown = CliRunner().invoke(ysb, [command, "--help"])
        assert shown.exit_code == 0
        assert "--sink-ms" in shown.output
        assert "[default: 1000.0" in shown.output
