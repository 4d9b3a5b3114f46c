"""Producing over verbs and over TCP, on the same wire. Everything is emulated, so only ratios are told.

The emulated machine is a few times slower at one moment than at another, so what is short is measured in turns by
one process; the benchmark command itself is run once for each transport.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

from frieda import Admin, Producer
from frieda.cli.main import run
from frieda.testing.brokers import BrokerProcess

TURNS = 40
RECORDS_A_TURN = 10
COMMAND = ("--records", "100", "--warm-up-records", "10", "--record-size", "65536", "--in-flight", "4",
           "--batch-size", "131072", "--polling", "event")  # fmt: skip


@pytest.fixture(scope="module")
def urls(tmp_path_factory) -> Iterator[dict[str, str]]:
    """The addresses, by scheme, of a broker that listens by both: one for all, because it takes long to start."""
    listen = ("tcp://10.77.0.2:0", "verbs://10.77.0.2:0")
    folder = tmp_path_factory.mktemp("data")
    with BrokerProcess(folder, "--polling", "event", listen=listen) as broker:
        yield {url.partition(":")[0]: url for url in broker.urls}
        assert broker.stop() == (0, "")


@pytest.fixture
def tell(capsys):
    """Says a line to whoever runs the machine, and leaves it in the results."""

    def say(line: str) -> None:
        with capsys.disabled():
            print("\n" + line)
        with Path(os.environ["FRIEDA_VM_RESULTS"], "benchmark").open("a") as results:
            results.write(line + "\n")

    return say


def test_the_producer_benchmark_runs_over_verbs_and_over_tcp(urls, tmp_path, tell):
    results = {}
    for scheme, url in urls.items():
        file = tmp_path / f"{scheme}.json"
        command = ["bench", "producer", "-b", url, "--topic", scheme, *COMMAND]
        assert run([*command, "--json", str(file)]) == 0
        results[scheme] = json.loads(file.read_text())
        assert results[scheme]["settings"]["transport"] == scheme
        assert (results[scheme]["records"], results[scheme]["errors"]) == (100, 0)
    latency = ratio(results, lambda result: result["latency_us"]["p50"])
    rate = ratio(results, lambda result: result["records_per_sec"])
    tell(f"verbs : tcp, emulated, 64 KiB, 4 in flight: p50 {latency:.2f}, records/s {rate:.2f}")


@pytest.mark.parametrize("polling", ["event", "adaptive"])
async def test_acknowledged_records_in_turns_over_verbs_and_over_tcp(urls, tell, polling):
    took_ns: dict[str, list[int]] = {"tcp": [], "verbs": []}
    topic = f"in-turns-{polling}"
    async with Admin(urls["tcp"], polling="event", transport="tcp") as admin:
        await admin.create_topic(topic)
    async with (
        Producer(urls["tcp"], polling=polling, transport="tcp") as tcp,
        Producer(urls["verbs"], polling=polling) as verbs,
    ):
        producers = {"tcp": tcp, "verbs": verbs}
        for turn in range(TURNS):
            for scheme, producer in producers.items():
                for number in range(RECORDS_A_TURN):
                    begin_ns = time.perf_counter_ns()
                    await producer.send(topic, b"x" * 100)
                    if turn and number:  # the first pays for the change
                        took_ns[scheme].append(time.perf_counter_ns() - begin_ns)
        used = [each.health().transports for each in producers.values()]
        assert used == [{"tcp": 1}, {"verbs": 1}]
    p50 = ratio(took_ns, median)
    p95 = ratio(took_ns, lambda samples: sorted(samples)[len(samples) * 95 // 100])
    tell(f"verbs : tcp, emulated, 100 B in turns, {polling}: p50 {p50:.2f}, p95 {p95:.2f}")


def ratio(by_scheme, figure) -> float:
    return figure(by_scheme["verbs"]) / figure(by_scheme["tcp"])
