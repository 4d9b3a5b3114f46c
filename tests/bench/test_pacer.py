"""The pacer: on time, never early, nothing lost when told to wait."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import pytest
import uvloop

from frieda.bench.pacer import Pacer
from frieda.config import PollingMode
from frieda.transports.polling import PollingEngine

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


def run(loop_factory: Callable[[], asyncio.AbstractEventLoop], main: Any) -> None:
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(asyncio.wait_for(main, 60))


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_each_time_is_offered_once_in_order_and_never_early(
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    sent: list[tuple[int, int]] = []
    start_ns = time.monotonic_ns()
    times_ns = [start_ns + 100_000 * number for number in range(200)]

    async def main() -> None:
        done = asyncio.Event()

        def send(intended_ns: int) -> bool:
            sent.append((intended_ns, time.monotonic_ns()))
            if len(sent) == len(times_ns):
                done.set()
            return True

        pacer = Pacer(iter(times_ns), send)
        pacer.pump()
        await done.wait()
        pacer.close()

    run(loop_factory, main())
    assert [intended for intended, _ in sent] == times_ns
    assert all(actual >= intended for intended, actual in sent)


def test_a_time_that_may_not_be_sent_yet_is_offered_again_and_the_loop_sleeps_meanwhile() -> None:
    async def main() -> None:
        offered: list[int] = []
        free = False

        def send(intended_ns: int) -> bool:
            offered.append(intended_ns)
            return free

        pacer = Pacer(iter([1, 2]), send)
        pacer.pump()
        before = len(offered)
        loop = asyncio.get_running_loop()
        turned = loop.create_future()
        loop.call_later(0.02, turned.set_result, None)
        await turned
        assert (before, len(offered)) == (1, 1)
        free = True
        pacer.pump()
        assert offered == [1, 1, 2]
        pacer.close()

    run(asyncio.new_event_loop, main())


def test_closing_gives_its_file_descriptor_back_and_sends_no_more() -> None:
    async def main() -> None:
        before = len(os.listdir("/proc/self/fd"))
        pacer = Pacer(iter([1]), lambda _: pytest.fail("sent after close"))
        pacer.close()
        pacer.close()
        pacer.pump()
        assert len(os.listdir("/proc/self/fd")) == before

    run(asyncio.new_event_loop, main())


def test_sending_may_close_the_pacer() -> None:
    async def main() -> None:
        def send(_: int) -> bool:
            pacer.close()
            return True

        pacer = Pacer(iter([1, 2, 3]), send)
        pacer.pump()

    run(asyncio.new_event_loop, main())


@pytest.mark.parametrize("mode", ["event", "adaptive", "busy"])
def test_times_are_kept_whether_the_loop_spins_or_sleeps(mode: PollingMode) -> None:
    """The steps are longer than the spin window and shorter: the engine falls asleep between some of them."""
    sent: list[tuple[int, int]] = []
    steps_ns = [200_000] * 40 + [4_000_000] * 10 + [200_000] * 40
    times_ns = list(accumulate(steps_ns, initial=time.monotonic_ns()))

    async def main() -> None:
        engine = PollingEngine(mode)
        engine.start()
        done = asyncio.Event()

        def send(intended_ns: int) -> bool:
            engine.note_activity()
            if len(sent) % 3 == 1 and not refused.pop():
                refused.append(True)
                asyncio.get_running_loop().call_soon(pacer.pump)
                return False
            refused[:] = [False]
            sent.append((intended_ns, time.monotonic_ns()))
            if len(sent) == len(times_ns):
                done.set()
            return True

        refused = [False]
        pacer = Pacer(iter(times_ns), send, engine)
        pacer.pump()
        await done.wait()
        pacer.close()
        pacer.close()
        engine.close()

    run(uvloop.new_event_loop, main())
    assert [intended for intended, _ in sent] == times_ns
    assert all(actual >= intended for intended, actual in sent)


class SleepingEngine:
    """A polling engine that does not spin."""

    spinning = False

    def add_source(self, source: Pacer, *, inner: bool) -> None: ...

    def remove_source(self, source: Pacer) -> None: ...


async def test_a_time_that_comes_between_the_last_look_and_going_to_sleep_is_not_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[int] = []
    last = asyncio.get_running_loop().create_future()

    def send(intended_ns: int) -> bool:
        sent.append(intended_ns)
        if len(sent) == 2:
            last.set_result(None)
        return True

    # 2,000 lies ahead when the first is sent, and has passed when the timer for it is about to be set.
    looks = iter([1_000, 1_000, 1_500, 2_500])
    with monkeypatch.context() as patched:
        patched.setattr("frieda.bench.pacer.time.monotonic_ns", lambda: next(looks))
        pacer = Pacer(iter([900, 2_000]), send, SleepingEngine())  # type: ignore[arg-type]
        assert pacer.poll() == 1
    await asyncio.wait_for(last, 60)
    pacer.close()
    assert sent == [900, 2_000]
    assert next(looks, None) is None
