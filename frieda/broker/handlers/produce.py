"""Produce, version 0: one record batch for one partition. The hot path: no task and no await.

A batch that is sound, next in its producer's order and for a partition that asks for nothing special is stored
and answered by `at_once`, in one go; what nobody can see before the loop turns is noted after the answer. `handle` does
all others, and says what is wrong with those that are refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from frieda.broker.request import HandlerEntry, Request
from frieda.errors import (
    BrokerError,
    ErrorCode,
    FriedaError,
    LocalProtocolError,
    StorageError,
    TransportError,
)
from frieda.wire.messages import ApiKey, ProduceRequest, ProduceResponse
from frieda.wire.produce import REQUEST_HEADER_BYTES, encode_produced, plain_produce

if TYPE_CHECKING:
    from frieda.broker.broker import Broker
    from frieda.broker.session import Session


def at_once(broker: Broker, session: Session, message: memoryview) -> bool:
    """Store and answer a whole Produce. False when it has to be taken the ordinary way; nothing has happened then.

    Raises StorageError when it cannot be written; it is not answered then.
    """
    # Flat: every acknowledged record waits for this (measured: half the time of the way through `handle`).
    plain = plain_produce(message)
    if plain is None:
        return False
    correlation_id, topic_id, index, acks, facts = plain
    partition = broker.topics.find(topic_id, index)
    if partition is None or partition.parking.by_producer:
        return False
    batch = message[REQUEST_HEADER_BYTES:]
    size_bytes = len(batch)
    producer_id, _, _, last_offset_delta, _ = facts
    log = partition.log
    if size_bytes > partition.plain_bytes or (
        producer_id >= 0 and not log.producers.is_next(facts)
    ):
        return False
    leader_epoch = partition.leader_epoch
    counters = broker.counters
    try:
        base_offset = log.write(batch, last_offset_delta + 1, leader_epoch)
    except StorageError as error:
        counters.refused_produces += 1
        partition.write_failed(error)
        raise
    log.high_watermark = log.log_end_offset
    if acks:
        try:
            session.connection.send(
                encode_produced(correlation_id, base_offset, log.log_start_offset)
            )
        except (TransportError, LocalProtocolError) as error:
            session.not_sent(error)
    try:
        log.note(base_offset, size_bytes, leader_epoch, facts)
        if partition.syncs_soon:
            partition.sync_soon()
        if partition.watchers:
            partition.wake()
    except Exception as error:  # noqa: BLE001  it has its answer: the fault is the broker's alone
        session.fault(error)
    counters.produced_batches += 1
    counters.produced_bytes += size_bytes
    return True


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
