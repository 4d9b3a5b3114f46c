"""One timer for many deadlines: it rings at the earliest, once, and costs nothing in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from frieda.clients.deadline import NEVER, DeadlineTimer
from frieda.clock import ManualClock


class FakeHandle:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeLoop:
    """Keeps the timers that it was asked for."""

    def __init__(self) -> None:
        self.timers: list[tuple[float, Callable[[], None], FakeHandle]] = []

    def call_later(self, wait_s: float, callback: Callable[[], None]) -> FakeHandle:
        handle = FakeHandle()
        self.timers.append((wait_s, callback, handle))
        return handle


def make_timer() -> tuple[DeadlineTimer, FakeLoop, ManualClock, list[int]]:
    loop, clock = FakeLoop(), ManualClock()
    rang: list[int] = []
    running: Any = loop
    timer = DeadlineTimer(running, clock.monotonic_ns, lambda: rang.append(clock.monotonic_ns()))
    return timer, loop, clock, rang


def in_s(clock: ManualClock, seconds: float) -> int:
    return clock.monotonic_ns() + int(seconds * 1e9)


def test_later_deadlines_do_not_touch_the_timer() -> None:
    timer, loop, clock, _ = make_timer()
    for seconds in (1, 2, 3, 1):
        timer.watch(in_s(clock, seconds))
    assert [wait_s for wait_s, _, _ in loop.timers] == [1]
    assert timer.next_ns == in_s(clock, 1)


def test_an_earlier_deadline_moves_it_forward() -> None:
    timer, loop, clock, _ = make_timer()
    timer.watch(in_s(clock, 2))
    timer.watch(in_s(clock, 1))
    (_, _, first), (wait_s, _, second) = loop.timers
    assert (first.cancelled, second.cancelled, wait_s) == (True, False, 1)


def test_once_it_rang_any_deadline_is_watched_again() -> None:
    timer, loop, clock, rang = make_timer()
    timer.watch(in_s(clock, 1))
    clock.advance(1)
    loop.timers[0][1]()
    assert rang == [clock.monotonic_ns()]
    assert timer.next_ns == NEVER
    timer.watch(in_s(clock, 5))
    assert len(loop.timers) == 2


def test_a_deadline_that_is_over_rings_on_a_later_turn_and_a_cancelled_one_never() -> None:
    timer, loop, clock, rang = make_timer()
    timer.watch(in_s(clock, -1))
    assert loop.timers[0][0] == 0.001
    assert rang == []
    timer.cancel()
    timer.cancel()
    assert loop.timers[0][2].cancelled
    assert timer.next_ns == NEVER


async def test_it_rings_on_a_real_loop() -> None:
    rang = asyncio.get_running_loop().create_future()
    clock = ManualClock()
    timer = DeadlineTimer(
        asyncio.get_running_loop(), clock.monotonic_ns, lambda: rang.set_result(None)
    )
    timer.watch(in_s(clock, 0.002))
    async with asyncio.timeout(10):
        await rang
