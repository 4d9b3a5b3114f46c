"""Metadata, version 0: brokers with their listeners, topics with their partitions and leaders."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frieda.broker.request import HandlerEntry, Request, check_count
from frieda.errors import BrokerError, ErrorCode
from frieda.host import host_identity
from frieda.wire.messages import (
    ApiKey,
    BrokerEntry,
    MetadataRequest,
    MetadataResponse,
    PartitionEntry,
    TopicEntry,
)

if TYPE_CHECKING:
    from frieda.broker.broker import Broker
    from frieda.broker.topics import Topic


async def handle(broker: Broker, request: Request) -> None:
    """Topics that are missing are made when both the broker's settings and the client want it."""
    message: MetadataRequest = request.message
    broker_id = broker.config.broker_id
    if message.topics is None:
        topics = [_entry(topic, broker_id) for topic in broker.topics]
    else:
        check_count(len(message.topics), "topics")
        topics = [await _look_up(broker, name, message) for name in dict.fromkeys(message.topics)]
    request.answer(
        MetadataResponse(
            broker.cluster_id,
            broker_id,
            (BrokerEntry(broker_id, None, broker.listeners, host_identity()),),
            tuple(topics),
        )
    )


async def _look_up(broker: Broker, name: str, message: MetadataRequest) -> TopicEntry:
    topic = broker.topics.get(name)
    try:
        if topic is None and message.allow_auto_create and broker.config.auto_create_topics:
            try:
                topic = await broker.create_topic(name, -1, -1, {}, validate_only=False)
            except BrokerError as error:
                if error.code is not ErrorCode.TOPIC_ALREADY_EXISTS:
                    raise
        return _entry(topic or broker.topics.named(name), broker.config.broker_id)
    except BrokerError as error:
        return TopicEntry(name, b"", int(error.code), error.detail, ())


def _entry(topic: Topic, broker_id: int) -> TopicEntry:
    return TopicEntry(
        topic.name,
        topic.topic_id,
        0,
        "",
        tuple(
            PartitionEntry(
                partition.index,
                0,
                broker_id,
                partition.leader_epoch,
                (broker_id,),
                (broker_id,),
                (),
            )
            for partition in topic.partitions
        ),
    )


entry = HandlerEntry(ApiKey.METADATA, handle)
