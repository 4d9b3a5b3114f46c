"""The lines and the JSON of a result."""

from __future__ import annotations

import json
import os
import re
import socket
from pathlib import Path

import pytest

from frieda.bench.environment import cpu_model, describe_environment
from frieda.bench.histogram import LatencyHistogram
from frieda.bench.load import Lateness
from frieda.bench.report import Progress, Result, as_json, result_line, summary_lines, window_line

# The final line of Kafka's ProducerPerformance, its numbers free to have a fraction.
KAFKA_TOTAL = re.compile(
    r"(\d+) records sent, (\d+\.\d+) records/sec \((\d+\.\d\d) MB/sec\), "
    r"(\d+\.\d+) ms avg latency, (\d+\.\d+) ms max latency, "
    r"(\d+\.\d+) ms 50th, (\d+\.\d+) ms 95th, (\d+\.\d+) ms 99th, (\d+\.\d+) ms 99\.9th"
)
KAFKA_WINDOW = re.compile(
    r"\d+ records sent, \d+\.\d records/sec \(\d+\.\d\d MB/sec\), "
    r"\d+\.\d+ ms avg latency, \d+\.\d+ ms max latency\."
)


def result_of(samples: int, *, with_rate: bool = False, errors: int = 0) -> Result:
    histogram = LatencyHistogram()
    histogram.record(1_000_000, samples)
    lateness = Lateness()
    lateness.note(2_000_000)
    return Result(
        name="producer",
        records=samples,
        errors=errors,
        size_bytes=samples * 1024,
        elapsed_s=2.0,
        latency=histogram,
        service_time=histogram if with_rate else None,
        lateness=lateness.summary() if with_rate else None,
        settings={"acks": -1, "flush": "never", "rate": None},
        environment={"python": "CPython 3.11"},
    )


def test_the_final_line_is_kafkas() -> None:
    line = result_line(result_of(20_480))
    match = KAFKA_TOTAL.match(line)
    assert match
    numbers = [float(number) for number in match.groups()]
    assert numbers[:3] == [20_480, 10_240, 10.0]
    assert numbers[3:] == pytest.approx([1.0] * 6, rel=0.002)
    assert line.endswith("n/a 99.99th, 1.000 ms max.")


def test_a_percentile_that_the_samples_cannot_carry_is_na() -> None:
    line = result_line(result_of(2_000))
    assert "1.000 ms 99th, n/a 99.9th, n/a 99.99th, 1.000 ms max." in line


def test_a_window_line_is_kafkas() -> None:
    progress = Progress(
        records=500, size_bytes=50_000, elapsed_s=5.0, mean_ns=85_000.0, max_ns=1_300_000
    )
    line = window_line(progress)
    assert KAFKA_WINDOW.fullmatch(line)
    assert line.startswith("500 records sent, 100.0 records/sec (0.01 MB/sec), 0.085 ms avg")


def test_a_window_without_an_answer_says_so() -> None:
    silent = Progress(records=0, size_bytes=0, elapsed_s=5.0, mean_ns=None, max_ns=None)
    assert "n/a avg latency, n/a max latency" in window_line(silent)


def test_settings_stand_beside_the_number() -> None:
    assert summary_lines(result_of(2_000))[-1] == "producer: acks=-1, flush=never"


def test_errors_service_time_and_lateness_are_told() -> None:
    lines = summary_lines(result_of(2_000, with_rate=True, errors=3))
    assert lines[1].startswith("service time: 1.000 ms avg latency")
    assert lines[2] == "3 records failed."
    assert lines[3].startswith("generator lateness: 2000.0 us avg, 2000.0 us max, 1 of 1 sends")


def test_the_json_holds_what_readers_rely_on() -> None:
    values = json.loads(json.dumps(as_json(result_of(20_000, errors=1))))
    assert values["records"] == 20_000
    assert values["errors"] == 1
    assert values["records_per_sec"] == 10_000.0
    assert values["mb_per_sec"] == pytest.approx(9.765625)
    assert values["latency_us"]["p99.9"] == pytest.approx(1000, rel=0.001)
    assert values["latency_us"]["p99.99"] is None
    assert values["service_time_us"] is None
    assert values["settings"]["flush"] == "never"
    assert values["environment"] == {"python": "CPython 3.11"}


def test_with_a_rate_the_json_has_the_service_time_too() -> None:
    values = as_json(result_of(2_000, with_rate=True))
    service_time = values["service_time_us"]
    assert isinstance(service_time, dict)
    assert service_time["p99"] == pytest.approx(1000, rel=0.001)
    assert values["lateness_us"] == {"mean": 2000.0, "max": 2000.0, "late_sends": 1}


def test_the_environment_is_told_without_host_names_or_paths() -> None:
    facts = describe_environment()
    assert set(facts) == {
        "frieda",
        "git_revision",
        "codec_compiled",
        "python",
        "uvloop",
        "kernel",
        "cpu",
        "cores",
    }
    text = json.dumps(facts)
    assert os.getcwd() not in text
    assert str(Path.home()) not in text
    assert socket.gethostname() not in facts.values()


def test_the_processor_is_read_from_the_kernel(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nmodel name\t: Fast CPU @ 3 GHz\nmodel name\t: x\n")
    assert cpu_model(file) == "Fast CPU @ 3 GHz"
    assert cpu_model(tmp_path / "missing") is None
