"""What a fake broker answers to each API when no script says otherwise: one function per API."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from frieda.config import MIB
from frieda.errors import BrokerError, ErrorCode
from frieda.wire import messages as m
from frieda.wire.messages import APIS, ApiKey

if TYPE_CHECKING:
    from frieda.testing.fake_broker import Exchange, FakeBroker

Handler = Callable[["Exchange"], None]
MAX_MESSAGE_BYTES: Final = 17 * MIB


def hello(exchange: Exchange) -> None:
    broker = exchange.broker
    apis = tuple(m.ApiRange(api.key, api.min_version, api.max_version) for api in APIS.values())
    exchange.answer(
        m.HelloResponse(
            m.PROTOCOL_VERSION,
            "fake-broker",
            "fake-cluster",
            broker.broker_id,
            MAX_MESSAGE_BYTES,
            broker.max_in_flight,
            0,
            apis,
        )
    )


def metadata(exchange: Exchange) -> None:
    broker = exchange.broker
    request: m.MetadataRequest = exchange.request
    names = list(broker.topics) if request.topics is None else list(request.topics)
    if broker.auto_create_topics and request.allow_auto_create:
        for name in names:
            if name not in broker.topics:
                broker.create_topic(name)
    entries = tuple(_topic_entry(broker, name) for name in names)
    brokers = (m.BrokerEntry(broker.broker_id, None, (broker.url,)),)
    exchange.answer(m.MetadataResponse("fake-cluster", broker.broker_id, brokers, entries))


def _topic_entry(broker: FakeBroker, name: str) -> m.TopicEntry:
    topic = broker.topics.get(name)
    if topic is None:
        code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        return m.TopicEntry(name, b"", int(code), f"no topic {name!r}", ())
    me = broker.broker_id
    partitions = tuple(
        m.PartitionEntry(index, 0, me, 0, (me,), (me,), ())
        for index in range(len(topic.partitions))
    )
    return m.TopicEntry(name, topic.topic_id, 0, "", partitions)


def produce(exchange: Exchange) -> None:
    broker = exchange.broker
    request: m.ProduceRequest = exchange.request
    partition = broker.partition(request.topic_id, request.partition)
    base_offset = partition.append(exchange.body)
    if request.acks != 0:
        exchange.answer(m.ProduceResponse(base_offset, partition.log_start_offset))
    broker.appended()


def fetch(exchange: Exchange) -> None:
    broker = exchange.broker
    poll = Poll(exchange, broker.polls.discard)
    broker.polls.add(poll)
    poll.look()


def list_offsets(exchange: Exchange) -> None:
    broker = exchange.broker
    answers = []
    for query in exchange.request.partitions:
        try:
            log = broker.partition(query.topic_id, query.partition)
        except BrokerError as error:
            code, detail = int(error.code), error.detail
            answer = m.OffsetAnswer(query.topic_id, query.partition, code, detail, -1, -1, -1)
        else:
            offset, timestamp_ms = log.offset_for(query.timestamp_ms)
            answer = m.OffsetAnswer(query.topic_id, query.partition, 0, "", offset, timestamp_ms, 0)
        answers.append(answer)
    exchange.answer(m.ListOffsetsResponse(tuple(answers)))


def create_topics(exchange: Exchange) -> None:
    broker = exchange.broker
    outcomes = []
    for new in exchange.request.topics:
        if new.name in broker.topics:
            code = int(ErrorCode.TOPIC_ALREADY_EXISTS)
            outcomes.append(m.TopicOutcome(new.name, b"", code, ""))
            continue
        topic_id = bytes(16)
        if not exchange.request.validate_only:
            topic = broker.create_topic(new.name, 1 if new.partitions == -1 else new.partitions)
            topic.configs = dict(new.configs)
            topic_id = topic.topic_id
        outcomes.append(m.TopicOutcome(new.name, topic_id, 0, ""))
    exchange.answer(m.CreateTopicsResponse(tuple(outcomes)))


def delete_topics(exchange: Exchange) -> None:
    broker = exchange.broker
    outcomes = [_outcome(broker, name, delete=True) for name in exchange.request.topics]
    exchange.answer(m.DeleteTopicsResponse(tuple(outcomes)))


def alter_topics(exchange: Exchange) -> None:
    broker = exchange.broker
    outcomes = []
    for change in exchange.request.topics:
        if change.name in broker.topics:
            broker.topics[change.name].configs.update(change.configs)
        outcomes.append(_outcome(broker, change.name))
    exchange.answer(m.AlterTopicsResponse(tuple(outcomes)))


def _outcome(broker: FakeBroker, name: str, *, delete: bool = False) -> m.TopicOutcome:
    topic = broker.topics.pop(name, None) if delete else broker.topics.get(name)
    if topic is None:
        return m.TopicOutcome(name, b"", int(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION), "")
    return m.TopicOutcome(name, topic.topic_id, 0, "")


def describe_topics(exchange: Exchange) -> None:
    broker = exchange.broker
    names = exchange.request.topics
    described = []
    for name in list(broker.topics) if names is None else names:
        topic = broker.topics.get(name)
        if topic is None:
            code = int(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
            described.append(m.TopicDescription(name, b"", code, "", {}, ()))
            continue
        partitions = tuple(
            m.PartitionDescription(
                index,
                broker.broker_id,
                0,
                log.log_start_offset,
                log.end_offset,
                log.end_offset,
                sum(len(batch) for _, batch in log.batches),
                1,
                len(log.producers),
                "",
            )
            for index, log in enumerate(topic.partitions)
        )
        described.append(
            m.TopicDescription(name, topic.topic_id, 0, "", dict(topic.configs), partitions)
        )
    exchange.answer(m.DescribeTopicsResponse(tuple(described)))


def commit_offsets(exchange: Exchange) -> None:
    broker = exchange.broker
    request: m.CommitOffsetsRequest = exchange.request
    group = broker.committed.setdefault(request.group, {})
    for commit in request.commits:
        group[commit.topic, commit.partition] = m.CommittedOffset(*commit)
    outcomes = tuple(m.CommitOutcome(c.topic, c.partition, 0, "") for c in request.commits)
    exchange.answer(m.CommitOffsetsResponse(outcomes))


def fetch_offsets(exchange: Exchange) -> None:
    broker = exchange.broker
    request: m.FetchOffsetsRequest = exchange.request
    group = broker.committed.get(request.group, {})
    if request.partitions is None:
        exchange.answer(m.FetchOffsetsResponse(tuple(group.values())))
        return
    exchange.answer(
        m.FetchOffsetsResponse(
            tuple(
                group.get((p.topic, p.partition))
                or m.CommittedOffset(p.topic, p.partition, -1, -1, "")
                for p in request.partitions
            )
        )
    )


def init_producer(exchange: Exchange) -> None:
    broker = exchange.broker
    request: m.InitProducerRequest = exchange.request
    if request.producer_id >= 0:
        answer = m.InitProducerResponse(request.producer_id, request.producer_epoch + 1)
    else:
        broker.next_producer_id += 1
        answer = m.InitProducerResponse(broker.next_producer_id, 0)
    exchange.answer(answer)


def health(exchange: Exchange) -> None:
    broker = exchange.broker
    facts = {"topics": len(broker.topics), "connections": broker.connection_count}
    exchange.answer(m.HealthResponse("ok", (), "fake-broker", facts, {}))


class Poll:
    """A fetch that waits for records."""

    def __init__(self, exchange: Exchange, ended: Callable[[Poll], None]) -> None:
        self._exchange = exchange
        self._ended = ended
        wait_s = exchange.request.max_wait_ms / 1000
        self._timer = asyncio.get_running_loop().call_later(wait_s, self.look, True)

    def look(self, last: bool = False) -> None:
        request: m.FetchRequest = self._exchange.request
        entries: list[m.FetchedPartition] = []
        bodies: list[bytes] = []
        failed = False
        for asked in request.partitions:
            entry, body = self._read(asked)
            failed = failed or entry.error_code != 0
            entries.append(entry)
            bodies.append(body)
        size = sum(map(len, bodies))
        if last or failed or (size and size >= request.min_bytes) or request.max_wait_ms == 0:
            self.cancel()
            self._exchange.answer(m.FetchResponse(tuple(entries)), b"".join(bodies) or None)

    def cancel(self) -> None:
        self._timer.cancel()
        self._ended(self)

    def _read(self, asked: m.FetchPartition) -> tuple[m.FetchedPartition, bytes]:
        error: BrokerError | None = None
        body, start, end = b"", -1, -1
        try:
            log = self._exchange.broker.partition(asked.topic_id, asked.partition)
            start, end = log.log_start_offset, log.end_offset
            if not start <= asked.offset <= end:
                detail = f"offset {asked.offset} is not in {start} to {end}"
                raise BrokerError(ErrorCode.OFFSET_OUT_OF_RANGE, detail)
            body = log.read(asked.offset, asked.max_bytes)
        except BrokerError as caught:
            error = caught
        entry = m.FetchedPartition(
            asked.topic_id,
            asked.partition,
            0 if error is None else int(error.code),
            "" if error is None else error.detail,
            end,
            end,
            start,
            -1,
            len(body),
        )
        return entry, body


DEFAULTS: Final[dict[ApiKey, Handler]] = {
    ApiKey.HELLO: hello,
    ApiKey.METADATA: metadata,
    ApiKey.PRODUCE: produce,
    ApiKey.FETCH: fetch,
    ApiKey.LIST_OFFSETS: list_offsets,
    ApiKey.CREATE_TOPICS: create_topics,
    ApiKey.DELETE_TOPICS: delete_topics,
    ApiKey.DESCRIBE_TOPICS: describe_topics,
    ApiKey.ALTER_TOPICS: alter_topics,
    ApiKey.COMMIT_OFFSETS: commit_offsets,
    ApiKey.FETCH_OFFSETS: fetch_offsets,
    ApiKey.INIT_PRODUCER: init_producer,
    ApiKey.HEALTH: health,
}
