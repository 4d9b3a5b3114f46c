"""The producer against a scripted broker: order, retries, bounds, expiry, bad input."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest

from frieda import Producer, RecordMetadata
from frieda.clock import ManualClock
from frieda.errors import (
    BrokerError,
    BufferFullError,
    ClientClosedError,
    ConfigError,
    ConnectError,
    DeliveryTimeoutError,
    ErrorCode,
    FriedaError,
)
from frieda.model import Record
from frieda.testing.fake_broker import Exchange, FakeBroker
from frieda.transports.memory import MemoryTransport
from frieda.wire.messages import ApiKey, InitProducerRequest, ProduceRequest, ProduceResponse

URL = "memory://producer-test"


@pytest.fixture
async def broker() -> AsyncIterator[FakeBroker]:
    async with FakeBroker(URL) as running:
        running.create_topic("t", partitions=3)
        yield running


def make_producer(**settings: Any) -> Producer:
    defaults: dict[str, Any] = {"polling": "event", "retry_backoff_s": 0.001}
    return Producer(URL, **(defaults | settings))


def values(broker: FakeBroker, partition: int = 0) -> list[bytes | None]:
    return [record.value for record in broker.records("t", partition)]


async def meet(producer: Producer) -> None:
    """Let it learn of the topic, which may take a slow machine longer than a short deadline allows."""
    async with asyncio.timeout(60):
        while True:
            try:
                await producer.partitions_for("t")
            except ConnectError:
                continue
            return


def note(told: list[int], number: int, result: object) -> None:
    told.append(number)


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def until(held: Any, count: int) -> None:
    await eventually(lambda: len(held) >= count)


async def eventually(holds: Callable[[], bool]) -> None:
    """Let the loop turn until it holds; there is nothing to wait on inside a broker in memory."""
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0)


# --- the ordinary way -------------------------------------------------------------------------------------


async def test_a_record_sent_is_stored_as_it_was_given(broker: FakeBroker) -> None:
    async with make_producer() as producer:
        metadata = await producer.send(
            "t", b"value", b"key", partition=1, headers=[("h", b"1")], timestamp_ms=42
        )
    assert metadata == RecordMetadata("t", 1, 0, 42)
    assert broker.records("t", 1) == [Record("t", 1, 0, 42, b"key", b"value", (("h", b"1"),))]


async def test_a_record_leaves_inside_the_call_when_nothing_is_in_flight(
    broker: FakeBroker,
) -> None:
    async with make_producer() as producer:
        await producer.send("t", b"first", partition=0)
        connection = producer._network.open_connection_for("t", 0)
        assert connection is not None
        future = producer.send_nowait("t", b"second", partition=0)
        assert connection.in_flight == 1
        await future


@pytest.mark.parametrize("headers", [(), (("h", b"1"), ("empty", None))])
async def test_a_record_that_leaves_alone_is_the_same_batch_as_one_that_lingers(
    broker: FakeBroker, headers: tuple[Any, ...]
) -> None:
    bodies: list[bytes] = []
    for settings in ({}, {"linger_ms": 1}, {"ordering": "producer"}):
        broker.next_producer_id = 1000
        broker.topics["t"].partitions[0].producers.clear()
        async with make_producer(**settings) as producer:
            await meet(producer)
            held = broker.hold(ApiKey.PRODUCE)
            sent = producer.send_nowait(
                "t", b"value", b"key", partition=0, headers=headers, timestamp_ms=7
            )
            await until(held, 1)
            bodies.append(held[0].body)
            broker.release(ApiKey.PRODUCE)
            held[0].proceed()
            await sent
    assert bodies[0] == bodies[1] == bodies[2]


async def test_a_record_alone_that_is_refused_keeps_its_number_and_its_turn(
    broker: FakeBroker,
) -> None:
    async with make_producer() as producer:
        await producer.send("t", b"warm", partition=0)
        held = broker.hold(ApiKey.PRODUCE)
        sent = [producer.send_nowait("t", b"%d" % n, partition=0) for n in range(3)]
        await until(held, 3)
        broker.release(ApiKey.PRODUCE)
        first, *others = list(held)
        first.fail(ErrorCode.BUSY, "not now")
        for exchange in others:
            exchange.fail(ErrorCode.OUT_OF_ORDER_SEQUENCE, "too early")
        offsets = [(await future).offset for future in sent]
    assert offsets == [1, 2, 3]
    assert values(broker) == [b"warm", b"0", b"1", b"2"]
    assert producer._room.used_bytes == 0


@pytest.mark.parametrize(("idempotence", "under_way"), [(False, 1), (True, 3)])
async def test_without_numbers_one_batch_is_under_way_where_messages_may_overtake_each_other(
    broker: FakeBroker, monkeypatch: pytest.MonkeyPatch, idempotence: bool, under_way: int
) -> None:
    monkeypatch.setattr(MemoryTransport, "ordered", False)
    async with make_producer(idempotence=idempotence) as producer:
        await producer.send("t", b"warm", partition=0)
        held = broker.hold(ApiKey.PRODUCE)
        sent = [producer.send_nowait("t", b"%d" % n, partition=0) for n in range(3)]
        await turns()
        assert len(held) == under_way
        broker.release(ApiKey.PRODUCE)
        for exchange in list(held):
            exchange.proceed()
        assert [(await future).offset for future in sent] == [1, 2, 3]
    assert values(broker) == [b"warm", b"0", b"1", b"2"]


async def test_records_gather_while_every_place_in_flight_is_taken(broker: FakeBroker) -> None:
    async with make_producer(max_in_flight=2) as producer:
        await producer.send("t", b"warm", partition=0)
        before = broker.count(ApiKey.PRODUCE)
        futures = [producer.send_nowait("t", b"%d" % n, partition=0) for n in range(100)]
        results = await asyncio.gather(*futures)
    assert [result.offset for result in results] == list(range(1, 101))
    assert broker.count(ApiKey.PRODUCE) - before == 3, "two alone, then all the rest together"


async def test_lingering_records_leave_together_when_their_time_is_up(broker: FakeBroker) -> None:
    async with make_producer(linger_ms=5) as producer:
        await asyncio.gather(*(producer.send("t", b"%d" % n, partition=0) for n in range(50)))
    assert broker.count(ApiKey.PRODUCE) == 1


async def test_flush_sends_what_lingers_and_waits_for_it(broker: FakeBroker) -> None:
    async with make_producer(linger_ms=60_000) as producer:
        futures = [producer.send_nowait("t", b"%d" % n) for n in range(10)]
        await producer.flush()
        assert all(future.done() for future in futures)


async def test_flush_of_a_producer_with_nothing_to_send_returns(broker: FakeBroker) -> None:
    async with make_producer() as producer:
        await producer.flush()


async def test_flush_says_so_when_its_time_is_over(broker: FakeBroker) -> None:
    held = broker.hold(ApiKey.PRODUCE)
    async with make_producer() as producer:
        future = producer.send_nowait("t", b"x")
        with pytest.raises(DeliveryTimeoutError, match="not everything was acknowledged"):
            await producer.flush(timeout_s=0.02)
        held.popleft().proceed()
        await future


async def test_keys_land_where_kafka_would_put_them(broker: FakeBroker) -> None:
    async with make_producer() as producer:
        # murmur2("21") = -973932308 (from Kafka's UtilsTest)
        metadata = await producer.send("t", b"x", key=b"21")
    assert metadata.partition == (-973932308 & 0x7FFFFFFF) % 3


async def test_records_of_several_sizes_fill_batches_no_larger_than_told(
    broker: FakeBroker,
) -> None:
    async with make_producer(batch_bytes=1024, max_in_flight=1) as producer:
        sizes = [1, 500, 900, 3000, 10, 400, 400, 400]
        await asyncio.gather(*(producer.send("t", b"x" * n, partition=0) for n in sizes))
    batches = broker.topics["t"].partitions[0].batches
    assert [len(value or b"") for value in values(broker)] == sizes
    assert all(len(batch) <= 1024 or header.record_count == 1 for header, batch in batches)


@pytest.mark.parametrize("acks", [1, "all"])
async def test_the_acks_setting_travels_with_each_request(broker: FakeBroker, acks: Any) -> None:
    async with make_producer(acks=acks) as producer:
        await producer.send("t", b"x")
    (request,) = [r for key, r in broker.requests if key == ApiKey.PRODUCE]
    assert isinstance(request, ProduceRequest)
    assert request.acks == (-1 if acks == "all" else 1)


async def test_without_acks_a_send_is_done_when_it_was_handed_over(broker: FakeBroker) -> None:
    async with make_producer(acks=0) as producer:
        metadata = await producer.send("t", b"x", partition=0)
        assert metadata.offset == -1
        futures = [producer.send_nowait("t", b"%d" % n, partition=0) for n in range(1000)]
        await producer.flush()
        assert {future.result().offset for future in futures} == {-1}
        await eventually(lambda: len(values(broker)) == 1001)


async def test_without_acks_a_topic_made_again_is_noticed_by_the_complaints(
    broker: FakeBroker,
) -> None:
    async with make_producer(acks=0) as producer:
        await producer.send("t", b"old", partition=0)
        broker.create_topic("t", partitions=3)
        async with asyncio.timeout(60):
            while not values(broker):
                await producer.send("t", b"new", partition=0)
                await turns(1)
    assert set(values(broker)) == {b"new"}


@pytest.mark.parametrize("compression", ["gzip", "lz4", "snappy", "zstd"])
async def test_compressed_records_come_back_whole(broker: FakeBroker, compression: Any) -> None:
    async with make_producer(compression=compression, linger_ms=1) as producer:
        await producer.send_batch("t", [b"value" * 50] * 100, partition=0)
    assert values(broker) == [b"value" * 50] * 100
    assert broker.topics["t"].partitions[0].batches[0][0].compression == compression


# --- many records -----------------------------------------------------------------------------------------


async def test_a_bulk_send_tells_the_result_of_each_record_in_order(broker: FakeBroker) -> None:
    items: list[Any] = [b"a", (b"k", b"b"), Record("", 0, 0, 7, None, b"c", ()), b"d", 5, b"e"]
    async with make_producer() as producer:
        results = await producer.send_batch("t", items, partition=2)
    offsets = [item.offset for item in results if isinstance(item, RecordMetadata)]
    assert offsets == [0, 1, 2, 3, 4]
    assert isinstance(results[4], BrokerError)
    assert results[4].code is ErrorCode.INVALID_RECORD
    assert values(broker, 2) == [b"a", b"b", b"c", b"d", b"e"]


async def test_a_bulk_send_larger_than_the_buffer_waits_as_it_goes(broker: FakeBroker) -> None:
    async with make_producer(buffer_bytes=4096, batch_bytes=1024) as producer:
        results = await producer.send_batch("t", [b"x" * 100] * 2000, partition=0)
        assert producer.health().buffered_bytes == 0
    assert [r.offset for r in results if isinstance(r, RecordMetadata)] == list(range(2000))


async def test_submitted_values_are_told_by_the_batch(broker: FakeBroker) -> None:
    told: list[tuple[int, int, FriedaError | None]] = []
    async with make_producer(batch_bytes=8192) as producer:
        await producer.submit_values(
            "t", [b"x" * 100] * 1000, lambda *outcome: told.append(outcome), partition=0
        )
        await producer.flush()
    assert sum(count for count, _, _ in told) == 1000
    assert len(told) < 50
    assert all(error is None for _, _, error in told)
    assert [base for _, base, _ in told] == sorted(base for _, base, _ in told)


async def test_a_callback_that_raises_harms_only_itself(broker: FakeBroker) -> None:
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))

    def on_done(count: int, base_offset: int, error: FriedaError | None) -> None:
        raise ZeroDivisionError

    async with make_producer() as producer:
        await producer.submit_values("t", [b"x"], on_done)
        await producer.send("t", b"y")
    assert [type(context["exception"]) for context in complaints] == [ZeroDivisionError]


# --- order ------------------------------------------------------------------------------------------------


async def test_results_come_in_send_order_whatever_the_order_of_the_answers(
    broker: FakeBroker,
) -> None:
    async with make_producer() as producer:
        await producer.send("t", b"warm", partition=0)
        held = broker.hold(ApiKey.PRODUCE)
        told: list[int] = []
        for n in range(4):
            producer.send_nowait("t", b"%d" % n, partition=0, on_delivery=partial(note, told, n))
        await until(held, 4)
        exchanges = list(held)
        partition = broker.topics["t"].partitions[0]
        offsets = [partition.append(exchange.body) for exchange in exchanges]
        for which in (2, 1, 3):
            exchanges[which].answer(ProduceResponse(offsets[which], 0))
        await turns()
        assert told == []
        exchanges[0].answer(ProduceResponse(offsets[0], 0))
        await turns()
        assert told == [0, 1, 2, 3]


async def test_the_whole_producers_order_is_kept_on_request(broker: FakeBroker) -> None:
    async with make_producer(ordering="producer") as producer:
        await producer.send("t", b"warm", partition=0)
        held = broker.hold(ApiKey.PRODUCE)
        told: list[int] = []
        for n in range(6):
            producer.send_nowait(
                "t", b"%d" % n, partition=n % 3, on_delivery=partial(note, told, n)
            )
        await until(held, 6)
        by_partition: dict[int, list[Exchange]] = {}
        for exchange in held:
            by_partition.setdefault(exchange.request.partition, []).append(exchange)
        for partition in (2, 1):
            for exchange in by_partition[partition]:
                exchange.proceed()
        await turns()
        assert told == []
        assert producer.health().buffered_bytes > 0, "what is not told yet still fills the buffer"
        for exchange in by_partition[0]:
            exchange.proceed()
        await turns()
        assert told == [0, 1, 2, 3, 4, 5]
        assert producer.health().buffered_bytes == 0


async def test_with_partition_order_a_slow_partition_holds_nobody_else(broker: FakeBroker) -> None:
    async with make_producer() as producer:
        await producer.send("t", b"warm", partition=0)
        held = broker.hold(ApiKey.PRODUCE)
        slow = producer.send_nowait("t", b"slow", partition=0)
        await until(held, 1)
        broker.release(ApiKey.PRODUCE)
        await producer.send("t", b"quick", partition=1)
        assert not slow.done()
        held[0].proceed()
        await slow


# --- what goes wrong --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        ErrorCode.BUSY,
        ErrorCode.NOT_LEADER_OR_FOLLOWER,
        ErrorCode.UNKNOWN_TOPIC_ID,
        ErrorCode.DISK_FULL,
        ErrorCode.CORRUPT_MESSAGE,
        ErrorCode.REQUEST_TIMED_OUT,
    ],
)
async def test_a_retriable_refusal_is_tried_again_and_stored_once_in_order(
    broker: FakeBroker, code: ErrorCode
) -> None:
    async with make_producer() as producer:
        await producer.send("t", b"warm", partition=0)
        broker.fail_next(ApiKey.PRODUCE, code, times=3)
        futures = [producer.send_nowait("t", b"%d" % n, partition=0) for n in range(50)]
        await asyncio.gather(*futures)
    assert values(broker) == [b"warm", *(b"%d" % n for n in range(50))]


async def test_a_lost_answer_leads_to_the_offset_of_the_batch_that_was_stored(
    broker: FakeBroker,
) -> None:
    async with make_producer() as producer:
        await producer.send("t", b"warm", partition=0)
        broker.lose_next_answer(ApiKey.PRODUCE)
        futures = [producer.send_nowait("t", b"%d" % n, partition=0) for n in range(20)]
        results = await asyncio.gather(*futures)
        assert producer.health().reconnects == 1
    assert [result.offset for result in results] == list(range(1, 21))
    assert values(broker) == [b"warm", *(b"%d" % n for n in range(20))]


async def test_connections_cut_again_and_again_lose_double_and_reorder_nothing(
    broker: FakeBroker,
) -> None:
    async with make_producer(batch_bytes=256) as producer:
        sending = asyncio.create_task(
            producer.send_batch("t", [b"%d" % n for n in range(3000)], partition=0)
        )

        def stored_or_done(count: int) -> bool:
            return sending.done() or len(values(broker)) >= count

        for cut in range(10):
            await eventually(partial(stored_or_done, cut * 200))
            broker.cut_connections()
        results = await sending
    assert [r.offset for r in results if isinstance(r, RecordMetadata)] == list(range(3000))
    assert values(broker) == [b"%d" % n for n in range(3000)]


async def test_a_broker_that_restarts_gets_what_waited(broker: FakeBroker) -> None:
    async with make_producer() as producer:
        await producer.send("t", b"before", partition=0)
        await broker.stop()
        future = producer.send_nowait("t", b"during", partition=0)
        await turns()
        await broker.start()
        assert (await future).offset == 1
    assert values(broker) == [b"before", b"during"]


async def test_a_refusal_for_good_fails_its_records_at_once_and_nothing_else(
    broker: FakeBroker,
) -> None:
    async with make_producer() as producer:
        await producer.send("t", b"warm", partition=0)
        broker.fail_next(ApiKey.PRODUCE, ErrorCode.INVALID_RECORD)
        with pytest.raises(BrokerError, match="INVALID_RECORD: t-0, a batch of") as caught:
            await producer.send("t", b"bad", partition=0)
        assert caught.value.code is ErrorCode.INVALID_RECORD
        await producer.send("t", b"good", partition=0)
        assert broker.count(ApiKey.INIT_PRODUCER) == 1, "its number was free again"
    assert values(broker) == [b"warm", b"good"]


async def test_a_refusal_for_good_with_batches_behind_it_raises_the_epoch(
    broker: FakeBroker,
) -> None:
    async with make_producer() as producer:
        await producer.send("t", b"warm", partition=0)
        broker.fail_next(ApiKey.PRODUCE, ErrorCode.INVALID_RECORD)
        futures = [producer.send_nowait("t", b"%d" % n, partition=0) for n in range(20)]
        results = await asyncio.gather(*futures, return_exceptions=True)
    assert isinstance(results[0], BrokerError)
    assert all(isinstance(result, RecordMetadata) for result in results[1:])
    assert values(broker) == [b"warm", *(b"%d" % n for n in range(1, 20))]
    requests = [r for key, r in broker.requests if key == ApiKey.INIT_PRODUCER]
    assert requests[1:] == [InitProducerRequest(None, requests[1].producer_id, 0)]


async def test_a_record_expires_and_those_behind_it_are_stored(broker: FakeBroker) -> None:
    clock = ManualClock()
    async with make_producer(clock=clock, delivery_timeout_s=0.05) as producer:
        await meet(producer)
        await producer.send("t", b"warm", partition=0)
        broker.handlers[ApiKey.PRODUCE] = lambda exchange: clock.advance(1)
        with pytest.raises(DeliveryTimeoutError, match=r"for t-0 .* \(attempts: 1\)"):
            await producer.send("t", b"lost", partition=0)
        broker.release(ApiKey.PRODUCE)
        await producer.send("t", b"next", partition=0)
    assert values(broker) == [b"warm", b"next"]
    assert broker.count(ApiKey.INIT_PRODUCER) == 2


async def test_a_broker_that_forgot_the_producer_gets_the_records_under_a_new_epoch(
    broker: FakeBroker,
) -> None:
    async with make_producer() as producer:
        await producer.send("t", b"0", partition=0)
        broker.topics["t"].partitions[0].producers.clear()
        await asyncio.gather(*(producer.send("t", b"%d" % n, partition=0) for n in range(1, 10)))
    assert values(broker) == [b"%d" % n for n in range(10)]


async def test_a_fenced_producer_fails_and_says_why_from_then_on(broker: FakeBroker) -> None:
    async with make_producer() as producer:
        await producer.send("t", b"0", partition=0)
        broker.fail_next(ApiKey.PRODUCE, ErrorCode.INVALID_PRODUCER_EPOCH)
        for _ in range(2):
            with pytest.raises(BrokerError, match="INVALID_PRODUCER_EPOCH"):
                await producer.send("t", b"1", partition=0)


async def test_a_batch_too_large_for_the_topic_is_split_and_stored(broker: FakeBroker) -> None:
    store = broker.defaults[ApiKey.PRODUCE]

    def picky(exchange: Exchange) -> None:
        if len(exchange.body) > 1000:
            exchange.fail(ErrorCode.MESSAGE_TOO_LARGE, "max.message.bytes = 1000")
        else:
            store(exchange)

    broker.handlers[ApiKey.PRODUCE] = picky
    told: list[tuple[int, int, FriedaError | None]] = []
    async with make_producer(linger_ms=1) as producer:
        await producer.submit_values(
            "t", [b"x" * 100] * 40, lambda *outcome: told.append(outcome), partition=0
        )
        futures = [producer.send_nowait("t", b"%d" % n, partition=0) for n in range(5)]
        results = await asyncio.gather(*futures)
        with pytest.raises(BrokerError, match="MESSAGE_TOO_LARGE: t-0, a batch of 1") as caught:
            await producer.send("t", b"x" * 1200, partition=0)
    assert caught.value.code is ErrorCode.MESSAGE_TOO_LARGE
    assert sum(count for count, _, _ in told) == 40
    assert [result.offset for result in results] == [40, 41, 42, 43, 44]
    assert values(broker) == [b"x" * 100] * 40 + [b"%d" % n for n in range(5)]


async def test_a_record_larger_than_a_frame_is_refused_with_both_sizes(broker: FakeBroker) -> None:
    async with make_producer(max_frame_bytes=100_000, batch_bytes=4096) as producer:
        with pytest.raises(BrokerError, match=r"200000 bytes .* 98976 bytes"):
            await producer.send("t", b"x" * 200_000)
        with pytest.raises(BrokerError, match=r"200000 bytes .* 98976 bytes"):
            producer.send_nowait("t", b"x" * 200_000)
        assert producer.health().buffered_bytes == 0


async def test_a_topic_that_is_missing_is_waited_for_then_named(broker: FakeBroker) -> None:
    clock = ManualClock()
    broker.handlers[ApiKey.METADATA] = lambda asked: (asked.proceed(), clock.advance(20))
    async with make_producer(clock=clock, request_timeout_s=60) as producer:
        with pytest.raises(BrokerError, match="there is no topic 'nowhere'") as caught:
            await producer.send("nowhere", b"x")
        assert caught.value.code is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        assert producer.health().buffered_bytes == 0


async def test_records_for_a_topic_made_a_little_later_are_stored_in_order(
    broker: FakeBroker,
) -> None:
    async with make_producer() as producer:
        futures = [producer.send_nowait("late", b"%d" % n) for n in range(10)]
        await turns()
        broker.create_topic("late")
        results = await asyncio.gather(*futures)
    assert [result.offset for result in results] == list(range(10))
    assert [record.value for record in broker.records("late")] == [b"%d" % n for n in range(10)]


async def test_a_topic_deleted_and_made_again_gets_the_records_that_follow(
    broker: FakeBroker,
) -> None:
    async with make_producer() as producer:
        await producer.send("t", b"old", partition=0)
        broker.create_topic("t", partitions=3)
        await producer.send("t", b"new", partition=0)
    assert values(broker) == [b"new"]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"topic": "a/b", "value": b""}, "INVALID_TOPIC.*may hold only"),
        ({"topic": "t", "value": "text"}, "the value of a record must be bytes, not str"),
        ({"topic": "t", "value": 5}, "the value of a record must be bytes, not int"),
        ({"topic": "t", "key": "text"}, "the key of a record must be bytes, not str"),
        ({"topic": "t", "value": b"", "headers": [1]}, "headers of a record are pairs"),
        ({"topic": "t", "value": b"", "partition": 3}, "has partitions 0 to 2, not 3"),
        ({"topic": "t", "value": b"", "partition": -1}, "has partitions 0 to 2, not -1"),
    ],
)
async def test_a_record_that_cannot_be_is_refused_and_leaves_nothing(
    broker: FakeBroker, arguments: dict[str, Any], match: str
) -> None:
    async with make_producer() as producer:
        await producer.partitions_for("t")
        with pytest.raises(BrokerError, match=match):
            producer.send_nowait(**arguments)
        with pytest.raises(BrokerError, match=match):
            await producer.send(**arguments)
        assert producer.health().buffered_bytes == 0
        await producer.flush()


async def test_bytearrays_and_memoryviews_are_taken_as_bytes(broker: FakeBroker) -> None:
    async with make_producer() as producer:
        view: Any = memoryview(b"view")
        array: Any = bytearray(b"array")
        await producer.send("t", array, view, partition=0)
    assert values(broker) == [b"array"]


# --- the buffer -------------------------------------------------------------------------------------------


async def test_send_waits_for_room_in_turn_and_send_nowait_says_that_there_is_none(
    broker: FakeBroker,
) -> None:
    async with make_producer(buffer_bytes=1024, batch_bytes=256) as producer:
        await producer.partitions_for("t")
        held = broker.hold(ApiKey.PRODUCE)
        tasks = [
            asyncio.create_task(producer.send("t", b"%03d" % n * 50, partition=0))
            for n in range(40)
        ]
        await until(held, 1)
        assert producer.health().buffered_bytes <= 1024
        with pytest.raises(BufferFullError, match="buffer_bytes = 1024"):
            producer.send_nowait("t", b"x", partition=0)
        broker.release(ApiKey.PRODUCE)
        for exchange in held:
            exchange.proceed()
        await asyncio.gather(*tasks)
    assert values(broker) == [b"%03d" % n * 50 for n in range(40)]


async def test_a_send_cancelled_while_it_waits_for_room_leaves_nothing(broker: FakeBroker) -> None:
    async with make_producer(buffer_bytes=1024) as producer:
        await producer.partitions_for("t")
        held = broker.hold(ApiKey.PRODUCE)
        first = producer.send_nowait("t", b"x" * 900, partition=0)
        waiting = [
            asyncio.create_task(producer.send("t", b"%d" % n * 300, partition=0)) for n in range(3)
        ]
        await until(held, 1)
        waiting[0].cancel()
        waiting[2].cancel()
        await turns()
        broker.release(ApiKey.PRODUCE)
        held[0].proceed()
        await first
        await waiting[1]
        assert producer.health().buffered_bytes == 0
    assert values(broker) == [b"x" * 900, b"1" * 300]


async def test_a_send_cancelled_once_it_is_buffered_is_stored_all_the_same(
    broker: FakeBroker,
) -> None:
    async with make_producer() as producer:
        await producer.partitions_for("t")
        held = broker.hold(ApiKey.PRODUCE)
        task = asyncio.create_task(producer.send("t", b"x", partition=0))
        await until(held, 1)
        task.cancel()
        await turns()
        broker.release(ApiKey.PRODUCE)
        held[0].proceed()
        await producer.send("t", b"y", partition=0)
        assert producer.health().buffered_bytes == 0
    assert values(broker) == [b"x", b"y"]


async def test_a_record_larger_than_the_whole_buffer_is_refused(broker: FakeBroker) -> None:
    async with make_producer(buffer_bytes=1024) as producer:
        with pytest.raises(BrokerError, match="buffer_bytes = 1024"):
            await producer.send("t", b"x" * 2000)


# --- life -------------------------------------------------------------------------------------------------


async def test_close_waits_for_what_was_sent(broker: FakeBroker) -> None:
    producer = make_producer(linger_ms=60_000)
    await producer.start()
    future = producer.send_nowait("t", b"x", partition=0)
    await producer.close()
    assert (await future).offset == 0
    assert producer.health().status == "closed"


async def test_close_fails_what_is_not_acknowledged_in_its_time(broker: FakeBroker) -> None:
    broker.hold(ApiKey.PRODUCE)
    producer = make_producer()
    await producer.start()
    future = producer.send_nowait("t", b"x", partition=0)
    unknown = producer.send_nowait("nowhere", b"x")
    await producer.close(timeout_s=0.02)
    for each in (future, unknown):
        with pytest.raises(ClientClosedError, match="closed before this record was acknowledged"):
            await each
    await producer.close()


async def test_a_producer_before_its_start_and_after_its_end_says_so(broker: FakeBroker) -> None:
    producer = make_producer()
    with pytest.raises(ClientClosedError, match="not started"):
        await producer.send("t", b"x")
    await producer.start()
    await producer.start()
    await producer.close()
    for attempt in (
        producer.send("t", b"x"),
        producer.send_batch("t", [b"x"]),
        producer.flush(),
        producer.partitions_for("t"),
        producer.start(),
    ):
        with pytest.raises(ClientClosedError, match="closed"):
            await attempt
    with pytest.raises(ClientClosedError):
        producer.send_nowait("t", b"x")


async def test_start_fails_in_time_when_there_is_no_broker_and_leaves_nothing_open() -> None:
    producer = Producer("memory://nobody", polling="event", connect_timeout_s=0.05)
    with pytest.raises(ConnectError, match="nobody"):
        await producer.start()
    assert producer.health().status == "closed"


async def test_nothing_is_left_running_after_close(broker: FakeBroker) -> None:
    async with make_producer(delivery_timeout_s=0.05) as producer:
        await meet(producer)
        broker.hold(ApiKey.PRODUCE)
        future = producer.send_nowait("t", b"x", partition=0)
        await broker.stop()
        with pytest.raises(DeliveryTimeoutError):
            await future
    assert asyncio.all_tasks() == {asyncio.current_task()}


def test_an_unknown_setting_is_named_with_the_nearest_known_one() -> None:
    with pytest.raises(ConfigError, match="'linger'; did you mean 'linger_ms'"):
        Producer(URL, linger=5)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"acks": 2}, "acks = 2"),
        ({"batch_bytes": "many"}, "batch_bytes = 'many': must be int"),
        ({"compression": "zip"}, "compression = 'zip'"),
        ({"max_frame_bytes": 65536, "batch_bytes": 65536}, "a batch must fit into a frame"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_name(settings: Any, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        Producer(URL, **settings)


def test_an_empty_bootstrap_is_refused() -> None:
    with pytest.raises(ConfigError, match="bootstrap is empty"):
        Producer([])
