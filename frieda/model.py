"""The small immutable values that every layer shares."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

Header = tuple[str, bytes | None]

NO_TIMESTAMP: Final = -1
NO_PRODUCER_ID: Final = -1
NO_SEQUENCE: Final = -1

# Offsets that ListOffsets takes in place of a timestamp (Kafka's own numbers).
LATEST_TIMESTAMP: Final = -1
EARLIEST_TIMESTAMP: Final = -2

MAX_TOPIC_LENGTH: Final = 249
_LEGAL_NAME = re.compile(r"[a-zA-Z0-9._-]+")


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}"


class Record(NamedTuple):
    """One record as a consumer sees it. A tuple, since making one is the consumer's hot path."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header]


class RecordMetadata(NamedTuple):
    """Where an acknowledged record is stored. `offset` is -1 with acks=0."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int


def illegal_topic_name(name: str) -> str | None:
    """Why `name` cannot be a topic, as one sentence, or None when it can (Kafka's rule).

    Legal: 1 to 249 of ASCII letters, digits, '.', '_' and '-', and neither '.' nor '..'.
    """
    if not name:
        return "a topic name must not be empty"
    if len(name) > MAX_TOPIC_LENGTH:
        return f"the topic name {name[:20]!r}... has {len(name)} characters; at most {MAX_TOPIC_LENGTH} are allowed"
    if name in (".", ".."):
        return f"{name!r} cannot be a topic name"
    if not _LEGAL_NAME.fullmatch(name):
        return f"the topic name {name!r} may hold only ASCII letters, digits, '.', '_' and '-'"
    return None
