"""The reorder window: what finishes in any order leaves in the order it began.

Used at the client, where answers come as the broker finishes them and results must come as they were sent,
and, as a switch for comparison, at the broker.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from frieda.errors import LocalProtocolError

Item = TypeVar("Item")


class ReorderWindow(Generic[Item]):
    """Slots are opened in order, filled in any order and released in order.

    The caller bounds the window by not opening more slots than it wants (`open_slots`).
    """

    __slots__ = ("_filled", "_next_open", "_next_release")

    def __init__(self) -> None:
        self._next_open = 0
        self._next_release = 0
        self._filled: dict[int, Item] = {}

    @property
    def open_slots(self) -> int:
        """How many slots are opened and not yet released."""
        return self._next_open - self._next_release

    def open(self) -> int:
        """Take the next slot; give its number to `fill` later."""
        slot = self._next_open
        self._next_open = slot + 1
        return slot

    def fill(self, slot: int, item: Item) -> list[Item]:
        """Fill a slot; returns the items that can leave now, in order.

        Raises LocalProtocolError for a slot that is filled already or was never opened.
        """
        if not self._next_release <= slot < self._next_open or slot in self._filled:
            raise LocalProtocolError(f"slot {slot} of a reorder window is not open")
        if slot != self._next_release:
            self._filled[slot] = item
            return []
        released = [item]
        slot += 1
        while slot in self._filled:
            released.append(self._filled.pop(slot))
            slot += 1
        self._next_release = slot
        return released
