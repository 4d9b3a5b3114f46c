"""aiokafka's consumer under the benchmarks: partitions assigned, no group, no commits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from frieda.bench.drivers import aio_kafka_library as library
from frieda.bench.drivers.base import ConsumerOptions, Taken
from frieda.bench.drivers.kafka_errors import kafka_offset
from frieda.errors import ClientClosedError, ConfigError


class AiokafkaConsumer:
    """ConsumerDriver: `getmany`. A position is an offset."""

    def __init__(self, options: ConsumerOptions) -> None:
        self._options = options
        self._config: dict[str, Any] = {
            "bootstrap_servers": options.address.split(","),
            "group_id": None,
            "enable_auto_commit": False,
            "auto_offset_reset": "none",
            "fetch_min_bytes": 1,
            "fetch_max_wait_ms": 500,
            "max_partition_fetch_bytes": options.max_bytes,
            **options.extra,
        }
        self._consumer: Any = None

    @property
    def settings(self) -> Mapping[str, object]:
        """aiokafka's settings that were set, and its version."""
        return {"version": library.version(), **self._config}

    async def start(self) -> None:
        """Connect, find the positions and begin to fetch. Raises FriedaError; nothing is left open then."""
        consumer = library.made(AIOKafkaConsumer, self._config)
        try:
            with library.errors_as_ours(f"topic {self._options.topic!r}"):
                await consumer.start()
                await self._assign(consumer)
        except BaseException:
            await consumer.stop()
            raise
        self._consumer = consumer

    async def take(self, timeout_s: float, max_records: int = 10_000) -> Sequence[Taken]:
        """`getmany`. Raises FriedaError."""
        if self._consumer is None:
            raise ClientClosedError("this consumer is not started, or closed")
        with library.errors_as_ours():
            found = await self._consumer.getmany(
                timeout_ms=round(timeout_s * 1000), max_records=max_records
            )
        return [
            Taken(
                place.partition, [record.value or b"" for record in records], records[-1].offset + 1
            )
            for place, records in found.items()
        ]

    async def close(self) -> None:
        """End it. May be repeated."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()

    async def _assign(self, consumer: Any) -> None:
        options = self._options
        known = await library.partitions_of(consumer, options.topic)
        wanted = known if options.partitions is None else list(options.partitions)
        for partition in wanted:
            if partition not in known:
                raise ConfigError(f"topic {options.topic!r} has no partition {partition}")
        places = [TopicPartition(options.topic, partition) for partition in wanted]
        find = consumer.end_offsets if options.start == "latest" else consumer.beginning_offsets
        offsets = await find(places)
        consumer.assign(places)
        for place in places:
            offset = offsets[place]
            if isinstance(options.start, Mapping) and place.partition in options.start:
                offset = kafka_offset(options.start[place.partition])
            consumer.seek(place, offset)
