"""What a test says to a broker over a raw connection, and the question whether the broker came to any harm."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from frieda.broker.server import Server
from frieda.errors import BrokerError, CorruptLogError, ErrorCode
from frieda.testing.batches import make_batch
from frieda.testing.raw_client import RawClient, decoded, raw_client
from frieda.wire.batch import decode_batch, iterate_batches
from frieda.wire.messages import (
    CreateTopicsRequest,
    DescribeTopicsRequest,
    FetchPartition,
    FetchRequest,
    HealthRequest,
    HealthResponse,
    MetadataRequest,
    NewTopic,
    ProduceRequest,
    ProduceResponse,
)


async def create_topic(
    client: RawClient, name: str = "events", partitions: int = 1, **configs: str
) -> bytes:
    """Make a topic; its id. Settings are given with underscores for dots. Raises BrokerError."""
    dotted = {key.replace("_", "."): value for key, value in configs.items()}
    request = CreateTopicsRequest((NewTopic(name, partitions, -1, dotted),), False)
    (outcome,) = (await client.call(request)).topics
    if outcome.error_code:
        raise BrokerError(ErrorCode(outcome.error_code), outcome.detail)
    topic_id: bytes = outcome.topic_id
    return topic_id


async def topic_id_of(client: RawClient, name: str) -> bytes:
    """The id of a topic that exists. Raises BrokerError."""
    (entry,) = (await client.call(MetadataRequest((name,), False))).topics
    if entry.error_code:
        raise BrokerError(ErrorCode(entry.error_code), entry.detail)
    topic_id: bytes = entry.topic_id
    return topic_id


async def produce(
    client: RawClient, topic_id: bytes, *values: bytes, partition: int = 0, acks: int = 1
) -> int:
    """Produce one batch of these values and wait for its base offset. Raises BrokerError."""
    answer: ProduceResponse = await client.call(
        ProduceRequest(topic_id, partition, acks, 1000), bytes(make_batch(values))
    )
    return answer.base_offset


def fetch_of(
    topic_id: bytes,
    offset: int = 0,
    *,
    partition: int = 0,
    wait_ms: int = 0,
    min_bytes: int = 1,
    max_bytes: int = 1 << 20,
) -> FetchRequest:
    """A fetch of one partition."""
    asked = FetchPartition(topic_id, partition, offset, max_bytes)
    return FetchRequest(wait_ms, min_bytes, max_bytes, 0, (asked,))


async def fetch_values(
    client: RawClient, topic_id: bytes, offset: int = 0, *, partition: int = 0
) -> list[bytes | None]:
    """Every value from `offset` to the high watermark. Raises BrokerError."""
    values: list[bytes | None] = []
    while True:
        request = fetch_of(topic_id, offset, partition=partition)
        envelope = await client.answer_to(client.send(request))
        (fetched,) = decoded(request, envelope).partitions
        if fetched.error_code == ErrorCode.CORRUPT_LOG:
            raise CorruptLogError(fetched.detail, fetched.next_readable_offset)
        if fetched.error_code:
            raise BrokerError(ErrorCode(fetched.error_code), fetched.detail)
        for position, header in iterate_batches(envelope.body):
            batch = envelope.body[position : position + header.size_bytes]
            values += [record.value for record in decode_batch(batch, "", partition, offset)]
            offset = header.next_offset
        if offset >= fetched.high_watermark:
            return values


async def health_of(client: RawClient) -> HealthResponse:
    """How the broker says it is."""
    health: HealthResponse = await client.call(HealthRequest())
    return health


async def eventually(condition: Callable[[], object], what: str, timeout_s: float = 60.0) -> None:
    """Return once `condition` holds. Raises AssertionError, saying `what` was waited for, after `timeout_s`."""
    try:
        async with asyncio.timeout(timeout_s):
            while not condition():  # noqa: ASYNC110  (any condition, so there is no event to wait for)
                await asyncio.sleep(0.002)
    except TimeoutError:
        raise AssertionError(f"this did not happen within {timeout_s:g} s: {what}") from None


@contextlib.asynccontextmanager
async def unharmed(server: Server, *, faults: int = 0) -> AsyncIterator[bytes]:
    """Whatever is done inside: what was stored stays as it was, new clients are served, and nothing is left held.

    Gives the id of a topic with one record in it, which must be its only one at the end. `faults`: how many faults
    of its own the broker is expected to count meanwhile.
    """
    name = f"unharmed-{server.broker.counters.connections_accepted}"
    async with raw_client(server.urls[0]) as client:
        topic_id = await create_topic(client, name)
        await produce(client, topic_id, b"before")
        counted = (await health_of(client)).facts["faults"]
    yield topic_id
    async with raw_client(server.urls[0]) as client:
        assert await fetch_values(client, topic_id) == [b"before"]
        assert await produce(client, topic_id, b"after") == 1
        assert await fetch_values(client, topic_id) == [b"before", b"after"]
        (described,) = (await client.call(DescribeTopicsRequest((name,)))).topics
        assert described.partitions[0].failure == ""
        health = await health_of(client)
        assert health.facts["faults"] - counted == faults, "the broker met faults of its own"
    await eventually(lambda: server.connections == 0, "every session is forgotten")
    await eventually(lambda: server.runtime.pool.in_use == 0, "every buffer is given back")
