"""The Consumer against a scripted broker: what it delivers, in which order, and what it does when things fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import fields
from typing import get_type_hints

import pytest

from frieda.clients.consumer import Consumer
from frieda.clients.settings import ConsumerSettings
from frieda.config import ConsumerConfig, StartAt
from frieda.errors import (
    BrokerError,
    ClientClosedError,
    ConfigError,
    ConnectError,
    CorruptLogError,
    ErrorCode,
)
from frieda.model import Record, TopicPartition
from frieda.testing.fake_broker import Exchange, FakeBroker
from frieda.wire import messages as m
from frieda.wire.batch import BatchBuilder
from frieda.wire.messages import ApiKey

T0, T1 = TopicPartition("t", 0), TopicPartition("t", 1)


@pytest.fixture
async def broker(listen: str) -> AsyncIterator[FakeBroker]:
    async with FakeBroker(listen) as broker:
        yield broker


def append(
    broker: FakeBroker,
    *values: bytes,
    topic: str = "t",
    partition: int = 0,
    timestamp_ms: int = 1,
    compression: str = "none",
) -> None:
    """One batch at the end of a partition."""
    builder = BatchBuilder(1 << 16)
    for value in values:
        builder.append(timestamp_ms, b"key", value, (("h", b"1"),))
    batch = bytes(builder.build(-1, -1, -1, compression))
    broker.topics[topic].partitions[partition].append(batch)
    broker.appended()


def numbers(first: int, count: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, first + count)]


async def read(consumer: Consumer, count: int) -> list[Record]:
    """The next `count` records."""
    async with asyncio.timeout(60):
        return [await consumer.getone() for _ in range(count)]


async def read_many(consumer: Consumer, count: int) -> list[Record]:
    """At least `count` records by getmany, partition by partition."""
    found: list[Record] = []
    async with asyncio.timeout(60):
        while len(found) < count:
            for records in (await consumer.getmany(timeout_ms=1000)).values():
                found += records
    return found


# --- delivery ---------------------------------------------------------------------------------------------


async def test_records_come_in_order_with_all_they_were_sent_with(broker: FakeBroker) -> None:
    broker.create_topic("t")
    append(broker, *numbers(0, 3), timestamp_ms=5)
    append(broker, *numbers(3, 2), timestamp_ms=6)
    async with Consumer(broker.url, "t", start="earliest") as consumer:
        records = await read(consumer, 5)
    assert [record.value for record in records] == numbers(0, 5)
    assert [record.offset for record in records] == [0, 1, 2, 3, 4]
    assert records[0] == Record("t", 0, 0, 5, b"key", b"0", (("h", b"1"),))
    assert type(records[0].value) is bytes
    assert records[4].timestamp_ms == 6


async def test_async_for_goes_on_where_it_was_left(broker: FakeBroker) -> None:
    broker.create_topic("t")
    append(broker, *numbers(0, 6))
    async with Consumer(broker.url, "t", start="earliest") as consumer:
        async for record in consumer:
            if record.offset == 2:
                break
        assert consumer.position(T0) == 3
        async for record in consumer:
            assert record.offset == 3
            break
        assert consumer.position(T0) == 4
        assert [r.offset for r in (await consumer.getmany())[T0]] == [4, 5]
        assert consumer.position(T0) == 6


async def test_latest_means_what_is_sent_after_the_start(broker: FakeBroker) -> None:
    broker.create_topic("t")
    append(broker, b"old")
    async with Consumer(broker.url, "t") as consumer:
        append(broker, b"new")
        assert [record.value for record in await read(consumer, 1)] == [b"new"]


async def test_getmany_gives_at_most_what_was_asked_for_and_keeps_the_rest(
    broker: FakeBroker,
) -> None:
    broker.create_topic("t")
    append(broker, *numbers(0, 10))
    async with Consumer(broker.url, "t", start="earliest") as consumer:
        first = await consumer.getmany(timeout_ms=1000, max_records=4)
        assert [record.offset for record in first[T0]] == [0, 1, 2, 3]
        assert consumer.position(T0) == 4
        second = await consumer.getmany(timeout_ms=1000, max_records=100)
        assert [record.offset for record in second[T0]] == [4, 5, 6, 7, 8, 9]
        assert consumer.position(T0) == 10


async def test_getmany_without_records_returns_empty_in_time(broker: FakeBroker) -> None:
    broker.create_topic("t")
    async with Consumer(broker.url, "t") as consumer:
        assert await consumer.getmany() == {}
        assert await consumer.getmany(timeout_ms=20) == {}


async def test_getmany_with_no_timeout_finds_what_arrives_between_calls(broker: FakeBroker) -> None:
    broker.create_topic("t")
    async with Consumer(broker.url, "t") as consumer:
        append(broker, b"x")
        async with asyncio.timeout(60):
            while not (found := await consumer.getmany()):
                pass
        assert [record.value for record in found[T0]] == [b"x"]


async def test_several_partitions_and_topics_are_read_each_in_its_order(broker: FakeBroker) -> None:
    broker.create_topic("t", partitions=3)
    broker.create_topic("u")
    for round_number in range(20):
        for partition in range(3):
            append(broker, *numbers(round_number * 5, 5), partition=partition)
        append(broker, *numbers(round_number * 5, 5), topic="u")
    async with Consumer(broker.url, "t", "u", start="earliest", max_bytes=1024) as consumer:
        records = await read(consumer, 400)
    for key in [*(TopicPartition("t", n) for n in range(3)), TopicPartition("u", 0)]:
        mine = [r.value for r in records if (r.topic, r.partition) == key]
        assert mine == numbers(0, 100)


async def test_a_cancelled_read_loses_nothing(broker: FakeBroker) -> None:
    broker.create_topic("t")
    async with Consumer(broker.url, "t") as consumer:
        for read_once in (consumer.getone, lambda: consumer.getmany(timeout_ms=60_000)):
            waiting = asyncio.ensure_future(read_once())
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        append(broker, b"x")
        assert [record.value for record in await read(consumer, 1)] == [b"x"]


@pytest.mark.parametrize("compression", ["gzip", "snappy", "lz4", "zstd"])
async def test_compressed_batches_are_read(broker: FakeBroker, compression: str) -> None:
    broker.create_topic("t")
    append(broker, *numbers(0, 50), compression=compression)
    async with Consumer(broker.url, "t", start="earliest") as consumer:
        assert [record.value for record in await read(consumer, 50)] == numbers(0, 50)


async def test_a_reading_loop_lets_other_tasks_run(broker: FakeBroker) -> None:
    broker.create_topic("t")
    for start in range(0, 60_000, 1000):
        append(broker, *numbers(start, 1000))
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with Consumer(broker.url, "t", start="earliest") as consumer:
        first = await consumer.getone()
        assert first.offset == 0
        counting = asyncio.ensure_future(count_turns())
        last = 0
        async for record in consumer:
            assert record.offset == last + 1
            last = record.offset
            if last == 59_999:
                break
        counting.cancel()
    assert turns > 3


# --- pipelining and bounds --------------------------------------------------------------------------------


async def test_the_next_fetch_is_sent_before_the_application_reads(broker: FakeBroker) -> None:
    broker.create_topic("t")
    append(broker, *numbers(0, 3))
    asked: list[int] = []
    second = asyncio.get_running_loop().create_future()

    def fetch(exchange: Exchange) -> None:
        asked.append(exchange.request.partitions[0].offset)
        if len(asked) == 2:
            second.set_result(None)
        exchange.proceed()

    broker.handlers[ApiKey.FETCH] = fetch
    async with Consumer(broker.url, "t", start="earliest") as consumer:
        async with asyncio.timeout(60):
            await second
        assert asked == [0, 3]
        assert consumer.position(T0) == 0


async def test_what_is_fetched_ahead_is_bounded_and_reading_goes_on(broker: FakeBroker) -> None:
    broker.create_topic("t")
    for start in range(0, 2000, 20):
        append(broker, *[b"%d" % n + bytes(200) for n in range(start, start + 20)])
    settled = asyncio.Event()
    broker.handlers[ApiKey.METADATA] = lambda e: (e.proceed(), settled.set())
    async with Consumer(
        broker.url, "t", start="earliest", prefetch_bytes=20_000, max_bytes=10_000
    ) as consumer:
        await consumer.getone()
        before = broker.count(ApiKey.FETCH)
        await consumer.end_offsets()  # a round trip: whatever fetch would leave has left
        await consumer.end_offsets()
        assert consumer.health().buffered_bytes <= 20_000
        assert broker.count(ApiKey.FETCH) <= before + 3
        records = await read(consumer, 1999)
        assert [record.offset for record in records] == list(range(1, 2000))


async def test_reading_goes_on_when_the_buffer_pool_was_exhausted(broker: FakeBroker) -> None:
    broker.create_topic("t")
    async with Consumer(broker.url, "t", start="earliest") as consumer:
        pool = consumer._network.runtime.pool
        taken = []
        while (lease := pool.lease(5000)) is not None:
            taken.append(lease)
        for start in range(0, 400, 40):
            append(broker, *[b"%d" % n + bytes(150) for n in range(start, start + 40)])
        assert await consumer.getmany(timeout_ms=50) == {}
        for lease in taken:
            lease.release()
        records = await read_many(consumer, 400)
        assert [record.offset for record in records] == list(range(400))


async def test_every_buffer_is_given_back_at_close(broker: FakeBroker) -> None:
    broker.create_topic("t")
    for start in range(0, 400, 40):
        append(broker, *[b"%d" % n + bytes(150) for n in range(start, start + 40)])
    consumer = Consumer(broker.url, "t", start="earliest", max_bytes=10_000)
    await consumer.start()
    await read(consumer, 50)
    pool = consumer._network.runtime.pool
    await consumer.close()
    assert pool.leaks() == ()


# --- positions --------------------------------------------------------------------------------------------


async def test_seek_drops_what_was_fetched_and_goes_on_there(broker: FakeBroker) -> None:
    broker.create_topic("t")
    append(broker, *numbers(0, 10))
    async with Consumer(broker.url, "t", start="earliest") as consumer:
        await read(consumer, 2)
        consumer.seek(T0, 7)
        assert consumer.position(T0) == 7
        assert [record.offset for record in await read(consumer, 3)] == [7, 8, 9]
        consumer.seek(T0, 0)
        assert [record.offset for record in await read(consumer, 1)] == [0]


async def test_an_answer_that_was_asked_for_before_a_seek_is_dropped(broker: FakeBroker) -> None:
    broker.create_topic("t")
    append(broker, *numbers(0, 10))
    held = broker.hold(ApiKey.FETCH)
    async with Consumer(broker.url, "t", start="earliest") as consumer:
        await consumer.end_offsets()
        consumer.seek(T0, 5)
        await consumer.end_offsets()
        assert [e.request.partitions[0].offset for e in held] == [0, 5]
        broker.release(ApiKey.FETCH)
        held.popleft().proceed()
        held.popleft().proceed()
        assert [record.offset for record in await read(consumer, 5)] == [5, 6, 7, 8, 9]


async def test_seeking_to_the_beginning_the_end_and_a_time(broker: FakeBroker) -> None:
    broker.create_topic("t")
    append(broker, *numbers(0, 5), timestamp_ms=1000)
    append(broker, *numbers(5, 5), timestamp_ms=2000)
    async with Consumer(broker.url, "t") as consumer:
        await consumer.seek_to_beginning()
        assert [record.offset for record in await read(consumer, 1)] == [0]
        await consumer.seek_to_timestamp(1500)
        assert [record.offset for record in await read(consumer, 1)] == [5]
        await consumer.seek_to_timestamp(9999)
        assert consumer.position(T0) == 10
        await consumer.seek_to_end(T0)
        append(broker, b"new")
        assert [record.value for record in await read(consumer, 1)] == [b"new"]
        assert await consumer.offsets_for_timestamp(1500, T0) == {T0: 5}
        assert await consumer.offsets_for_timestamp(9999, T0) == {T0: None}
        assert await consumer.beginning_offsets() == {T0: 0}
        assert await consumer.end_offsets() == {T0: 11}


async def test_a_paused_partition_gives_nothing_until_it_is_resumed(broker: FakeBroker) -> None:
    broker.create_topic("t", partitions=2)
    append(broker, *numbers(0, 3), partition=0)
    append(broker, *numbers(0, 3), partition=1)
    async with Consumer(broker.url, "t", start="earliest") as consumer:
        first = await consumer.getone()
        stopped = TopicPartition("t", first.partition)
        other = T1 if stopped == T0 else T0
        consumer.pause(stopped)
        assert consumer.paused == (stopped,)
        assert {record.partition for record in await read(consumer, 3)} == {other.partition}
        assert await consumer.getmany(timeout_ms=20) == {}
        consumer.resume(stopped)
        rest = await read(consumer, 2)
        assert [(r.partition, r.offset) for r in rest] == [(stopped[1], 1), (stopped[1], 2)]


async def test_lag_is_the_distance_to_the_end(broker: FakeBroker) -> None:
    broker.create_topic("t")
    append(broker, *numbers(0, 10))
    async with Consumer(broker.url, "t", start="earliest") as consumer:
        assert await consumer.lag() == {T0: 10}
        await read(consumer, 4)
        assert await consumer.lag() == {T0: 6}


async def test_assigned_partitions_are_read_and_no_others(broker: FakeBroker) -> None:
    broker.create_topic("t", partitions=2)
    append(broker, b"zero", partition=0)
    append(broker, b"one", partition=1)
    consumer = Consumer(broker.url, start="earliest")
    consumer.assign([T1])
    async with consumer:
        assert consumer.assignment == (T1,)
        assert [record.value for record in await read(consumer, 1)] == [b"one"]
        consumer.assign([T0, T1])
        assert [record.value for record in await read(consumer, 1)] == [b"zero"]
        assert consumer.position(T1) == 1


async def test_a_partition_that_does_not_exist_cannot_be_assigned(broker: FakeBroker) -> None:
    broker.create_topic("t")
    consumer = Consumer(broker.url)
    consumer.assign([("t", 7)])
    with pytest.raises(BrokerError, match="partitions 0 to 0, not 7"):
        await consumer.start()


async def test_a_seek_beyond_the_end_is_an_error_that_names_the_range(broker: FakeBroker) -> None:
    broker.create_topic("t")
    append(broker, *numbers(0, 3))
    async with Consumer(broker.url, "t", start="earliest") as consumer:
        consumer.seek(T0, 99)
        with pytest.raises(BrokerError, match=r"t-0 has no offset 99.*0 to 3"):
            await consumer.getone()
        consumer.seek(T0, 1)
        assert [record.offset for record in await read(consumer, 1)] == [1]


@pytest.mark.parametrize(("start", "expected"), [("earliest", 6), ("latest", 10)])
async def test_a_position_that_retention_has_overtaken_is_reset_by_the_setting(
    broker: FakeBroker, start: StartAt, expected: int
) -> None:
    broker.create_topic("t")
    append(broker, *numbers(0, 10))
    broker.committed["g"] = {("t", 0): m.CommittedOffset("t", 0, 2, -1, "")}
    broker.topics["t"].partitions[0].log_start_offset = 6
    async with Consumer(broker.url, "t", start=start, group="g") as consumer:
        async with asyncio.timeout(60):
            while consumer.position(T0) == 2:
                consumer.pause(T0)
                await consumer.getmany(timeout_ms=5)
        consumer.resume(T0)
        append(broker, b"new")
        assert (await read(consumer, 1))[0].offset == expected


# --- groups -----------------------------------------------------------------------------------------------


async def test_a_group_goes_on_where_it_committed(broker: FakeBroker) -> None:
    broker.create_topic("t")
    append(broker, *numbers(0, 10))
    async with Consumer(broker.url, "t", group="g", start="earliest") as consumer:
        async for record in consumer:
            if record.offset == 3:
                break
        await consumer.commit()
        assert await consumer.committed() == {T0: 4}
    async with Consumer(broker.url, "t", group="g", start="earliest") as consumer:
        assert [record.offset for record in await read(consumer, 1)] == [4]
        await consumer.commit({T0: 8})
    assert broker.committed["g"]["t", 0].offset == 8


async def test_automatic_commits_hold_only_what_was_read_before(broker: FakeBroker) -> None:
    broker.create_topic("t")
    append(broker, *numbers(0, 4))
    committed = asyncio.Event()

    def commit(exchange: Exchange) -> None:
        exchange.proceed()
        committed.set()

    broker.handlers[ApiKey.COMMIT_OFFSETS] = commit
    settings = {"group": "g", "start": "earliest", "auto_commit_interval_s": 0.01}
    async with Consumer(broker.url, "t", **settings) as consumer:  # type: ignore[arg-type]
        await consumer.getmany(timeout_ms=1000)
        await consumer.getmany(timeout_ms=50)
        async with asyncio.timeout(60):
            await committed.wait()
        assert broker.committed["g"]["t", 0].offset == 4
        append(broker, b"one more")
        await read(consumer, 1)
    assert broker.committed["g"]["t", 0].offset == 5, "close commits"


async def test_a_refused_commit_names_the_partition(broker: FakeBroker) -> None:
    broker.create_topic("t")

    def refuse(exchange: Exchange) -> None:
        outcome = m.CommitOutcome("t", 0, int(ErrorCode.INVALID_REQUEST), "no")
        exchange.answer(m.CommitOffsetsResponse((outcome,)))

    broker.handlers[ApiKey.COMMIT_OFFSETS] = refuse
    async with Consumer(broker.url, "t", group="g") as consumer:
        with pytest.raises(BrokerError, match="t-0: no"):
            await consumer.commit({T0: 1})


async def test_committing_without_a_group_says_what_to_do(broker: FakeBroker) -> None:
    broker.create_topic("t")
    async with Consumer(broker.url, "t") as consumer:
        with pytest.raises(ConfigError, match="group="):
            await consumer.commit()


# --- what changes while it reads --------------------------------------------------------------------------


async def test_a_topic_that_is_created_later_is_read_from_its_first_record(
    broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("frieda.clients.subscription.MISSING_TOPIC_LOOK_S", 0.02)
    async with Consumer(broker.url, "t", start="latest") as consumer:
        assert consumer.assignment == ()
        broker.create_topic("t")
        append(broker, b"first")
        assert [record.value for record in await read(consumer, 1)] == [b"first"]


async def test_a_topic_that_gains_partitions_is_read_whole(broker: FakeBroker) -> None:
    topic = broker.create_topic("t")
    async with Consumer(broker.url, "t", metadata_max_age_s=0.1) as consumer:
        topic.partitions.append(type(topic.partitions[0])())
        append(broker, b"in the new one", partition=1)
        assert [r.value for r in await read(consumer, 1)] == [b"in the new one"]


async def test_a_topic_that_is_deleted_and_made_again_is_read_from_its_first_record(
    broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("frieda.clients.subscription.MISSING_TOPIC_LOOK_S", 0.02)
    broker.create_topic("t")
    append(broker, *numbers(0, 5))
    async with Consumer(broker.url, "t", start="earliest", max_wait_ms=20) as consumer:
        await read(consumer, 5)
        broker.create_topic("t")
        append(broker, b"again")
        assert [(r.offset, r.value) for r in await read(consumer, 1)] == [(0, b"again")]


async def test_it_reconnects_and_goes_on_without_loss_or_repetition(broker: FakeBroker) -> None:
    broker.create_topic("t", partitions=2)
    async with Consumer(broker.url, "t", start="earliest", retry_backoff_s=0.001) as consumer:
        seen: dict[int, list[int]] = {0: [], 1: []}
        for round_number in range(5):
            if round_number == 2:
                await broker.stop()
                await broker.start()
            elif round_number > 0:
                broker.cut_connections()
            for partition in (0, 1):
                append(broker, *numbers(round_number * 10, 10), partition=partition)
            for record in await read(consumer, 17):
                seen[record.partition].append(record.offset)
        for record in await read(consumer, 15):
            seen[record.partition].append(record.offset)
        assert seen == {0: list(range(50)), 1: list(range(50))}
        assert consumer.health().reconnects >= 3


@pytest.mark.parametrize(
    "code",
    [
        ErrorCode.NOT_LEADER_OR_FOLLOWER,
        ErrorCode.UNKNOWN_TOPIC_ID,
        ErrorCode.STORAGE_ERROR,
        ErrorCode.BROKER_STOPPING,
    ],
)
async def test_a_passing_error_is_tried_again(broker: FakeBroker, code: ErrorCode) -> None:
    broker.create_topic("t")
    append(broker, *numbers(0, 3))
    failures = 2

    def fetch(exchange: Exchange) -> None:
        nonlocal failures
        if failures == 0:
            exchange.proceed()
            return
        failures -= 1
        asked = exchange.request.partitions[0]
        part = m.FetchedPartition(asked.topic_id, asked.partition, int(code), "", -1, -1, -1, -1, 0)
        exchange.answer(m.FetchResponse((part,)))

    broker.handlers[ApiKey.FETCH] = fetch
    async with Consumer(broker.url, "t", start="earliest", retry_backoff_s=0.001) as consumer:
        assert [record.offset for record in await read(consumer, 3)] == [0, 1, 2]
    assert failures == 0


async def test_a_lasting_error_is_raised_and_names_the_partition(broker: FakeBroker) -> None:
    broker.create_topic("t")

    def fetch(exchange: Exchange) -> None:
        asked = exchange.request.partitions[0]
        code = int(ErrorCode.UNSUPPORTED_COMPRESSION)
        part = m.FetchedPartition(asked.topic_id, asked.partition, code, "why", -1, -1, -1, -1, 0)
        exchange.answer(m.FetchResponse((part,)))

    broker.handlers[ApiKey.FETCH] = fetch
    async with Consumer(broker.url, "t", start="earliest") as consumer:
        with pytest.raises(BrokerError, match="t-0: why"):
            await consumer.getone()


async def test_no_broker_is_an_error_that_names_the_address() -> None:
    consumer = Consumer("tcp://127.0.0.1:1", "t", connect_timeout_s=0.2, retry_backoff_s=0.01)
    with pytest.raises(ConnectError, match=r"127\.0\.0\.1:1"):
        await consumer.start()


# --- damage -----------------------------------------------------------------------------------------------


async def test_a_damaged_log_says_where_and_reading_goes_on_after_a_seek(
    broker: FakeBroker,
) -> None:
    broker.create_topic("t")
    for start in (0, 3, 6):
        append(broker, *numbers(start, 3))

    def fetch(exchange: Exchange) -> None:
        (asked,) = exchange.request.partitions
        if asked.offset >= 6:
            exchange.proceed()
            return
        log = broker.partition(asked.topic_id, asked.partition)
        code, size, body = int(ErrorCode.CORRUPT_LOG), 0, b""
        if asked.offset < 3:
            body = log.batches[0][1]
            code, size = 0, len(body)
        part = m.FetchedPartition(asked.topic_id, 0, code, "bad bytes", 9, 9, 0, 6, size)
        exchange.answer(m.FetchResponse((part,)), body or None)

    broker.handlers[ApiKey.FETCH] = fetch
    async with Consumer(broker.url, "t", start="earliest") as consumer:
        assert [record.offset for record in await read(consumer, 3)] == [0, 1, 2]
        for _ in range(2):
            with pytest.raises(CorruptLogError, match=r"t-0.*offset 3.*seek to 6") as caught:
                await consumer.getmany(timeout_ms=1000)
        consumer.seek(T0, caught.value.next_readable_offset)
        assert [record.offset for record in await read(consumer, 3)] == [6, 7, 8]


async def test_a_flipped_bit_is_found_by_the_checksum_and_the_batch_fetched_again(
    broker: FakeBroker,
) -> None:
    broker.create_topic("t")
    append(broker, *numbers(0, 3))
    damaged_answers = 1

    def fetch(exchange: Exchange) -> None:
        nonlocal damaged_answers
        (asked,) = exchange.request.partitions
        if asked.offset >= 3 or not damaged_answers:
            exchange.proceed()
            return
        damaged_answers -= 1
        body = bytearray(broker.partition(asked.topic_id, 0).batches[0][1])
        body[-1] ^= 1
        part = m.FetchedPartition(asked.topic_id, 0, 0, "", 3, 3, 0, -1, len(body))
        exchange.answer(m.FetchResponse((part,)), bytes(body))

    broker.handlers[ApiKey.FETCH] = fetch
    async with Consumer(broker.url, "t", start="earliest") as consumer:
        assert [record.offset for record in await read(consumer, 3)] == [0, 1, 2]
        damaged_answers = 2
        consumer.seek(T0, 0)
        with pytest.raises(CorruptLogError, match=r"batch at offset 0 is damaged.*seek to 3"):
            await consumer.getone()


@pytest.mark.parametrize("lie", ["fewer partitions", "another partition", "sizes", "half a batch"])
async def test_an_answer_that_lies_is_an_error_or_a_new_connection_and_never_wrong_records(
    broker: FakeBroker, lie: str
) -> None:
    broker.create_topic("t")
    append(broker, *numbers(0, 3))
    lies = 1

    def fetch(exchange: Exchange) -> None:
        nonlocal lies
        if not lies:
            exchange.proceed()
            return
        lies -= 1
        (asked,) = exchange.request.partitions
        body = broker.partition(asked.topic_id, 0).batches[0][1]
        part = m.FetchedPartition(asked.topic_id, 0, 0, "", 3, 3, 0, -1, len(body))
        match lie:
            case "fewer partitions":
                exchange.answer(m.FetchResponse(()), body)
            case "another partition":
                exchange.answer(m.FetchResponse((part._replace(partition=1),)), body)
            case "sizes":
                exchange.answer(m.FetchResponse((part._replace(size_bytes=1000),)), body)
            case "half a batch":
                half = body[: len(body) // 2]
                exchange.answer(m.FetchResponse((part._replace(size_bytes=len(half)),)), half)

    broker.handlers[ApiKey.FETCH] = fetch
    async with Consumer(broker.url, "t", start="earliest", retry_backoff_s=0.001) as consumer:
        if lie == "half a batch":
            with pytest.raises(BrokerError, match="no whole batch"):
                await consumer.getone()
        else:
            assert [record.offset for record in await read(consumer, 3)] == [0, 1, 2]
            assert consumer.health().reconnects == 1


# --- use --------------------------------------------------------------------------------------------------


def test_an_unknown_setting_is_named_with_the_nearest_known_one() -> None:
    with pytest.raises(ConfigError, match=r"'gruop'.*'group'"):
        Consumer("tcp://127.0.0.1:1", "t", gruop="g")  # type: ignore[call-arg]


def test_an_illegal_topic_name_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="a/b"):
        Consumer("tcp://127.0.0.1:1", "a/b")


def test_the_typed_settings_are_those_of_the_configuration() -> None:
    expected = {spec.name for spec in fields(ConsumerConfig)} - {"bootstrap"}
    assert set(get_type_hints(ConsumerSettings)) == expected


async def test_use_before_start_and_after_close_says_so(broker: FakeBroker) -> None:
    broker.create_topic("t")
    consumer = Consumer(broker.url, "t")
    with pytest.raises(ClientClosedError, match="not started"):
        await consumer.getone()
    async with consumer:
        waiting = asyncio.ensure_future(consumer.getone())
        await asyncio.sleep(0)
        assert consumer.health().status == "ok"
    with pytest.raises(ClientClosedError, match="closed"):
        await waiting
    with pytest.raises(ClientClosedError, match="closed"):
        await consumer.getmany()
    await consumer.close()
    with pytest.raises(ClientClosedError, match="make a new one"):
        await consumer.start()


async def test_a_partition_that_is_not_read_is_named(broker: FakeBroker) -> None:
    broker.create_topic("t")
    async with Consumer(broker.url, "t") as consumer:
        with pytest.raises(ConfigError, match="t-9 is not read by this consumer; it reads t-0"):
            consumer.seek(("t", 9), 0)
        with pytest.raises(ConfigError, match="reads whole topics"):
            consumer.assign([T0])


async def test_partitions_for_names_them_or_says_that_the_topic_is_not_there(
    broker: FakeBroker,
) -> None:
    broker.create_topic("t", partitions=2)
    async with Consumer(broker.url) as consumer:
        assert await consumer.partitions_for("t") == (T0, T1)
        with pytest.raises(BrokerError, match="no topic 'u'"):
            await consumer.partitions_for("u")
