"""Producing to a broker process and consuming from it, whichever way leads there."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from frieda import Admin, Consumer, Producer
from frieda.config import KIB, MIB
from frieda.errors import BrokerError, ErrorCode
from frieda.testing.brokers import BrokerProcess
from frieda.testing.conversation import eventually

SIZES = (1, 100, 4 * KIB, 16 * KIB, 31 * KIB, 33 * KIB, 100 * KIB, MIB, 5 * MIB, 15 * MIB)
PARTITIONS = 3


@pytest.mark.parametrize("polling", ["event", "adaptive"])
async def test_records_of_every_size_many_under_way_come_back_whole_and_in_order(
    tmp_path: Path, process_listen: str, polling: Any
) -> None:
    """Small ones overtake large ones on some transports; within a partition nobody may notice."""
    chance = random.Random(11)
    sizes = [size for size in SIZES for _ in range(1 if size > MIB else 6)]
    chance.shuffle(sizes)
    values = [chance.randbytes(size) for size in sizes]
    with BrokerProcess(tmp_path, "--polling", polling, listen=process_listen) as broker:
        scheme = broker.url.partition("://")[0]
        async with asyncio.timeout(100), Admin(broker.url, polling="event") as admin:
            await admin.create_topic("t", partitions=PARTITIONS)
            async with Producer(
                broker.url, polling=polling, acks=1, batch_bytes=16 * MIB, buffer_bytes=64 * MIB
            ) as producer:
                sending = [
                    producer.send_nowait("t", value, partition=number % PARTITIONS)
                    for number, value in enumerate(values)
                ]
                for number, result in enumerate(await asyncio.gather(*sending)):
                    assert result.offset == number // PARTITIONS
                assert producer.health().transports == {scheme: 1}
                assert producer.health().reconnects == 0
            read: list[list[bytes]] = [[] for _ in range(PARTITIONS)]
            async with Consumer(broker.url, "t", start="earliest", polling=polling) as consumer:
                while sum(map(len, read)) < len(values):
                    for records in (await consumer.getmany(timeout_ms=1000)).values():
                        for record in records:
                            assert record.value is not None
                            read[record.partition].append(record.value)
            assert read == [values[first::PARTITIONS] for first in range(PARTITIONS)]
            facts = (await admin.broker_health()).facts
            assert facts["broken_connections"] == facts["protocol_errors"] == facts["faults"] == 0
        assert broker.stop() == (0, "")


async def test_a_client_that_goes_away_in_the_middle_leaves_nothing_at_the_broker(
    tmp_path: Path, process_listen: str
) -> None:
    with BrokerProcess(tmp_path, "--polling", "event", listen=process_listen) as broker:
        async with Admin(broker.url, polling="event") as admin:
            await admin.create_topic("t")
            for _ in range(5):
                producer = Producer(broker.url, polling="event", acks=1, batch_bytes=4 * MIB)
                await producer.start()
                sending = [producer.send_nowait("t", bytes(2 * MIB)) for _ in range(4)]
                await asyncio.sleep(0)
                await producer.close(0.0)
                await asyncio.gather(*sending, return_exceptions=True)
            async with asyncio.timeout(20):
                while True:
                    facts = (await admin.broker_health()).facts
                    scheme = broker.url.partition("://")[0]
                    if facts[f"connections_{scheme}"] == 1 and facts["buffers_in_use"] == 0:
                        break
        assert broker.stop() == (0, "")


async def test_a_long_poll_wakes_up_for_a_record_that_came_by_another_connection(
    tmp_path: Path, process_listen: str
) -> None:
    with BrokerProcess(tmp_path, "--polling", "event", listen=process_listen) as broker:
        async with Admin(broker.url, polling="event") as admin:
            await admin.create_topic("t")
        async with (
            asyncio.timeout(30),
            Producer(broker.url, polling="event", acks=1) as producer,
            Consumer(
                broker.url, "t", start="earliest", max_wait_ms=20_000, polling="event"
            ) as consumer,
        ):
            for number in range(50):
                waiting = asyncio.create_task(consumer.getone())
                await producer.send("t", b"%d" % number)
                assert (await waiting).value == b"%d" % number
        assert broker.stop() == (0, "")


async def test_what_is_too_large_is_refused_and_the_connection_lives_on(
    tmp_path: Path, process_listen: str
) -> None:
    with BrokerProcess(tmp_path, "--polling", "event", listen=process_listen) as broker:
        async with Admin(broker.url, polling="event") as admin:
            await admin.create_topic("t", config={"max.message.bytes": "100000"})
        async with Producer(broker.url, polling="event", acks=1, batch_bytes=MIB) as producer:
            with pytest.raises(BrokerError) as caught:
                await producer.send("t", bytes(200_000))
            assert caught.value.code is ErrorCode.MESSAGE_TOO_LARGE
            assert (await producer.send("t", b"small")).offset == 0
            assert producer.health().reconnects == 0
        assert broker.stop() == (0, "")


async def test_by_tcp_to_a_broker_of_this_host_and_on_by_shared_memory_also_after_a_crash(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("s") / "broker.sock"
    listen = ("tcp://127.0.0.1:0", f"shm://{path}")
    both = {"tcp": 1, "shm": 1}
    with BrokerProcess(tmp_path, "--polling", "event", listen=listen) as broker:
        async with Admin(broker.url, polling="event", transport="tcp") as admin:
            await admin.create_topic("t")
        async with (
            asyncio.timeout(60),
            Producer(broker.url, polling="event", retry_backoff_s=0.01) as producer,
            Consumer(broker.url, "t", start="earliest", polling="event") as consumer,
        ):
            await producer.send("t", b"0")
            assert (await consumer.getone()).value == b"0"
            assert producer.health().transports == consumer.health().transports == both
            broker.kill()
            waiting = producer.send_nowait("t", b"1")
            broker.start()
            assert (await waiting).offset == 1
            assert (await consumer.getone()).value == b"1"
            await eventually(lambda: producer.health().transports == both, "it is back")
            await eventually(lambda: consumer.health().transports.get("shm"), "this one too")
            assert (await producer.send("t", b"2")).offset == 2
            assert (await consumer.getone()).value == b"2"
        assert broker.stop() == (0, "")
        assert not path.exists()


async def test_where_the_path_may_not_be_used_tcp_serves(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("s") / "broker.sock"
    listen = ("tcp://127.0.0.1:0", f"shm://{path}")
    with BrokerProcess(tmp_path, "--polling", "event", listen=listen) as broker:
        path.rename(path.with_name("elsewhere"))
        async with Admin(broker.url, polling="event") as admin:
            await admin.create_topic("t")
            async with Producer(broker.url, polling="event") as producer:
                assert (await producer.send("t", b"x")).offset == 0
                health = producer.health()
                assert (health.status, health.transports) == ("ok", {"tcp": 1})
                assert str(path) in health.fallback_reason
        path.with_name("elsewhere").rename(path)
        assert broker.stop() == (0, "")
        assert not path.exists()
