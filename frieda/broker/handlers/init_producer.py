"""InitProducer, version 0: a new producer id, or a higher epoch for one that exists (KIP-98, KIP-360)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frieda.broker.request import HandlerEntry, Request
from frieda.errors import BrokerError, ErrorCode
from frieda.wire.messages import ApiKey, InitProducerRequest, InitProducerResponse

if TYPE_CHECKING:
    from frieda.broker.broker import Broker

LAST_EPOCH = 2**15 - 1


async def handle(broker: Broker, request: Request) -> None:
    """The epoch rises by one; a used-up epoch, like a new producer, gets a new id at epoch 0."""
    message: InitProducerRequest = request.message
    if message.transactional_id is not None:
        raise BrokerError(ErrorCode.INVALID_REQUEST, "transactions are not supported")
    if message.producer_id < -1 or not -1 <= message.producer_epoch <= LAST_EPOCH:
        raise BrokerError(
            ErrorCode.INVALID_REQUEST,
            f"producer id {message.producer_id} and epoch {message.producer_epoch} cannot be",
        )
    if message.producer_id >= 0 and 0 <= message.producer_epoch < LAST_EPOCH - 1:
        request.answer(InitProducerResponse(message.producer_id, message.producer_epoch + 1))
    else:
        request.answer(InitProducerResponse(await broker.next_producer_id(), 0))


entry = HandlerEntry(ApiKey.INIT_PRODUCER, handle)
