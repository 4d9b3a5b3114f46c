"""The reorder window releases in the order of opening, whatever the order of filling."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frieda.errors import LocalProtocolError
from frieda.protocol.reorder import ReorderWindow


@given(st.permutations(list(range(12))))
def test_items_leave_in_the_order_their_slots_were_opened(order: list[int]) -> None:
    window: ReorderWindow[int] = ReorderWindow()
    slots = [window.open() for _ in order]
    released: list[int] = []
    for position in order:
        released += window.fill(slots[position], position)
        # What has left is always a prefix: nothing waits that could go.
        assert released == list(range(len(released)))
        assert window.open_slots == len(order) - len(released)
    assert released == sorted(order)


@given(st.lists(st.booleans(), max_size=60), st.randoms())
def test_slots_opened_while_others_wait_keep_their_place(steps: list[bool], random: object) -> None:
    window: ReorderWindow[int] = ReorderWindow()
    waiting: list[int] = []
    released: list[int] = []
    opened = 0
    for opens in steps:
        if opens or not waiting:
            waiting.append(window.open())
            opened += 1
        else:
            slot = waiting.pop(random.randrange(len(waiting)))  # type: ignore[attr-defined]
            released += window.fill(slot, slot)
    for slot in reversed(waiting):
        released += window.fill(slot, slot)
    assert released == list(range(opened))


def test_a_slot_is_filled_once() -> None:
    window: ReorderWindow[str] = ReorderWindow()
    first, second = window.open(), window.open()
    window.fill(second, "b")
    with pytest.raises(LocalProtocolError):
        window.fill(second, "again")
    window.fill(first, "a")
    with pytest.raises(LocalProtocolError):
        window.fill(first, "again")


def test_a_slot_that_was_never_opened_is_refused() -> None:
    window: ReorderWindow[str] = ReorderWindow()
    with pytest.raises(LocalProtocolError):
        window.fill(0, "a")
