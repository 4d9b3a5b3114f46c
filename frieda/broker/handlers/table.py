"""Which handler serves which API."""

from __future__ import annotations

from typing import Final

from frieda.broker.handlers import (
    fetch,
    health,
    hello,
    init_producer,
    list_offsets,
    metadata,
    offsets,
    produce,
    topics,
)
from frieda.broker.request import Handler

HANDLERS: Final[dict[int, Handler]] = {
    int(entry.api_key): entry.handle
    for entry in (
        hello.entry,
        produce.entry,
        fetch.entry,
        list_offsets.entry,
        metadata.entry,
        *topics.entries,
        *offsets.entries,
        init_producer.entry,
        health.entry,
    )
}
