"""A broker that is killed, or stopped, in the middle of a load: nothing acknowledged is lost, doubled or reordered.

FRIEDA_KILL_ROUNDS sets how often it is killed (8 when not set).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from frieda import Producer
from frieda.testing.brokers import BrokerProcess, running_server
from frieda.testing.conversation import create_topic, eventually, fetch_values, produce, topic_id_of
from frieda.testing.raw_client import RawClient, raw_client

ROUNDS: Final = int(os.environ.get("FRIEDA_KILL_ROUNDS", "8"))
PRODUCERS: Final = 3
PARTITIONS: Final = 2
ACKNOWLEDGED_PER_ROUND: Final = 400
SEND_AT_ONCE: Final = 25


class Load:
    """Several producers that send to every partition all the time, and what was acknowledged to them.

    A record is `producer/partition/number/` and some bytes that follow from these, so that each is unique and
    its content can be checked.
    """

    def __init__(self, url: str, acks: int) -> None:
        self.acknowledged: dict[tuple[int, int], bytes] = {}
        """(partition, offset) -> value"""
        self._url = url
        self._acks = acks
        self._stopping = False
        self._going_on = asyncio.Event()
        self._going_on.set()

    async def run(self) -> None:
        """Send until `stop`, through every loss of the connection; ends when all is acknowledged."""
        async with asyncio.TaskGroup() as group:
            for producer_number in range(PRODUCERS):
                group.create_task(self._produce(producer_number))

    def stop(self) -> None:
        self._stopping = True

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Send nothing new meanwhile, so that what is checked does not grow faster than it is checked."""
        self._going_on.clear()
        try:
            yield
        finally:
            self._going_on.set()

    async def _produce(self, producer_number: int) -> None:
        async with (
            Producer(self._url, polling="event", acks=self._acks, retry_backoff_s=0.01) as producer,
            asyncio.TaskGroup() as group,
        ):
            for partition in range(PARTITIONS):
                group.create_task(self._send(producer, producer_number, partition))

    async def _send(self, producer: Producer, producer_number: int, partition: int) -> None:
        numbers = itertools.count()
        while not self._stopping:
            await self._going_on.wait()
            values = [
                value_of(producer_number, partition, number)
                for number in itertools.islice(numbers, SEND_AT_ONCE)
            ]
            results = await asyncio.gather(
                *(producer.send("load", value, partition=partition) for value in values)
            )
            for value, metadata in zip(values, results, strict=True):
                place = partition, metadata.offset
                assert place not in self.acknowledged, f"two records were given the place {place}"
                self.acknowledged[place] = value


def value_of(producer_number: int, partition: int, number: int) -> bytes:
    rng = random.Random(f"{producer_number}/{partition}/{number}")
    return b"%d/%d/%d/" % (producer_number, partition, number) + rng.randbytes(rng.randrange(300))


async def check_all_is_there(url: str, acknowledged: dict[tuple[int, int], bytes]) -> None:
    """Every acknowledged record lies where it was said to lie, once, whole, and in its producer's order."""
    async with raw_client(url) as client:
        topic_id = await topic(client)
        logs = [
            await fetch_values(client, topic_id, partition=index) for index in range(PARTITIONS)
        ]
    for (partition, offset), value in acknowledged.items():
        assert offset < len(logs[partition]), f"{partition}/{offset} was acknowledged and is lost"
        assert logs[partition][offset] == value
    for partition, values in enumerate(logs):
        last_numbers = Counter(dict.fromkeys(range(PRODUCERS), -1))
        for value in values:
            assert value is not None
            producer_number, said_partition, number = map(int, value.split(b"/", 3)[:3])
            assert value == value_of(producer_number, said_partition, number)
            assert said_partition == partition
            # Every number once and in order: what was not acknowledged may be there too, but never twice.
            assert number == last_numbers[producer_number] + 1
            last_numbers[producer_number] = number


async def topic(client: RawClient) -> bytes:
    return await topic_id_of(client, "load")


async def test_a_killed_broker_has_all_that_was_acknowledged_once_and_in_order(
    tmp_path: Path,
) -> None:
    with BrokerProcess(tmp_path / "data") as broker:
        async with raw_client(broker.url) as client:
            await create_topic(client, "load", PARTITIONS, segment_bytes="65536")
        load = Load(broker.url, acks=1)
        running = asyncio.ensure_future(load.run())
        for _ in range(ROUNDS):
            enough = len(load.acknowledged) + ACKNOWLEDGED_PER_ROUND
            await eventually(
                lambda enough=enough: running.done() or len(load.acknowledged) >= enough,
                "more records are acknowledged",
                60,
            )
            if running.done():
                running.result()
            broker.kill()
            acknowledged = dict(load.acknowledged)
            broker.start()
            with load.paused():
                await check_all_is_there(broker.url, acknowledged)
        load.stop()
        async with asyncio.timeout(60):
            await running
        await check_all_is_there(broker.url, load.acknowledged)
        broker.kill()
        assert verify(tmp_path / "data") == 0


@pytest.mark.parametrize("flush", ["never", "batch"])
async def test_a_broker_stopped_under_load_exits_with_0_and_is_clean(
    tmp_path: Path, flush: str
) -> None:
    data = tmp_path / "data"
    with BrokerProcess(data, "--flush", flush) as broker:
        async with raw_client(broker.url) as client:
            await create_topic(client, "load", PARTITIONS)
        load = Load(broker.url, acks=-1)
        running = asyncio.ensure_future(load.run())
        for _ in range(3):
            enough = len(load.acknowledged) + ACKNOWLEDGED_PER_ROUND
            await eventually(
                lambda enough=enough: running.done() or len(load.acknowledged) >= enough,
                "more records are acknowledged",
                60,
            )
            assert await asyncio.to_thread(broker.stop) == (0, "")
            acknowledged = dict(load.acknowledged)
            assert (data / ".clean-shutdown").exists()
            assert verify(data) == 0
            broker.start()
            await check_all_is_there(broker.url, acknowledged)
        load.stop()
        async with asyncio.timeout(60):
            await running
        assert broker.stop() == (0, "")
    async with running_server(data) as server:
        logs = [partition.log for partition in server.broker.topics.all_partitions()]
        assert [log.scanned_segments for log in logs] == [0] * len(logs)
        await check_all_is_there(server.urls[0], load.acknowledged)


async def test_a_broker_killed_while_it_stops_starts_again(tmp_path: Path) -> None:
    with BrokerProcess(tmp_path) as broker:
        async with raw_client(broker.url) as client:
            topic_id = await create_topic(client, "load", 20)
            for partition in range(20):
                await produce(client, topic_id, b"stored", partition=partition)
        for delay_s in (0.001, 0.003, 0.01):
            broker.kill()
            kill_while_it_stops(tmp_path, delay_s)
            broker.start()
            async with raw_client(broker.url) as client:
                for partition in range(20):
                    assert await fetch_values(client, topic_id, partition=partition) == [b"stored"]


def kill_while_it_stops(data: Path, delay_s: float) -> None:
    """Start a broker, ask it to stop, and kill it a moment later."""
    command = [sys.executable, "-m", "frieda", "broker", "--data", str(data)]
    with subprocess.Popen(
        [*command, "--listen", "tcp://127.0.0.1:0"], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert b"is ready" in process.stdout.readline()
        process.terminate()
        time.sleep(delay_s)  # the moment of the crash; nothing is waited for
        process.kill()


def verify(data: Path) -> int:
    """The exit code of `frieda log verify`."""
    command = [sys.executable, "-m", "frieda", "log", "verify", str(data)]
    return subprocess.run(command, stdout=subprocess.DEVNULL, timeout=60, check=False).returncode
