"""Kafka's own measuring tools, ProducerPerformance and EndToEndLatency, as a cross-check of what we measure.

Both count from the moment of the send, not from the intended one, in whole milliseconds.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from frieda.bench.systems.kafka import java_command
from frieda.bench.systems.processes import ChildProcess
from frieda.errors import ConfigError, FriedaError

PRODUCER_PERFORMANCE: Final = "org.apache.kafka.tools.ProducerPerformance"
END_TO_END_LATENCY: Final = "org.apache.kafka.tools.EndToEndLatency"
HEAP: Final = "-Xmx512m"
"""KAFKA_HEAP_OPTS of Kafka's bin/kafka-producer-perf-test.sh."""
UNLIMITED: Final = -1
MAX_OUTPUT_BYTES: Final = 16 * 1024 * 1024

_FINAL_LINE: Final = re.compile(
    r"^(?P<records>\d+)(?: steady state)? records sent, (?P<records_per_sec>[\d.]+) records/sec "
    r"\((?P<mb_per_sec>[\d.]+) MB/sec\), (?P<mean_ms>[\d.]+) ms avg latency, (?P<max_ms>[\d.]+) ms max latency, "
    r"(?P<p50_ms>\d+) ms 50th, (?P<p95_ms>\d+) ms 95th, (?P<p99_ms>\d+) ms 99th, (?P<p99_9_ms>\d+) ms 99\.9th\.?\s*$",
    re.MULTILINE,
)
_MEAN: Final = re.compile(r"^Avg latency: (?P<mean_ms>[\d.]+) ms\s*$", re.MULTILINE)
_PERCENTILES: Final = re.compile(
    r"^Percentiles: 50th = (?P<p50_ms>\d+), 99th = (?P<p99_ms>\d+), 99\.9th = (?P<p99_9_ms>\d+)\s*$",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerPerformance:
    """What ProducerPerformance said of a run, its warm-up cut; mb is 2**20 bytes, as it counts."""

    records: int
    records_per_sec: float
    mb_per_sec: float
    mean_ms: float
    max_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    p99_9_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EndToEndLatency:
    """What EndToEndLatency said: from the send of a record until a consumer had it, one after the other.

    It has no warm-up: the start of its own Java is in its mean and its p99.9.
    """

    records: int
    mean_ms: float
    p50_ms: float
    p99_ms: float
    p99_9_ms: float


def run_producer_performance(
    address: str,
    topic: str,
    *,
    records: int,
    record_size_bytes: int,
    rate: float | None = None,
    warm_up_records: int = 0,
    acks: int = 1,
    linger_ms: float = 0.0,
    batch_bytes: int = 16 * 1024,
    extra: Mapping[str, object] | None = None,
    timeout_s: float = 600.0,
) -> ProducerPerformance:
    """One producer at `rate` records/s (None: as fast as it can), to its end. `extra`: more of Kafka's properties.

    `batch_bytes` is Kafka's default. Blocks. Raises FriedaError, with the end of its output, when it fails or takes
    longer than `timeout_s`; ConfigError.
    """
    if records < 1 or not 0 <= warm_up_records < records:
        raise ConfigError(
            f"records = {records}, warm_up_records = {warm_up_records}: of all records some must be measured"
        )
    properties = {
        "acks": "all" if acks == -1 else acks,
        "linger.ms": round(linger_ms),
        "batch.size": batch_bytes,
        # Kafka's producer is idempotent by default where acks=all; then and only then.
        "enable.idempotence": str(acks == -1).lower(),
        **(extra or {}),
    }
    command = java_command(
        PRODUCER_PERFORMANCE,
        *("--bootstrap-server", address, "--topic", topic),
        *("--num-records", str(records), "--record-size", str(record_size_bytes)),
        *("--throughput", str(UNLIMITED if rate is None else rate)),
        *(("--warmup-records", str(warm_up_records)) if warm_up_records else ()),
        *("--command-property", *(f"{name}={value}" for name, value in properties.items())),
        options=(HEAP,),
    )
    return parse_producer_performance(_output("ProducerPerformance", command, timeout_s))


def run_end_to_end_latency(
    address: str,
    topic: str,
    *,
    records: int,
    record_size_bytes: int,
    acks: int = 1,
    timeout_s: float = 600.0,
) -> EndToEndLatency:
    """One record at a time from a producer to a consumer. `acks`: 1 or -1. Blocks. Raises FriedaError."""
    command = java_command(
        END_TO_END_LATENCY,
        *("--bootstrap-server", address, "--topic", topic),
        *("--num-records", str(records), "--record-size", str(record_size_bytes)),
        *("--producer-acks", "all" if acks == -1 else str(acks)),
        options=(HEAP,),
    )
    return parse_end_to_end_latency(_output("EndToEndLatency", command, timeout_s), records)


def parse_producer_performance(output: str) -> ProducerPerformance:
    """The final line of its output. Raises FriedaError when there is none."""
    found = list(_FINAL_LINE.finditer(output))
    if not found:
        raise FriedaError(f"Kafka's ProducerPerformance gave no figures; {_last_line(output)}")
    # Of a run with a warm-up the steady part comes last.
    values = found[-1].groupdict()
    return ProducerPerformance(
        records=int(values.pop("records")),
        **{name: float(value) for name, value in values.items()},
    )


def parse_end_to_end_latency(output: str, records: int) -> EndToEndLatency:
    """The last lines of its output. Raises FriedaError when they are not there."""
    mean, percentiles = _MEAN.search(output), _PERCENTILES.search(output)
    if mean is None or percentiles is None:
        raise FriedaError(f"Kafka's EndToEndLatency gave no figures; {_last_line(output)}")
    values = mean.groupdict() | percentiles.groupdict()
    return EndToEndLatency(
        records=records, **{name: float(value) for name, value in values.items()}
    )


def _output(name: str, command: Sequence[str], timeout_s: float) -> str:
    """Run it to its end. Raises FriedaError, with the end of its output, when it fails or is late."""
    with (
        tempfile.TemporaryDirectory(prefix="frieda-kafka-tools-") as folder,
        ChildProcess(name, command, Path(folder)) as process,
    ):
        code = process.wait(timeout_s)
        if code != 0:
            raise FriedaError(f"Kafka's {name} failed (exit code {code}); {process.log_tail()}")
        return process.log_tail(MAX_OUTPUT_BYTES)


def _last_line(output: str) -> str:
    return f"its last line: {output.strip().rpartition(chr(10))[2]!r}"
