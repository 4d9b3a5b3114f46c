"""A produce that is done at once leaves the broker exactly as one that takes the ordinary way."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from frieda.broker.broker import Broker
from frieda.broker.handlers import produce
from frieda.broker.handlers.table import HANDLERS
from frieda.broker.request import Request
from frieda.broker.server import Server
from frieda.broker.session import Session
from frieda.broker.topics import Topic
from frieda.clock import ManualClock
from frieda.errors import BrokenError, BrokerError, ErrorCode, StorageError
from frieda.protocol.client import request_head
from frieda.testing.batches import make_batch
from frieda.testing.brokers import running_server
from frieda.wire.envelope import split_answer
from frieda.wire.messages import ApiKey, HelloRequest, ProduceRequest
from frieda.wire.produce import ANSWER_MARK, REQUEST_MARK, split_produced


class Outgoing:
    """A connection that keeps what it is given to send, and calls `on_send` first."""

    def __init__(self) -> None:
        self.peer = "a test"
        self.sent: list[bytes] = []
        self.on_send: Callable[[], None] = lambda: None

    def send(self, head: bytes, body: Any = None, lease: Any = None) -> None:
        self.on_send()
        self.sent.append(head)

    def pause_receiving(self) -> None: ...

    def resume_receiving(self) -> None: ...


def ordinary(broker: Broker, request: Request) -> None:
    """The handler of produces under another name, so that nothing is done at once."""
    produce.handle(broker, request)


class Talk:
    """A session, its topic and its connection."""

    def __init__(self, server: Server, topic: Topic, *, at_once: bool) -> None:
        self.topic = topic
        self.outgoing = Outgoing()
        handlers = HANDLERS if at_once else {**HANDLERS, ApiKey.PRODUCE: ordinary}
        connection: Any = self.outgoing
        self.session = Session(server.broker, connection, handlers, lambda _: None)
        self.say(request_head(0, HelloRequest(1, 1, "test", "test", 1 << 20)))
        self.outgoing.sent.clear()

    def say(self, message: bytes) -> None:
        self.session.message_received(memoryview(bytearray(message)), None)

    def produce(self, batch: bytes, partition: int = 0, acks: int = 1) -> None:
        number = len(self.outgoing.sent)
        request = ProduceRequest(self.topic.topic_id, partition, acks, 1000)
        self.say(request_head(number, request) + batch)

    def answer(self) -> int | ErrorCode:
        """What the last produce was answered."""
        head = self.outgoing.sent[-1]
        if head[0] == ANSWER_MARK:
            return split_produced(head)[1].base_offset
        return ErrorCode(split_answer(memoryview(head)).error_code)

    def state(self) -> tuple[Any, ...]:
        """All that the broker has kept of it."""
        log = self.topic.partitions[0].log
        segment = log._active
        assert segment.open_file is None or segment.end_position
        stored = b"" if segment.open_file is None else segment.open_file.pread(1 << 20, 0)
        indexes = [index.encode() for index in segment.indexes()]
        return (
            stored,
            indexes,
            log.log_end_offset,
            log.high_watermark,
            segment.next_offset,
            segment.end_position,
            segment.max_timestamp_ms,
            segment.max_timestamp_offset,
            log.producers.encode(log.log_end_offset),
            log.epochs.entries(),
            self.session.in_flight,
        )


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with running_server(tmp_path, clock=ManualClock()) as running:
        yield running


async def a_talk(server: Server, name: str, *, at_once: bool = True, **configs: str) -> Talk:
    dotted = {key.replace("_", "."): value for key, value in configs.items()}
    topic = await server.broker.create_topic(name, 1, -1, dotted, validate_only=False)
    return Talk(server, topic, at_once=at_once)


@st.composite
def produces(draw: st.DrawFn) -> tuple[bytes, int, int]:
    """A batch, which may be early, late, doubled, of an old epoch or spoiled; its partition; acks."""
    count = draw(st.integers(1, 3))
    producer_id = draw(st.sampled_from([-1, 5, 5, 5, 6]))
    known = producer_id >= 0
    batch = make_batch(
        [draw(st.binary(max_size=200)) for _ in range(count)],
        draw(st.integers(0, 10**6)),
        producer_id=producer_id,
        producer_epoch=draw(st.sampled_from([0, 0, 0, 1])) if known else -1,
        base_sequence=draw(st.integers(0, 8)) if known else -1,
        compression=draw(st.sampled_from(["none", "none", "none", "gzip"])),
    )
    if draw(st.booleans()) and draw(st.booleans()):
        batch[draw(st.integers(0, len(batch) - 1))] ^= 1 << draw(st.integers(0, 7))
    partition = draw(st.sampled_from([0, 0, 0, 0, 0, 1, -1]))
    return bytes(batch), partition, draw(st.sampled_from([1, 1, 1, -1, 0, 2]))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(conversation=st.lists(produces(), min_size=1, max_size=25))
async def test_what_is_done_at_once_is_what_the_ordinary_way_does(
    server: Server, conversation: list[tuple[bytes, int, int]]
) -> None:
    number = len(server.broker.topics)
    small = {"segment_bytes": "2500", "index_interval_bytes": "1024"}
    quick = await a_talk(server, f"quick-{number}", **small)
    plain = await a_talk(server, f"plain-{number}", at_once=False, **small)
    counted = []
    for talk in (quick, plain):
        before = dataclasses.asdict(server.broker.counters)
        for batch, partition, acks in conversation:
            talk.produce(batch, partition, acks)
        after = dataclasses.asdict(server.broker.counters)
        counted.append({name: after[name] - before[name] for name in after})
    for one, other in zip(quick.state(), plain.state(), strict=True):
        assert one == other
    assert counted[0] == counted[1]
    for talk in (quick, plain):
        talk.topic.partitions[0].refuse_parked(BrokerError(ErrorCode.OUT_OF_ORDER_SEQUENCE))
    sent = zip(quick.outgoing.sent, plain.outgoing.sent, strict=True)
    for mine, theirs in sent:
        name = quick.topic.name.encode()
        assert mine.replace(name, plain.topic.name.encode()) == theirs


async def test_the_usual_produce_never_becomes_a_request(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk = await a_talk(server, "usual")
    batch = make_batch([b"0"], producer_id=5, producer_epoch=0, base_sequence=0)
    talk.produce(bytes(batch))  # the first of a producer that nobody knows yet
    monkeypatch.setattr(produce, "handle", None)
    monkeypatch.setattr(Session, "finished", None)
    for number in range(1, 5):
        batch = make_batch([b"x"], producer_id=5, producer_epoch=0, base_sequence=number)
        talk.produce(bytes(batch))
        assert talk.answer() == number


async def test_the_batch_is_stored_and_can_be_read_when_the_answer_leaves(server: Server) -> None:
    talk = await a_talk(server, "order")
    partition = talk.topic.partitions[0]
    seen: list[tuple[int, int, bytes]] = []

    def look() -> None:
        file = partition.log._active.open_file
        assert file is not None
        stored = file.pread(partition.log._active.end_position, 0)
        seen.append((partition.high_watermark, partition.log.log_end_offset, stored))

    talk.outgoing.on_send = look
    for number in range(3):
        talk.produce(bytes(make_batch([b"value %d" % number])))
        high_watermark, end, stored = seen[-1]
        assert high_watermark == end == number + 1
        assert stored.endswith(b"value %d\x00" % number)


async def test_readers_are_woken_when_the_producer_has_its_answer(server: Server) -> None:
    talk = await a_talk(server, "readers")
    happened: list[str] = []
    talk.outgoing.on_send = lambda: happened.append("answer")
    talk.topic.partitions[0].watchers.add(lambda: happened.append("reader"))
    talk.produce(bytes(make_batch([b"x"])))
    assert happened == ["answer", "reader"]


async def test_a_write_that_fails_is_answered_with_its_reason_and_the_next_one_succeeds(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk = await a_talk(server, "disk")
    partition = talk.topic.partitions[0]
    full = StorageError(ErrorCode.DISK_FULL, "/data is full")

    def no_room(*_: object) -> int:
        raise full

    with monkeypatch.context() as broken:
        broken.setattr(partition.log, "write", no_room)
        talk.produce(bytes(make_batch([b"lost"])))
    assert talk.answer() is ErrorCode.DISK_FULL
    assert partition.trouble == "/data is full"
    assert server.broker.counters.refused_produces == 1
    talk.produce(bytes(make_batch([b"kept"])))
    assert talk.answer() == 0
    assert partition.trouble == ""
    assert (talk.session.in_flight, server.broker.counters.faults) == (0, 0)


def fault(*_: object) -> None:
    raise ZeroDivisionError("a fault")


@pytest.mark.parametrize(("where", "answered"), [("write", False), ("note", True)])
async def test_a_fault_of_the_brokers_own_is_counted_and_the_produce_answered_once(
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    where: str,
    answered: bool,
) -> None:
    talk = await a_talk(server, "fault")
    monkeypatch.setattr(talk.topic.partitions[0].log, where, fault)
    talk.produce(bytes(make_batch([b"x"])))
    assert len(talk.outgoing.sent) == 1
    assert talk.answer() == (0 if answered else ErrorCode.UNKNOWN_SERVER_ERROR)
    assert (server.broker.counters.faults, talk.session.in_flight) == (1, 0)
    (record,) = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert record.exc_info is not None
    monkeypatch.undo()


async def test_a_connection_that_ends_under_the_answer_changes_nothing_for_the_log(
    server: Server,
) -> None:
    talk = await a_talk(server, "gone")

    def gone() -> None:
        raise BrokenError("the peer went away")

    talk.outgoing.on_send = gone
    talk.produce(bytes(make_batch([b"x"])))
    assert talk.topic.partitions[0].high_watermark == 1
    assert server.broker.counters.faults == 0


@pytest.mark.parametrize(
    "configs", [{"flush": "batch"}, {"validate": "deep"}, {"max_message_bytes": "1024"}]
)
async def test_a_partition_that_asks_for_more_takes_the_ordinary_way(
    server: Server, monkeypatch: pytest.MonkeyPatch, configs: dict[str, str]
) -> None:
    talk = await a_talk(server, "more", **configs)
    message = request_head(0, ProduceRequest(talk.topic.topic_id, 0, 1, 1000))
    message += bytes(make_batch([bytes(1100)]))
    assert message[0] == REQUEST_MARK
    view = memoryview(bytearray(message))
    assert produce.at_once(server.broker, talk.session, view) is False
    assert talk.topic.partitions[0].log.log_end_offset == 0
    undone = {"flush": "never", "validate": "header", "max.message.bytes": "65536"}
    await server.broker.alter_topic("more", undone)
    assert produce.at_once(server.broker, talk.session, view) is True


async def test_a_topic_that_was_deleted_takes_nothing_at_once(server: Server) -> None:
    talk = await a_talk(server, "deleted")
    partition = talk.topic.partitions[0]
    talk.produce(bytes(make_batch([b"x"])))
    await server.broker.delete_topic("deleted")
    talk.produce(bytes(make_batch([b"y"])))
    assert talk.answer() is ErrorCode.UNKNOWN_TOPIC_ID
    assert partition.plain_bytes == -1
