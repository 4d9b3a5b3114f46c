"""Hands out what a consumer has fetched, one by one or many at once, and knows what was handed out.

The batch in hand lies in a list iterator. Taking a record from it is all that `async for` costs until the list
is used up, and a position is only worked out when somebody asks for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from operator import length_hint
from typing import Final

from frieda.clients.fetch_state import UNKNOWN_OFFSET, FetchState, PartitionFetch, Taken
from frieda.model import Record, TopicPartition

BREATH_NS: Final = 2_000_000
"""The loop gets a turn at least this often, however much has arrived."""
_NOTHING: Final[Iterator[Record]] = iter(())


class Reader:
    """The application's side of a FetchState.

    `before_read` is called at the start of every read with the time in ns and may raise; it returns when the
    reader must call it again though nothing has come (ns), or None. `pump` sends the fetches there is room for.
    """

    def __init__(
        self,
        state: FetchState,
        max_bytes: int,
        *,
        before_read: Callable[[int], int | None],
        pump: Callable[[], None],
    ) -> None:
        self.iterator = _NOTHING
        """The rest of the batch in hand; whoever has more than one record to take may go through it."""
        self.moved = False
        """Records were handed out since somebody last cleared this."""
        self._state = state
        self._max_bytes = max_bytes
        self._before_read = before_read
        self._pump = pump
        self._lent: Taken | None = None
        self._waiters: set[asyncio.Future[None]] = set()
        self._breath_ns = 0

    async def next_record(self) -> Record:
        """The next record; waits for it. Cancellation loses none."""
        state = self._state
        while True:
            for record in self.iterator:
                return record
            self._finish_lent()
            now_ns = time.monotonic_ns()
            self._before_read(now_ns)
            if now_ns - self._breath_ns >= BREATH_NS:
                await self._breathe()
                continue
            taken = state.take()
            if state.freed:
                self._pump()
            if taken is None:
                # Once more: what was just looked at may have been damaged.
                await self._wait(self._before_read(now_ns))
            elif taken.records:
                self._lent, self.iterator = taken, iter(taken.records)
                self.moved = True
            else:
                taken.partition.position = taken.next_offset
                self.moved = True

    async def next_records(
        self, timeout_ms: float, max_records: int | None
    ) -> dict[TopicPartition, list[Record]]:
        """What has arrived, by partition; waits up to `timeout_ms` for the first. Cancellation loses none."""
        now_ns = time.monotonic_ns()
        deadline_ns = now_ns + int(timeout_ms * 1e6)
        looked = False
        while True:
            self.give_back()
            self._before_read(now_ns)
            if now_ns - self._breath_ns < BREATH_NS or looked:
                found = self._collect(max_records)
                if found or (looked and now_ns >= deadline_ns):
                    return found
            if now_ns >= deadline_ns or now_ns - self._breath_ns >= BREATH_NS:
                # A turn of the loop, so that what lies in the sockets is seen.
                await self._breathe()
                looked = True
            else:
                wake_ns = self._before_read(now_ns)
                await self._wait(deadline_ns if wake_ns is None else min(wake_ns, deadline_ns))
                looked = True
            now_ns = time.monotonic_ns()

    def give_back(self) -> None:
        """What is left of the batch in hand comes first again."""
        lent = self._lent
        if lent is None:
            return
        lent.partition.position = self.position(lent.partition)
        rest = list(self.iterator)  # which also ends a loop that goes over it
        self._lent, self.iterator = None, _NOTHING
        if rest:
            self._state.put_back(Taken(lent.partition, rest, lent.next_offset, 0))

    def put_back(self, records: Mapping[TopicPartition, list[Record]]) -> None:
        """Records that were handed out last come first again, and the positions go back to them."""
        self.give_back()
        for key, given in records.items():
            partition = self._state.partitions.get(key)
            if partition is not None and given:
                self._state.put_back(Taken(partition, given, partition.position, 0))
                partition.position = given[0].offset

    def drop(self) -> None:
        """Forget the batch in hand."""
        self._lent, self.iterator = None, _NOTHING

    def position(self, partition: PartitionFetch) -> int:
        """The offset of the next record of `partition` that will be handed out, or UNKNOWN_OFFSET."""
        lent = self._lent
        if lent is None or lent.partition is not partition:
            return partition.position
        left = length_hint(self.iterator)
        return lent.records[-left].offset if left else lent.next_offset

    def positions(self) -> dict[TopicPartition, int]:
        """All positions that are known."""
        positions = {key: self.position(each) for key, each in self._state.partitions.items()}
        return {key: offset for key, offset in positions.items() if offset != UNKNOWN_OFFSET}

    def wake(self) -> None:
        """There is news for everyone who waits."""
        for waiter in self._waiters:
            _wake(waiter)

    # --- inside -------------------------------------------------------------------------------------------

    def _collect(self, max_records: int | None) -> dict[TopicPartition, list[Record]]:
        state = self._state
        found: dict[TopicPartition, list[Record]] = {}
        left = max_records
        left_bytes = self._max_bytes
        while left_bytes > 0 and left != 0 and (taken := state.take()) is not None:
            partition, records, next_offset, size_bytes = taken
            left_bytes -= size_bytes
            if left is not None:
                if len(records) > left:
                    rest = records[left:]
                    state.put_back(Taken(partition, rest, next_offset, 0))
                    records, next_offset = records[:left], rest[0].offset
                left -= len(records)
            partition.position = next_offset
            self.moved = True
            if partition.key in found:
                found[partition.key] += records
            elif records:
                found[partition.key] = records
        if state.freed:
            self._pump()
        return found

    def _finish_lent(self) -> None:
        """The batch in hand is used up: the position is behind it."""
        if self._lent is not None:
            self._lent.partition.position = self._lent.next_offset
            self._lent = None

    async def _breathe(self) -> None:
        await asyncio.sleep(0)
        self._breath_ns = time.monotonic_ns()

    async def _wait(self, until_ns: int | None) -> None:
        """Until there is news or the time has come."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        timer = None
        if until_ns is not None:
            left_s = max(0.0, (until_ns - time.monotonic_ns()) / 1e9)
            timer = loop.call_later(left_s, _wake, waiter)
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)
            if timer is not None:
                timer.cancel()
            self._breath_ns = time.monotonic_ns()


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
