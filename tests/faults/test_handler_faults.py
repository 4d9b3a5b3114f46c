"""A fault of the broker's own ends the request that met it, and nothing else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from frieda.broker.broker import Broker
from frieda.broker.handlers import fetch as fetch_handler
from frieda.broker.handlers.table import HANDLERS
from frieda.broker.request import Handler, Request
from frieda.broker.server import Server
from frieda.config import TopicConfig
from frieda.errors import BrokerError, BufferExhaustedError, ErrorCode
from frieda.testing.brokers import running_server
from frieda.testing.conversation import create_topic, fetch_of, health_of, produce, unharmed
from frieda.testing.raw_client import decoded, raw_client
from frieda.wire.messages import ApiKey, DescribeTopicsRequest, InitProducerRequest


def raising(broker: Broker, request: Request) -> None:
    raise ZeroDivisionError("a fault")


async def raising_later(broker: Broker, request: Request) -> None:
    await asyncio.sleep(0)
    raise ZeroDivisionError("a fault")


def raising_after_its_answer(broker: Broker, request: Request) -> None:
    request.answer((7, 0))
    raise ZeroDivisionError("a fault")


def answering_what_cannot_be_encoded(broker: Broker, request: Request) -> None:
    request.answer((object(), 2**200))


async def finding_no_buffer(broker: Broker, request: Request) -> None:
    raise BufferExhaustedError("no buffer came free")


@pytest.fixture
async def with_handler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[[Handler], Awaitable[Server]]]:
    """A broker whose InitProducer is done by the handler given."""
    async with running_server(tmp_path) as server:

        async def install(handler: Handler) -> Server:
            server._handlers = HANDLERS | {int(ApiKey.INIT_PRODUCER): handler}
            return server

        yield install


@pytest.mark.parametrize("handler", [raising, raising_later])
async def test_a_fault_of_a_handler_is_an_error_for_that_request_alone(
    with_handler: Callable[[Handler], Awaitable[Server]],
    handler: Handler,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = await with_handler(handler)
    async with unharmed(server, faults=3), raw_client(server.urls[0]) as client:
        for _ in range(3):
            with pytest.raises(BrokerError) as caught:
                await client.call(InitProducerRequest(None, -1, -1))
            assert caught.value.code is ErrorCode.UNKNOWN_SERVER_ERROR
            assert "ZeroDivisionError" not in caught.value.detail
            assert (await health_of(client)).status == "ok"
    faults = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(faults) == 3
    assert all(record.exc_info for record in faults), "the broker's log has the traceback"


async def test_a_fault_after_the_answer_is_logged_and_the_answer_stands(
    with_handler: Callable[[Handler], Awaitable[Server]],
) -> None:
    server = await with_handler(raising_after_its_answer)
    async with unharmed(server, faults=1), raw_client(server.urls[0]) as client:
        answer = await client.call(InitProducerRequest(None, -1, -1))
        assert answer == (7, 0)
        assert (await health_of(client)).status == "ok"


async def test_an_answer_that_cannot_be_encoded_is_an_error_instead(
    with_handler: Callable[[Handler], Awaitable[Server]],
) -> None:
    server = await with_handler(answering_what_cannot_be_encoded)
    async with unharmed(server, faults=1), raw_client(server.urls[0]) as client:
        with pytest.raises(BrokerError) as caught:
            await client.call(InitProducerRequest(None, -1, -1))
        assert caught.value.code is ErrorCode.UNKNOWN_SERVER_ERROR


async def test_a_request_that_finds_no_buffer_may_be_tried_again(
    with_handler: Callable[[Handler], Awaitable[Server]],
) -> None:
    server = await with_handler(finding_no_buffer)
    async with unharmed(server), raw_client(server.urls[0]) as client:
        with pytest.raises(BrokerError) as caught:
            await client.call(InitProducerRequest(None, -1, -1))
        assert caught.value.code is ErrorCode.BUSY
        assert caught.value.retriable


@pytest.mark.parametrize("where", ["satisfied", "_plan", "_read"])
async def test_a_fault_of_one_waiting_fetch_touches_neither_the_producer_nor_the_others(
    server: Server, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with unharmed(server, faults=1), raw_client(server.urls[0]) as client:
        topic_id = await create_topic(client)
        polls = [client.send(fetch_of(topic_id, wait_ms=60_000)) for _ in range(5)]
        await health_of(client)
        healthy = getattr(fetch_handler._Fetch, where)
        calls: list[object] = []

        def faulty(self: object, *args: object, **kwargs: object) -> object:
            if not calls:
                calls.append(self)
            if self is calls[0]:
                raise ZeroDivisionError("a fault")
            return healthy(self, *args, **kwargs)

        monkeypatch.setattr(fetch_handler._Fetch, where, faulty)
        assert await produce(client, topic_id, b"news") == 0
        async with asyncio.timeout(60):
            codes = sorted([(await client.answer_to(poll)).error_code for poll in polls])
        assert codes == [ErrorCode.UNKNOWN_SERVER_ERROR, 0, 0, 0, 0]
        monkeypatch.undo()


async def test_a_fetch_larger_than_any_buffer_is_answered(tmp_path: Path) -> None:
    settings = {"max_fetch_bytes": 64 << 20, "max_frame_bytes": 4 << 20}
    buffers = {4096: 8, 4 << 20: 2}
    async with (
        running_server(
            tmp_path, buffers=buffers, topic=TopicConfig(max_message_bytes=2 << 20), **settings
        ) as server,
        unharmed(server),
        raw_client(server.urls[0]) as client,
    ):
        topic_id = await create_topic(client)
        for _ in range(12):
            await produce(client, topic_id, bytes(1 << 20))
        request = fetch_of(topic_id, max_bytes=1 << 30)
        envelope = await client.answer_to(client.send(request))
        (fetched,) = decoded(request, envelope).partitions
        assert fetched.size_bytes >= 1 << 20
        (described,) = (await client.call(DescribeTopicsRequest(("events",)))).topics
        assert described.partitions[0].log_end_offset == 12
