"""Results leave in the order the records were sent, whatever the order of the answers.

ordering = partition: each lane keeps its batches in send order, and they leave from the front. ordering = producer: one
window for all, with a place for each record (or Span of them); one slow leader then holds back the results of all. The
bytes of a batch leave the producer's buffer with its results, which is what bounds both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Any

from frieda.clients.batch import Batch, Outcome, Span
from frieda.clients.buffer_room import BufferRoom
from frieda.clients.lane import Lane
from frieda.model import RecordMetadata
from frieda.protocol.reorder import ReorderWindow

_new_metadata = tuple.__new__


class Results:
    """Where settled batches go. `whole_producer`: keep the order of the whole producer."""

    def __init__(self, room: BufferRoom, *, whole_producer: bool) -> None:
        self.whole_producer = whole_producer
        self._room = room
        self._window: ReorderWindow[tuple[Lane, Batch, int, list[Outcome]]] = ReorderWindow()

    def add_entry(self, batch: Batch, entry: Any, timestamp_ms: int) -> None:
        """Let a future or a Span wait for the records just added to the batch."""
        batch.entries.append(entry)
        batch.timestamps_ms.append(timestamp_ms)
        if batch.slots is not None:
            batch.slots.append(self._window.open())

    def settle(self, batch: Batch) -> None:
        """The batch has its outcome: hand out its results, and all that only waited for them."""
        while batch.parent is not None:
            batch = batch.parent
            batch.unsettled_parts -= 1
            if batch.unsettled_parts:
                return
        batch.encoded = None
        batch.is_done = True
        lane: Lane = batch.lane
        unreleased = lane.unreleased
        while unreleased and unreleased[0].is_done:
            if batch.slots is None:
                self._hand_out(lane, unreleased.popleft())
            else:
                unreleased.popleft()
        if batch.slots is not None:
            self._hand_out_in_producer_order(lane, batch)

    def _hand_out(self, lane: Lane, batch: Batch) -> None:
        if batch.error is None and batch.parts is None:
            # The hot loop: about 0.3 us for each future. (No strict zip: its keyword costs a batch of one 0.1 us.)
            topic, partition, offset = lane.topic, lane.partition, batch.base_offset
            step = 1 if offset >= 0 else 0
            for entry, timestamp_ms in zip(batch.entries, batch.timestamps_ms):  # noqa: B905
                if type(entry) is Span:
                    self._call(entry, ((entry.count, offset, None),))
                    offset += entry.count * step
                else:
                    if not entry.done():
                        entry.set_result(
                            _new_metadata(RecordMetadata, (topic, partition, offset, timestamp_ms))
                        )
                    offset += step
        else:
            for number, found in _stretches(batch):
                self._give(lane, batch, number, found)
        self._room.give_back(batch.charged_bytes)

    def _hand_out_in_producer_order(self, lane: Lane, batch: Batch) -> None:
        window = self._window
        assert batch.slots is not None
        batch.unreleased = len(batch.slots)
        for number, found in _stretches(batch):
            ready = window.fill(batch.slots[number], (lane, batch, number, found))
            for its_lane, its_batch, its_number, its_found in ready:
                self._give(its_lane, its_batch, its_number, its_found)
                its_batch.unreleased -= 1
                if its_batch.unreleased == 0:
                    self._room.give_back(its_batch.charged_bytes)

    def _give(self, lane: Lane, batch: Batch, number: int, found: list[Outcome]) -> None:
        entry = batch.entries[number]
        if type(entry) is Span:
            self._call(entry, found)
        elif not entry.done():
            _, offset, error = found[0]
            if error is not None:
                entry.set_exception(error)
            else:
                timestamp_ms = batch.timestamps_ms[number]
                entry.set_result(RecordMetadata(lane.topic, lane.partition, offset, timestamp_ms))

    def _call(self, span: Span, outcomes: Iterable[tuple[Any, ...]]) -> None:
        """A user's callback: what it raises is the user's, and must not harm the connection."""
        try:
            for outcome in outcomes:
                span.on_done(*outcome)
        except Exception as error:  # noqa: BLE001
            asyncio.get_running_loop().call_exception_handler(
                {"message": "a delivery callback failed", "exception": error}
            )


def _stretches(batch: Batch) -> Iterator[tuple[int, list[Outcome]]]:
    """For each entry of a batch its number and the outcomes of its records: one, or several for a cut Span."""
    pieces = batch.outcomes()
    left, offset, error = next(pieces)
    for number, entry in enumerate(batch.entries):
        wanted = entry.count if type(entry) is Span else 1
        found: list[Outcome] = []
        while True:
            if left == 0 and wanted:
                left, offset, error = next(pieces)
            taken = min(wanted, left)
            found.append(Outcome(taken, offset, error))
            if offset >= 0:
                offset += taken
            left -= taken
            wanted -= taken
            if not wanted:
                break
        yield number, found
