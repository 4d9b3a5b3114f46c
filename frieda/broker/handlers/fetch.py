"""Fetch, version 0: batches of several partitions; waits for min_bytes at most max_wait_ms (long poll)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from frieda.broker.request import HandlerEntry, Request, check_count
from frieda.errors import BrokerError, CorruptLogError
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
    from frieda.storage.reading import ReadPlan
    from frieda.transports.buffers import Lease

MAX_WAIT_MS = 300_000
BUFFER_TIMEOUT_S = 10.0
# What the array in front of the bodies takes for each partition, at most, but for the detail of an error.
_ENTRY_BYTES = 128


def handle(broker: Broker, request: Request) -> None:
    """Answer now when there is enough, or anything is wrong; else when there is or the time is over."""
    message: FetchRequest = request.message
    check_count(len(message.partitions), "partitions")
    broker.counters.fetches += 1
    fetch = _Fetch(broker, request)
    if message.max_wait_ms <= 0 or fetch.satisfied():
        fetch.answer_when_sendable()
    else:
        fetch.wait(min(message.max_wait_ms, MAX_WAIT_MS) / 1000)


class _Source:
    """One partition of a fetch: what it asked for, and what there is for it."""

    __slots__ = ("asked", "error", "partition", "plan", "size_bytes")

    def __init__(self, asked: FetchPartition) -> None:
        self.asked = asked
        self.partition: Partition | None = None
        self.plan: ReadPlan | None = None
        self.error: BrokerError | None = None
        self.size_bytes = 0


class _Fetch:
    """One fetch from its arrival to its answer.

    It reads only when it answers, and answers only when the connection takes more, so that neither a long poll
    nor a slow reader holds a buffer. Both reading steps are tried without waiting for the disk first.
    """

    __slots__ = ("_broker", "_message", "_request", "_sources", "_timer", "_waiting")

    def __init__(self, broker: Broker, request: Request) -> None:
        self._broker = broker
        self._request = request
        self._message: FetchRequest = request.message
        self._sources = [_Source(asked) for asked in self._message.partitions]
        self._timer: asyncio.TimerHandle | None = None
        self._waiting = False

    # --- waiting for enough -------------------------------------------------------------------------------

    def satisfied(self) -> bool:
        """Is there enough to answer, or is anything wrong?"""
        something = False
        for source in self._sources:
            partition, asked = source.partition, source.asked
            if partition is None or partition.stopped:
                try:
                    partition = self._broker.topics.partition(asked.topic_id, asked.partition)
                except BrokerError:
                    return True
                source.partition = partition
            if asked.offset < partition.high_watermark:
                something = True
            elif asked.offset > partition.high_watermark:
                return True
        if not something or self._message.min_bytes <= 1:
            return something
        self._plan()
        enough = sum(source.size_bytes for source in self._sources) >= self._message.min_bytes
        return enough or any(source.error is not None for source in self._sources)

    def wait(self, timeout_s: float) -> None:
        """Look again whenever a high watermark moves, and answer with what there is after `timeout_s`."""
        self._waiting = True
        for source in self._sources:
            if source.partition is not None:
                source.partition.watchers.add(self._moved)
        self._request.session.interrupts.add(self.answer_now)
        self._timer = asyncio.get_running_loop().call_later(timeout_s, self.answer_now)

    def answer_now(self) -> None:
        """Answer with what there is: the time is over, the broker stops or the connection ended."""
        if self._waiting:
            self._leave()
            self.answer_when_sendable()

    def _moved(self) -> None:
        # Called while another request is worked on, which a fault of this one must not touch.
        try:
            if self.satisfied():
                self.answer_now()
        except Exception as error:  # noqa: BLE001
            self._leave()
            self._request.session.failed(self._request, error)

    def _leave(self) -> None:
        self._waiting = False
        for source in self._sources:
            if source.partition is not None:
                source.partition.watchers.discard(self._moved)
        self._request.session.interrupts.discard(self.answer_now)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- answering ----------------------------------------------------------------------------------------

    def answer_when_sendable(self) -> None:
        """Read and answer as soon as the connection takes more."""
        self._request.session.when_sendable(self._answer)

    def _answer(self) -> None:
        # Called by timers, by other requests and by the connection: what goes wrong is told here, to the client.
        if not self._request.session.alive:
            self._request.finish_silently()
            return
        try:
            self._answer_with_what_there_is()
        except Exception as error:  # noqa: BLE001
            self._request.session.failed(self._request, error)

    def _answer_with_what_there_is(self) -> None:
        self._plan()
        planned_bytes = sum(source.size_bytes for source in self._sources)
        if planned_bytes == 0:
            self._request.answer(self._response())
            return
        lease = self._broker.pool.lease(planned_bytes)
        if lease is None:
            self._broker.counters.buffer_waits += 1
            self._request.session.run(self._request, self._wait_for_buffer(planned_bytes))
        else:
            self._read_and_answer(lease)

    async def _wait_for_buffer(self, size_bytes: int) -> None:
        self._read_and_answer(await self._broker.pool.lease_wait(size_bytes, BUFFER_TIMEOUT_S))

    def _read_and_answer(self, lease: Lease) -> None:
        try:
            size_bytes = self._read(lease.view, wait=False)
        except BlockingIOError:
            self._broker.counters.cold_reads += 1
            self._request.session.run(self._request, self._read_cold(lease))
            return
        except BaseException:
            lease.release()
            raise
        self._finish(lease, size_bytes)

    async def _read_cold(self, lease: Lease) -> None:
        reading = self._broker.in_thread(lambda: self._read(lease.view, wait=True))
        try:
            size_bytes = await asyncio.shield(reading)
        except asyncio.CancelledError:
            # The thread still writes into the buffer: it goes back when the thread is done.
            reading.add_done_callback(lambda _: lease.release())
            raise
        except BaseException:
            lease.release()
            raise
        self._finish(lease, size_bytes)

    def _finish(self, lease: Lease, size_bytes: int) -> None:
        if size_bytes == 0 and all(source.error is None for source in self._sources):
            # What was planned unseen, since it was not in memory, is a batch larger than the plan. It is in memory now.
            lease.release()
            self._answer()
            return
        self._broker.counters.fetched_bytes += size_bytes
        self._request.answer(self._response(), lease.view[:size_bytes], lease)

    def _plan(self) -> None:
        """Decide what each source gives, within the limits."""
        room = self._request.session.max_answer_bytes - _ENTRY_BYTES * (len(self._sources) + 1)
        left = max(0, min(self._message.max_bytes, self._broker.config.max_fetch_bytes, room))
        nothing_yet = True
        for source in self._sources:
            asked = source.asked
            source.plan = source.error = None
            source.size_bytes = 0
            try:
                source.partition = self._broker.topics.partition(asked.topic_id, asked.partition)
                # The first batch is given even when it is larger than the limits: no reader gets stuck.
                plan = source.partition.plan_read(
                    asked.offset, max(0, min(asked.max_bytes, left)), at_least_one=nothing_yet
                )
            except BrokerError as error:
                source.error = error
                continue
            if plan.size_bytes:
                source.plan = plan
                source.size_bytes = plan.size_bytes
                left -= plan.size_bytes
                nothing_yet = False

    def _read(self, view: memoryview, *, wait: bool) -> int:
        """Read every plan, end to end; how many bytes that are.

        In the loop with wait=False, which raises BlockingIOError when the disk would have to be asked; then again,
        in a thread.
        """
        filled = 0
        for source in self._sources:
            if source.plan is None:
                continue
            part = view[filled : filled + source.plan.size_bytes]
            try:
                source.size_bytes = source.plan.read_into(part, wait=wait)
            except BrokerError as error:
                source.error = error
                source.size_bytes = 0
            filled += source.size_bytes
        return filled

    def _response(self) -> FetchResponse:
        return FetchResponse(tuple(_fetched(source) for source in self._sources))


def _fetched(source: _Source) -> FetchedPartition:
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
        source.size_bytes,
    )


entry = HandlerEntry(ApiKey.FETCH, handle)
