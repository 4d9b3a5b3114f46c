"""One producer under load, on a driver in memory: who is sent when, counted where, and blamed for what."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from frieda.bench.driven import STAMP, DrivenProducer
from frieda.bench.drivers.base import Done
from frieda.bench.load import Load, shares
from frieda.bench.meter import Meter
from frieda.bench.worker import Channel
from frieda.errors import BrokerError, DeliveryTimeoutError, ErrorCode, FriedaError


class QuietChannel(Channel):
    """Nobody listens to the progress of this load."""

    def __init__(self) -> None:
        super().__init__(asyncio.StreamReader())

    def progress(self, facts: Mapping[str, Any]) -> None: ...


class MemoryDriver:
    """Answers each record on the next turn of the loop, or when `answer` says so."""

    settings: Mapping[str, object] = {}

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, bytes | None]] = []
        self.most_under_way = 0
        self.under_way = 0
        self.room = 10**9
        self.answer: Callable[[Callable[[], None]], object] = lambda done: (
            asyncio.get_running_loop().call_soon(done)
        )
        self.error_of: Callable[[int], FriedaError | None] = lambda _: None
        self.calls_many: list[int] = []

    async def start(self) -> None: ...

    def submit(self, value: bytes, key: bytes | None, done: Done) -> bool:
        if self.under_way >= self.room:
            return False
        self._take(value, key, 1, done)
        return True

    async def submit_many(self, values: Sequence[bytes], done: Done) -> None:
        self.calls_many.append(len(values))
        for value in values[:-1]:
            self.sent.append((value, None))
        self._take(values[-1], None, len(values), done)

    def _take(self, value: bytes, key: bytes | None, count: int, done: Done) -> None:
        error = self.error_of(len(self.sent))
        self.sent.append((value, key))
        self.under_way += count
        self.most_under_way = max(self.most_under_way, self.under_way)

        def answered() -> None:
            self.under_way -= count
            done(count, time.monotonic_ns(), error)

        self.answer(answered)

    async def close(self, timeout_s: float = 5.0) -> None: ...


async def drive(
    driver: MemoryDriver, load: Load, values: Sequence[bytes] = (b"x" * 16, b"y" * 20), **more: Any
) -> tuple[DrivenProducer, Meter]:
    [[share]] = shares(load)
    meter = Meter(QuietChannel(), load)
    driven = DrivenProducer(driver, load, share, meter, values, **more)
    start_ns = time.monotonic_ns()
    meter.begin(start_ns)
    try:
        await asyncio.wait_for(driven.run(start_ns), 60)
    finally:
        meter.close()
    return driven, meter


def counts(meter: Meter) -> tuple[int, int]:
    """Measured records and errors."""
    return sum(window.histogram.count for window in meter._latency.windows(0)), meter.errors


async def test_a_closed_loop_keeps_as_many_under_way_as_it_may_and_measures_after_the_warm_up() -> (
    None
):
    driver = MemoryDriver()
    _, meter = await drive(driver, Load(records=50, warm_up_records=10, in_flight=7))
    assert len(driver.sent) == 60
    assert driver.most_under_way == 7
    assert counts(meter) == (50, 0)
    assert meter.first_ns < meter.last_ns


async def test_an_open_loop_sends_on_time_and_counts_from_the_intended_time() -> None:
    driver = MemoryDriver()
    load = Load(records=100, warm_up_records=20, rate=20_000.0, in_flight=1000)
    driven, meter = await drive(driver, load)
    assert len(driver.sent) == 120
    assert counts(meter) == (100, 0)
    assert meter.lateness.summary().sends == driven.own_lateness.summary().sends == 100
    response = sum(w.histogram.count for w in meter._latency.windows(0))
    service = sum(w.histogram.count for w in meter._service_time.windows(0))
    assert response == service == 100
    backlog = driven.facts()["backlog"]
    assert backlog.unsent == 0


@pytest.mark.parametrize("bound", ["in_flight", "buffer"])
async def test_what_the_system_holds_back_is_not_the_generators_fault(bound: str) -> None:
    driver = MemoryDriver()
    # Everything is due at once, and each record is answered 20 ms after it was sent.
    driver.answer = lambda done: asyncio.get_running_loop().call_later(0.02, done)
    in_flight = 1 if bound == "in_flight" else 1000
    driver.room = 10**9 if bound == "in_flight" else 1
    load = Load(records=20, rate=1e6, arrivals="burst", burst_records=20, in_flight=in_flight)
    driven, meter = await drive(driver, load)
    facts = driven.facts()
    assert driver.most_under_way == 1
    assert meter.lateness.summary().late_sends >= 19
    assert facts["held_s"] >= 19 * 0.018
    # The last was 380 ms late at least; of that hardly anything was the generator's own.
    assert meter.lateness.summary().max_us > 340_000
    assert facts["own_lateness"].mean_us < meter.lateness.summary().mean_us / 4
    assert facts["backlog"].most == 19
    assert facts["backlog"].at_end >= 1


async def test_what_the_generator_sleeps_through_is_its_own_fault() -> None:
    driver = MemoryDriver()
    load = Load(records=100, rate=1000.0, in_flight=1000)
    slept = False

    def answer(done: Callable[[], None]) -> None:
        nonlocal slept
        if len(driver.sent) == 10 and not slept:
            slept = True
            time.sleep(0.1)  # as if the process had lost its processor
        asyncio.get_running_loop().call_soon(done)

    driver.answer = answer
    driven, _ = await drive(driver, load)
    facts = driven.facts()
    assert facts["held_s"] == 0.0
    assert facts["own_lateness"].late_sends >= 60
    assert facts["own_lateness"].max_us > 90_000
    assert facts["backlog"].own_most >= 60


async def test_a_load_that_is_too_far_behind_is_given_up_and_says_what_was_not_sent() -> None:
    driver = MemoryDriver()
    driver.answer = lambda done: asyncio.get_running_loop().call_later(0.01, done)
    load = Load(records=10_000, rate=1e6, in_flight=1, max_behind_s=0.05)
    driven, meter = await drive(driver, load)
    unsent = driven.facts()["backlog"].unsent
    assert 0 < unsent < 10_000
    assert len(driver.sent) == 10_000 - unsent
    assert counts(meter) == (10_000 - unsent, 0)
    assert meter.last_ns > meter.first_ns


async def test_in_bulk_the_bound_is_kept_and_small_calls_are_not_made() -> None:
    driver = MemoryDriver()
    _, meter = await drive(driver, Load(records=1000, in_flight=64), manner="bulk")
    assert len(driver.sent) == 1000
    assert driver.most_under_way <= 64
    assert min(driver.calls_many[:-1]) >= 4
    assert counts(meter) == (1000, 0)


async def test_values_and_keys_are_sent_in_turn_and_a_refused_record_keeps_its_key() -> None:
    driver = MemoryDriver()
    driver.room = 1
    keys = iter([b"%d" % number for number in range(100)])
    await drive(driver, Load(records=9, in_flight=5), values=[b"a", b"b"], keys=keys)
    assert driver.sent == [(b"ab"[n % 2 : n % 2 + 1], b"%d" % n) for n in range(9)]


@pytest.mark.parametrize("rate", [None, 10_000.0])
async def test_a_stamped_value_says_when_it_was_to_be_sent_and_when_it_was(
    rate: float | None,
) -> None:
    driver = MemoryDriver()
    before_ns = time.monotonic_ns()
    load = Load(records=5, warm_up_records=2, rate=rate)
    await drive(driver, load, values=[b"v" * 20], stamped=True)
    stamps = [STAMP.unpack_from(value) for value, _ in driver.sent]
    assert [intended == 0 for intended, _ in stamps] == [True] * 2 + [False] * 5
    assert all(value[STAMP.size :] == b"v" * 4 for value, _ in driver.sent)
    for intended_ns, sent_ns in stamps[2:]:
        assert before_ns <= intended_ns <= sent_ns <= time.monotonic_ns()


async def test_a_record_that_is_refused_for_good_is_counted_and_the_load_goes_on() -> None:
    driver = MemoryDriver()
    refusal = BrokerError(ErrorCode.INVALID_RECORD)
    driver.error_of = lambda number: refusal if number == 3 else None
    _, meter = await drive(driver, Load(records=10, in_flight=2))
    assert counts(meter) == (9, 1)


@pytest.mark.parametrize("load", [{"in_flight": 3}, {"rate": 1000.0, "in_flight": 100}])
async def test_an_error_inside_of_submit_counts_as_the_answer(load: dict[str, Any]) -> None:
    driver = MemoryDriver()
    submit = driver.submit

    def failing(value: bytes, key: bytes | None, done: Done) -> bool:
        if len(driver.sent) == 4:
            driver.sent.append((value, key))
            raise BrokerError(ErrorCode.INVALID_RECORD)
        return submit(value, key, done)

    driver.submit = failing  # type: ignore[method-assign]
    _, meter = await drive(driver, Load(records=10, **load))
    assert len(driver.sent) == 10
    assert counts(meter) == (9, 1)


@pytest.mark.parametrize(
    ("load", "more"),
    [
        ({"in_flight": 5}, {}),
        ({"in_flight": 50, "rate": 1000.0}, {}),
        ({"in_flight": 50}, {"manner": "bulk"}),
    ],
)
async def test_a_lost_system_ends_the_load_with_its_error(
    load: dict[str, Any], more: dict[str, Any]
) -> None:
    driver = MemoryDriver()
    driver.error_of = lambda number: DeliveryTimeoutError("gone") if number > 5 else None
    with pytest.raises(DeliveryTimeoutError, match="gone"):
        await drive(driver, Load(records=10**6, **load), **more)


@pytest.mark.parametrize(
    ("load", "more"),
    [({"in_flight": 5}, {}), ({"rate": 1e5}, {}), ({"in_flight": 50}, {"manner": "bulk"})],
)
async def test_a_driver_that_never_answers_is_waited_for_no_longer_than_patience(
    load: dict[str, Any], more: dict[str, Any]
) -> None:
    driver = MemoryDriver()
    driver.answer = lambda _: None
    with pytest.raises(DeliveryTimeoutError, match=r"none was answered for 0\.05 s"):
        await drive(driver, Load(records=100, **load), patience_s=0.05, **more)


@pytest.mark.parametrize("load", [{"in_flight": 5}, {"rate": 1e5}])
async def test_a_buffer_that_takes_nothing_at_all_is_an_error(load: dict[str, Any]) -> None:
    driver = MemoryDriver()
    driver.room = 0
    with pytest.raises(FriedaError, match="does not take a single record"):
        await drive(driver, Load(records=100, **load))


async def test_a_generator_that_comes_to_a_stop_is_found_out() -> None:
    driver = MemoryDriver()

    def broken(value: bytes, key: bytes | None, done: Done) -> bool:
        raise ZeroDivisionError("a mistake in a driver")

    driver.submit = broken  # type: ignore[method-assign]
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    with pytest.raises((FriedaError, ZeroDivisionError)):
        await drive(driver, Load(records=100, rate=50.0), patience_s=0.05)
