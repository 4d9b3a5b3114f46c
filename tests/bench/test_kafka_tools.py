"""Kafka's own measuring tools: what they print is read, and they run against a real Kafka."""

from __future__ import annotations

from pathlib import Path

import pytest

from frieda.bench.drivers.confluent import ConfluentDriver
from frieda.bench.kafka_tools import (
    EndToEndLatency,
    ProducerPerformance,
    parse_end_to_end_latency,
    parse_producer_performance,
    run_end_to_end_latency,
    run_producer_performance,
)
from frieda.bench.systems.kafka import KafkaSystem
from frieda.errors import ConfigError, FriedaError
from frieda.testing.presence import require

WITH_A_WARM_UP = """\
Warmup first 1000 records. Steady state results will print after the complete test summary.
3001 records sent, 600.1 records/sec (0.06 MB/sec), 34.5 ms avg latency, 613.0 ms max latency.
5000 records sent, 1991.238550 records/sec (0.19 MB/sec), 34.52 ms avg latency, 613.00 ms max latency, \
9 ms 50th, 141 ms 95th, 162 ms 99th, 165 ms 99.9th.
4000 steady state records sent, 2051.282051 records/sec (0.20 MB/sec), 13.94 ms avg latency, \
93.00 ms max latency, 5 ms 50th, 82 ms 95th, 89 ms 99th, 93 ms 99.9th.
"""
END_TO_END = """\
0\t334.72
1000\t3.773098
Avg latency: 3.4991 ms
Percentiles: 50th = 1, 99th = 18, 99.9th = 90
"""


def test_the_steady_part_of_a_run_is_what_counts() -> None:
    assert parse_producer_performance(WITH_A_WARM_UP) == ProducerPerformance(
        records=4000,
        records_per_sec=2051.282051,
        mb_per_sec=0.20,
        mean_ms=13.94,
        max_ms=93.0,
        p50_ms=5.0,
        p95_ms=82.0,
        p99_ms=89.0,
        p99_9_ms=93.0,
    )


def test_without_a_warm_up_it_is_the_whole_run() -> None:
    whole = "".join(WITH_A_WARM_UP.splitlines(keepends=True)[:3])
    assert parse_producer_performance(whole).records == 5000


@pytest.mark.parametrize("output", ["", "Exception in thread main", WITH_A_WARM_UP[:200]])
def test_a_run_without_figures_is_told_with_its_last_line(output: str) -> None:
    with pytest.raises(FriedaError, match="gave no figures; its last line: '"):
        parse_producer_performance(output)
    with pytest.raises(FriedaError, match="gave no figures; its last line: '"):
        parse_end_to_end_latency(output, 1)


def test_the_end_to_end_latency_is_read() -> None:
    assert parse_end_to_end_latency(END_TO_END, 2000) == EndToEndLatency(
        records=2000, mean_ms=3.4991, p50_ms=1.0, p99_ms=18.0, p99_9_ms=90.0
    )


@pytest.mark.parametrize(("records", "warm_up"), [(0, 0), (10, 10), (10, -1)])
def test_a_run_that_would_measure_nothing_is_refused(records: int, warm_up: int) -> None:
    with pytest.raises(ConfigError, match=f"records = {records}"):
        run_producer_performance(
            "127.0.0.1:1", "t", records=records, record_size_bytes=100, warm_up_records=warm_up
        )


async def test_both_run_against_a_kafka_and_one_that_fails_tells_why(tmp_path: Path) -> None:
    require(KafkaSystem(), ConfluentDriver())
    with KafkaSystem().running(tmp_path, "cache") as running:
        await ConfluentDriver().make_topic(running.address, "tools")
        found = run_producer_performance(
            running.address,
            "tools",
            records=2000,
            record_size_bytes=100,
            rate=2000,
            warm_up_records=500,
        )
        assert found.records == 1500
        assert 0 < found.records_per_sec < 4000
        assert found.p50_ms <= found.p95_ms <= found.p99_ms <= found.p99_9_ms <= found.max_ms
        latency = run_end_to_end_latency(
            running.address, "tools", records=200, record_size_bytes=100, acks=-1
        )
        assert latency.records == 200
        assert latency.mean_ms > 0
        assert latency.p50_ms <= latency.p99_ms <= latency.p99_9_ms
        with pytest.raises(FriedaError, match=r"(?s)ProducerPerformance failed.*max\.block\.ms"):
            run_producer_performance(
                running.address,
                "tools",
                records=10,
                record_size_bytes=100,
                acks=-1,
                extra={"max.block.ms": "soon"},
            )
