"""confluent-kafka, the Python side of librdkafka, under the benchmarks.

The settings are those which librdkafka's documentation advises for latency (linger.ms=0, no Nagle, which are what it
has by default or what it is asked for), and its defaults for the rest.
"""

from __future__ import annotations

import asyncio
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

from frieda.bench.drivers.base import (
    ConsumerDriver,
    ConsumerOptions,
    ProducerDriver,
    ProducerOptions,
)
from frieda.errors import MissingDependencyError

LIBRARY: Final = "confluent_kafka"


class ConfluentDriver:
    """Kafka over confluent-kafka."""

    name = "confluent-kafka"
    system = "kafka"

    def missing(self) -> str | None:
        """None when confluent-kafka is there, else how to get it."""
        if find_spec(LIBRARY) is None:
            return "confluent-kafka is not installed: pip install 'frieda[peers]'"
        return None

    async def make_topic(
        self, address: str, topic: str, partitions: int = 1, replication_factor: int = 1
    ) -> None:
        """Make the topic and wait for its leaders; nothing when it is there. Raises FriedaError."""
        make = self._part("library").make_topic
        await asyncio.to_thread(make, address, topic, partitions, replication_factor)

    def producer(self, options: ProducerOptions) -> ProducerDriver:
        """A producer, not started. Raises MissingDependencyError."""
        made: ProducerDriver = self._part("producer").ConfluentProducer(options)
        return made

    def consumer(self, options: ConsumerOptions) -> ConsumerDriver:
        """A consumer, not started. Raises MissingDependencyError."""
        made: ConsumerDriver = self._part("consumer").ConfluentConsumer(options)
        return made

    def _part(self, name: str) -> Any:
        """One of the modules that import the library."""
        missing = self.missing()
        if missing is not None:
            raise MissingDependencyError(missing)
        return import_module(f"frieda.bench.drivers.confluent_{name}")
