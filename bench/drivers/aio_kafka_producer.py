"""aiokafka's producer under the benchmarks: `send` for each record, or batches that are built here and sent whole."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, ProducerClosed

from frieda.bench.drivers import aio_kafka_library as library
from frieda.bench.drivers.base import Done, ProducerOptions
from frieda.bench.drivers.kafka_errors import MAX_RECORD_BYTES
from frieda.errors import BrokerError, ClientClosedError, ErrorCode


class AiokafkaProducer:
    """ProducerDriver."""

    def __init__(self, options: ProducerOptions) -> None:
        self._topic = options.topic
        self._config: dict[str, Any] = {
            "bootstrap_servers": options.address.split(","),
            "acks": options.acks,
            "linger_ms": options.linger_ms,
            "max_batch_size": options.batch_bytes,
            "max_request_size": MAX_RECORD_BYTES,
            "compression_type": None if options.compression == "none" else options.compression,
            "enable_idempotence": False,
            "request_timeout_ms": max(1, round(options.delivery_timeout_s * 1000)),
            **options.extra,
        }
        self._producer: Any = None
        self._partitions: Sequence[int] = ()
        self._next_partition = 0

    @property
    def settings(self) -> Mapping[str, object]:
        """aiokafka's settings that were set, and its version."""
        return {"version": library.version(), **self._config}

    async def start(self) -> None:
        """Connect and learn of the topic. Raises FriedaError; nothing is left open then."""
        producer = library.made(AIOKafkaProducer, self._config)
        try:
            with library.errors_as_ours(f"topic {self._topic!r}"):
                await producer.start()
                self._partitions = sorted(await producer.partitions_for(self._topic))
        except BaseException:
            await producer.stop()
            raise
        self._producer = producer

    def submit(self, value: bytes, key: bytes | None, done: Done) -> bool:
        """`send`; False when it would wait, since the batch of the partition is full. Raises FriedaError."""
        sending = self._running().send(self._topic, value, key)
        # The coroutine runs to its end at once, as in a task that awaits it, but for the one case in which it waits.
        try:
            sending.send(None)
        except StopIteration as returned:
            returned.value.add_done_callback(partial(_answered, done, 1))
            return True
        except KafkaError as error:
            raise library.error_of(error) from None
        sending.close()
        return False

    async def submit_many(self, values: Sequence[bytes], done: Done) -> None:
        """`send_batch`, one batch to each partition in turn. Raises FriedaError."""
        begin = 0
        while begin < len(values):
            producer = self._running()
            batch = producer.create_batch()
            end = begin
            while (
                end < len(values)
                and self._fits(values[end])
                and batch.append(key=None, value=values[end], timestamp=None) is not None
            ):
                end += 1
            batch.close()
            partition = self._partitions[self._next_partition % len(self._partitions)]
            self._next_partition += 1
            with library.errors_as_ours():
                future = await producer.send_batch(batch, self._topic, partition=partition)
            future.add_done_callback(partial(_answered, done, end - begin))
            begin = end

    async def close(self, timeout_s: float = 5.0) -> None:
        """Wait for what is under way until `timeout_s`; the rest fails with ClientClosedError. May be repeated."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        try:
            await asyncio.wait_for(producer.flush(), timeout_s)
        except TimeoutError:
            await _give_up(producer)
        await producer.stop()

    def _fits(self, value: bytes) -> bool:
        """`send` holds a record against max_request_size; batches do not."""
        limit = self._config["max_request_size"]
        if len(value) > limit:
            raise BrokerError(
                ErrorCode.MESSAGE_TOO_LARGE,
                f"a record of {len(value)} bytes; max_request_size = {limit}",
            )
        return True

    def _running(self) -> Any:
        if self._producer is None:
            raise ClientClosedError("this producer is not started, or closed")
        return self._producer


async def _give_up(producer: Any) -> None:
    """Fail what is under way, since `stop` would wait for as long as a request may take, and try it again."""
    accumulator = producer._message_accumulator
    for batch in accumulator._pending_batches:
        batch._ttl = 0.0  # expired: not worth another try
    accumulator.fail_all(ProducerClosed())
    await producer.client.close()


def _answered(done: Done, count: int, future: asyncio.Future[Any]) -> None:
    ended_ns = time.monotonic_ns()
    if future.cancelled():
        done(
            count, ended_ns, ClientClosedError("the producer was closed before Kafka had answered")
        )
        return
    error = future.exception()
    done(count, ended_ns, None if error is None else library.error_of(error))
