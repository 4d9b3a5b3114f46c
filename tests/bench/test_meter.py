"""The meter of a load process, and how the news of all processes become one line."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any

from frieda.bench.fleet import ProgressByWindow, merge_results
from frieda.bench.load import Load
from frieda.bench.meter import Meter
from frieda.bench.report import Progress
from frieda.bench.worker import Channel


class HeardChannel(Channel):
    """A channel whose progress a test waits for."""

    def __init__(self) -> None:
        super().__init__(asyncio.StreamReader())
        self.heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    def progress(self, facts: Mapping[str, Any]) -> None:
        self.heard.put_nowait(dict(facts))


async def test_each_window_is_told_and_all_of_them_are_in_the_result() -> None:
    channel = HeardChannel()
    meter = Meter(channel, Load(records=9, record_size_bytes=10, rate=1.0), window_s=0.01)
    meter.begin(time.monotonic_ns())
    meter.measuring_since(1_000)
    meter.record(5_000, 2)
    meter.record_service_time(4_000, 2)
    meter.lateness.note(7)
    first = await asyncio.wait_for(channel.heard.get(), 60)
    meter.record(6_000)
    meter.record_service_time(6_000)
    second = await asyncio.wait_for(channel.heard.get(), 60)
    while not second["records"]:
        second = await asyncio.wait_for(channel.heard.get(), 60)
    meter.close()
    meter.measured_until(2_000_001_000)
    meter.errors = 1
    assert (first["number"], first["records"], first["size_bytes"]) == (0, 2, 20)
    assert (first["mean_ns"], first["max_ns"]) == (5_000.0, 5_003)
    assert (second["records"], second["mean_ns"]) == (1, 6_000.0)

    outcome = merge_results([json.loads(json.dumps(meter.result()))])
    assert (outcome.records, outcome.errors, outcome.elapsed_s) == (3, 1, 2.0)
    assert outcome.service_time is not None
    assert outcome.service_time.count == 3
    assert outcome.lateness is not None
    assert outcome.lateness.sends == 1
    assert len(outcome.windows) >= 2


def test_a_window_is_told_once_all_processes_told_theirs() -> None:
    told: list[Progress] = []
    windows = ProgressByWindow(2, told.append)

    def news(number: int, records: int, mean_ns: float | None, max_ns: int | None) -> None:
        windows.take(
            {
                "number": number,
                "records": records,
                "size_bytes": records * 10,
                "elapsed_s": 5.0,
                "mean_ns": mean_ns,
                "max_ns": max_ns,
            }
        )

    news(0, 3, 100.0, 200)
    news(1, 0, None, None)
    assert told == []
    news(0, 1, 300.0, 300)
    news(1, 0, None, None)
    assert told == [
        Progress(records=4, size_bytes=40, elapsed_s=5.0, mean_ns=150.0, max_ns=300),
        Progress(records=0, size_bytes=0, elapsed_s=5.0, mean_ns=None, max_ns=None),
    ]
