"""The producer benchmark: acknowledged records through the client library, timed as a user sees them.

One record in flight is a plain `await producer.send(...)` in a loop. More in flight without a rate go in bulk: as
many as may leave at one moment, timed together, with one histogram call for each acknowledged batch; or, with
`call="send_nowait"`, by a call and a future for each record. With a rate every record has its own intended send time
and is sent by itself.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Final

from frieda.bench.fleet import Fleet, Outcome, run_load
from frieda.bench.load import Load, ProducerShare
from frieda.bench.meter import Meter
from frieda.bench.pacer import Pacer
from frieda.bench.report import Progress, Result
from frieda.bench.worker import Channel
from frieda.clients.admin import Admin
from frieda.clients.producer import Producer
from frieda.clients.runtime import running_engine
from frieda.errors import (
    BrokerError,
    BufferFullError,
    ConfigError,
    DeliveryTimeoutError,
    ErrorCode,
    FriedaError,
    TransportError,
)

ACKS: Final = {"0": 0, "1": 1, "all": -1, "-1": -1}
CALLS: Final = ("bulk", "send_nowait")
_STRETCHES: Final = 16
"""send_nowait: what may be in flight is sent, awaited and timed in so many stretches."""
_VALUES: Final = 64
"""Different values that are sent in turn, so that no layer sees the same bytes twice in a row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """Records to certain partitions, large ones among them. Only the others count in the latencies."""

    spread: int
    """Record n goes to partition n % spread."""
    large_every: int = 0
    """Every so manieth record is a large one, to partition `spread`; 0: none is."""
    large_bytes: int = 1024 * 1024

    @property
    def partitions(self) -> int:
        """How many the topic needs."""
        return self.spread + (self.large_every > 0)

    def is_large(self, number: int) -> bool:
        """Whether record `number` is one of the large ones."""
        return self.large_every > 0 and number % self.large_every == self.large_every - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerSettings:
    """What to run, against which broker. `polling` is the client's; the broker has its own."""

    load: Load
    topic: str
    bootstrap: str = "tcp://127.0.0.1:9500"
    acks: int = 1
    linger_ms: float = 0.0
    batch_bytes: int = 64 * 1024
    compression: str = "none"
    polling: str = "adaptive"
    call: str = "bulk"
    """With more than one record in flight and no rate: "bulk" (submit_values) or "send_nowait"."""
    delivery_timeout_s: float = 10.0
    """A record that is not acknowledged for so long ends the run: there is nothing to measure, then."""
    client: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the producers that no other field names."""
    mix: Mix | None = None

    def __post_init__(self) -> None:
        if self.call not in CALLS:
            raise ConfigError(f"call = {self.call!r}: must be one of {', '.join(CALLS)}")
        if self.mix is not None and self.load.rate is None:
            raise ConfigError("a mix of records needs a rate: they leave on a schedule")

    @property
    def transport(self) -> str:
        """The scheme of the address, which is what the load goes by, whatever else the broker may have."""
        return self.bootstrap.partition(":")[0]


def run_producer(
    settings: ProducerSettings, on_progress: Callable[[Progress], None] = lambda _: None
) -> Result:
    """Run the load in worker processes. The topic must be there.

    Raises FriedaError when a process fails or the broker cannot be reached, also in the middle of the load.
    """
    outcome, broker = asyncio.run(_measure(settings, on_progress))
    load = settings.load
    described = {
        "transport": settings.transport,
        "acks": "all" if settings.acks == -1 else settings.acks,
        "flush": broker["flush"],
        "record_size": load.record_size_bytes,
        "producers": load.producers,
        "processes": load.processes,
        "in_flight": load.in_flight,
        "call": _call(settings),
        "rate": load.rate,
        "arrivals": load.arrivals if load.rate is not None else None,
        "linger_ms": settings.linger_ms,
        "batch_bytes": settings.batch_bytes,
        "compression": settings.compression,
        "polling": settings.polling,
        "broker_polling": broker["polling"],
        "partitions": broker["partitions"],
        "warm_up_records": load.warm_up_records,
        "client": dict(settings.client) or None,
        "mix": None if settings.mix is None else asdict(settings.mix),
    }
    return outcome.as_result("producer", load, described)


async def ensure_topic(
    bootstrap: str, topic: str, partitions: int, replication_factor: int = -1
) -> bool:
    """Make the topic when there is none; whether it was made. -1: replicated as the broker is set."""
    async with Admin(bootstrap, polling="event") as admin:
        try:
            await admin.create_topic(topic, partitions, replication_factor)
        except BrokerError as error:
            if error.code is not ErrorCode.TOPIC_ALREADY_EXISTS:
                raise
            return False
        return True


async def _measure(
    settings: ProducerSettings, on_progress: Callable[[Progress], None]
) -> tuple[Outcome, dict[str, Any]]:
    # Asked before the load: an admin that lives on would be one more process-wide engine in the way.
    async with Admin(settings.bootstrap, polling="event") as admin:
        description = await admin.describe_topic(settings.topic)
        health = await admin.broker_health()
    broker = {
        "flush": description.configs["flush"],
        "polling": health.settings["polling"],
        "partitions": len(description.partitions),
    }
    task = {
        "topic": settings.topic,
        "bootstrap": settings.bootstrap,
        "acks": settings.acks,
        "linger_ms": settings.linger_ms,
        "batch_bytes": settings.batch_bytes,
        "compression": settings.compression,
        "polling": settings.polling,
        "call": settings.call,
        "delivery_timeout_s": settings.delivery_timeout_s,
        "client": {"transport": settings.transport, **settings.client},
        "mix": None if settings.mix is None else asdict(settings.mix),
    }
    async with Fleet() as fleet:
        outcome = await run_load(
            fleet, "frieda.bench.producer:send", settings.load, task, on_progress
        )
    return outcome, broker


def _call(settings: ProducerSettings) -> str:
    """How records are sent under this load."""
    if settings.load.rate is not None:
        return "send_nowait"
    return "send" if settings.load.in_flight == 1 else settings.call


class LoadedProducer:
    """One producer under its share of the load."""

    def __init__(
        self,
        producer: Producer,
        topic: str,
        load: Load,
        share: ProducerShare,
        meter: Meter,
        call: str = "bulk",
        mix: Mix | None = None,
    ) -> None:
        self._mix = mix
        self._large = b"" if mix is None else os.urandom(mix.large_bytes)
        self._producer = producer
        self._call = call
        self._topic = topic
        self._share = share
        self._in_flight = load.in_flight
        self._meter = meter
        self._total = share.warm_up_records + share.records
        self._warm_up = share.warm_up_records
        self._values = [os.urandom(load.record_size_bytes) for _ in range(_VALUES)]
        self._sent = 0
        self._answered = 0
        self._news: asyncio.Future[None] | None = None
        self._stretches: deque[tuple[int, bool, list[asyncio.Future[Any]]]] = deque()
        self._lost: FriedaError | None = None
        self._pump: Callable[[], None] = lambda: None

    async def run(self, start_ns: int) -> None:
        """Send everything and wait for every answer. Records that the broker refuses are counted.

        Raises DeliveryTimeoutError or TransportError when the broker is lost: the rest would only wait, too.
        """
        if self._share.rate is not None:
            await self._open_loop(start_ns)
        elif self._in_flight == 1:
            await self._one_at_a_time()
        elif self._call == "send_nowait":
            await self._without_waiting()
        else:
            await self._in_bulk()
        self._go_on()
        self._meter.measured_until(time.monotonic_ns())

    async def _one_at_a_time(self) -> None:
        send, topic, meter, values = self._producer.send, self._topic, self._meter, self._values
        for number in range(self._total):
            if number == self._warm_up:
                meter.measuring_since(time.monotonic_ns())
            value = values[number % _VALUES]
            sent_ns = time.monotonic_ns()
            try:
                await send(topic, value)
            except FriedaError as error:
                self._failed(1, error)
                self._go_on()
                continue
            if number >= self._warm_up:
                meter.record(time.monotonic_ns() - sent_ns)

    async def _in_bulk(self) -> None:
        while self._answered < self._total:
            self._go_on()
            edge = self._warm_up if self._sent < self._warm_up else self._total
            room = min(self._in_flight - (self._sent - self._answered), edge - self._sent)
            if room <= 0:
                self._news = asyncio.get_running_loop().create_future()
                await self._news
                continue
            if self._sent == self._warm_up:
                self._meter.measuring_since(time.monotonic_ns())
            values = (self._values * (room // _VALUES + 1))[:room]
            measured = self._sent >= self._warm_up
            self._sent += room
            done = partial(self._bulk_done, time.monotonic_ns(), measured)
            await self._producer.submit_values(self._topic, values, done)

    def _bulk_done(
        self, sent_ns: int, measured: bool, count: int, _: int, error: FriedaError | None
    ) -> None:
        self._answered += count
        if error is not None:
            self._failed(count, error)
        elif measured:
            self._meter.record(time.monotonic_ns() - sent_ns, count)
        self._tell()

    async def _without_waiting(self) -> None:
        """A call and a future for each record; the futures are awaited in the order of the calls."""
        send, topic, total = self._producer.send_nowait, self._topic, self._total
        stretch = max(1, self._in_flight // _STRETCHES)
        values = (self._values * (stretch // _VALUES + 1))[:stretch]
        under_way = self._stretches
        while self._sent < total or under_way:
            edge = self._warm_up if self._sent < self._warm_up else total
            room = min(stretch, self._in_flight - (self._sent - self._answered), edge - self._sent)
            if room <= 0:
                await self._stretch_done()
                continue
            if self._sent == self._warm_up:
                self._meter.measuring_since(time.monotonic_ns())
            measured, sent_ns = self._sent >= self._warm_up, time.monotonic_ns()
            futures: list[asyncio.Future[Any]] = []
            under_way.append((sent_ns, measured, futures))
            try:
                for value in values[:room]:
                    futures.append(send(topic, value))
            except BufferFullError:
                if not futures and len(under_way) == 1:
                    raise
            self._sent += len(futures)
            if len(futures) < room:
                await self._stretch_done()

    async def _stretch_done(self) -> None:
        """Wait for the results of the first stretch."""
        sent_ns, measured, futures = self._stretches[0]
        failed = 0
        for future in futures:
            try:
                await future
            except FriedaError as error:
                failed += 1
                self._failed(1, error)
                if self._lost is not None:
                    self._forget_stretches()
                    raise
        del self._stretches[0]
        self._answered += len(futures)
        if measured and len(futures) > failed:
            self._meter.record(time.monotonic_ns() - sent_ns, len(futures) - failed)

    def _forget_stretches(self) -> None:
        """The load is given up: what the others fail with is no news."""
        for _, _, futures in self._stretches:
            for future in futures:
                if not future.cancel() and not future.cancelled():
                    future.exception()

    async def _open_loop(self, start_ns: int) -> None:
        times_ns = (start_ns + time_ns for time_ns in self._share.intended_times_ns())
        pacer = Pacer(times_ns, self._send_intended, running_engine())
        self._pump = pacer.pump
        try:
            pacer.pump()
            while self._answered < self._total:
                self._go_on()
                self._news = asyncio.get_running_loop().create_future()
                await self._news
        finally:
            pacer.close()

    def _send_intended(self, intended_ns: int) -> bool:
        if self._sent - self._answered >= self._in_flight:
            return False
        number = self._sent
        now_ns = time.monotonic_ns()
        value, partition, large = self._values[number % _VALUES], None, False
        if self._mix is not None:
            partition, large = number % self._mix.spread, self._mix.is_large(number)
            if large:
                value, partition = self._large, self._mix.spread
        try:
            future = self._producer.send_nowait(self._topic, value, partition=partition)
        except BufferFullError:
            return False
        self._sent += 1
        if number == self._warm_up:
            self._meter.measuring_since(intended_ns)
        measured = number >= self._warm_up and not large
        if measured:
            self._meter.lateness.note(now_ns - intended_ns)
        future.add_done_callback(partial(self._record_done, intended_ns, now_ns, measured))
        return True

    def _record_done(
        self, intended_ns: int, sent_ns: int, measured: bool, future: asyncio.Future[Any]
    ) -> None:
        self._answered += 1
        error = future.exception()
        if error is not None:
            self._failed(1, error)
        elif measured:
            now_ns = time.monotonic_ns()
            self._meter.record(now_ns - intended_ns)
            self._meter.record_service_time(now_ns - sent_ns)
        self._pump()
        if self._answered == self._total or self._lost is not None:
            self._tell()

    def _failed(self, count: int, error: BaseException) -> None:
        self._meter.errors += count
        if isinstance(error, DeliveryTimeoutError | TransportError):
            self._lost = error

    def _go_on(self) -> None:
        """Raise what says that the broker is lost, if it is."""
        if self._lost is not None:
            raise self._lost

    def _tell(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)


async def send(task: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """A worker process: the producers of its shares, each with connections of its own."""
    load = Load(**task["load"])
    mix = None if task["mix"] is None else Mix(**task["mix"])
    meter = Meter(channel, load)
    producers: list[Producer] = []
    loaded: list[LoadedProducer] = []
    try:
        for values in task["shares"]:
            producer = Producer(
                task["bootstrap"],
                acks=task["acks"],
                linger_ms=task["linger_ms"],
                batch_bytes=task["batch_bytes"],
                compression=task["compression"],
                polling=task["polling"],
                delivery_timeout_s=task["delivery_timeout_s"],
                **task["client"],
            )
            await producer.start()
            producers.append(producer)
            await producer.partitions_for(task["topic"])
            loaded.append(
                LoadedProducer(
                    producer, task["topic"], load, ProducerShare(**values), meter, task["call"], mix
                )
            )
        start_ns = await channel.ready()
        meter.begin(start_ns)
        await asyncio.sleep(max(0.0, (start_ns - time.monotonic_ns()) / 1e9))
        await asyncio.gather(*(each.run(start_ns) for each in loaded))
    finally:
        meter.close()
        await asyncio.gather(*(producer.close(5.0) for producer in producers))
    return meter.result()
