"""The echo floor, its processes, and the command that runs it. Short runs; no figure is judged here."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from frieda.bench.echo import EchoSettings, run_echo
from frieda.bench.fleet import Fleet, Worker, merge_results
from frieda.bench.histogram import LatencyHistogram
from frieda.bench.load import Arrivals, Load
from frieda.bench.report import as_json
from frieda.cli.main import run
from frieda.errors import ConfigError, FriedaError


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("polling", ["event", "adaptive", "busy"])
def test_a_closed_loop_measures_every_record_after_the_warm_up(polling: str) -> None:
    load = Load(records=500, warm_up_records=50, producers=3, processes=2, in_flight=4)
    result = run_echo(EchoSettings(load=load, polling=polling))
    assert (result.records, result.errors) == (500, 0)
    assert result.latency.count == 500
    assert result.elapsed_s > 0
    assert result.service_time is None
    assert result.lateness is None
    assert result.settings["polling"] == polling


@pytest.mark.parametrize("arrivals", ["constant", "poisson"])
def test_an_open_loop_keeps_its_rate_and_reports_the_service_time(arrivals: Arrivals) -> None:
    load = Load(records=400, warm_up_records=40, rate=2000.0, in_flight=8, arrivals=arrivals)
    result = run_echo(EchoSettings(load=load))
    assert result.records == 400
    assert result.service_time is not None
    assert result.service_time.count == 400
    assert result.lateness is not None
    assert result.lateness.sends == 400
    # 400 records cannot be due in less than their schedule says.
    assert result.elapsed_s > (0.8 if arrivals == "poisson" else 1.0) * 399 / 2000 * 0.9
    mean_ns, service_ns = result.latency.mean_ns, result.service_time.mean_ns
    assert mean_ns is not None
    assert service_ns is not None
    assert mean_ns >= service_ns * 0.999


def test_a_request_larger_than_the_socket_buffers_is_answered_once() -> None:
    load = Load(records=20, record_size_bytes=3_000_000, in_flight=2)
    result = run_echo(EchoSettings(load=load, response_bytes=1))
    assert result.records == 20
    assert result.size_bytes == 60_000_000


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="polling = 'never'"):
        EchoSettings(load=Load(records=1), polling="never")
    with pytest.raises(ConfigError, match="response_bytes = 0"):
        EchoSettings(load=Load(records=1), response_bytes=0)


def test_the_floor_imports_no_transport_of_ours() -> None:
    program = (
        "import sys, frieda.bench.echo, frieda.bench.worker\n"
        "print([m for m in sys.modules if m.startswith(('frieda.transports', 'frieda.clients'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"


async def start_server(fleet: Fleet) -> tuple[Worker, int]:
    task = {"polling": "event", "response_bytes": 1, "request_bytes": 1}
    worker = await fleet.start("frieda.bench.echo:serve", task)
    facts = await worker.ready()
    return worker, int(facts["port"])


async def test_a_worker_that_dies_is_an_error_and_not_a_hang() -> None:
    async with Fleet() as fleet:
        worker, _ = await start_server(fleet)
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(FriedaError, match=r"ended before its result \(exit code -9\)"):
            await worker.result(lambda _: None)


async def test_a_worker_that_fails_says_why() -> None:
    async with Fleet() as fleet:
        load = {"records": 1}
        share = {
            "index": 0,
            "records": 1,
            "warm_up_records": 0,
            "rate": None,
            "phase": 0.0,
            "arrivals": "constant",
            "seed": 1,
        }
        task = {"polling": "event", "response_bytes": 1, "port": 1, "load": load}
        worker = await fleet.start("frieda.bench.echo:send", {**task, "shares": [share]})
        with pytest.raises(FriedaError, match=r"a benchmark process failed: .*refused"):
            await worker.ready()


async def test_leaving_the_fleet_leaves_no_process_behind() -> None:
    async with Fleet() as fleet:
        worker, _ = await start_server(fleet)
        assert alive(worker.pid)
    assert not alive(worker.pid)


async def test_a_cancelled_benchmark_leaves_no_process_behind() -> None:
    started: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def measure() -> None:
        async with Fleet() as fleet:
            worker, _ = await start_server(fleet)
            started.set_result(worker.pid)
            await worker.result(lambda _: None)

    task = asyncio.create_task(measure())
    pid = await started
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not alive(pid)


def test_workers_end_when_whoever_started_them_is_killed() -> None:
    program = (
        "import asyncio\n"
        "from frieda.bench.fleet import Fleet\n"
        "async def main():\n"
        "    async with Fleet() as fleet:\n"
        "        task = {'polling': 'busy', 'response_bytes': 1, 'request_bytes': 1}\n"
        "        worker = await fleet.start('frieda.bench.echo:serve', task)\n"
        "        await worker.ready()\n"
        "        print(worker.pid, flush=True)\n"
        "        await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        pidfd = os.pidfd_open(pid)
        parent.kill()
    poller = select.poll()
    poller.register(pidfd)
    assert poller.poll(60_000), "the worker outlived its parent by a minute"
    os.close(pidfd)


def test_the_results_of_processes_are_merged_window_by_window() -> None:
    def window(start_ns: int, end_ns: int, value_ns: int) -> dict[str, object]:
        histogram = LatencyHistogram()
        histogram.record(value_ns)
        return {"start_ns": start_ns, "end_ns": end_ns, "histogram": histogram.encode()}

    def result(first_ns: int, last_ns: int, *windows: dict[str, object]) -> dict[str, object]:
        return {
            "errors": 1,
            "first_ns": first_ns,
            "last_ns": last_ns,
            "latency": windows,
            "service_time": None,
            "lateness": None,
        }

    outcome = merge_results(
        [
            result(1_000_000_000, 3_000_000_000, window(0, 5, 10), window(5, 9, 20)),
            result(2_000_000_000, 6_000_000_000, window(0, 6, 30)),
        ]
    )
    assert (outcome.records, outcome.errors, outcome.elapsed_s) == (3, 2, 5.0)
    assert [(w.start_ns, w.end_ns, w.histogram.count) for w in outcome.windows] == [
        (0, 6, 2),
        (5, 9, 1),
    ]


def test_the_command_prints_the_lines_and_writes_the_files(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    json_file, hgrm_file = tmp_path / "echo.json", tmp_path / "echo.hgrm"
    arguments = ["--records", "2000", "--polling", "event", "--warm-up-records", "10"]
    files = ["--json", str(json_file), "--hgrm", str(hgrm_file)]
    assert run(["bench", "echo", *arguments, *files]) == 0
    out = capfd.readouterr().out
    assert "2000 records sent, " in out
    assert "n/a 99.9th" in out
    values = json.loads(json_file.read_text())
    assert values["records"] == 2000
    assert values["latency_us"]["p99"] > 0
    assert values["latency_us"]["p99.9"] is None
    assert values["settings"]["polling"] == "event"
    assert hgrm_file.read_text().lstrip().startswith("Value")


def test_the_json_of_a_run_is_json() -> None:
    result = run_echo(EchoSettings(load=Load(records=50)))
    assert json.loads(json.dumps(as_json(result)))["benchmark"] == "echo"
