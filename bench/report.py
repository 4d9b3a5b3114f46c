"""The result of a benchmark: its lines as kafka-producer-perf-test prints them, and its JSON.

The formats are those of Kafka's ProducerPerformance (a window line every 5 s, then a final one),
with microseconds where Kafka has whole milliseconds. 1 MB is 1024 * 1024 bytes, as there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from frieda.bench.histogram import LatencyHistogram
from frieda.bench.load import LatenessSummary

WINDOW_S: Final = 5.0
MIB: Final = 1024 * 1024

PERCENTILES: Final = {"p50": 50.0, "p95": 95.0, "p99": 99.0, "p99.9": 99.9, "p99.99": 99.99}


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What was acknowledged within one reporting window."""

    records: int
    size_bytes: int
    elapsed_s: float
    mean_ns: float | None
    max_ns: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a benchmark measured, warm-up cut.

    `latency` counts from the intended send time with a rate (response time) and from the actual
    one without; `service_time` from the actual one, and is there only with a rate. `settings` says
    everything that shaped the number, fsync and acks among them; `environment` where it was taken.
    """

    name: str
    records: int
    errors: int
    size_bytes: int
    elapsed_s: float
    latency: LatencyHistogram
    service_time: LatencyHistogram | None = None
    lateness: LatenessSummary | None = None
    settings: Mapping[str, object]
    environment: Mapping[str, object]

    @property
    def records_per_sec(self) -> float:
        """Acknowledged records a second."""
        return self.records / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def mb_per_sec(self) -> float:
        """Acknowledged MiB of record values a second."""
        return self.size_bytes / MIB / self.elapsed_s if self.elapsed_s > 0 else 0.0


def window_line(progress: Progress) -> str:
    """The line that is printed while the load runs."""
    seconds = max(progress.elapsed_s, 1e-9)
    return (
        f"{progress.records} records sent, {progress.records / seconds:.1f} records/sec "
        f"({progress.size_bytes / MIB / seconds:.2f} MB/sec), "
        f"{_ms(progress.mean_ns)} avg latency, {_ms(progress.max_ns)} max latency."
    )


def result_line(result: Result) -> str:
    """The final line: Kafka's, then the 99.99th percentile and the maximum."""
    return _total(result, result.latency)


def summary_lines(result: Result) -> list[str]:
    """The final line, the service times with a rate, errors, lateness, and the settings beside it."""
    lines = [result_line(result)]
    if result.service_time is not None:
        lines.append(f"service time: {_latencies(result.service_time)}.")
    if result.errors:
        lines.append(f"{result.errors} records failed.")
    if result.lateness is not None:
        late = result.lateness
        lines.append(
            f"generator lateness: {late.mean_us:.1f} us avg, {late.max_us:.1f} us max, "
            f"{late.late_sends} of {late.sends} sends over 1 ms late."
        )
    lines.append(f"{result.name}: {_settings(result.settings)}")
    return lines


def as_json(result: Result) -> dict[str, object]:
    """The result as JSON values; a percentile that the samples cannot carry is None."""
    return {
        "benchmark": result.name,
        "records": result.records,
        "errors": result.errors,
        "elapsed_s": round(result.elapsed_s, 6),
        "records_per_sec": round(result.records_per_sec, 3),
        "mb_per_sec": round(result.mb_per_sec, 6),
        "latency_us": latencies_us(result.latency),
        "service_time_us": latencies_us(result.service_time) if result.service_time else None,
        "lateness_us": None
        if result.lateness is None
        else {
            "mean": round(result.lateness.mean_us, 3),
            "max": round(result.lateness.max_us, 3),
            "late_sends": result.lateness.late_sends,
        },
        "settings": dict(result.settings),
        "environment": dict(result.environment),
    }


def latencies_us(histogram: LatencyHistogram) -> dict[str, float | None]:
    """Percentiles, maximum and mean in microseconds; None where there are too few samples."""
    values: dict[str, float | None] = {
        name: _us(histogram.percentile(percent)) for name, percent in PERCENTILES.items()
    }
    return values | {"max": _us(histogram.max_ns), "mean": _us(histogram.mean_ns)}


def _total(result: Result, histogram: LatencyHistogram) -> str:
    return (
        f"{result.records} records sent, {result.records_per_sec:f} records/sec "
        f"({result.mb_per_sec:.2f} MB/sec), {_latencies(histogram)}."
    )


def _latencies(histogram: LatencyHistogram) -> str:
    parts = [f"{_ms(histogram.mean_ns)} avg latency", f"{_ms(histogram.max_ns)} max latency"]
    parts += [
        f"{_ms(histogram.percentile(percent))} {name.removeprefix('p')}th"
        for name, percent in PERCENTILES.items()
    ]
    return ", ".join([*parts, f"{_ms(histogram.max_ns)} max"])


def _settings(settings: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={value}" for name, value in settings.items() if value is not None)


def _ms(value_ns: float | None) -> str:
    return "n/a" if value_ns is None else f"{value_ns / 1e6:.3f} ms"


def _us(value_ns: float | None) -> float | None:
    return None if value_ns is None else round(value_ns / 1000, 3)
