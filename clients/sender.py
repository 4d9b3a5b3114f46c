"""The producer's engine: takes batches out of the lanes, sends them, and hands out what became of them.

What may be sent when, and what a refusal means, is decided in delivery.py; here are the connections, the timers
and the answers. Everything runs on the event loop in callbacks: at linger 0 a record goes from `send` to the
socket without a task, a queue or a turn of the loop between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from frieda.clients.batch import Batch, Span
from frieda.clients.deadline import DeadlineTimer
from frieda.clients.delivery import FAILED, READY, UNKNOWN, Identity, Verdict
from frieda.clients.lane import Lane
from frieda.clients.network import Network, backoff_s
from frieda.clients.results import Results
from frieda.errors import (
    BrokerError,
    DeliveryTimeoutError,
    ErrorCode,
    FriedaError,
    LocalProtocolError,
    TransportError,
)
from frieda.model import NO_PRODUCER_ID, Header
from frieda.wire.batch import batch_of_one
from frieda.wire.messages import InitProducerRequest, InitProducerResponse, ProduceRequest
from frieda.wire.produce import produce_prefix

if TYPE_CHECKING:
    from frieda.clients.connection import BrokerConnection
    from frieda.config import ProducerConfig

_REFRESHES: Final = frozenset(
    {
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode.UNKNOWN_TOPIC_ID,
        ErrorCode.LEADER_NOT_AVAILABLE,
        ErrorCode.NOT_LEADER_OR_FOLLOWER,
        ErrorCode.FENCED_LEADER_EPOCH,
    }
)
"""Refusals that mean our metadata is out of date."""


class Sender:
    """Everything between a closed batch and its results. Owner: a Producer, which calls `stop`."""

    def __init__(self, config: ProducerConfig, network: Network, results: Results) -> None:
        self.identity = Identity(idempotent=config.idempotence and config.acks != 0)
        self.lanes: list[Lane] = []
        self.last_refusal = ""
        self._config = config
        self._network = network
        self._results = results
        self._now_ns = network.clock.monotonic_ns
        self._loop = asyncio.get_running_loop()
        self._delivery_timeout_ns = int(config.delivery_timeout_s * 1e9)
        self._lingers = config.linger_ms > 0
        self._assigning = False
        self._expiry = DeadlineTimer(self._loop, self._now_ns, self._expire)
        self._failure: FriedaError | None = None

    # --- lanes --------------------------------------------------------------------------------------------

    def make_lane(self, topic: str, partition: int, topic_id: bytes) -> Lane:
        """A lane for a partition that has none."""
        config = self._config
        lane = Lane(
            topic,
            partition,
            topic_id,
            self.prefix_for(topic_id, partition),
            self.identity,
            config.max_in_flight,
            config.batch_bytes,
        )
        self.use(lane, self._network.open_connection_for(topic, partition))
        self.lanes.append(lane)
        return lane

    def prefix_for(self, topic_id: bytes, partition: int) -> bytes:
        """What is the same in every Produce for a partition."""
        timeout_ms = int(min(self._config.request_timeout_s * 1000, 2**31 - 1))
        return produce_prefix(ProduceRequest(topic_id, partition, self._config.acks, timeout_ms))

    def use(self, lane: Lane, connection: BrokerConnection | None) -> None:
        """Send a lane's batches over this connection from now on (None: over the one that is found next).

        Where messages may overtake each other and have no numbers, only one batch is in flight at a time.
        """
        lane.connection = connection
        alone = connection is not None and not connection.ordered and not self.identity.idempotent
        lane.delivery.max_in_flight = 1 if alone else self._config.max_in_flight

    def begin(self, lane: Lane) -> Batch:
        """Open a batch in a lane. Raises the error that made the producer unusable."""
        if self._failure is not None:
            raise self._failure
        deadline_ns = self._now_ns() + self._delivery_timeout_ns
        batch = lane.begin(deadline_ns)
        if self._results.whole_producer:
            batch.slots = []
        self._expiry.watch(deadline_ns)
        if self._lingers:
            lane.linger_timer = self._loop.call_later(
                self._config.linger_ms / 1000, self._lingered, lane
            )
        return batch

    def close_and_pump(self, lane: Lane) -> None:
        """Close the open batch, full or due, and send what may be sent."""
        lane.close_open()
        self.pump(lane)

    def send_alone(
        self,
        lane: Lane,
        timestamp_ms: int,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[Header],
        charge_bytes: int,
        entry: Any,
    ) -> bool:
        """Send a record in a batch of its own, past all queues, when nothing of the lane waits and it may leave.

        False when it may not; nothing has happened then, nor when it raises what `batch_of_one` does. Otherwise as
        for every other batch: its place in flight, its number, its deadline, its results in their turn, and its
        retries, which go through the queue. Only for linger 0, without compression, and ordering = partition.
        """
        connection = lane.connection
        delivery = lane.delivery
        if not delivery.is_free or connection is None or self._failure is not None:
            return False
        identity = self.identity
        encoded = batch_of_one(
            timestamp_ms,
            key,
            value,
            headers,
            identity.producer_id,
            identity.producer_epoch,
            delivery.next_sequence(),
        )
        now_ns = self._now_ns()
        deadline_ns = now_ns + self._delivery_timeout_ns
        batch = Batch(lane.next_ordinal, deadline_ns, lane)
        batch.entries.append(entry)
        batch.timestamps_ms.append(timestamp_ms)
        batch.charged_bytes = charge_bytes
        batch.record_count = 1
        batch.encoded = encoded
        lane.next_ordinal += 1
        lane.unreleased.append(batch)
        delivery.launch(batch)
        if deadline_ns < self._expiry.next_ns:
            self._expiry.watch(deadline_ns)
        self._hand_over(lane, batch, connection, now_ns)
        return True

    def pump(self, lane: Lane) -> None:
        """Send what may be sent now. At linger 0 that takes the open batch, when an in-flight place is free."""
        if lane.is_pumping:
            return
        connection = lane.connection
        if connection is None or not connection.is_open:
            self._need_connection(lane)
            return
        identity = self.identity
        if identity.state is UNKNOWN:
            self._need_identity()
            return
        delivery = lane.delivery
        lane.is_pumping = True
        try:
            while True:
                if not delivery.queued:
                    if (
                        lane.open is None
                        or self._lingers
                        or len(delivery.in_flight) >= delivery.max_in_flight
                        or identity.state is not READY
                    ):
                        return
                    lane.close_open()
                now_ns = self._now_ns()
                batch = delivery.take(now_ns)
                if batch is None:
                    self._watch_retry(lane)
                    return
                if not self._transmit(lane, batch, now_ns):
                    return
        finally:
            lane.is_pumping = False

    def pump_all(self) -> None:
        """Send what may be sent in every lane."""
        for lane in self.lanes:
            if lane.has_work:
                self.pump(lane)

    def flush_lanes(self) -> Iterator[asyncio.Future[None]]:
        """Close every open batch; a future for each lane with work, done when all results until now are out."""
        for lane in self.lanes:
            if (batch := lane.last_batch()) is None:
                continue
            done: asyncio.Future[None] = self._loop.create_future()
            self._results.add_entry(batch, Span(0, partial(_mark, done)), 0)
            if lane.open is not None:
                self.close_and_pump(lane)
            yield done

    # --- life ---------------------------------------------------------------------------------------------

    async def start(self, timeout_s: float) -> None:
        """Get the producer id. Raises BrokerError or a TransportError when no broker gives one in time."""
        if self.identity.needs_assignment:
            await self._assign(timeout_s)
        else:
            await self._network.reach(timeout_s)

    def stop(self, error: FriedaError) -> None:
        """Give up everything that is not acknowledged, with `error`, and send nothing more."""
        self._failure = error
        self._expiry.cancel()
        self._fail_everything(error)

    # --- sending and answers ------------------------------------------------------------------------------

    def _transmit(self, lane: Lane, batch: Batch, now_ns: int) -> bool:
        """Send a batch that is in flight. False when the connection has ended."""
        identity = self.identity
        try:
            batch.encode(identity.producer_id, identity.producer_epoch, self._config.compression)
        except FriedaError as error:
            self._fail_batch(batch, error)
            return True
        assert lane.connection is not None
        return self._hand_over(lane, batch, lane.connection, now_ns)

    def _hand_over(
        self, lane: Lane, batch: Batch, connection: BrokerConnection, now_ns: int
    ) -> bool:
        try:
            connection.produce(lane.prefix, batch.encoded, self._answered, batch, now_ns)
        except TransportError:
            lane.delivery.lost(batch)
            lane.connection = None
            self._need_connection(lane)
            return False
        except LocalProtocolError as error:
            self._fail_batch(batch, BrokerError(ErrorCode.MESSAGE_TOO_LARGE, str(error)))
        except BrokerError as error:
            self._refused(lane, batch, error)
        except FriedaError as error:
            self._fail_batch(batch, error)
        return True

    def _answered(self, batch: Batch, base_offset: int, error: FriedaError | None) -> None:
        lane: Lane = batch.lane
        delivery = lane.delivery
        if error is None:
            if not delivery.acknowledged(batch):
                return
            batch.base_offset = base_offset
            self._results.settle(batch)
        elif isinstance(error, BrokerError):
            self._refused(lane, batch, error)
        else:
            delivery.lost(batch)
            self.last_refusal = str(error)
            if lane.connection is not None and not lane.connection.is_open:
                lane.connection = None
        if self.identity.state is not READY:
            self._look_at_identity()
        if delivery.queued or lane.open is not None:
            self.pump(lane)

    def _refused(self, lane: Lane, batch: Batch, error: BrokerError) -> None:
        self.last_refusal = str(error)
        pause_ns = int(backoff_s(self._config.retry_backoff_s, max(batch.attempts - 1, 0)) * 1e9)
        verdict = lane.delivery.refused(batch, error.code, self._now_ns() + pause_ns)
        if error.code in _REFRESHES:
            self._network.refresh_soon((lane.topic,))
        match verdict:
            case Verdict.SPLIT:
                try:
                    parts = batch.split()
                except FriedaError as split_error:
                    self._fail_batch(batch, split_error)
                else:
                    lane.delivery.replace(batch, parts)
            case Verdict.FAILED:
                batch.error = _explained(error, lane, batch)
                self._results.settle(batch)

    def _fail_batch(self, batch: Batch, error: FriedaError) -> None:
        """A batch in flight that will not be tried again, by our own decision."""
        batch.lane.delivery.give_up(batch)
        batch.error = error
        self._results.settle(batch)

    # --- time ---------------------------------------------------------------------------------------------

    def _lingered(self, lane: Lane) -> None:
        lane.linger_timer = None
        if lane.open is not None:
            self.close_and_pump(lane)

    def _watch_retry(self, lane: Lane) -> None:
        """When the head of the queue waits for its retry, look again then."""
        queued = lane.delivery.queued
        if lane.retry_timer is not None or not queued:
            return
        wait_ns = queued[0].retry_at_ns - self._now_ns()
        if wait_ns > 0:
            lane.retry_timer = self._loop.call_later(wait_ns / 1e9, self._retry, lane)

    def _retry(self, lane: Lane) -> None:
        lane.retry_timer = None
        self.pump(lane)

    def _expire(self) -> None:
        """Some batch is past its deadline."""
        now_ns = self._now_ns()
        deadlines: list[int] = []
        for lane in self.lanes:
            if lane.open is not None and lane.open.deadline_ns <= now_ns:
                lane.close_open()
            for batch in lane.delivery.expire(now_ns):
                batch.error = self._expired(lane, batch)
                self._results.settle(batch)
            if lane.has_work:
                self.pump(lane)  # what expired in flight has left its place
            if lane.open is not None:
                deadlines.append(lane.open.deadline_ns)
            if (deadline_ns := lane.delivery.next_deadline_ns()) is not None:
                deadlines.append(deadline_ns)
        self._look_at_identity()
        if deadlines and self._failure is None:
            self._expiry.watch(min(deadlines))

    def _expired(self, lane: Lane, batch: Batch) -> DeliveryTimeoutError:
        reason = self.last_refusal or self._network.last_error
        return DeliveryTimeoutError(
            f"a batch for {lane.topic}-{lane.partition} (records: {batch.record_count}) was not "
            f"acknowledged within delivery_timeout_s = {self._config.delivery_timeout_s:g} "
            f"({f'attempts: {batch.attempts}' if batch.attempts else 'never sent'}"
            f"{f'; last error: {reason}' if reason else ''})"
        )

    # --- connections --------------------------------------------------------------------------------------

    def _need_connection(self, lane: Lane) -> None:
        if not lane.connecting and self._failure is None:
            lane.connecting = True
            self._network.spawn(self._connect(lane))

    async def _connect(self, lane: Lane) -> None:
        attempt = 0
        try:
            while lane.has_work and self._failure is None:
                try:
                    found = await self._network.connection_for(lane.topic, lane.partition)
                    self.use(lane, found)
                    break
                except FriedaError as error:
                    self.last_refusal = str(error)
                await asyncio.sleep(backoff_s(self._config.retry_backoff_s, attempt))
                attempt += 1
                try:
                    await self._network.refresh((lane.topic,))
                except FriedaError as error:
                    self.last_refusal = str(error)
        finally:
            lane.connecting = False
        if lane.has_work and self._failure is None:
            self.pump(lane)

    # --- the producer's identity --------------------------------------------------------------------------

    def _look_at_identity(self) -> None:
        identity = self.identity
        if identity.state is FAILED:
            if self._failure is None:
                self._failure = BrokerError(ErrorCode.INVALID_PRODUCER_EPOCH)
                self._fail_everything(self._failure)
        elif identity.needs_assignment:
            self._need_identity()

    def _need_identity(self) -> None:
        if not self._assigning and self._failure is None:
            self._assigning = True
            self._network.spawn(self._assign_again())

    async def _assign_again(self) -> None:
        attempt = 0
        try:
            while self.identity.needs_assignment and self._failure is None:
                try:
                    await self._assign(self._config.request_timeout_s)
                except FriedaError as error:
                    if not error.retriable:
                        self._failure = error
                        self._fail_everything(error)
                        return
                    self.last_refusal = str(error)
                    await asyncio.sleep(backoff_s(self._config.retry_backoff_s, attempt))
                    attempt += 1
        finally:
            self._assigning = False
        self.pump_all()

    async def _assign(self, timeout_s: float) -> None:
        identity = self.identity
        epoch = identity.producer_epoch if identity.producer_id != NO_PRODUCER_ID else -1
        request = InitProducerRequest(None, identity.producer_id, epoch)
        answer: InitProducerResponse = await self._network.call_any(request, timeout_s)
        identity.assigned(answer.producer_id, answer.producer_epoch)

    def _fail_everything(self, error: FriedaError) -> None:
        for lane in self.lanes:
            lane.stop_timers()
            if lane.open is not None:
                lane.close_open()
            for batch in lane.delivery.fail_all():
                batch.error = error
                self._results.settle(batch)


def _explained(error: BrokerError, lane: Lane, batch: Batch) -> BrokerError:
    """The broker's error, with where it happened and how large the batch was."""
    size = f", a batch of {len(batch.encoded)} bytes" if batch.encoded is not None else ""
    where = f"{lane.topic}-{lane.partition}{size}"
    return BrokerError(error.code, f"{where}: {error.detail or str(error)}")


def _mark(done: asyncio.Future[None], count: int, offset: int, error: FriedaError | None) -> None:
    if not done.done():
        done.set_result(None)
