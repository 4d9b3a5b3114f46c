"""Results that no system gave: runs whose latencies are drawn from a seed, for what draws, reports and compares."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from frieda.bench.histogram import LatencyHistogram
from frieda.bench.report import latencies_us
from frieda.bench.results import Results, Run

DRIVERS = {"frieda": "frieda", "kafka": "confluent-kafka", "redis": "redis", "nats": "nats"}

MakeRun = Callable[..., Run]
MakeResults = Callable[..., Results]


def latencies(median_us: float, tail: float, samples: int, seed: int) -> LatencyHistogram:
    """A body around the median and a tail of one in fifty that is `tail` times as long."""
    generator = random.Random(seed)
    histogram = LatencyHistogram()
    repeated = 50  # of each drawn value, which makes many samples cheap
    for _ in range(max(1, samples // repeated)):
        value_us = median_us * generator.lognormvariate(0, 0.18)
        if generator.random() < 0.02:
            value_us *= 1 + tail * generator.expovariate(1)
        histogram.record(round(value_us * 1000), repeated)
    return histogram


@pytest.fixture
def make_run() -> MakeRun:
    """A run of a system at a place; `settings` change what it was run with."""

    def make(
        system: str = "frieda",
        transport: str | None = "tcp",
        *,
        producers: int = 8,
        record_size: int = 100,
        round: int = 0,
        median_us: float = 100.0,
        tail: float = 5.0,
        samples: int = 30_000,
        rate: float | None = 5000.0,
        invalid_because: str | None = None,
        extra: Mapping[str, object] | None = None,
        driver: str | None = None,
        case: str | None = None,
        **settings: Any,
    ) -> Run:
        told = {
            "mode": "latency",
            "producers": producers,
            "processes": 2,
            "record_size": record_size,
            "acks": 1,
            "replication": 1,
            "brokers": 1,
            "transport": transport,
            "rate": rate,
            "arrivals": "poisson" if rate is not None else None,
            "loop": "open" if rate is not None else "closed",
            "durability": "cache",
            "in_flight": 1000 if rate is not None else 1,
            **settings,
        }
        seed = zlib.crc32(f"{system} {transport} {producers} {record_size} {round}".encode())
        histogram = latencies(median_us, tail, samples, seed)
        per_s = rate or 1e6 / median_us * producers
        return Run(
            case=case or f"{system} {transport}, {producers} producers, {record_size} B",
            round=round,
            system=system,
            driver=driver or DRIVERS[system],
            settings=told,
            server_settings={"version": "1.0", "flush": "never"},
            client_settings={"linger.ms": 0},
            records=histogram.count,
            elapsed_s=histogram.count / per_s,
            records_per_sec=per_s,
            mb_per_sec=per_s * record_size / 2**20,
            latency_us=latencies_us(histogram),
            cpu_s={
                "server": 0.6 * histogram.count / per_s,
                "clients": 0.9 * histogram.count / per_s,
            },
            extra=dict(extra or {}),
            invalid_because=invalid_because,
            histogram=histogram.encode(),
        )

    return make


@pytest.fixture
def make_results() -> MakeResults:
    """A file of results of these runs."""

    def make(*runs: Run, kind: str = "compare", **changes: Any) -> Results:
        values: dict[str, Any] = {
            "kind": kind,
            "command": f"frieda bench {kind} --output results",
            "environment": {"cpu": "A Processor", "cores": 2, "python": "CPython 3.11"},
            "settings": {"rounds": 3},
            "runs": runs,
            **changes,
        }
        return Results(**values)

    return make
