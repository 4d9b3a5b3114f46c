"""Batches that arrived before one which their producer sent earlier, waiting for it within a bound. Pure.

A large batch that is fetched by rendezvous may be overtaken by small ones, and a retry may come after its
successors. Rather than failing those, the broker keeps them, a bounded number and for a bounded time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, NamedTuple, TypeVar

Item = TypeVar("Item")


class Parked(NamedTuple, Generic[Item]):
    """A waiting batch: where it belongs, until when it waits, and what the caller keeps with it."""

    producer_id: int
    producer_epoch: int
    base_sequence: int
    deadline_ns: int
    item: Item


class ParkingLot(Generic[Item]):
    """The waiting batches of one partition, at most `limit` for each producer.

    by_producer: producer id -> base sequence -> batch; to be read only. Empty when nothing waits.
    """

    __slots__ = ("_limit", "by_producer")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.by_producer: dict[int, dict[int, Parked[Item]]] = {}

    def __len__(self) -> int:
        return sum(len(waiting) for waiting in self.by_producer.values())

    def park(self, parked: Parked[Item]) -> bool:
        """Keep a batch. False when its producer's places are taken or it is parked already."""
        waiting = self.by_producer.get(parked.producer_id, {})
        if len(waiting) >= self._limit or parked.base_sequence in waiting:
            return False
        waiting[parked.base_sequence] = parked
        self.by_producer[parked.producer_id] = waiting
        return True

    def take(self, producer_id: int, base_sequence: int) -> Parked[Item] | None:
        """The batch of this producer that begins at `base_sequence`, no longer parked."""
        waiting = self.by_producer.get(producer_id)
        if waiting is None:
            return None
        parked = waiting.pop(base_sequence, None)
        if not waiting:
            del self.by_producer[producer_id]
        return parked

    def expire(self, now_ns: int) -> list[Parked[Item]]:
        """Those whose time is over, no longer parked, in the order of their sequences."""
        late = [parked for parked in self._all() if parked.deadline_ns <= now_ns]
        for parked in late:
            self.take(parked.producer_id, parked.base_sequence)
        return sorted(late, key=lambda parked: (parked.producer_id, parked.base_sequence))

    def clear(self) -> list[Parked[Item]]:
        """All of them, no longer parked."""
        everything = list(self._all())
        self.by_producer.clear()
        return everything

    def _all(self) -> Iterator[Parked[Item]]:
        for waiting in self.by_producer.values():
            yield from waiting.values()
