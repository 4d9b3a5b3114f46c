"""What each request does, seen through the protocol itself."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from frieda.broker.server import Server
from frieda.errors import BrokerError, ErrorCode
from frieda.model import EARLIEST_TIMESTAMP, LATEST_TIMESTAMP
from frieda.testing.brokers import running_server
from frieda.testing.raw_client import RawClient, decoded, raw_client
from frieda.wire.batch import BatchBuilder, decode_batch, iterate_batches
from frieda.wire.messages import (
    AlterTopicsRequest,
    CommitOffsetsRequest,
    CreateTopicsRequest,
    DeleteTopicsRequest,
    DescribeTopicsRequest,
    FetchOffsetsRequest,
    FetchPartition,
    FetchRequest,
    GroupPartition,
    HealthRequest,
    InitProducerRequest,
    ListOffsetsRequest,
    MetadataRequest,
    NewTopic,
    OffsetCommit,
    OffsetQuery,
    ProduceRequest,
    TopicChange,
)


@pytest.fixture
async def server(tmp_path: Path, listen: str) -> AsyncIterator[Server]:
    async with running_server(tmp_path, listen=(listen,)) as running:
        yield running


@pytest.fixture
async def client(server: Server) -> AsyncIterator[RawClient]:
    async with raw_client(server.urls[0]) as connected:
        yield connected


def a_batch(
    *values: bytes,
    timestamp_ms: int = 1000,
    producer_id: int = -1,
    epoch: int = -1,
    sequence: int = -1,
) -> bytes:
    builder = BatchBuilder(1 << 16)
    for number, value in enumerate(values):
        builder.append(timestamp_ms + number, None, value)
    return bytes(builder.build(producer_id, epoch, sequence, "none"))


async def a_topic(
    client: RawClient, name: str = "events", partitions: int = 1, **configs: str
) -> bytes:
    dotted = {key.replace("_", "."): value for key, value in configs.items()}
    created = await client.call(
        CreateTopicsRequest((NewTopic(name, partitions, -1, dotted),), False)
    )
    assert created.topics[0].error_code == 0, created.topics[0].detail
    topic_id: bytes = created.topics[0].topic_id
    return topic_id


def fetch(
    topic_id: bytes, offset: int, *, wait_ms: int = 0, min_bytes: int = 1, partition: int = 0
) -> FetchRequest:
    return FetchRequest(
        wait_ms, min_bytes, 1 << 20, 0, (FetchPartition(topic_id, partition, offset, 1 << 20),)
    )


async def values_from(client: RawClient, topic_id: bytes, offset: int = 0) -> list[bytes | None]:
    request = fetch(topic_id, offset)
    envelope = await client.answer_to(client.send(request))
    response = decoded(request, envelope)
    assert response.partitions[0].error_code == 0, response.partitions[0].detail
    return [
        record.value
        for position, header in iterate_batches(envelope.body)
        for record in decode_batch(
            envelope.body[position : position + header.size_bytes], "events", 0, offset
        )
    ]


async def test_records_are_fetched_as_they_were_produced(client: RawClient) -> None:
    topic_id = await a_topic(client)
    first = await client.call(ProduceRequest(topic_id, 0, 1, 1000), a_batch(b"a", b"b"))
    second = await client.call(ProduceRequest(topic_id, 0, -1, 1000), a_batch(b"c"))
    assert (first.base_offset, second.base_offset) == (0, 2)
    assert await values_from(client, topic_id) == [b"a", b"b", b"c"]
    assert await values_from(client, topic_id, 1) == [b"b", b"c"]


async def test_acks_0_is_stored_and_not_answered(client: RawClient) -> None:
    topic_id = await a_topic(client)
    client.send(ProduceRequest(topic_id, 0, 0, 1000), a_batch(b"quiet"))
    health = client.send(HealthRequest())
    assert (await client.next_answer()).correlation_id == health
    assert await values_from(client, topic_id) == [b"quiet"]


async def test_an_error_is_answered_even_with_acks_0(client: RawClient) -> None:
    sent = client.send(ProduceRequest(b"?" * 16, 0, 0, 1000), a_batch(b"x"))
    envelope = await client.next_answer()
    assert (envelope.correlation_id, envelope.error_code) == (sent, ErrorCode.UNKNOWN_TOPIC_ID)


@pytest.mark.parametrize(
    ("acks", "partition", "code"),
    [(2, 0, ErrorCode.INVALID_REQUIRED_ACKS), (1, 7, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)],
)
async def test_a_produce_to_nowhere_names_what_is_wrong(
    client: RawClient, acks: int, partition: int, code: ErrorCode
) -> None:
    topic_id = await a_topic(client)
    with pytest.raises(BrokerError) as caught:
        await client.call(ProduceRequest(topic_id, partition, acks, 1000), a_batch(b"x"))
    assert caught.value.code is code
    assert str(max(acks, partition)) in caught.value.detail


async def test_a_batch_above_the_topics_limit_is_refused(client: RawClient) -> None:
    topic_id = await a_topic(client, max_message_bytes="2048")
    with pytest.raises(BrokerError, match="2048") as caught:
        await client.call(ProduceRequest(topic_id, 0, 1, 1000), a_batch(b"x" * 3000))
    assert caught.value.code is ErrorCode.MESSAGE_TOO_LARGE


@pytest.mark.parametrize("spoil", [8, 11, 16, 17, 25, 57, 60, -1])
async def test_a_damaged_batch_is_refused_and_nothing_is_stored(
    client: RawClient, spoil: int
) -> None:
    topic_id = await a_topic(client)
    await client.call(ProduceRequest(topic_id, 0, 1, 1000), a_batch(b"before"))
    batch = bytearray(a_batch(b"damaged", b"here"))
    batch[spoil] ^= 0x55
    with pytest.raises(BrokerError) as caught:
        await client.call(ProduceRequest(topic_id, 0, 1, 1000), bytes(batch))
    assert caught.value.code in (ErrorCode.CORRUPT_MESSAGE, ErrorCode.INVALID_RECORD)
    await client.call(ProduceRequest(topic_id, 0, 1, 1000), a_batch(b"after"))
    assert await values_from(client, topic_id) == [b"before", b"after"]


async def test_two_batches_in_one_produce_are_refused(client: RawClient) -> None:
    topic_id = await a_topic(client)
    with pytest.raises(BrokerError):
        await client.call(ProduceRequest(topic_id, 0, 1, 1000), a_batch(b"a") + a_batch(b"b"))


async def test_a_resent_batch_is_answered_with_its_first_offset(client: RawClient) -> None:
    topic_id = await a_topic(client)
    producer = await client.call(InitProducerRequest(None, -1, -1))
    batch = a_batch(b"once", producer_id=producer.producer_id, epoch=0, sequence=0)
    first = await client.call(ProduceRequest(topic_id, 0, 1, 1000), batch)
    await client.call(ProduceRequest(topic_id, 0, 1, 1000), a_batch(b"other"))
    again = await client.call(ProduceRequest(topic_id, 0, 1, 1000), batch)
    assert again.base_offset == first.base_offset
    assert await values_from(client, topic_id) == [b"once", b"other"]


async def test_batches_that_come_early_wait_for_the_one_before(client: RawClient) -> None:
    topic_id = await a_topic(client)
    producer_id = (await client.call(InitProducerRequest(None, -1, -1))).producer_id

    def send(sequence: int) -> int:
        batch = a_batch(b"%d" % sequence, producer_id=producer_id, epoch=0, sequence=sequence)
        return client.send(ProduceRequest(topic_id, 0, 1, 1000), batch)

    sent = {sequence: send(sequence) for sequence in (3, 1, 2, 0)}
    for sequence, correlation_id in sent.items():
        envelope = await client.answer_to(correlation_id)
        assert (envelope.error_code, envelope.fields[0]) == (0, sequence)
    assert await values_from(client, topic_id) == [b"0", b"1", b"2", b"3"]


async def test_large_early_batches_are_stored_as_they_came(
    server: Server, client: RawClient
) -> None:
    """Larger than the shared receive buffer, so that each has a buffer of its own."""
    topic_id = await a_topic(client)
    producer_id = (await client.call(InitProducerRequest(None, -1, -1))).producer_id
    values = [bytes([number]) * 300_000 for number in range(3)]
    sent = [
        client.send(
            ProduceRequest(topic_id, 0, 1, 1000),
            a_batch(values[sequence], producer_id=producer_id, epoch=0, sequence=sequence),
        )
        for sequence in (2, 1, 0)
    ]
    for correlation_id in sent:
        assert (await client.answer_to(correlation_id)).error_code == 0
    assert await values_from(client, topic_id) == values
    assert server.runtime.pool.in_use == 0


async def test_an_early_batch_whose_predecessor_never_comes_is_refused(
    tmp_path: Path, listen: str
) -> None:
    async with (
        running_server(tmp_path, listen=(listen,), park_timeout_ms=1) as server,
        raw_client(server.urls[0]) as client,
    ):
        topic_id = await a_topic(client)
        producer_id = (await client.call(InitProducerRequest(None, -1, -1))).producer_id
        await client.call(
            ProduceRequest(topic_id, 0, 1, 1000),
            a_batch(b"0", producer_id=producer_id, epoch=0, sequence=0),
        )
        with pytest.raises(BrokerError) as caught:
            await client.call(
                ProduceRequest(topic_id, 0, 1, 1000),
                a_batch(b"2", producer_id=producer_id, epoch=0, sequence=2),
            )
        assert caught.value.code is ErrorCode.OUT_OF_ORDER_SEQUENCE
        assert server.runtime.pool.in_use == 0


async def test_early_batches_beyond_the_bound_are_refused(tmp_path: Path, listen: str) -> None:
    async with (
        running_server(tmp_path, listen=(listen,), max_parked_batches=2) as server,
        raw_client(server.urls[0]) as client,
    ):
        topic_id = await a_topic(client)
        producer_id = (await client.call(InitProducerRequest(None, -1, -1))).producer_id
        early = [
            client.send(
                ProduceRequest(topic_id, 0, 1, 1000),
                a_batch(b"x", producer_id=producer_id, epoch=0, sequence=sequence),
            )
            for sequence in (1, 2, 3)
        ]
        envelope = await client.next_answer()
        assert envelope.correlation_id == early[2]
        assert envelope.error_code != 0


async def test_an_older_epoch_is_fenced(client: RawClient) -> None:
    topic_id = await a_topic(client)
    producer = await client.call(InitProducerRequest(None, -1, -1))
    raised = await client.call(
        InitProducerRequest(None, producer.producer_id, producer.producer_epoch)
    )
    assert raised.producer_epoch == producer.producer_epoch + 1
    new = a_batch(b"new", producer_id=raised.producer_id, epoch=raised.producer_epoch, sequence=0)
    await client.call(ProduceRequest(topic_id, 0, 1, 1000), new)
    old = a_batch(
        b"old", producer_id=producer.producer_id, epoch=producer.producer_epoch, sequence=0
    )
    with pytest.raises(BrokerError) as caught:
        await client.call(ProduceRequest(topic_id, 0, 1, 1000), old)
    assert caught.value.code is ErrorCode.INVALID_PRODUCER_EPOCH


async def test_a_fetch_waits_until_there_is_something(client: RawClient) -> None:
    topic_id = await a_topic(client)
    waiting = client.send(fetch(topic_id, 0, wait_ms=60_000))
    produced = client.send(ProduceRequest(topic_id, 0, 1, 1000), a_batch(b"news"))
    assert (await client.next_answer()).correlation_id == produced
    envelope = await client.next_answer()
    assert envelope.correlation_id == waiting
    assert b"news" in bytes(envelope.body)


async def test_a_fetch_waits_for_its_min_bytes(client: RawClient) -> None:
    topic_id = await a_topic(client)
    waiting = client.send(fetch(topic_id, 0, wait_ms=60_000, min_bytes=500))
    first = client.send(ProduceRequest(topic_id, 0, 1, 1000), a_batch(b"x" * 100))
    second = client.send(ProduceRequest(topic_id, 0, 1, 1000), a_batch(b"x" * 400))
    order = [(await client.next_answer()).correlation_id for _ in range(3)]
    assert order == [first, second, waiting]


async def test_a_fetch_gives_up_after_its_time(client: RawClient) -> None:
    topic_id = await a_topic(client)
    request = fetch(topic_id, 0, wait_ms=1)
    response = await client.call(request)
    assert response.partitions[0].size_bytes == 0
    assert response.partitions[0].high_watermark == 0


async def test_other_requests_are_answered_while_a_fetch_waits(client: RawClient) -> None:
    topic_id = await a_topic(client)
    client.send(fetch(topic_id, 0, wait_ms=60_000))
    health = client.send(HealthRequest())
    assert (await client.next_answer()).correlation_id == health


async def test_without_overlap_a_request_is_taken_up_after_the_answer_to_the_last(
    tmp_path: Path, listen: str
) -> None:
    async with (
        running_server(tmp_path, listen=(listen,), overlapped=False) as server,
        raw_client(server.urls[0]) as client,
        raw_client(server.urls[0]) as other,
    ):
        topic_id = await a_topic(client)
        waiting = client.send(fetch(topic_id, 0, wait_ms=10_000))
        behind = client.send(ProduceRequest(topic_id, 0, 1, 1000), a_batch(b"behind"))
        assert (await other.call(HealthRequest())).facts["produced_batches"] == 0
        await other.call(ProduceRequest(topic_id, 0, 1, 1000), a_batch(b"wakes it"))
        answers = [await client.next_answer() for _ in range(2)]
        assert [answer.correlation_id for answer in answers] == [waiting, behind]
        assert await values_from(client, topic_id) == [b"wakes it", b"behind"]


async def test_without_overlap_no_batch_is_parked_since_the_one_before_it_would_wait_behind_it(
    tmp_path: Path, listen: str
) -> None:
    async with (
        running_server(tmp_path, listen=(listen,), overlapped=False) as server,
        raw_client(server.urls[0]) as client,
    ):
        topic_id = await a_topic(client)
        producer_id = (await client.call(InitProducerRequest(None, -1, -1))).producer_id
        batches = [
            a_batch(b"%d" % n, producer_id=producer_id, epoch=0, sequence=n) for n in (0, 1, 2)
        ]
        produce = ProduceRequest(topic_id, 0, 1, 1000)
        await client.call(produce, batches[0])
        with pytest.raises(BrokerError) as caught:
            await client.call(produce, batches[2])
        assert caught.value.code is ErrorCode.OUT_OF_ORDER_SEQUENCE
        await client.call(produce, batches[1])
        await client.call(produce, batches[2])
        assert await values_from(client, topic_id) == [b"0", b"1", b"2"]


async def test_with_reordered_responses_answers_keep_the_order_of_requests(
    tmp_path: Path, listen: str
) -> None:
    async with (
        running_server(tmp_path, listen=(listen,), reorder_responses=True) as server,
        raw_client(server.urls[0]) as client,
    ):
        topic_id = await a_topic(client)
        waiting = client.send(fetch(topic_id, 0, wait_ms=50))
        health = client.send(HealthRequest())
        assert (await client.next_answer()).correlation_id == waiting
        assert (await client.next_answer()).correlation_id == health


async def test_one_fetch_serves_several_partitions_each_with_its_own_outcome(
    client: RawClient,
) -> None:
    topic_id = await a_topic(client, partitions=3)
    for partition in (0, 2):
        await client.call(ProduceRequest(topic_id, partition, 1, 1000), a_batch(b"p%d" % partition))
    asked = tuple(
        FetchPartition(topic_id, partition, offset, 1 << 20)
        for partition, offset in ((0, 0), (1, 0), (2, 0), (0, 99), (9, 0))
    )
    request = FetchRequest(0, 1, 1 << 20, 0, asked)
    envelope = await client.answer_to(client.send(request))
    partitions = decoded(request, envelope).partitions
    assert [item.error_code for item in partitions] == [
        0,
        0,
        0,
        ErrorCode.OFFSET_OUT_OF_RANGE,
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
    ]
    assert sum(item.size_bytes for item in partitions) == len(envelope.body)
    assert partitions[1].size_bytes == 0
    body = bytes(envelope.body)
    assert b"p0" in body[: partitions[0].size_bytes]
    assert b"p2" in body[partitions[0].size_bytes :]


async def test_a_batch_larger_than_the_fetch_is_given_whole(client: RawClient) -> None:
    topic_id = await a_topic(client)
    batch = a_batch(b"x" * 5000)
    await client.call(ProduceRequest(topic_id, 0, 1, 1000), batch)
    request = FetchRequest(0, 1, 100, 0, (FetchPartition(topic_id, 0, 0, 100),))
    envelope = await client.answer_to(client.send(request))
    assert len(envelope.body) == len(batch)


async def test_offsets_are_listed_by_end_start_and_time(client: RawClient) -> None:
    topic_id = await a_topic(client)
    await client.call(
        ProduceRequest(topic_id, 0, 1, 1000), a_batch(b"a", b"b", b"c", timestamp_ms=5000)
    )

    async def offset_of(timestamp_ms: int) -> tuple[int, int]:
        query = ListOffsetsRequest((OffsetQuery(topic_id, 0, timestamp_ms),))
        answer = (await client.call(query)).partitions[0]
        return answer.offset, answer.timestamp_ms

    assert (await offset_of(LATEST_TIMESTAMP))[0] == 3
    assert (await offset_of(EARLIEST_TIMESTAMP))[0] == 0
    assert await offset_of(5001) == (1, 5001)
    assert await offset_of(1) == (0, 5000)
    assert await offset_of(9000) == (-1, -1)


async def test_metadata_names_topics_ids_and_leaders(server: Server, client: RawClient) -> None:
    topic_id = await a_topic(client, partitions=2)
    response = await client.call(MetadataRequest(("events", "missing"), False))
    assert response.brokers[0].listeners == server.urls
    events, missing = response.topics
    assert (events.topic_id, len(events.partitions)) == (topic_id, 2)
    assert events.partitions[1].leader == response.brokers[0].broker_id
    assert missing.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert "missing" in missing.detail


async def test_topics_are_made_on_demand_only_when_both_sides_want_it(
    tmp_path: Path, listen: str
) -> None:
    async with (
        running_server(tmp_path, listen=(listen,), auto_create_topics=True) as server,
        raw_client(server.urls[0]) as client,
    ):
        refused = await client.call(MetadataRequest(("made",), False))
        assert refused.topics[0].error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        made = await client.call(MetadataRequest(("made", "a/b"), True))
        assert made.topics[0].error_code == 0
        assert made.topics[1].error_code == ErrorCode.INVALID_TOPIC


@pytest.mark.parametrize(
    ("topic", "code", "word"),
    [
        (NewTopic("a/b", 1, -1, {}), ErrorCode.INVALID_TOPIC, "a/b"),
        (NewTopic("..", 1, -1, {}), ErrorCode.INVALID_TOPIC, ".."),
        (NewTopic("", 1, -1, {}), ErrorCode.INVALID_TOPIC, "empty"),
        (NewTopic("x" * 250, 1, -1, {}), ErrorCode.INVALID_TOPIC, "250"),
        (NewTopic("__mine", 1, -1, {}), ErrorCode.INVALID_TOPIC, "__mine"),
        (NewTopic("ok", 0, -1, {}), ErrorCode.INVALID_PARTITIONS, "0 partitions"),
        (NewTopic("ok", 10**9, -1, {}), ErrorCode.INVALID_PARTITIONS, "1000000000"),
        (NewTopic("ok", 1, 3, {}), ErrorCode.INVALID_REPLICATION_FACTOR, "3"),
        (NewTopic("ok", 1, -1, {"retention.m": "5"}), ErrorCode.INVALID_CONFIG, "retention.ms"),
        (NewTopic("ok", 1, -1, {"retention.ms": "soon"}), ErrorCode.INVALID_CONFIG, "soon"),
        (NewTopic("ok", 1, -1, {"segment.bytes": "1"}), ErrorCode.INVALID_CONFIG, "segment.bytes"),
    ],
)
async def test_a_topic_that_cannot_be_is_refused_in_words(
    client: RawClient, topic: NewTopic, code: ErrorCode, word: str
) -> None:
    outcome = (await client.call(CreateTopicsRequest((topic,), False))).topics[0]
    assert outcome.error_code == code
    assert word in outcome.detail
    assert (await client.call(MetadataRequest((topic.name,), False))).topics[0].error_code != 0


async def test_a_topic_is_made_once_and_validation_makes_none(client: RawClient) -> None:
    request = CreateTopicsRequest((NewTopic("events", 1, -1, {}),), True)
    assert (await client.call(request)).topics[0].error_code == 0
    await a_topic(client)
    again = await client.call(CreateTopicsRequest((NewTopic("events", 1, -1, {}),), False))
    assert again.topics[0].error_code == ErrorCode.TOPIC_ALREADY_EXISTS


async def test_a_deleted_topic_is_gone_and_its_id_with_it(
    client: RawClient, tmp_path: Path
) -> None:
    old_id = await a_topic(client)
    await client.call(ProduceRequest(old_id, 0, 1, 1000), a_batch(b"old"))
    deleted = await client.call(DeleteTopicsRequest(("events", "never")))
    assert [item.error_code for item in deleted.topics] == [0, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION]
    new_id = await a_topic(client)
    assert await values_from(client, new_id) == []
    with pytest.raises(BrokerError) as caught:
        await client.call(ProduceRequest(old_id, 0, 1, 1000), a_batch(b"stray"))
    assert caught.value.code is ErrorCode.UNKNOWN_TOPIC_ID
    assert [name for name in sorted(os.listdir(tmp_path)) if name.startswith("events")] == [
        "events-0"
    ]


async def test_a_waiting_fetch_hears_that_its_topic_was_deleted(client: RawClient) -> None:
    topic_id = await a_topic(client)
    request = fetch(topic_id, 0, wait_ms=60_000)
    waiting = client.send(request)
    await client.call(DeleteTopicsRequest(("events",)))
    response = decoded(request, await client.answer_to(waiting))
    assert response.partitions[0].error_code == ErrorCode.UNKNOWN_TOPIC_ID


async def test_settings_are_altered_described_and_in_force(client: RawClient) -> None:
    topic_id = await a_topic(client, retention_ms="1000")
    altered = await client.call(
        AlterTopicsRequest((TopicChange("events", {"max.message.bytes": "2048"}),))
    )
    assert altered.topics[0].error_code == 0
    described = (await client.call(DescribeTopicsRequest(("events",)))).topics[0]
    assert described.configs["retention.ms"] == "1000"
    assert described.configs["max.message.bytes"] == "2048"
    with pytest.raises(BrokerError) as caught:
        await client.call(ProduceRequest(topic_id, 0, 1, 1000), a_batch(b"x" * 3000))
    assert caught.value.code is ErrorCode.MESSAGE_TOO_LARGE


async def test_committed_offsets_are_kept_by_group_name_and_survive_a_restart(
    tmp_path: Path,
    listen: str,
) -> None:
    commits = (OffsetCommit("events", 0, 5, 0, "note"), OffsetCommit("events", 7, 1, 0, ""))
    wanted = (GroupPartition("events", 0), GroupPartition("events", 1))
    async with (
        running_server(tmp_path, listen=(listen,)) as server,
        raw_client(server.urls[0]) as client,
    ):
        await a_topic(client, partitions=2)
        outcome = await client.call(CommitOffsetsRequest("g", "", -1, commits))
        assert [item.error_code for item in outcome.partitions] == [
            0,
            ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ]
    async with (
        running_server(tmp_path, listen=(listen,)) as server,
        raw_client(server.urls[0]) as client,
    ):
        kept = (await client.call(FetchOffsetsRequest("g", wanted))).partitions
        assert [(item.partition, item.offset, item.metadata) for item in kept] == [
            (0, 5, "note"),
            (1, -1, ""),
        ]
        everything = (await client.call(FetchOffsetsRequest("g", None))).partitions
        assert [item.offset for item in everything] == [5]
        assert (await client.call(FetchOffsetsRequest("other", wanted))).partitions[0].offset == -1


async def test_the_offsets_topic_can_be_read_but_not_written(client: RawClient) -> None:
    internal = (await client.call(MetadataRequest(("__committed_offsets",), False))).topics[0]
    with pytest.raises(BrokerError) as caught:
        await client.call(ProduceRequest(internal.topic_id, 0, 1, 1000), a_batch(b"x"))
    assert caught.value.code is ErrorCode.INVALID_TOPIC
    deleted = await client.call(DeleteTopicsRequest(("__committed_offsets",)))
    assert deleted.topics[0].error_code == ErrorCode.INVALID_TOPIC


async def test_producer_ids_are_never_given_twice_also_after_a_crash(
    tmp_path: Path, listen: str
) -> None:
    seen = []
    for _ in range(2):
        async with (
            running_server(tmp_path, listen=(listen,)) as server,
            raw_client(server.urls[0]) as client,
        ):
            for _ in range(3):
                seen.append((await client.call(InitProducerRequest(None, -1, -1))).producer_id)
    assert len(set(seen)) == 6


async def test_with_flush_batch_an_acknowledged_batch_is_on_the_disk(
    tmp_path: Path, listen: str
) -> None:
    async with (
        running_server(tmp_path, listen=(listen,), flush="batch") as server,
        raw_client(server.urls[0]) as client,
    ):
        topic_id = await a_topic(client)
        await client.call(ProduceRequest(topic_id, 0, 1, 1000), a_batch(b"x"))
        log = server.broker.topics.partition(topic_id, 0).log
        assert log.synced_offset == log.log_end_offset == 1


async def test_health_counts_what_was_done(client: RawClient) -> None:
    topic_id = await a_topic(client)
    await client.call(ProduceRequest(topic_id, 0, 1, 1000), a_batch(b"x"))
    health = await client.call(HealthRequest())
    assert health.status == "ok"
    assert health.facts["produced_batches"] == 1
    assert health.facts["partitions"] == 2


async def test_a_batch_that_cannot_wait_for_the_disk_is_refused_before_it_is_stored(
    tmp_path: Path,
    listen: str,
) -> None:
    async with (
        running_server(tmp_path, listen=(listen,), flush="batch") as server,
        raw_client(server.urls[0]) as client,
    ):
        topic_id = await a_topic(client)
        server.broker._flusher._max_waiting = 0
        with pytest.raises(BrokerError) as caught:
            await client.call(ProduceRequest(topic_id, 0, 1, 1000), a_batch(b"x"))
        assert caught.value.code is ErrorCode.BUSY
        assert server.broker.topics.partition(topic_id, 0).log.log_end_offset == 0
