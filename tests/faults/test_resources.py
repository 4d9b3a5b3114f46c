"""What a broker process takes of the machine: memory under a load, and CPU when nobody wants anything.

FRIEDA_MEMORY_MIB sets how much is written and read back (64 when not set; 1024 for the whole of what is promised).
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from frieda import Consumer, Producer
from frieda.errors import FriedaError
from frieda.testing.brokers import BrokerProcess
from frieda.testing.conversation import create_topic, health_of, produce
from frieda.testing.raw_client import raw_client

MIB: Final = 1 << 20
LOAD_MIB: Final = int(os.environ.get("FRIEDA_MEMORY_MIB", "64"))
MAX_BROKER_BYTES: Final = 150 * 10**6
VALUE_BYTES: Final = 1000
VALUES_AT_ONCE: Final = 10_000
IDLE_S: Final = 1.5
MAX_LOOKS: Final = 10
MAX_IDLE_SHARE: Final = 0.01


async def test_a_large_load_written_and_read_back_stays_within_the_brokers_memory(
    tmp_path: Path,
) -> None:
    count = LOAD_MIB * MIB // VALUE_BYTES
    filler = os.urandom(VALUE_BYTES - 8)
    with BrokerProcess(tmp_path) as broker:
        peak = 0

        async def watch() -> None:
            nonlocal peak
            while True:
                peak = max(peak, broker.memory_bytes())
                await asyncio.sleep(0.02)

        watching = asyncio.ensure_future(watch())
        async with raw_client(broker.url) as client:
            await create_topic(client, "load")
        failures: list[FriedaError] = []

        def done(_count: int, _offset: int, error: FriedaError | None) -> None:
            if error is not None:
                failures.append(error)

        async with Producer(broker.url, polling="event", acks=1) as producer:
            for first in range(0, count, VALUES_AT_ONCE):
                numbers = range(first, min(count, first + VALUES_AT_ONCE))
                values = [number.to_bytes(8) + filler for number in numbers]
                await producer.submit_values("load", values, done)
        assert failures == []
        read = 0
        async with Consumer(broker.url, "load", start="earliest", polling="event") as consumer:
            while read < count:
                for records in (await consumer.getmany(timeout_ms=10_000)).values():
                    for record in records:
                        value = record.value or b""
                        assert int.from_bytes(value[:8]) == read == record.offset
                        assert value[8:] == filler
                        read += 1
        watching.cancel()
        print(
            f"{LOAD_MIB} MiB written and read back; the broker's memory was {peak / MIB:.0f} MiB at most"
        )
        assert 0 < peak < MAX_BROKER_BYTES
        async with raw_client(broker.url) as client:
            health = await health_of(client)
            assert health.facts["buffers_in_use"] == 0
            assert health.facts["produced_bytes"] >= LOAD_MIB * MIB


async def test_an_idle_broker_uses_under_one_percent_of_a_core(tmp_path: Path) -> None:
    """Three kinds of idleness, measured over the same seconds: never used; after a burst, with a hundred
    connections open; with a thousand partitions."""
    with ExitStack() as stack:
        async with AsyncExitStack() as connections:
            brokers = {
                name: stack.enter_context(BrokerProcess(tmp_path / name))
                for name in ("unused", "after a burst", "many partitions")
            }
            assert all(broker.url for broker in brokers.values())
            url = brokers["after a burst"].url
            client = await connections.enter_async_context(raw_client(url))
            topic_id = await create_topic(client)
            for _ in range(500):
                await produce(client, topic_id, b"x" * 100)
            assert (await health_of(client)).settings["polling"] == "adaptive"
            address = urlsplit(url)
            for _ in range(100):
                sock = socket.create_connection((address.hostname, address.port))
                connections.enter_context(sock)
            async with raw_client(brokers["many partitions"].url) as other:
                topic_id = await create_topic(other, partitions=1000)
                await produce(other, topic_id, b"x", partition=999)
            # What was done before has an end first: windows that close, one collection of garbage.
            for _ in range(MAX_LOOKS):
                before = {name: broker.cpu_seconds() for name, broker in brokers.items()}
                began = time.monotonic()
                await asyncio.sleep(IDLE_S)
                elapsed_s = time.monotonic() - began
                shares = {
                    name: (broker.cpu_seconds() - before[name]) / elapsed_s
                    for name, broker in brokers.items()
                }
                print(", ".join(f"{name}: {share:.2%}" for name, share in shares.items()))
                if max(shares.values()) < MAX_IDLE_SHARE:
                    break
            assert {name: share for name, share in shares.items() if share >= MAX_IDLE_SHARE} == {}
