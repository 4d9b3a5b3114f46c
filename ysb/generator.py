"""A process of the generator: its producers send their ad events at fixed rates, by intended times.

The events that have become due leave together, once in each tick of about 1 ms: an event leaves half a tick after its
intended time on average, and never before it. Its event_time is the intended one. While the client's buffer is full a
producer falls behind its schedule, which is the system's doing and not the generator's own lateness
(`frieda.bench.verdict` says how the two are told apart); the schedule never moves.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final

from frieda.bench.drivers.base import ProducerDriver, ProducerOptions
from frieda.bench.drivers.registry import driver
from frieda.bench.load import Lateness, ProducerShare
from frieda.bench.pacer import Pacer
from frieda.bench.verdict import Punctuality
from frieda.bench.worker import Channel
from frieda.clients.runtime import running_engine
from frieda.errors import DeliveryTimeoutError, FriedaError
from frieda.ysb.cadence import PROGRESS_MS, Cadence
from frieda.ysb.campaigns import Campaigns
from frieda.ysb.events import NS_PER_MS, AdEvents, Skew, ticks_ns
from frieda.ysb.timing import ProcessorTime, sleep_until

LATE_NS: Final = 100 * NS_PER_MS
"""A tick later than this is told as late; the original benchmark's generator complains from here on, too."""
MOST_AT_ONCE: Final = 2000
"""Events of one call; more are only due when the producer is behind."""
SAMPLE_NS: Final = 10 * NS_PER_MS


class LoadedProducer:
    """One producer under its share of the load."""

    def __init__(
        self, producer: ProducerDriver, events: AdEvents, share: ProducerShare, tick_ms: float
    ) -> None:
        self.lateness = Lateness(LATE_NS)
        self.acked = 0
        self.errors = 0
        self.waits = False
        """A tick is due, and the call before still waits for room in the client's buffer."""
        self.last_error: FriedaError | None = None
        self._producer = producer
        self._events = events
        self._share = share
        self._tick_ms = tick_ms
        self._sending: asyncio.Task[None] | None = None
        self._punctuality = Punctuality()
        self._behind = False
        self._next_sample_ns = 0
        self._end: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def sent(self) -> int:
        """Events that were handed to the client."""
        return self._events.sent

    @property
    def held_s(self) -> float:
        """How long in all the client's full buffer has held the producer back."""
        return self._punctuality.held_ns / 1e9

    async def run(self, start_ns: int, timeout_s: float, measured_ns: int = 0) -> None:
        """Send all of the share and wait for every answer. Lateness counts from `measured_ns` on.

        Raises what the client raises, and DeliveryTimeoutError when the last answers take longer than `timeout_s`.
        """
        self._start_ns, self._measured_ns = start_ns, measured_ns
        end_ns = self._events.end_ns
        phase = self._share.phase
        times_ns = (start_ns + tick for tick in ticks_ns(self._tick_ms, phase, end_ns))
        pacer = self._pacer = Pacer(times_ns, self._tick, running_engine())
        try:
            pacer.pump()
            await self._end
        finally:
            pacer.close()
            if self._sending is not None:
                self._sending.cancel()
                await asyncio.gather(self._sending, return_exceptions=True)
        await self._all_answered(timeout_s)

    def _tick(self, intended_ns: int) -> bool:
        """Pacer: send what is due; False while the last call waits for room."""
        now_ns = time.monotonic_ns()
        # A tick before, which was late itself, may have sent this one's events.
        due = self._events.is_due(now_ns - self._start_ns)
        if due and self._sending is not None:
            self._punctuality.refused(now_ns)
            self.waits = True
            return False
        self.waits = False
        own_ns = self._punctuality.sent(intended_ns, now_ns)
        if intended_ns >= self._measured_ns:
            self.lateness.note(max(0, own_ns))
        if due:
            self._send_due(now_ns)
        return True

    def _send_due(self, now_ns: int) -> None:
        sampled_ns = None
        if now_ns >= self._next_sample_ns:
            sampled_ns, self._next_sample_ns = now_ns, now_ns + SAMPLE_NS
        values = self._events.take_due(now_ns - self._start_ns, MOST_AT_ONCE, sampled_ns)
        self._behind = len(values) == MOST_AT_ONCE
        self._sending = asyncio.ensure_future(self._producer.submit_many(values, self._done))
        self._sending.add_done_callback(self._sent)

    def _sent(self, sending: asyncio.Task[None]) -> None:
        """The client has taken what was sent."""
        self._sending = None
        if sending.cancelled() or self._end.done():
            return
        error = sending.exception()
        if error is not None:
            self._end.set_exception(error)
        elif not self._events.remaining:
            self._end.set_result(None)
        elif self.waits:
            self._pacer.pump()
        elif self._behind:
            self._send_due(time.monotonic_ns())

    def _done(self, count: int, _: int, error: FriedaError | None) -> None:
        if error is None:
            self.acked += count
        else:
            self.errors += count
            self.last_error = error

    async def _all_answered(self, timeout_s: float) -> None:
        deadline_s = time.monotonic() + timeout_s
        while self.acked + self.errors < self._events.sent:
            if time.monotonic() > deadline_s:
                raise DeliveryTimeoutError(
                    f"{self._events.sent - self.acked - self.errors} events were not acknowledged within "
                    f"{timeout_s:g} s after the last was sent"
                )
            await asyncio.sleep(0.005)


async def run(task: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """A worker process: the producers of its shares, each with a client of its own."""
    campaigns = Campaigns.seeded(task["seed"], task["campaigns"], task["ads_per_campaign"])
    skew = None if task["skew"] is None else Skew(**task["skew"])
    made = driver(task["driver"])
    clients: list[ProducerDriver] = []
    try:
        for _ in task["shares"]:
            client = made.producer(
                ProducerOptions(
                    address=task["address"],
                    topic=task["topic"],
                    acks=task["acks"],
                    linger_ms=task["linger_ms"],
                    batch_bytes=task["batch_bytes"],
                    polling=task["polling"],
                    max_in_flight=task["max_in_flight"],
                    delivery_timeout_s=task["delivery_timeout_s"],
                    extra=task["producer_extra"],
                )
            )
            clients.append(client)
            await client.start()
        shares = [ProducerShare(**share) for share in task["shares"]]
        all_events = [AdEvents(campaigns, share, skew) for share in shares]
        facts = {name: str(value) for name, value in clients[0].settings.items()}
        start_ns = await channel.ready({"settings": facts})
        start_ms = (start_ns + task["epoch_ns"]) // NS_PER_MS
        loaded = []
        for client, events, share in zip(clients, all_events, shares, strict=True):
            events.begin(start_ms)
            loaded.append(LoadedProducer(client, events, share, task["tick_ms"]))
        measured_ns = start_ns + round(task["warm_up_s"] * 1e9)
        telling = asyncio.ensure_future(_tell(loaded, channel, start_ns))
        try:
            timeout_s = task["delivery_timeout_s"]
            with ProcessorTime(measured_ns) as cpu:
                await asyncio.gather(
                    *(each.run(start_ns, timeout_s, measured_ns) for each in loaded)
                )
        finally:
            telling.cancel()
        return {**_counts(loaded), "cpu_s": cpu.used_s, **_lateness(loaded)}
    finally:
        await asyncio.gather(*(client.close() for client in clients))


async def _tell(loaded: list[LoadedProducer], channel: Channel, start_ns: int) -> None:
    moments = Cadence(start_ns, PROGRESS_MS, 0.0)
    while True:
        channel.progress(_counts(loaded))
        await sleep_until(moments.next_ns(time.monotonic_ns()))


def _counts(loaded: list[LoadedProducer]) -> dict[str, Any]:
    errors = [each.last_error for each in loaded if each.last_error is not None]
    return {
        "sent": sum(each.sent for each in loaded),
        "acked": sum(each.acked for each in loaded),
        "errors": sum(each.errors for each in loaded),
        "held_s": sum(each.held_s for each in loaded),
        "last_error": str(errors[-1]) if errors else "",
    }


def _lateness(loaded: list[LoadedProducer]) -> Mapping[str, Any]:
    total = Lateness(LATE_NS)
    for each in loaded:
        total.add(each.lateness.summary())
    late = total.summary()
    return {
        "ticks": late.sends,
        "late_ticks": late.late_sends,
        "mean_late_us": late.mean_us,
        "max_late_us": late.max_us,
    }
