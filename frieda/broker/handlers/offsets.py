"""CommitOffsets and FetchOffsets, version 0: a group only names its offsets; there is no membership yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frieda.broker.offsets import Committed
from frieda.broker.request import HandlerEntry, Request, check_count
from frieda.errors import BrokerError, ErrorCode, FriedaError
from frieda.wire.messages import (
    ApiKey,
    CommitOffsetsRequest,
    CommitOffsetsResponse,
    CommitOutcome,
    CommittedOffset,
    FetchOffsetsRequest,
    FetchOffsetsResponse,
    OffsetCommit,
)

if TYPE_CHECKING:
    from frieda.broker.broker import Broker


def commit(broker: Broker, request: Request) -> None:
    message: CommitOffsetsRequest = request.message
    check_count(len(message.commits), "partitions")
    if message.member_id or message.generation != -1:
        raise BrokerError(
            ErrorCode.INVALID_REQUEST,
            "groups have no members yet: member must be empty, generation -1",
        )
    refused = {
        (item.topic, item.partition): error
        for item in message.commits
        if (error := _problem(broker, item)) is not None
    }
    places = {
        (item.topic, item.partition): Committed(item.offset, item.leader_epoch, item.metadata)
        for item in message.commits
        if (item.topic, item.partition) not in refused
    }

    def done(failure: FriedaError | None) -> None:
        outcomes = []
        for item in message.commits:
            error = refused.get((item.topic, item.partition)) or failure
            code = (
                ErrorCode.NONE if error is None else getattr(error, "code", ErrorCode.STORAGE_ERROR)
            )
            detail = "" if error is None else str(error)
            outcomes.append(CommitOutcome(item.topic, item.partition, int(code), detail))
        request.answer(CommitOffsetsResponse(tuple(outcomes)))

    broker.offsets.commit(message.group, places, done)


def fetch(broker: Broker, request: Request) -> None:
    message: FetchOffsetsRequest = request.message
    places = broker.offsets.fetch(message.group)
    if message.partitions is None:
        wanted = list(places)
    else:
        check_count(len(message.partitions), "partitions")
        wanted = [(item.topic, item.partition) for item in message.partitions]
    none = Committed(-1, -1, "")
    request.answer(
        FetchOffsetsResponse(
            tuple(
                CommittedOffset(topic, index, *places.get((topic, index), none))
                for topic, index in wanted
            )
        )
    )


def _problem(broker: Broker, item: OffsetCommit) -> BrokerError | None:
    try:
        topic = broker.topics.named(item.topic)
    except BrokerError as error:
        return error
    if not 0 <= item.partition < len(topic.partitions):
        return BrokerError(
            ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
            f"topic {item.topic!r} has no partition {item.partition}",
        )
    return None


entries = (HandlerEntry(ApiKey.COMMIT_OFFSETS, commit), HandlerEntry(ApiKey.FETCH_OFFSETS, fetch))
