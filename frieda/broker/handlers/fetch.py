"""Fetch, version 0: batches of several partitions; waits for min_bytes at most max_wait_ms (long poll)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from frieda.broker.request import HandlerEntry, Request
from frieda.errors import BrokerError, CorruptLogError, ErrorCode
from frieda.wire.messages import (
    ApiKey,
    FetchedPartition,
    FetchPartition,
    FetchRequest,
    FetchResponse,
)

if TYPE_CHECKING:
    from frieda.broker.broker import Broker
    from frieda.broker.partition import Partition
    from frieda.storage.log import ReadPlan
    from frieda.transports.buffers import Lease

MAX_PARTITIONS = 10_000
MAX_WAIT_MS = 300_000
BUFFER_TIMEOUT_S = 10.0


def handle(broker: Broker, request: Request) -> None:
    """Answer now when there is enough, or anything is wrong; else when there is or the time is over."""
    message: FetchRequest = request.message
    if len(message.partitions) > MAX_PARTITIONS:
        raise BrokerError(
            ErrorCode.INVALID_REQUEST,
            f"a fetch of {len(message.partitions)} partitions; at most {MAX_PARTITIONS}",
        )
    broker.counters.fetches += 1
    fetch = _Fetch(broker, request)
    fetch.look()
    if fetch.satisfied or message.max_wait_ms <= 0:
        fetch.answer_when_sendable()
    else:
        fetch.wait(min(message.max_wait_ms, MAX_WAIT_MS) / 1000)


class _Source:
    """One partition of a fetch: what it asked for, and what is there for it."""

    __slots__ = ("asked", "error", "partition", "plan")

    def __init__(self, asked: FetchPartition) -> None:
        self.asked = asked
        self.partition: Partition | None = None
        self.plan: ReadPlan | None = None
        self.error: BrokerError | None = None


class _Fetch:
    """One fetch from its arrival to its answer."""

    __slots__ = ("_broker", "_max_bytes", "_request", "_sources", "_timer", "_waiting", "satisfied")

    def __init__(self, broker: Broker, request: Request) -> None:
        message: FetchRequest = request.message
        self._broker = broker
        self._request = request
        self._max_bytes = max(0, min(message.max_bytes, broker.config.max_fetch_bytes))
        self._sources = [_Source(asked) for asked in message.partitions]
        self._timer: asyncio.TimerHandle | None = None
        self._waiting = False
        self.satisfied = False

    def look(self) -> None:
        """Plan what each partition would give now; `satisfied` says whether that is worth an answer."""
        left = self._max_bytes
        found = 0
        failed = False
        for source in self._sources:
            asked = source.asked
            source.plan = source.error = None
            try:
                source.partition = self._broker.topics.partition(asked.topic_id, asked.partition)
                limit = max(0, min(asked.max_bytes, left))
                # The first batch is given even when it is larger than the limits, so that readers never get stuck.
                source.plan = source.partition.plan_read(
                    asked.offset, limit, at_least_one=found == 0
                )
            except BrokerError as error:
                source.error = error
                failed = True
            else:
                found += source.plan.size_bytes
                left -= source.plan.size_bytes
        message: FetchRequest = self._request.message
        self.satisfied = failed or (found > 0 and found >= message.min_bytes) or left <= 0

    def wait(self, timeout_s: float) -> None:
        """Look again whenever a high watermark moves, and give up after `timeout_s`."""
        self._waiting = True
        for source in self._sources:
            if source.partition is not None:
                source.partition.watchers.add(self._moved)
        self._request.session.interrupts.add(self.give_up)
        self._timer = asyncio.get_running_loop().call_later(timeout_s, self.give_up)

    def give_up(self) -> None:
        """Answer with what there is: the time is over, the broker stops or the connection ended."""
        if self._waiting:
            self._leave()
            self.look()
            self.answer_when_sendable()

    def answer_when_sendable(self) -> None:
        """Read only once the connection takes the bytes, so that a slow reader holds no buffer."""
        self._request.session.when_sendable(self._answer)

    def _moved(self) -> None:
        self.look()
        if self.satisfied:
            self._leave()
            self.answer_when_sendable()

    def _leave(self) -> None:
        self._waiting = False
        for source in self._sources:
            if source.partition is not None:
                source.partition.watchers.discard(self._moved)
        self._request.session.interrupts.discard(self.give_up)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _answer(self) -> None:
        size_bytes = sum(
            source.plan.size_bytes for source in self._sources if source.plan is not None
        )
        if not self._request.session.alive:
            self._request.finish_silently()
        elif size_bytes == 0:
            self._request.answer(self._response([0] * len(self._sources)))
        else:
            lease = self._broker.pool.lease(size_bytes)
            if lease is None:
                self._broker.counters.buffer_waits += 1
                self._request.session.run(self._request, self._answer_in_time(size_bytes))
            else:
                self._fill(lease, 0, 0, [])

    async def _answer_in_time(self, size_bytes: int) -> None:
        lease = await self._broker.pool.lease_wait(size_bytes, BUFFER_TIMEOUT_S)
        self._fill(lease, 0, 0, [])

    def _fill(self, lease: Lease, first: int, filled: int, sizes: list[int]) -> None:
        """Read the sources from `first` on into the buffer; what is not in memory is read by a thread."""
        for index in range(first, len(self._sources)):
            source = self._sources[index]
            size = 0
            if source.plan is not None and source.plan.size_bytes:
                view = lease.view[filled : filled + source.plan.size_bytes]
                try:
                    size = source.plan.read_into(view, wait=False)
                except BlockingIOError:
                    self._broker.counters.cold_reads += 1
                    self._request.session.run(
                        self._request, self._fill_cold(lease, index, filled, sizes)
                    )
                    return
                except BrokerError as error:
                    source.error = error
            sizes.append(size)
            filled += size
        self._broker.counters.fetched_bytes += filled
        self._request.answer(self._response(sizes), lease.view[:filled], lease)

    async def _fill_cold(self, lease: Lease, index: int, filled: int, sizes: list[int]) -> None:
        source = self._sources[index]
        plan = source.plan
        assert plan is not None
        view = lease.view[filled : filled + plan.size_bytes]
        size = 0
        reading = self._broker.in_thread(lambda: plan.read_into(view, wait=True))
        try:
            size = await asyncio.shield(reading)
        except BrokerError as error:
            source.error = error
        except asyncio.CancelledError:
            # The thread still writes into the buffer: it goes back when the thread is done.
            reading.add_done_callback(lambda _: lease.release())
            raise
        sizes.append(size)
        self._fill(lease, index + 1, filled + size, sizes)

    def _response(self, sizes: list[int]) -> FetchResponse:
        return FetchResponse(
            tuple(_fetched(source, size) for source, size in zip(self._sources, sizes, strict=True))
        )


def _fetched(source: _Source, size_bytes: int) -> FetchedPartition:
    partition, error = source.partition, source.error
    next_readable = error.next_readable_offset if isinstance(error, CorruptLogError) else -1
    high_watermark = -1 if partition is None else partition.high_watermark
    return FetchedPartition(
        source.asked.topic_id,
        source.asked.partition,
        0 if error is None else int(error.code),
        "" if error is None else error.detail,
        high_watermark,
        high_watermark,
        -1 if partition is None else partition.log.log_start_offset,
        next_readable,
        size_bytes,
    )


entry = HandlerEntry(ApiKey.FETCH, handle)
