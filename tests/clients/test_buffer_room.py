"""The producer's buffer: bounded, fair, and without a trace of those who gave up."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frieda.clients.buffer_room import BufferRoom
from frieda.errors import BrokerError, ClientClosedError


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_nobody_overtakes_who_waits() -> None:
    room = BufferRoom(100)
    await room.take(90)
    large = asyncio.create_task(room.take(80))
    await turns()
    assert not room.take_now(5), "there is room for it, and someone before it"
    small = asyncio.create_task(room.take(5))
    await turns()
    assert not small.done()
    room.give_back(90)
    await asyncio.gather(large, small)
    assert room.used_bytes == 85


async def test_more_than_the_whole_buffer_is_refused() -> None:
    with pytest.raises(BrokerError, match=r"101 bytes .*buffer_bytes = 100"):
        await BufferRoom(100).take(101)


async def test_one_cancelled_after_its_turn_came_gives_the_room_to_the_next() -> None:
    room = BufferRoom(100)
    await room.take(100)
    first, second = asyncio.create_task(room.take(60)), asyncio.create_task(room.take(60))
    await turns()
    room.give_back(100)
    first.cancel()
    await second
    assert first.cancelled() or first.done()
    assert room.used_bytes == 60


async def test_at_the_end_everyone_who_waits_is_told() -> None:
    room = BufferRoom(10)
    await room.take(10)
    waiting = [asyncio.create_task(room.take(1)) for _ in range(3)]
    await turns()
    room.fail(ClientClosedError("over"))
    for task in waiting:
        with pytest.raises(ClientClosedError):
            await task


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("take"), st.integers(1, 60)),
            st.tuples(st.just("give"), st.integers(0, 5)),
            st.tuples(st.just("cancel"), st.integers(0, 5)),
            st.tuples(st.just("turn"), st.just(0)),
        ),
        min_size=10,
        max_size=60,
    )
)
def test_room_is_bounded_given_in_turn_and_never_lost(script: list[tuple[str, int]]) -> None:
    async def run() -> None:
        room = BufferRoom(100)
        tasks: list[tuple[asyncio.Task[None], int]] = []
        held: list[int] = []
        granted: list[int] = []

        async def take(number: int, size_bytes: int) -> None:
            await room.take(size_bytes)
            held.append(size_bytes)
            granted.append(number)

        for action, value in script:
            match action:
                case "take":
                    number = len(tasks)
                    tasks.append((asyncio.create_task(take(number, value)), value))
                case "give" if held:
                    room.give_back(held.pop(value % len(held)))
                case "cancel" if tasks:
                    tasks[value % len(tasks)][0].cancel()
            if action == "turn":
                await turns()
            assert room.used_bytes <= 100
        while True:
            await turns()
            if not held:
                break
            room.give_back(held.pop())
        assert all(task.done() for task, _ in tasks)
        assert granted == sorted(granted)
        assert room.used_bytes == 0
        assert room.waiting == 0

    asyncio.run(run())
