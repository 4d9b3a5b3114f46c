"""Sends the fetches that `fetch_state` wants sent and takes up their answers, straight from the connection.

The next fetch of a partition leaves inside the callback that brings the answer to the one before. The bytes stay
in the buffer they were received into until they are decoded; when the pool has none left, fetching stops
until one comes free.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

from frieda.clients.chunks import Chunk, batch_extents
from frieda.clients.connection import BrokerConnection
from frieda.clients.fetch_state import FetchOrder, FetchSlot, FetchState, Outcome
from frieda.clients.positions import broker_error
from frieda.errors import BrokerError, CorruptLogError, ErrorCode, FriedaError, RemoteProtocolError
from frieda.wire.messages import FetchedPartition, FetchPartition, FetchRequest, FetchResponse

if TYPE_CHECKING:
    from frieda.config import ConsumerConfig
    from frieda.protocol.client import Answer
    from frieda.transports.buffers import BufferPool, BufferWaiter, Lease

COPIED_BYTES: Final = 4096
"""An answer of up to this size is copied out of a shared buffer into memory of its own, not into the pool:
a trickle of single records must not take up all buffers."""
_HEADER_ROOM_BYTES: Final = 4096
"""Asked for less, so that an answer of a round size fits the pool's size class together with its header."""


class Fetcher:
    """The fetches of one consumer. `on_news`: something can be delivered or raised; `on_drift`: partitions
    need a leader or an offset."""

    def __init__(
        self,
        state: FetchState,
        config: ConsumerConfig,
        pool: BufferPool,
        *,
        on_news: Callable[[], None],
        on_drift: Callable[[], None],
    ) -> None:
        self.answers = 0
        """Answers that were all well."""
        self.troubled = False
        """Something failed since somebody last looked."""
        self.last_error = ""
        self._state = state
        self._config = config
        self._pool = pool
        self._on_news = on_news
        self._on_drift = on_drift
        self._timeout_s = config.request_timeout_s + config.max_wait_ms / 1000
        self._exhausted: BufferWaiter | None = None
        self._closed = False

    def pump(self) -> None:
        """Send every fetch that may leave now."""
        for leader in self._state.leaders:
            self._pump_leader(cast(BrokerConnection, leader))

    def close(self) -> None:
        """Send nothing more, drop what still comes."""
        self._closed = True
        if self._exhausted is not None:
            self._exhausted.cancel()
            self._exhausted = None

    # --- out ----------------------------------------------------------------------------------------------

    def _pump_leader(self, connection: BrokerConnection) -> None:
        while not self._closed and self._exhausted is None:
            order = self._state.next_order(connection)
            if order is None:
                return
            try:
                connection.submit(
                    self._request(order),
                    functools.partial(self._answered, order),
                    timeout_s=self._timeout_s,
                )
            except FriedaError as error:
                self._failed(order, error)

    def _request(self, order: FetchOrder) -> FetchRequest:
        config = self._config
        max_bytes = order.max_bytes
        if max_bytes >= 16 * _HEADER_ROOM_BYTES:
            max_bytes -= _HEADER_ROOM_BYTES
        return FetchRequest(
            config.max_wait_ms,
            config.min_bytes,
            max_bytes,
            0,
            tuple(
                FetchPartition(
                    slot.partition.topic_id, slot.partition.key[1], slot.offset, max_bytes
                )
                for slot in order.slots
            ),
        )

    # --- in -----------------------------------------------------------------------------------------------

    def _answered(
        self, order: FetchOrder, answer: Answer | FriedaError, lease: Lease | None
    ) -> None:
        if self._closed:
            return
        if isinstance(answer, FriedaError):
            self._failed(order, answer)
            return
        state = self._state
        try:
            outcomes = self._outcomes(order, answer, lease)
        except RemoteProtocolError:
            state.abandon(order)
            raise
        news = state.settle(order, outcomes)
        if any(outcome.lost for outcome in outcomes):
            self.troubled = True
        else:
            self.answers += 1
        self._pump_leader(cast(BrokerConnection, order.leader))
        if news:
            self._on_news()
        if any(outcome.lost or outcome.out_of_range for outcome in outcomes):
            self._on_drift()

    def _failed(self, order: FetchOrder, error: FriedaError) -> None:
        self.troubled = True
        self.last_error = str(error)
        if error.retriable:
            self._state.abandon(order)
            self._on_drift()
        else:
            self._state.settle(order, (Outcome(error=error),) * len(order.slots))
            self._on_news()

    def _outcomes(self, order: FetchOrder, answer: Answer, lease: Lease | None) -> list[Outcome]:
        response: FetchResponse = answer.response
        if len(response.partitions) != len(order.slots):
            raise RemoteProtocolError(
                f"a fetch of {len(order.slots)} partitions was answered with {len(response.partitions)}"
            )
        for slot, item in zip(order.slots, response.partitions, strict=True):
            partition, generation, _ = slot
            current = partition.generation == generation
            if current and (item.topic_id, item.partition) != (
                partition.topic_id,
                partition.key[1],
            ):
                raise RemoteProtocolError(
                    f"a fetch of {partition.key} was answered with another partition"
                )
        body = answer.body
        if sum(max(0, item.size_bytes) for item in response.partitions) != len(body):
            raise RemoteProtocolError(
                f"the sizes in the answer to a fetch do not add up to its {len(body)} bytes"
            )
        kept: Lease | None = None
        if not body:
            view = body
        elif lease is not None:
            lease.retain()
            kept, view = lease, body
        elif len(body) <= COPIED_BYTES:
            view = memoryview(bytes(body))
        else:
            kept = self._pool.lease(len(body))
            if kept is None:
                self._wait_for_buffer(len(body))
                return [Outcome(retry=True)] * len(order.slots)
            view = kept.view
            view[:] = body
        outcomes: list[Outcome] = []
        position = 0
        for slot, item in zip(order.slots, response.partitions, strict=True):
            end = position + max(0, item.size_bytes)
            outcomes.append(self._outcome(slot, item, view[position:end], kept))
            position = end
        if kept is not None:
            kept.release()
        return outcomes

    def _outcome(
        self, slot: FetchSlot, item: FetchedPartition, view: memoryview, lease: Lease | None
    ) -> Outcome:
        key = slot.partition.key
        if item.error_code:
            return self._refused(slot, item)
        if not view:
            return Outcome(None, item.high_watermark, item.log_start_offset)
        try:
            extents = batch_extents(view, slot.offset)
        except BrokerError as error:
            return Outcome(error=BrokerError(error.code, f"{key}: {error.detail}"))
        if not extents:
            return Outcome(
                error=BrokerError(
                    ErrorCode.CORRUPT_MESSAGE,
                    f"{key}: {len(view)} bytes for offset {slot.offset} hold no whole batch of it",
                )
            )
        if lease is not None:
            lease.retain()
        chunk = Chunk(view, extents, slot.offset, lease)
        return Outcome(chunk, item.high_watermark, item.log_start_offset)

    def _refused(self, slot: FetchSlot, item: FetchedPartition) -> Outcome:
        key = slot.partition.key
        if item.error_code == ErrorCode.OFFSET_OUT_OF_RANGE:
            if not slot.partition.explicit:
                return Outcome(out_of_range=True)
            detail = (
                f"{key} has no offset {slot.offset} (it holds {item.log_start_offset} to "
                f"{item.high_watermark}); seek to one that it has"
            )
            return Outcome(error=BrokerError(ErrorCode.OFFSET_OUT_OF_RANGE, detail))
        if item.error_code == ErrorCode.CORRUPT_LOG:
            go_on = (
                f"seek to {item.next_readable_offset} to read on"
                if item.next_readable_offset >= 0
                else "nothing after it can be read yet"
            )
            detail = f"{key}: the stored bytes at offset {slot.offset} are damaged; {go_on}"
            return Outcome(error=CorruptLogError(detail, item.next_readable_offset))
        error = broker_error(item.error_code, f"{key}: {item.detail}")
        self.last_error = str(error)
        return Outcome(lost=True) if error.retriable else Outcome(error=error)

    def _wait_for_buffer(self, size_bytes: int) -> None:
        if self._exhausted is None:
            self._exhausted = self._pool.when_free(size_bytes, self._buffer_free)

    def _buffer_free(self, lease: Lease) -> None:
        # Called inside a release: nothing but the note that fetching may go on is done here.
        self._exhausted = None
        lease.release()
        self._state.freed = True
        self._on_news()
