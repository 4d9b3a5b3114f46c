"""aiokafka, the asyncio client of Kafka, under the benchmarks; with its defaults, which are those for latency."""

from __future__ import annotations

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

LIBRARY: Final = "aiokafka"


class AiokafkaDriver:
    """Kafka over aiokafka."""

    name = "aiokafka"
    system = "kafka"

    def missing(self) -> str | None:
        """None when aiokafka is there, else how to get it."""
        if find_spec(LIBRARY) is None:
            return "aiokafka is not installed: pip install 'frieda[peers]'"
        return None

    async def make_topic(
        self, address: str, topic: str, partitions: int = 1, replication_factor: int = 1
    ) -> None:
        """Make the topic and wait for its leaders; nothing when it is there. Raises FriedaError."""
        await self._part("library").make_topic(address, topic, partitions, replication_factor)

    def producer(self, options: ProducerOptions) -> ProducerDriver:
        """A producer, not started. Raises MissingDependencyError."""
        made: ProducerDriver = self._part("producer").AiokafkaProducer(options)
        return made

    def consumer(self, options: ConsumerOptions) -> ConsumerDriver:
        """A consumer, not started. Raises MissingDependencyError."""
        made: ConsumerDriver = self._part("consumer").AiokafkaConsumer(options)
        return made

    def _part(self, name: str) -> Any:
        """One of the modules that import the library."""
        missing = self.missing()
        if missing is not None:
            raise MissingDependencyError(missing)
        return import_module(f"frieda.bench.drivers.aio_kafka_{name}")
