"""confluent-kafka's producer under the benchmarks.

librdkafka has threads of its own. What it delivers is served in one more thread, which waits in its `poll`; that is
where a user's callback runs, and where the time is taken. The event loop is told in batches.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from frieda.bench.drivers import confluent_library as library
from frieda.bench.drivers.base import Done, ProducerOptions
from frieda.bench.drivers.kafka_errors import MAX_RECORD_BYTES, REQUEST_TIMEOUT_S
from frieda.errors import BufferFullError, ClientClosedError

LEAST_BUFFERED_RECORDS: Final = 100_000
"""librdkafka's own default of queue.buffering.max.messages."""
_POLL_S: Final = 0.1
_SAME_MOMENT_NS: Final = 100_000
"""Records of one call that were delivered within so long are told of as one."""

_Delivery = tuple[Done, int, KafkaError | None]


class ConfluentProducer:
    """ProducerDriver: `produce` with a callback for each record, or `produce_batch`."""

    def __init__(self, options: ProducerOptions) -> None:
        self._topic = options.topic
        self._timeout_s = options.delivery_timeout_s
        self._config: dict[str, Any] = {
            **library.library_settings(options.address),
            "acks": options.acks,
            "linger.ms": options.linger_ms,
            "batch.size": options.batch_bytes,
            "compression.type": options.compression,
            # Keys land in the partition where Kafka's own client puts them; librdkafka's default is CRC-32.
            "partitioner": "murmur2_random",
            "enable.idempotence": False,
            "message.timeout.ms": max(1, round(options.delivery_timeout_s * 1000)),
            "message.max.bytes": MAX_RECORD_BYTES,
            "queue.buffering.max.messages": max(LEAST_BUFFERED_RECORDS, 2 * options.max_in_flight),
            "queue.buffering.max.kbytes": 1024 * 1024,
            **options.extra,
        }
        self._max_buffered = int(self._config["queue.buffering.max.messages"])
        self._producer: Producer | None = None
        self._thread: threading.Thread | None = None
        self._closing = False
        self._flush_s = 0.0
        self._deliveries: deque[_Delivery] = deque()
        self._telling = False
        self._room: asyncio.Future[None] | None = None

    @property
    def settings(self) -> Mapping[str, object]:
        """librdkafka's settings that were set, and its version."""
        return {**library.versions(), **self._config}

    async def start(self) -> None:
        """Connect and learn of the topic. Raises FriedaError; nothing is left open then."""
        producer = library.made(Producer, self._config)
        timeout_s = min(self._timeout_s, REQUEST_TIMEOUT_S)
        await asyncio.to_thread(library.partitions_of, producer, self._topic, timeout_s)
        self._producer = producer
        loop = asyncio.get_running_loop()
        self._thread = threading.Thread(
            target=self._serve, args=(producer, loop), name="confluent-kafka poll", daemon=True
        )
        self._thread.start()

    def submit(self, value: bytes, key: bytes | None, done: Done) -> bool:
        """`produce`; False when librdkafka's queue is full. Raises FriedaError."""
        try:
            self._running().produce(
                self._topic, value, key, on_delivery=partial(self._delivered, done)
            )
        except BufferError:
            return False
        except KafkaException as error:
            raise library.error_of(error.args[0]) from None
        return True

    async def submit_many(self, values: Sequence[bytes], done: Done) -> None:
        """`produce_batch`, the fastest that it has, as far as there is room. Raises FriedaError."""
        told = partial(self._delivered, done)
        begin = 0
        while begin < len(values):
            producer = self._running()
            room = self._max_buffered - len(producer)
            messages = [{"value": value} for value in values[begin : begin + max(0, room)]]
            begin += len(messages)
            while messages:
                try:
                    taken = producer.produce_batch(self._topic, messages, on_delivery=told)
                except KafkaException as error:
                    raise library.error_of(error.args[0]) from None
                messages = [] if taken == len(messages) else _not_taken(messages)
                if messages:
                    await self._wait_for_room()
            if begin < len(values):
                await self._wait_for_room()

    async def close(self, timeout_s: float = 5.0) -> None:
        """Wait for what is under way until `timeout_s`; the rest fails with ClientClosedError. May be repeated."""
        self._flush_s = timeout_s
        self._closing = True
        thread = self._thread
        if thread is not None:
            await asyncio.to_thread(thread.join)
            self._thread = self._producer = None
            self._tell()

    def _running(self) -> Producer:
        if self._closing or self._producer is None:
            raise ClientClosedError("this producer is not started, or closed")
        return self._producer

    def _delivered(self, done: Done, error: KafkaError | None, _: object) -> None:
        """In the poll thread: the library's own callback."""
        self._deliveries.append((done, time.monotonic_ns(), error))

    def _serve(self, producer: Producer, loop: asyncio.AbstractEventLoop) -> None:
        """The poll thread: it serves callbacks until `close`, then what is left."""
        poll, deliveries = producer.poll, self._deliveries
        while not self._closing:
            poll(_POLL_S)
            if deliveries and not self._telling:
                self._telling = True
                try:
                    loop.call_soon_threadsafe(self._tell)
                except RuntimeError:  # the loop was closed, and nobody is left to be told
                    break
        producer.flush(self._flush_s)
        producer.purge()
        producer.flush(
            REQUEST_TIMEOUT_S
        )  # serves the callbacks of what was purged; waits for nothing
        producer.close()

    def _tell(self) -> None:
        """On the event loop: everybody hears of what was delivered."""
        # First the flag, then the queue: what comes in between is told of here or asks for another call.
        self._telling = False
        deliveries = self._deliveries
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)
        while deliveries:
            done, first_ns, error = deliveries.popleft()
            count, ended_ns = 1, first_ns
            if error is None:
                latest_ns = first_ns + _SAME_MOMENT_NS
                while deliveries:
                    next_done, next_ns, next_error = deliveries[0]
                    if next_done is not done or next_error is not None or next_ns > latest_ns:
                        break
                    deliveries.popleft()
                    count += 1
                    ended_ns = next_ns
                done(count, ended_ns, None)
            else:
                done(1, ended_ns, library.error_of(error))

    async def _wait_for_room(self) -> None:
        """Until something was delivered: what is under way ends within its own timeout."""
        if self._producer is None or (not len(self._producer) and not self._deliveries):
            raise BufferFullError("librdkafka's queue is full of records that it cannot send")
        if self._room is None:
            self._room = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._room)


def _not_taken(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those for which there was no room. Raises FriedaError when one can never be sent."""
    left = []
    for message in messages:
        error = message.pop("_error", None)
        if error is not None:
            if error.code() != KafkaError._QUEUE_FULL:
                raise library.error_of(error)
            left.append(message)
    return left
