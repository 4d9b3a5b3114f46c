"""Health, version 0: how the broker is, and what it has counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frieda.broker.request import HandlerEntry, Request
from frieda.wire.messages import ApiKey

if TYPE_CHECKING:
    from frieda.broker.broker import Broker


def handle(broker: Broker, request: Request) -> None:
    request.answer(broker.health())


entry = HandlerEntry(ApiKey.HEALTH, handle)
