"""ListOffsets, version 0: the first, the last or the offset of a time, for each partition asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frieda.broker.request import HandlerEntry, Request, check_count
from frieda.errors import BrokerError
from frieda.model import EARLIEST_TIMESTAMP, LATEST_TIMESTAMP, NO_TIMESTAMP
from frieda.wire.messages import (
    ApiKey,
    ListOffsetsRequest,
    ListOffsetsResponse,
    OffsetAnswer,
    OffsetQuery,
)

if TYPE_CHECKING:
    from frieda.broker.broker import Broker


async def handle(broker: Broker, request: Request) -> None:
    """A look-up by time walks a batch on the disk, so each is done by a thread."""
    message: ListOffsetsRequest = request.message
    check_count(len(message.partitions), "partitions")
    answers = [await _answer(broker, query) for query in message.partitions]
    request.answer(ListOffsetsResponse(tuple(answers)))


async def _answer(broker: Broker, query: OffsetQuery) -> OffsetAnswer:
    timestamp_ms = NO_TIMESTAMP
    try:
        partition = broker.topics.partition(query.topic_id, query.partition)
        match query.timestamp_ms:
            case stamp if stamp == LATEST_TIMESTAMP:
                offset = partition.high_watermark
            case stamp if stamp == EARLIEST_TIMESTAMP:
                offset = partition.log.log_start_offset
            case stamp:
                found = await broker.in_thread(lambda: partition.log.offset_for_timestamp(stamp))
                # As Kafka answers: nothing at or after that time is offset -1.
                offset, timestamp_ms = (-1, NO_TIMESTAMP) if found is None else found
                if offset >= partition.high_watermark:
                    offset, timestamp_ms = -1, NO_TIMESTAMP
    except BrokerError as error:
        return OffsetAnswer(
            query.topic_id, query.partition, int(error.code), error.detail, -1, NO_TIMESTAMP, -1
        )
    return OffsetAnswer(
        query.topic_id, query.partition, 0, "", offset, timestamp_ms, partition.leader_epoch
    )


entry = HandlerEntry(ApiKey.LIST_OFFSETS, handle)
