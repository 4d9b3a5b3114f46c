"""Produce, version 0: one record batch for one partition. The hot path: no task and no await."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frieda.broker.request import HandlerEntry, Request
from frieda.errors import BrokerError, ErrorCode, FriedaError
from frieda.wire.messages import ApiKey, ProduceRequest, ProduceResponse

if TYPE_CHECKING:
    from frieda.broker.broker import Broker


def handle(broker: Broker, request: Request) -> None:
    """Append, then answer at once or, with flush=batch or an early batch, when the promise holds."""
    message: ProduceRequest = request.message
    topic_id, index, acks, _ = message
    counters = broker.counters
    try:
        if not -1 <= acks <= 1:
            raise BrokerError(
                ErrorCode.INVALID_REQUIRED_ACKS, f"acks = {acks}; it must be 0, 1 or -1"
            )
        partition = broker.topics.partition(topic_id, index)
        if partition.internal:
            raise BrokerError(
                ErrorCode.INVALID_TOPIC, f"{partition.topic_name!r} is written by the broker only"
            )

        def done(base_offset: int, error: FriedaError | None) -> None:
            _answer(request, acks, base_offset, partition.log.log_start_offset, error)

        body = request.body
        base_offset = partition.produce(body, request.lease, acks, done)
    except BrokerError:
        counters.refused_produces += 1
        raise
    if base_offset is not None:
        if acks:
            request.answer(ProduceResponse(base_offset, partition.log.log_start_offset))
        else:
            request.finish_silently()
        # The readers are woken after the producer has its answer: a fetch costs more than an answer.
        if partition.watchers:
            partition.wake()
    counters.produced_batches += 1
    counters.produced_bytes += len(body)


def _answer(
    request: Request, acks: int, base_offset: int, log_start_offset: int, error: FriedaError | None
) -> None:
    if error is not None:
        code = error.code if isinstance(error, BrokerError) else ErrorCode.UNKNOWN_SERVER_ERROR
        detail = error.detail if isinstance(error, BrokerError) else str(error)
        request.refuse(code, detail)
    elif acks:
        request.answer(ProduceResponse(base_offset, log_start_offset))
    else:
        request.finish_silently()


entry = HandlerEntry(ApiKey.PRODUCE, handle)
