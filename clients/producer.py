"""The producer: records in, their places in the log out.

    async with Producer("tcp://127.0.0.1:9500") as producer:
        metadata = await producer.send("topic", b"value", key=b"key")

At linger 0 (the default) a record is handed to the socket inside `send` itself, as long as the partition has a
free place in flight; while it has none records gather, and leave together when one comes free.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final, Self, Unpack

from frieda.clients.accumulator import Accumulator, bad_record
from frieda.clients.batch import RECORD_OVERHEAD_BYTES, OnDone, record_charge_bytes
from frieda.clients.buffer_room import BufferRoom
from frieda.clients.bulk import BulkResults
from frieda.clients.health import ClientHealth
from frieda.clients.network import Network
from frieda.clients.results import Results
from frieda.clients.sender import Sender
from frieda.clients.settings import ProducerSettings, make_config
from frieda.clock import Clock
from frieda.config import KIB, ProducerConfig
from frieda.errors import (
    BrokerError,
    BufferFullError,
    ClientClosedError,
    ConfigError,
    DeliveryTimeoutError,
    ErrorCode,
    FriedaError,
)
from frieda.model import Header, Record, RecordMetadata
from frieda.wire.compression import require

OnDelivery = Callable[["RecordMetadata | FriedaError"], None]
BatchItem = bytes | tuple[bytes | None, bytes | None] | Record

_FRAME_OVERHEAD_BYTES: Final = KIB
"""Room in a frame for the headers of the message and the batch."""


class Producer:
    """Sends records to topics. Use it with `async with`; one event loop, any number of tasks.

    Settings are keyword arguments, the fields of `frieda.config.ProducerConfig`. Raises ConfigError for one
    that is unknown or out of range.
    """

    def __init__(
        self,
        bootstrap: str | Iterable[str] = "tcp://127.0.0.1:9500",
        *,
        clock: Clock | None = None,
        **settings: Unpack[ProducerSettings],
    ) -> None:
        config = make_config(ProducerConfig, bootstrap, settings)
        if config.batch_bytes > config.max_frame_bytes - _FRAME_OVERHEAD_BYTES:
            raise ConfigError(
                f"batch_bytes = {config.batch_bytes}: a batch must fit into a frame "
                f"(max_frame_bytes = {config.max_frame_bytes})"
            )
        require(config.compression)
        self.config = config
        self._network = Network(config, clock=clock, on_metadata=self._metadata_changed)
        self._clock = self._network.clock
        self._room = BufferRoom(config.buffer_bytes)
        self._sender: Sender | None = None
        self._accumulator: Accumulator | None = None
        self._closed = False
        self._create_future: Callable[[], asyncio.Future[Any]] = self._refuse_future

    # --- life ---------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect and get a producer id. May be called once; `async with` does it.

        Raises ConnectError when no broker answers within connect_timeout_s; nothing is left open then.
        """
        if self._closed:
            raise ClientClosedError("this producer was closed; make a new one")
        if self._sender is not None:
            return
        config, network = self.config, self._network
        network.start()
        results = Results(self._room, whole_producer=config.ordering == "producer")
        self._sender = sender = Sender(config, network, results)
        try:
            await sender.start(config.connect_timeout_s)
            connection = await network.any_connection()
        except BaseException:
            self._closed = True
            await network.close()
            raise
        largest_frame = min(config.max_frame_bytes, connection.broker.max_message_bytes)
        self._accumulator = Accumulator(
            config, network, self._room, sender, results, largest_frame - _FRAME_OVERHEAD_BYTES
        )
        self._create_future = asyncio.get_running_loop().create_future

    async def close(self, timeout_s: float | None = None) -> None:
        """Wait until all is acknowledged, then end. May be repeated.

        What is not within `timeout_s` (default: delivery_timeout_s) fails with ClientClosedError; so it does at
        once when this is cancelled.
        """
        if self._closed:
            return
        self._closed = True
        self._create_future = self._refuse_future
        try:
            await self._flushed(timeout_s)
        except DeliveryTimeoutError:
            pass  # every record that is not acknowledged gets its own error below
        finally:
            error = ClientClosedError("the producer was closed before this record was acknowledged")
            if self._sender is not None:
                self._sender.stop(error)
            if self._accumulator is not None:
                self._accumulator.fail_held(error)
            self._room.fail(error)
            await self._network.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # After an exception in the block its records get a moment, not the whole delivery timeout.
        await self.close(None if kind is None else 1.0)

    # --- one record ---------------------------------------------------------------------------------------

    async def send(
        self,
        topic: str,
        value: bytes | None = None,
        key: bytes | None = None,
        *,
        partition: int | None = None,
        headers: Sequence[Header] = (),
        timestamp_ms: int | None = None,
        on_delivery: OnDelivery | None = None,
    ) -> RecordMetadata:
        """Send a record and wait for its acknowledgement; waits for room when the buffer is full.

        `timestamp_ms`: since the epoch, now when not given. `on_delivery` is called with the result too, in send
        order for each partition. Raises BrokerError (what the broker or the metadata says), DeliveryTimeoutError,
        ClientClosedError. Cancelled while it waits for room: nothing was sent. Cancelled later: the
        record is sent all the same, only its result is not told.
        """
        future: asyncio.Future[RecordMetadata] = self._create_future()
        charge = RECORD_OVERHEAD_BYTES
        try:
            if value is not None:
                charge += len(value)
            if key is not None:
                charge += len(key)
            if headers:
                charge = record_charge_bytes(key, value, headers)
        except (TypeError, ValueError):
            raise bad_record(key, value, headers) from None
        room = self._room
        if room.waiting or room.used_bytes + charge > room.limit_bytes:
            self._running.check_size(charge, key, value)
            await room.take(charge)
        else:
            room.used_bytes += charge
        self._accumulator.append(  # type: ignore[union-attr]
            topic, value, key, partition, headers, timestamp_ms, charge, future
        )
        if on_delivery is not None:
            future.add_done_callback(partial(_tell, on_delivery))
            return await asyncio.shield(future)
        return await future

    def send_nowait(
        self,
        topic: str,
        value: bytes | None = None,
        key: bytes | None = None,
        *,
        partition: int | None = None,
        headers: Sequence[Header] = (),
        timestamp_ms: int | None = None,
        on_delivery: OnDelivery | None = None,
    ) -> asyncio.Future[RecordMetadata]:
        """As `send`, at once: the future has the result. A record for a new topic waits for its metadata.

        Raises BufferFullError when the buffer is full, BrokerError for a record that can never be sent.
        Cancelling the future does not un-send the record; nobody is told its result then.
        """
        future: asyncio.Future[RecordMetadata] = self._create_future()
        charge = RECORD_OVERHEAD_BYTES
        try:
            if value is not None:
                charge += len(value)
            if key is not None:
                charge += len(key)
            if headers:
                charge = record_charge_bytes(key, value, headers)
        except (TypeError, ValueError):
            raise bad_record(key, value, headers) from None
        room = self._room
        if room.waiting or room.used_bytes + charge > room.limit_bytes:
            self._running.check_size(charge, key, value)
            raise BufferFullError(
                f"{room.used_bytes} of buffer_bytes = {room.limit_bytes} wait for their acknowledgement"
            )
        room.used_bytes += charge
        self._accumulator.append(  # type: ignore[union-attr]
            topic, value, key, partition, headers, timestamp_ms, charge, future
        )
        if on_delivery is not None:
            future.add_done_callback(partial(_tell, on_delivery))
        return future

    # --- many records -------------------------------------------------------------------------------------

    async def send_batch(
        self, topic: str, records: Sequence[BatchItem], *, partition: int | None = None
    ) -> list[RecordMetadata | FriedaError]:
        """Send many and wait for all: the result of each, in order, an error where it failed.

        An item is a value, a (key, value) pair or a Record (whose topic, partition and offset are not looked
        at). Waits for room as it goes, so any number is fine. Raises only ClientClosedError and the BrokerError
        of a topic that cannot be had. Cancelled: what was buffered by then is sent all the same.
        """
        results: list[RecordMetadata | FriedaError] = [_NO_RESULT] * len(records)
        waiting: list[tuple[int, asyncio.Future[RecordMetadata]]] = []
        bulk = BulkResults(topic, results)
        await self._running.lanes_of(topic)
        largest = (
            min(self._running.max_record_bytes, self._room.limit_bytes) - RECORD_OVERHEAD_BYTES
        )
        position = 0
        while position < len(records):
            run = _values_from(records, position, largest)
            if run:
                timestamp_ms = self._clock.time_ms()
                make = bulk.expect(position, len(run), timestamp_ms)
                await self._running.submit(topic, run, partition, timestamp_ms, make)
                position += len(run)
                continue
            try:
                future = await self._send_item(topic, records[position], partition)
                waiting.append((position, future))
            except BrokerError as error:
                results[position] = error
            position += 1
        await bulk.finished()
        for position, future in waiting:
            try:
                results[position] = await future
            except FriedaError as error:
                results[position] = error
        return results

    async def submit_values(
        self,
        topic: str,
        values: Sequence[bytes],
        on_done: OnDone,
        *,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> None:
        """Buffer many values without keys for sending, waiting for room as it goes; the cheapest way in.

        `on_done(count, base_offset, error)` is called for each stretch of them that was acknowledged
        together (about one a batch), in send order for each partition; base_offset is -1 with an error or
        acks=0. Returns when all are buffered. Raises ClientClosedError and BrokerError; what was taken before an
        error or a cancellation is sent all the same.
        """
        await self._running.lanes_of(topic)
        if timestamp_ms is None:
            timestamp_ms = self._clock.time_ms()
        await self._running.submit(
            topic, values, partition, timestamp_ms, lambda _index, _to: on_done
        )

    async def flush(self, timeout_s: float | None = None) -> None:
        """Send what lingers and wait until every record sent before this call has its result.

        Raises DeliveryTimeoutError after `timeout_s` (default: delivery_timeout_s); the records go on.
        """
        _ = self._running
        await self._flushed(timeout_s)

    async def partitions_for(self, topic: str) -> int:
        """How many partitions a topic has. Raises BrokerError when there is no such topic."""
        return len(await self._running.lanes_of(topic))

    def health(self) -> ClientHealth:
        """How the producer and its connections are."""
        return self._network.health(self._room.used_bytes)

    async def _send_item(
        self, topic: str, item: Any, partition: int | None
    ) -> asyncio.Future[RecordMetadata]:
        headers: Sequence[Header] = ()
        timestamp_ms: int | None = None
        key: bytes | None = None
        value: bytes | None
        if isinstance(item, Record):
            key, value, headers = item.key, item.value, item.headers
            timestamp_ms = item.timestamp_ms
        elif isinstance(item, bytes):
            value = item
        elif isinstance(item, tuple) and len(item) == 2:
            key, value = item
        else:
            raise BrokerError(
                ErrorCode.INVALID_RECORD,
                f"an item of send_batch is bytes, a (key, value) pair or a Record, not {item!r:.60}",
            )
        try:
            charge = record_charge_bytes(key, value, headers)
        except (TypeError, ValueError):
            raise bad_record(key, value, headers) from None
        self._running.check_size(charge, key, value)
        await self._room.take(charge)
        future: asyncio.Future[RecordMetadata] = self._create_future()
        self._accumulator.append(  # type: ignore[union-attr]
            topic, value, key, partition, headers, timestamp_ms, charge, future
        )
        return future

    # --- inside -------------------------------------------------------------------------------------------

    def _refuse_future(self) -> asyncio.Future[Any]:
        """Stands for the loop's own before the start and after the end."""
        _ = self._running
        raise AssertionError("a producer that is open makes futures")

    @property
    def _running(self) -> Accumulator:
        if self._closed:
            raise ClientClosedError("this producer is closed")
        if self._accumulator is None:
            raise ClientClosedError(
                "this producer is not started: use 'async with' or await start()"
            )
        return self._accumulator

    def _metadata_changed(self) -> None:
        if self._accumulator is not None:
            self._accumulator.metadata_changed()

    async def _flushed(self, timeout_s: float | None) -> None:
        if self._sender is None or self._accumulator is None:
            return
        timeout_s = self.config.delivery_timeout_s if timeout_s is None else timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                await self._accumulator.release_held()
                waiting = list(self._sender.flush_lanes())
                if waiting:
                    await asyncio.wait(waiting)
        except TimeoutError:
            raise DeliveryTimeoutError(
                f"not everything was acknowledged within {timeout_s:g} s; "
                f"{self._room.used_bytes} bytes still wait"
            ) from None


_NO_RESULT: Final = FriedaError("no result")


def _tell(on_delivery: OnDelivery, future: asyncio.Future[RecordMetadata]) -> None:
    if not future.cancelled():
        error = future.exception()
        if error is None:
            on_delivery(future.result())
        elif isinstance(error, FriedaError):
            on_delivery(error)


def _values_from(records: Sequence[BatchItem], start: int, largest: int) -> list[bytes]:
    """The run of plain values, none larger than `largest`, that begins at `start`."""
    run: list[bytes] = []
    for position in range(start, len(records)):
        item = records[position]
        if type(item) is not bytes or len(item) > largest:
            break
        run.append(item)
    return run
