"""Frieda's own client under the benchmarks: `send_nowait`, `submit_values` and `getmany`, as any user has them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, cast

import frieda
from frieda.bench.drivers.base import (
    ConsumerOptions,
    Done,
    Position,
    ProducerOptions,
    Taken,
)
from frieda.bench.producer import ensure_topic
from frieda.clients.consumer import Consumer
from frieda.clients.producer import Producer
from frieda.config import ClientConfig
from frieda.errors import BufferFullError, ConfigError, FriedaError
from frieda.model import RecordMetadata


class FriedaDriver:
    """Frieda over the transport that the address names."""

    name = "frieda"
    system = "frieda"

    def missing(self) -> str | None:
        """It is always there."""
        return None

    async def make_topic(
        self, address: str, topic: str, partitions: int = 1, replication_factor: int = 1
    ) -> None:
        """Make the topic; nothing when it is there. Raises FriedaError."""
        await ensure_topic(address, topic, partitions, replication_factor)

    def producer(self, options: ProducerOptions) -> FriedaProducer:
        """A producer, not started. Raises ConfigError."""
        return FriedaProducer(options)

    def consumer(self, options: ConsumerOptions) -> FriedaConsumer:
        """A consumer, not started. Raises ConfigError."""
        return FriedaConsumer(options)


class FriedaProducer:
    """ProducerDriver: a call and a future for each record, or many values with one call."""

    def __init__(self, options: ProducerOptions) -> None:
        settings: dict[str, Any] = {
            "transport": scheme_of(options.address),
            "acks": options.acks,
            "linger_ms": options.linger_ms,
            "batch_bytes": options.batch_bytes,
            "compression": options.compression,
            "polling": options.polling,
            "delivery_timeout_s": options.delivery_timeout_s,
            **options.extra,
        }
        self._producer = Producer(options.address, **settings)
        self._topic = options.topic
        self._send = self._producer.send_nowait

    @property
    def settings(self) -> Mapping[str, object]:
        """Every setting of the producer, and Frieda's version."""
        return settings_of(self._producer.config)

    async def start(self) -> None:
        """Connect and learn of the topic. Raises FriedaError; nothing is left open then."""
        await self._producer.start()
        try:
            await self._producer.partitions_for(self._topic)
        except BaseException:
            await self._producer.close(0.0)
            raise

    def submit(self, value: bytes, key: bytes | None, done: Done) -> bool:
        """`send_nowait`; False for BufferFullError. Raises BrokerError for a record that can never be sent."""
        try:
            future = self._send(self._topic, value, key)
        except BufferFullError:
            return False
        future.add_done_callback(partial(_answered, done))
        return True

    async def submit_many(self, values: Sequence[bytes], done: Done) -> None:
        """`submit_values`; `done` is called about once a batch. Raises FriedaError."""
        await self._producer.submit_values(self._topic, values, partial(_many_answered, done))

    async def close(self, timeout_s: float = 5.0) -> None:
        """Wait for what is under way until `timeout_s`; the rest fails with ClientClosedError. May be repeated."""
        await self._producer.close(timeout_s)


class FriedaConsumer:
    """ConsumerDriver: `getmany` of whole partitions, without a group. A position is an offset."""

    def __init__(self, options: ConsumerOptions) -> None:
        start = options.start
        self._seek: Mapping[int, int] = {}
        if isinstance(start, Mapping):
            self._seek = {partition: _offset(place) for partition, place in start.items()}
            start = "earliest"
        settings: dict[str, Any] = {
            "transport": scheme_of(options.address),
            "polling": options.polling,
            "max_bytes": options.max_bytes,
            "start": start,
            **options.extra,
        }
        # Without partitions it reads the topic as a whole: start() then knows every one's position.
        topics = () if options.partitions is not None else (options.topic,)
        self._consumer = Consumer(options.address, *topics, **settings)
        if options.partitions is not None:
            self._consumer.assign((options.topic, partition) for partition in options.partitions)
        self._topic = options.topic

    @property
    def settings(self) -> Mapping[str, object]:
        """Every setting of the consumer, and Frieda's version."""
        return settings_of(self._consumer.config)

    async def start(self) -> None:
        """Connect and find the positions. Raises FriedaError; nothing is left open then."""
        await self._consumer.start()
        try:
            for partition, offset in self._seek.items():
                self._consumer.seek((self._topic, partition), offset)
        except BaseException:
            await self._consumer.close()
            raise

    async def take(self, timeout_s: float, max_records: int = 10_000) -> Sequence[Taken]:
        """`getmany`. Raises FriedaError."""
        found = await self._consumer.getmany(timeout_s * 1000, max_records)
        return [
            Taken(
                place.partition, [record.value or b"" for record in records], records[-1].offset + 1
            )
            for place, records in found.items()
        ]

    async def close(self) -> None:
        """End it. May be repeated."""
        await self._consumer.close()


def scheme_of(address: str) -> str:
    """The transport that an address names. Raises ConfigError when it names none."""
    scheme, separator, _ = address.partition("://")
    if not separator:
        raise ConfigError(f"address {address!r}: must be like tcp://host:port or shm://path")
    return scheme


def settings_of(config: ClientConfig) -> dict[str, object]:
    """A client's settings as a result holds them."""
    return {"version": frieda.__version__, **asdict(config)}


def _offset(position: Position) -> int:
    if not isinstance(position, int):
        raise ConfigError(f"position {position!r}: Frieda's positions are offsets, whole numbers")
    return position


def _answered(done: Done, future: asyncio.Future[RecordMetadata]) -> None:
    ended_ns = time.monotonic_ns()
    done(1, ended_ns, cast("FriedaError | None", future.exception()))


def _many_answered(done: Done, count: int, _: int, error: FriedaError | None) -> None:
    done(count, time.monotonic_ns(), error)
