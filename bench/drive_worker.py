"""The processes of `frieda.bench.drive`: `send` has producers of one driver, `consume` one consumer."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from frieda.bench.driven import STAMP, DrivenProducer
from frieda.bench.drivers.base import ConsumerOptions, ProducerDriver, ProducerOptions
from frieda.bench.drivers.registry import usable_driver
from frieda.bench.load import Load, ProducerShare
from frieda.bench.meter import Meter
from frieda.bench.payload import keys_of, values_of
from frieda.bench.worker import Channel

SEND: Final = "frieda.bench.drive_worker:send"
CONSUME: Final = "frieda.bench.drive_worker:consume"
MEASURING: Final = "measuring"
MEASURED: Final = "measured"
TAKE_TIMEOUT_S: Final = 0.1
_PATIENCE: Final = 3
"""A load without any answer is given up after so many delivery timeouts."""


async def send(task: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """A worker process: the producers of its shares, each with a client and connections of its own."""
    load = Load(**task["load"])
    shares = [ProducerShare(**values) for values in task["shares"]]
    options = ProducerOptions(**task["options"])
    driver = usable_driver(task["driver"])
    meter = Meter(channel, load)
    clock = _MeasuredTime(channel)
    started: list[ProducerDriver] = []
    try:
        driven: list[DrivenProducer] = []
        for share in shares:
            producer = driver.producer(options)
            await producer.start()
            started.append(producer)
            driven.append(
                DrivenProducer(
                    producer,
                    load,
                    share,
                    meter,
                    values_of(load, share.seed),
                    keys=keys_of(load, share),
                    manner=task["manner"],
                    stamped=task["stamped"],
                    on_measuring=clock.begin,
                    patience_s=_PATIENCE * options.delivery_timeout_s,
                )
            )
        start_ns = await channel.ready()
        meter.begin(start_ns)
        await asyncio.sleep(max(0.0, (start_ns - time.monotonic_ns()) / 1e9))
        await asyncio.gather(*(each.run(start_ns) for each in driven))
        clock.end()
    finally:
        meter.close()
        await asyncio.gather(*(producer.close() for producer in started))
    return {
        **meter.result(),
        "cpu_s": clock.used_s,
        "waited_s": clock.waited_s,
        "client_settings": as_json_values(started[0].settings),
        "punctuality": [_as_row(each.facts()) for each in driven]
        if load.rate is not None
        else None,
    }


async def consume(task: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """A worker process: one consumer of stamped records, which tells how many it has seen until it is told to end.

    Latency counts from the intended send time, service time from the actual one, both until `take` has returned.
    """
    meter = Meter(channel, Load(**task["load"]))
    consumer = usable_driver(task["driver"]).consumer(ConsumerOptions(**task["options"]))
    clock = _MeasuredTime(channel)
    await consumer.start()
    try:
        meter.begin(await channel.ready())
        ending = asyncio.ensure_future(channel.heard())
        unpack, measuring = STAMP.unpack_from, False
        while not ending.done():
            taken = await consumer.take(TAKE_TIMEOUT_S)
            now_ns, seen = time.monotonic_ns(), 0
            for _, values, _ in taken:
                seen += len(values)
                for value in values:
                    intended_ns, sent_ns = unpack(value)
                    if intended_ns:
                        if not measuring:
                            measuring = True
                            meter.measuring_since(intended_ns)
                            clock.begin()
                        meter.record(now_ns - intended_ns)
                        meter.record_service_time(now_ns - sent_ns)
            if seen:
                meter.measured_until(now_ns)
                channel.progress({"seen": seen})
        clock.end()
    finally:
        meter.close()
        await consumer.close()
    return {
        **meter.result(),
        "cpu_s": clock.used_s,
        "waited_s": clock.waited_s,
        "client_settings": as_json_values(consumer.settings),
    }


class _MeasuredTime:
    """The processor time of this process while it measures, all its threads; both ends are told on the channel.

    `waited_s` is how long its main thread was ready to run and had no processor (None where the kernel does not
    count that): lateness that is neither the system's nor the generator's, but the machine's.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._before_s: float | None = None
        self._waited_before_s: float | None = None
        self.used_s = 0.0
        self.waited_s: float | None = None

    def begin(self) -> None:
        if self._before_s is None:
            self._before_s, self._waited_before_s = time.process_time(), run_queue_wait_s()
            self._channel.progress({"phase": MEASURING})

    def end(self) -> None:
        waited_s = run_queue_wait_s()
        if self._before_s is not None:
            self.used_s = time.process_time() - self._before_s
        if waited_s is not None and self._waited_before_s is not None:
            self.waited_s = waited_s - self._waited_before_s
        self._channel.progress({"phase": MEASURED})


def run_queue_wait_s(schedstat: Path = Path("/proc/thread-self/schedstat")) -> float | None:
    """How long this thread was ready to run without running (proc_pid_schedstat(5)); None: the kernel does not say."""
    try:
        return int(schedstat.read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return None


def as_json_values(settings: Mapping[str, object]) -> dict[str, Any]:
    """Settings as JSON knows them; what it does not know as text."""
    values: dict[str, Any] = json.loads(json.dumps(dict(settings), default=str))
    return values


def _as_row(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **facts,
        "backlog": asdict(facts["backlog"]),
        "own_lateness": asdict(facts["own_lateness"]),
    }
