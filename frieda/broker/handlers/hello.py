"""Hello, version 0: who the broker is, and the limits that hold for this connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frieda.broker.request import HandlerEntry, Request
from frieda.wire.messages import APIS, PROTOCOL_VERSION, ApiKey, ApiRange, HelloResponse

if TYPE_CHECKING:
    from frieda.broker.broker import Broker


def handle(broker: Broker, request: Request) -> None:
    config = broker.config
    request.answer(
        HelloResponse(
            PROTOCOL_VERSION,
            broker.software,
            broker.cluster_id,
            config.broker_id,
            config.max_frame_bytes,
            config.max_in_flight_requests,
            broker.parking_limit,
            tuple(ApiRange(api.key, api.min_version, api.max_version) for api in APIS.values()),
            broker.instance,
        )
    )


entry = HandlerEntry(ApiKey.HELLO, handle)
