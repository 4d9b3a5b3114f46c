"""What Kafka's brokers answer, as errors of ours, and what both of Kafka's client libraries are told alike."""

from __future__ import annotations

from typing import Final

from frieda.bench.drivers.base import Position
from frieda.errors import BrokerError, ConfigError, ErrorCode, FriedaError

MAX_RECORD_BYTES: Final = 16 * 1024 * 1024
"""max.message.bytes of the topics that are made here: Kafka's own, 1 MiB with the batch header, is too small
for a record of 1 MiB."""
REQUEST_TIMEOUT_S: Final = 30.0
TOPIC_SETTINGS: Final = {"max.message.bytes": str(MAX_RECORD_BYTES)}


def broker_error(number: int, detail: str) -> FriedaError:
    """The error of a number that a broker answered; the numbers of our table are Kafka's own."""
    try:
        return BrokerError(ErrorCode(number), detail)
    except ValueError:
        return FriedaError(f"Kafka's error {number}: {detail}")


def kafka_offset(position: Position) -> int:
    """A position as an offset. Raises ConfigError."""
    if isinstance(position, bool) or not isinstance(position, int) or position < 0:
        raise ConfigError(f"position {position!r}: Kafka's positions are offsets, from 0")
    return position
