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


class KafkaError(FriedaError):
    """A Kafka broker answered with an error that our table does not have."""

    def __init__(self, number: int, detail: str) -> None:
        self.number = number
        self.retriable = number in _RETRIABLE
        super().__init__(f"Kafka's error {number}: {detail}")


_RETRIABLE: Final = frozenset({8, 9, 14, 15, 16, 19, 20, 41, 75, 78})
"""Of the numbers that our table does not have, those after which Kafka's own clients try again: a broker, replica,
coordinator, controller or leader epoch that is not there yet (source: the error table of the Kafka protocol guide)."""


def broker_error(number: int, detail: str) -> FriedaError:
    """The error of a number that a broker answered; the numbers of our table are Kafka's own."""
    try:
        return BrokerError(ErrorCode(number), detail)
    except ValueError:
        return KafkaError(number, detail)


def kafka_offset(position: Position) -> int:
    """A position as an offset. Raises ConfigError."""
    if isinstance(position, bool) or not isinstance(position, int) or position < 0:
        raise ConfigError(f"position {position!r}: Kafka's positions are offsets, from 0")
    return position
