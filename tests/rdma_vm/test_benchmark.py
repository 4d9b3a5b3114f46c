"""The producer benchmark over verbs and over TCP, on the same wire. Everything is emulated, so only ratios are told."""

from __future__ import annotations

import json
import os
from pathlib import Path
from statistics import median

from frieda.cli.main import run
from frieda.testing.brokers import BrokerProcess

ROUNDS = 1
LOADS = {
    "100 B, one in flight": ("--records", "300", "--warm-up-records", "30"),
    "64 KiB, four in flight": (
        *("--records", "100", "--warm-up-records", "10", "--record-size", "65536"),
        *("--in-flight", "4", "--batch-size", "131072"),
    ),
}  # fmt: skip


def produce(url: str, folder: Path, name: str, flags: tuple[str, ...]) -> dict:
    """The command itself; it measures in a process that it starts."""
    result = folder / "result.json"
    flags = (*flags, "--polling", "event", "--json", str(result))
    assert run(["bench", "producer", "-b", url, "--topic", name, *flags]) == 0
    return json.loads(result.read_text())


def test_the_producer_benchmark_runs_over_verbs_and_over_tcp_on_the_same_wire(tmp_path, capsys):
    listen = ("tcp://10.77.0.2:0", "verbs://10.77.0.2:0")
    lines = []
    with BrokerProcess(tmp_path / "data", "--polling", "event", listen=listen) as broker:
        urls = {url.partition(":")[0]: url for url in broker.urls}
        for number, (load, flags) in enumerate(LOADS.items()):
            results: dict[str, list[dict]] = {"tcp": [], "verbs": []}
            for _ in range(ROUNDS):
                for scheme, done in results.items():
                    done.append(produce(urls[scheme], tmp_path, f"{scheme}-{number}", flags))
            lines.append(ratios(load, results))
        assert broker.stop() == (0, "")
    with capsys.disabled():
        print("\n" + "\n".join(lines))
    Path(os.environ["FRIEDA_VM_RESULTS"], "benchmark").write_text("\n".join(lines) + "\n")


def ratios(load: str, results: dict[str, list[dict]]) -> str:
    """verbs as a part of tcp, in the median of the rounds."""
    parts = []
    for name, of in {
        "p50": lambda result: result["latency_us"]["p50"],
        "mean": lambda result: result["latency_us"]["mean"],
        "records/s": lambda result: result["records_per_sec"],
    }.items():
        tcp, verbs = (median(map(of, results[scheme])) for scheme in ("tcp", "verbs"))
        parts.append(f"{name} {verbs / tcp:.2f}")
    return f"verbs : tcp over one wire, emulated, {load}: {', '.join(parts)}"
