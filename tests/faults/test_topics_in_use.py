"""Topics that are deleted, and a broker that is stopped, while clients are at work on them."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from frieda.broker.server import Server
from frieda.errors import ErrorCode
from frieda.testing.batches import make_batch
from frieda.testing.brokers import BrokerProcess, running_server
from frieda.testing.conversation import (
    create_topic,
    eventually,
    fetch_of,
    fetch_values,
    health_of,
    produce,
    unharmed,
)
from frieda.testing.raw_client import RawClient, decoded, raw_client
from frieda.wire.messages import DeleteTopicsRequest, InitProducerRequest, ProduceRequest

LESS_THAN_A_TIMEOUT_S = 20
"""What takes a moment takes a slow machine some seconds; a wait for one of the timeouts here would take 30 or more."""
GONE = (ErrorCode.UNKNOWN_TOPIC_ID, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)


async def delete(client: RawClient, name: str) -> None:
    (outcome,) = (await client.call(DeleteTopicsRequest((name,)))).topics
    assert outcome.error_code == 0, outcome.detail


async def code_of(client: RawClient, correlation_id: int) -> int:
    async with asyncio.timeout(60):
        return (await client.answer_to(correlation_id)).error_code


@pytest.mark.parametrize("flush", ["never", "interval", "batch"])
async def test_a_topic_deleted_while_it_is_written_and_read_leaves_nothing_behind(
    tmp_path: Path, flush: str
) -> None:
    async with (
        running_server(tmp_path, flush=flush) as server,
        unharmed(server),
        raw_client(server.urls[0]) as admin,
        raw_client(server.urls[0]) as writer,
        raw_client(server.urls[0]) as reader,
    ):
        topic_id = await create_topic(admin, "doomed", 4)
        reading = [
            reader.send(fetch_of(topic_id, 10**6 * bool(number % 2), partition=number // 2))
            for number in range(8)
        ]
        waiting = [
            reader.send(fetch_of(topic_id, partition=number, wait_ms=60_000, min_bytes=1 << 19))
            for number in range(4)
        ]
        batch = bytes(make_batch([bytes(1000)]))
        written = []
        for round_number in range(100):
            written += [
                writer.send(ProduceRequest(topic_id, partition, 1, 1000), batch)
                for partition in range(4)
            ]
            if round_number == 50:
                deleting = asyncio.ensure_future(delete(admin, "doomed"))
            await asyncio.sleep(0)
        await deleting
        written.append(writer.send(ProduceRequest(topic_id, 0, 1, 1000), batch))
        codes = [await code_of(writer, correlation_id) for correlation_id in written]
        assert set(codes) - set(GONE) <= {0}
        assert codes[-1] in GONE
        for correlation_id in waiting:
            envelope = await reader.answer_to(correlation_id)
            (fetched,) = decoded(fetch_of(topic_id), envelope).partitions
            assert fetched.error_code in GONE
        for correlation_id in reading:
            await code_of(reader, correlation_id)
        assert not [name for name in os.listdir(tmp_path) if "doomed" in name]
        again = await create_topic(admin, "doomed", 4)
        assert again != topic_id
        assert await fetch_values(admin, again) == []
        assert (await health_of(admin)).status == "ok"


async def test_early_batches_of_a_deleted_topic_are_refused_at_once(server: Server) -> None:
    async with unharmed(server), raw_client(server.urls[0]) as client:
        topic_id = await create_topic(client)
        producer_id = (await client.call(InitProducerRequest(None, -1, -1))).producer_id
        early = make_batch([b"x"], producer_id=producer_id, producer_epoch=0, base_sequence=5)
        parked = client.send(ProduceRequest(topic_id, 0, 1, 1000), bytes(early))
        await delete(client, "events")
        assert await code_of(client, parked) in GONE


# --- stopping ---------------------------------------------------------------------------------------------


async def test_a_stop_answers_long_polls_and_parked_batches_at_once(tmp_path: Path) -> None:
    async with running_server(tmp_path, park_timeout_ms=60_000) as server:
        async with raw_client(server.urls[0]) as client:
            topic_id = await create_topic(client)
            await produce(client, topic_id, b"stored")
            producer_id = (await client.call(InitProducerRequest(None, -1, -1))).producer_id
            early = make_batch([b"x"], producer_id=producer_id, producer_epoch=0, base_sequence=5)
            polls = [
                client.send(fetch_of(topic_id, offset, wait_ms=60_000, min_bytes=10_000))
                for offset in (0, 1)
            ]
            parked = client.send(ProduceRequest(topic_id, 0, 1, 1000), bytes(early))
            await health_of(client)
            began = time.monotonic()
            stopping = asyncio.ensure_future(server.stop())
            with_data, without = [await client.answer_to(poll) for poll in polls]
            assert b"stored" in bytes(with_data.body)
            assert (without.error_code, bytes(without.body)) == (0, b"")
            assert await code_of(client, parked) in (
                ErrorCode.BROKER_STOPPING,
                ErrorCode.OUT_OF_ORDER_SEQUENCE,
            )
            assert await client.at_end()
        await stopping
        assert time.monotonic() - began < LESS_THAN_A_TIMEOUT_S
        assert server.runtime.pool.in_use == 0


async def test_a_stop_does_not_wait_longer_than_it_is_told_for_who_does_not_read(
    tmp_path: Path,
) -> None:
    async with running_server(tmp_path, shutdown_timeout_s=0.5) as server:
        async with raw_client(server.urls[0]) as client:
            topic_id = await create_topic(client)
            for _ in range(16):
                await produce(client, topic_id, bytes(1 << 20))
            client._writer.transport.pause_reading()
            for _ in range(20):
                client.send(fetch_of(topic_id, max_bytes=4 << 20))
            (session,) = server._sessions
            await eventually(lambda: session._sending_paused, "the client is stuck")
            began = time.monotonic()
            await server.stop()
            assert time.monotonic() - began < LESS_THAN_A_TIMEOUT_S
        assert server.connections == 0
        assert server.runtime.pool.in_use == 0
    async with running_server(tmp_path) as server, raw_client(server.urls[0]) as client:
        assert len(await fetch_values(client, topic_id)) == 16


async def test_a_broker_process_with_waiting_clients_stops_within_a_moment(tmp_path: Path) -> None:
    with BrokerProcess(tmp_path) as broker:
        clients = [raw_client(broker.url) for _ in range(50)]
        connected = [await client.__aenter__() for client in clients]
        topic_id = await create_topic(connected[0])
        polls = [client.send(fetch_of(topic_id, wait_ms=300_000)) for client in connected]
        for client in connected:
            await health_of(client)
        began = time.monotonic()
        stopping = asyncio.ensure_future(asyncio.to_thread(broker.stop))
        for client, poll in zip(connected, polls, strict=True):
            assert await code_of(client, poll) == 0
            assert await client.at_end()
        for client in clients:
            await client.__aexit__(None, None, None)
        assert await stopping == (0, "")
        assert time.monotonic() - began < LESS_THAN_A_TIMEOUT_S


async def test_requests_that_come_while_it_stops_are_not_half_done(tmp_path: Path) -> None:
    """Whatever is answered well is stored; whatever is not answered may be stored, once and whole."""
    async with running_server(tmp_path, flush="batch") as server:
        async with raw_client(server.urls[0]) as client:
            topic_id = await create_topic(client)
            sent = [
                client.send(
                    ProduceRequest(topic_id, 0, 1, 1000), bytes(make_batch([b"%d" % number]))
                )
                for number in range(200)
            ]
            await client.answer_to(sent[0])
            stopping = asyncio.ensure_future(server.stop())
            answered = 1
            try:
                for correlation_id in sent[1:]:
                    answered += await code_of(client, correlation_id) == 0
            except (asyncio.IncompleteReadError, ConnectionError):
                pass
        await stopping
    async with running_server(tmp_path) as server, raw_client(server.urls[0]) as client:
        stored = await fetch_values(client, topic_id)
        assert len(stored) >= answered
        assert stored == [b"%d" % number for number in range(len(stored))]
        log = server.broker.topics.partition(topic_id, 0).log
        assert log.scanned_segments == 0, "it was closed cleanly"


async def test_stopping_twice_at_once_is_stopping_once(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server:
        async with raw_client(server.urls[0]) as client:
            await health_of(client)
            url = server.urls[0]
            await asyncio.gather(server.stop(), server.stop())
        await server.stop()
        with pytest.raises(OSError, match="Connect call failed"):
            async with raw_client(url):
                pass
