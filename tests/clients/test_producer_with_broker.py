"""The producer against the real broker: what a scripted one cannot tell."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from frieda import Admin, Producer, RecordMetadata, TopicPartition
from frieda.clients.network import Network
from frieda.config import MIB, ClientConfig
from frieda.errors import BrokerError, ErrorCode, FriedaError
from frieda.model import Record
from frieda.testing.brokers import BrokerProcess, running_server
from frieda.wire.batch import decode_batch, iterate_batches
from frieda.wire.messages import FetchPartition, FetchRequest


def make_producer(url: str, **settings: Any) -> Producer:
    defaults: dict[str, Any] = {"polling": "event", "retry_backoff_s": 0.01, "acks": 1}
    return Producer(url, **(defaults | settings))


async def read_all(url: str, topic: str, partition: int = 0) -> list[Record]:
    """Every record of a partition, read with nothing but single fetches."""
    network = Network(ClientConfig(bootstrap=url, polling="event"))
    network.start()
    try:
        topic_id = (await network.topic(topic)).topic_id
        connection = await network.connection_for(topic, partition)
        records: list[Record] = []
        while True:
            offset = records[-1].offset + 1 if records else 0
            asked = FetchPartition(topic_id, partition, offset, MIB)
            found: list[Record] = []
            answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()

            def on_answer(
                answer: Any,
                lease: Any,
                found: list[Record] = found,
                answered: asyncio.Future[None] = answered,
                offset: int = offset,
            ) -> None:
                body = bytes(answer.body)
                for position, header in iterate_batches(body):
                    batch = body[position : position + header.size_bytes]
                    found.extend(decode_batch(batch, topic, partition, offset))
                answered.set_result(None)

            connection.submit(FetchRequest(0, 0, MIB, 0, (asked,)), on_answer)
            await answered
            if not found:
                return records
            records.extend(found)
    finally:
        await network.close()


async def make_topic(url: str, name: str = "t", **options: Any) -> None:
    async with Admin(url, polling="event") as admin:
        await admin.create_topic(name, **options)


async def test_what_is_sent_one_by_one_and_in_bulk_is_stored_in_order(
    tmp_path: Path, listen: str
) -> None:
    async with running_server(tmp_path, listen=(listen,)) as server:
        (url,) = server.urls
        await make_topic(url)
        async with make_producer(url) as producer:
            one_by_one = [producer.send_nowait("t", b"%d" % n) for n in range(5000)]
            await asyncio.gather(*one_by_one)
            bulk = await producer.send_batch("t", [b"%d" % n for n in range(5000, 50_000)])
        assert all(isinstance(result, RecordMetadata) for result in bulk)
        records = await read_all(url, "t")
    assert [record.value for record in records] == [b"%d" % n for n in range(50_000)]
    assert [record.offset for record in records] == list(range(50_000))


@pytest.mark.parametrize("flush", ["never", "batch"])
async def test_a_broker_killed_again_and_again_keeps_every_acknowledged_record_once_and_in_order(
    tmp_path: Path, process_listen: str, flush: str
) -> None:
    with BrokerProcess(
        tmp_path, "--flush", flush, "--polling", "event", listen=process_listen
    ) as broker:
        await make_topic(broker.url)
        acknowledged: list[tuple[int, int]] = []
        async with make_producer(broker.url, batch_bytes=2000) as producer:
            stop = asyncio.Event()

            def note(number: int, done: asyncio.Future[RecordMetadata]) -> None:
                acknowledged.append((number, done.result().offset))

            async def load() -> int:
                number = 0
                pending: set[asyncio.Future[RecordMetadata]] = set()
                while not stop.is_set():
                    future = producer.send_nowait("t", b"%d" % number, partition=0)
                    future.add_done_callback(partial(note, number))
                    future.add_done_callback(pending.discard)
                    pending.add(future)
                    number += 1
                    if len(pending) > 200:
                        await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                    elif number % 10 == 0:
                        await asyncio.sleep(0)
                return number

            loading = asyncio.create_task(load())
            for _ in range(4):
                seen = len(acknowledged)
                async with asyncio.timeout(60):
                    while len(acknowledged) < seen + 2000 and not loading.done():  # noqa: ASYNC110
                        await asyncio.sleep(0.001)
                await asyncio.to_thread(broker.kill)
                await asyncio.to_thread(broker.start)
            stop.set()
            sent = await loading
            await producer.flush()
            reconnects = producer.health().reconnects
        records = await read_all(broker.url, "t")
    assert reconnects >= 4
    assert len(acknowledged) == sent
    assert [record.value for record in records] == [b"%d" % n for n in range(sent)]
    assert all(records[offset].value == b"%d" % n for n, offset in acknowledged)


async def test_a_batch_too_large_for_its_topic_is_split_and_the_rest_goes_on(
    tmp_path: Path,
    listen: str,
) -> None:
    async with running_server(tmp_path, listen=(listen,), park_timeout_ms=200) as server:
        (url,) = server.urls
        await make_topic(url, config={"max.message.bytes": "2000"})
        async with make_producer(url) as producer:
            results = await producer.send_batch("t", [b"x" * 100] * 500)
            assert [r.offset for r in results if isinstance(r, RecordMetadata)] == list(range(500))
            futures = [
                producer.send_nowait("t", b"y" * (3000 if n == 2 else 100)) for n in range(20)
            ]
            outcomes = await asyncio.gather(*futures, return_exceptions=True)
        refused = [outcome for outcome in outcomes if isinstance(outcome, BrokerError)]
        assert [error.code for error in refused] == [ErrorCode.MESSAGE_TOO_LARGE]
        assert outcomes.index(refused[0]) == 2
        records = await read_all(url, "t")
    assert [len(record.value or b"") for record in records] == [100] * 519


async def test_a_broker_that_stops_in_order_and_comes_back_loses_nothing(
    tmp_path: Path, process_listen: str
) -> None:
    with BrokerProcess(tmp_path, "--polling", "event", listen=process_listen) as broker:
        await make_topic(broker.url)
        numbers = [b"%d" % n for n in range(200_000)]
        offsets: list[int] = []
        under_way = asyncio.Event()

        def on_done(count: int, base_offset: int, error: FriedaError | None) -> None:
            assert error is None
            offsets.extend(range(base_offset, base_offset + count))
            under_way.set()

        async with make_producer(broker.url) as producer:
            sending = asyncio.create_task(producer.submit_values("t", numbers, on_done))
            await under_way.wait()
            code, errors = await asyncio.to_thread(broker.stop)
            assert (code, errors) == (0, "")
            await asyncio.to_thread(broker.start)
            await sending
            await producer.flush()
        records = await read_all(broker.url, "t")
    assert offsets == list(range(200_000))
    assert [record.value for record in records] == [b"%d" % n for n in range(200_000)]


async def test_a_broker_that_falls_silent_is_left_and_found_again(
    tmp_path: Path, process_listen: str
) -> None:
    with BrokerProcess(tmp_path, "--polling", "event", listen=process_listen) as broker:
        await make_topic(broker.url)
        async with make_producer(broker.url, request_timeout_s=0.3) as producer:
            await producer.send("t", b"0")
            broker.pause()
            futures = [producer.send_nowait("t", b"%d" % n) for n in range(1, 50)]
            done, _ = await asyncio.wait(futures, timeout=1.0)
            assert not done
            assert producer.health().reconnects >= 1, "a dead connection is given up"
            broker.resume()
            await asyncio.gather(*futures)
        records = await read_all(broker.url, "t")
    assert [record.value for record in records] == [b"%d" % n for n in range(50)]


async def test_without_acks_records_arrive_in_order(tmp_path: Path, listen: str) -> None:
    async with running_server(tmp_path, listen=(listen,)) as server:
        (url,) = server.urls
        await make_topic(url)
        async with make_producer(url, acks=0) as producer:
            await producer.send_batch("t", [b"%d" % n for n in range(20_000)])
        async with Admin(url, polling="event") as admin, asyncio.timeout(60):
            while await admin.end_offsets("t") != {TopicPartition("t", 0): 20_000}:
                pass  # the broker runs on this very loop: each question gives it its turns
        records = await read_all(url, "t")
    assert [record.value for record in records] == [b"%d" % n for n in range(20_000)]
