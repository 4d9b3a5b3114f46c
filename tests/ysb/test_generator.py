"""The generator with a client of the tests' own: everything leaves once, by its time, whatever the client does."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence

import pytest

from frieda.bench.drivers.base import Done
from frieda.bench.load import Load, shares
from frieda.errors import BrokerError, DeliveryTimeoutError, ErrorCode, FriedaError
from frieda.ysb.campaigns import Campaigns
from frieda.ysb.events import AdEvents
from frieda.ysb.generator import LoadedProducer

CAMPAIGNS = Campaigns.seeded(1)


class Client:
    """A ProducerDriver that keeps what it gets; `room` may be taken away for a while."""

    settings: Mapping[str, object] = {}

    def __init__(self, error: FriedaError | None = None, answers: bool = True) -> None:
        self.calls: list[tuple[int, list[bytes]]] = []
        self.room = asyncio.Event()
        self.room.set()
        self.busy = 0
        self._error = error
        self._answers = answers

    async def start(self) -> None: ...

    def submit(self, value: bytes, key: bytes | None, done: Done) -> bool:
        raise AssertionError("the generator sends many at once")

    async def submit_many(self, values: Sequence[bytes], done: Done) -> None:
        assert self.busy == 0, "one call at a time"
        self.busy += 1
        self.calls.append((time.monotonic_ns(), list(values)))
        await self.room.wait()
        self.busy -= 1
        if self._answers:
            done(len(values), time.monotonic_ns(), self._error)

    async def close(self, timeout_s: float = 5.0) -> None: ...


def loaded(client: Client, records: int, rate: float) -> tuple[LoadedProducer, int]:
    """A producer, and when its load starts."""
    start_ns = time.monotonic_ns() + 20_000_000
    (share,) = shares(Load(records=records, rate=rate))[0]
    events = AdEvents(CAMPAIGNS, share)
    events.begin(1_700_000_000_000)
    return LoadedProducer(client, events, share, tick_ms=1.0), start_ns


async def test_every_event_leaves_once_in_order_and_never_early() -> None:
    client = Client()
    producer, start_ns = loaded(client, 500, 5000.0)
    await producer.run(start_ns, timeout_s=60.0)
    assert (producer.sent, producer.acked, producer.errors) == (500, 500, 0)
    times = []
    for at_ns, values in client.calls:
        for value in values:
            due_ns = (int(json.loads(value)["event_time"]) - 1_700_000_000_000) * 1_000_000
            assert at_ns - start_ns >= due_ns
            times.append(due_ns)
    assert len(times) == 500
    assert times == sorted(times)


async def test_a_client_without_room_holds_the_producer_back_and_nothing_is_lost() -> None:
    client = Client()
    client.room.clear()
    producer, start_ns = loaded(client, 5000, 100_000.0)
    running = asyncio.ensure_future(producer.run(start_ns, timeout_s=60.0))
    while not producer.waits:  # noqa: ASYNC110  (there is no event for a tick that is held)
        await asyncio.sleep(0.001)
    assert len(client.calls) == 1
    client.room.set()
    await running
    assert producer.held_s > 0
    assert (producer.sent, producer.acked) == (5000, 5000)
    assert sum(len(values) for _, values in client.calls) == 5000


async def test_a_schedule_that_lies_in_the_past_is_caught_up_in_bounded_calls() -> None:
    client = Client()
    producer, start_ns = loaded(client, 9000, 1e6)
    await producer.run(start_ns - 10**9, timeout_s=60.0)
    assert producer.acked == 9000
    assert max(len(values) for _, values in client.calls) == 2000
    assert producer.lateness.summary().late_sends > 0


async def test_refused_events_are_counted_with_the_last_error() -> None:
    client = Client(error=BrokerError(ErrorCode.DISK_FULL))
    producer, start_ns = loaded(client, 50, 5000.0)
    await producer.run(start_ns, timeout_s=60.0)
    assert (producer.acked, producer.errors) == (0, 50)
    assert "DISK_FULL" in str(producer.last_error)


async def test_answers_that_never_come_end_the_run() -> None:
    producer, start_ns = loaded(Client(answers=False), 50, 5000.0)
    with pytest.raises(DeliveryTimeoutError, match="50 events were not acknowledged"):
        await producer.run(start_ns, timeout_s=0.05)


async def test_an_error_of_the_client_ends_the_run() -> None:
    class Broken(Client):
        async def submit_many(self, values: Sequence[bytes], done: Done) -> None:
            raise FriedaError("the client is broken")

    producer, start_ns = loaded(Broken(), 50, 5000.0)
    with pytest.raises(FriedaError, match="the client is broken"):
        await producer.run(start_ns, timeout_s=60.0)
