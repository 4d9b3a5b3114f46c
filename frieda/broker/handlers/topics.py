"""CreateTopics, DeleteTopics, DescribeTopics and AlterTopics, version 0. Each topic has its own outcome."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING

from frieda.broker.request import HandlerEntry, Request, check_count
from frieda.broker.topics import Topic
from frieda.errors import BrokerError
from frieda.wire.messages import (
    AlterTopicsRequest,
    AlterTopicsResponse,
    ApiKey,
    CreateTopicsRequest,
    CreateTopicsResponse,
    DeleteTopicsRequest,
    DeleteTopicsResponse,
    DescribeTopicsRequest,
    DescribeTopicsResponse,
    PartitionDescription,
    TopicDescription,
    TopicOutcome,
)

if TYPE_CHECKING:
    from frieda.broker.broker import Broker


async def create(broker: Broker, request: Request) -> None:
    message: CreateTopicsRequest = request.message
    check_count(len(message.topics), "topics")
    outcomes = [
        await _outcome(
            new.name,
            broker.create_topic(
                new.name,
                new.partitions,
                new.replication_factor,
                new.configs,
                validate_only=message.validate_only,
            ),
        )
        for new in message.topics
    ]
    request.answer(CreateTopicsResponse(tuple(outcomes)))


async def delete(broker: Broker, request: Request) -> None:
    message: DeleteTopicsRequest = request.message
    check_count(len(message.topics), "topics")
    outcomes = [await _outcome(name, broker.delete_topic(name)) for name in message.topics]
    request.answer(DeleteTopicsResponse(tuple(outcomes)))


async def alter(broker: Broker, request: Request) -> None:
    message: AlterTopicsRequest = request.message
    check_count(len(message.topics), "topics")
    outcomes = [
        await _outcome(change.name, broker.alter_topic(change.name, change.configs))
        for change in message.topics
    ]
    request.answer(AlterTopicsResponse(tuple(outcomes)))


def describe(broker: Broker, request: Request) -> None:
    message: DescribeTopicsRequest = request.message
    if message.topics is None:
        described = [_describe(broker, topic) for topic in broker.topics]
    else:
        check_count(len(message.topics), "topics")
        # Each once: a name that is given ten thousand times must not make ten thousand descriptions.
        described = [_describe_named(broker, name) for name in dict.fromkeys(message.topics)]
    request.answer(DescribeTopicsResponse(tuple(described)))


async def _outcome(name: str, change: Awaitable[Topic | None]) -> TopicOutcome:
    try:
        topic = await change
    except BrokerError as error:
        return TopicOutcome(name, b"", int(error.code), error.detail)
    return TopicOutcome(name, b"" if topic is None else topic.topic_id, 0, "")


def _describe_named(broker: Broker, name: str) -> TopicDescription:
    try:
        return _describe(broker, broker.topics.named(name))
    except BrokerError as error:
        return TopicDescription(name, b"", int(error.code), error.detail, {}, ())


def _describe(broker: Broker, topic: Topic) -> TopicDescription:
    return TopicDescription(
        topic.name,
        topic.topic_id,
        0,
        "",
        topic.config.as_text() | {"flush": topic.config.flush or broker.config.flush},
        tuple(
            PartitionDescription(
                partition.index,
                broker.config.broker_id,
                partition.leader_epoch,
                partition.log.log_start_offset,
                partition.log.log_end_offset,
                partition.high_watermark,
                partition.log.size_bytes,
                partition.log.segment_count,
                len(partition.log.producers),
                partition.log.failure or "",
            )
            for partition in topic.partitions
        ),
    )


entries = (
    HandlerEntry(ApiKey.CREATE_TOPICS, create),
    HandlerEntry(ApiKey.DELETE_TOPICS, delete),
    HandlerEntry(ApiKey.ALTER_TOPICS, alter),
    HandlerEntry(ApiKey.DESCRIBE_TOPICS, describe),
)
