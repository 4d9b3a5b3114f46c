"""The floor: the same load against a bare uvloop echo over loopback TCP, without any Frieda transport.

Each request is `record_size_bytes` of nothing in particular, answered by a small fixed response when
its last byte is there. What a broker takes beyond this is its own.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, cast

from frieda.bench.fleet import Fleet, Outcome, run_load
from frieda.bench.load import Load, ProducerShare
from frieda.bench.meter import Meter
from frieda.bench.pacer import Pacer
from frieda.bench.report import Progress, Result
from frieda.bench.worker import Channel
from frieda.errors import ConfigError

POLLING_MODES: Final = ("event", "adaptive", "busy")
WINDOW_NS: Final = 2_000_000
"""Adaptive: how long the loop goes on polling after the last bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EchoSettings:
    """What to run. `polling` is that of both sides."""

    load: Load
    polling: str = "event"
    response_bytes: int = 20

    def __post_init__(self) -> None:
        if self.polling not in POLLING_MODES:
            raise ConfigError(f"polling = {self.polling!r}: must be one of event, adaptive, busy")
        if not 1 <= self.response_bytes <= 1024 * 1024:
            raise ConfigError(f"response_bytes = {self.response_bytes}: must be from 1 to 1048576")


def run_echo(
    settings: EchoSettings, on_progress: Callable[[Progress], None] = lambda _: None
) -> Result:
    """Measure the echo with a server process and the load's client processes.

    `on_progress` is called every 5 s. Raises FriedaError when a process fails.
    """
    load = settings.load
    described = {
        "record_size": load.record_size_bytes,
        "response_size": settings.response_bytes,
        "producers": load.producers,
        "processes": load.processes,
        "in_flight": load.in_flight,
        "rate": load.rate,
        "arrivals": load.arrivals if load.rate is not None else None,
        "warm_up_records": load.warm_up_records,
        "polling": settings.polling,
        "acks": "none (echo)",
        "flush": "none (echo)",
    }
    return asyncio.run(_measure(settings, on_progress)).as_result("echo", load, described)


async def _measure(settings: EchoSettings, on_progress: Callable[[Progress], None]) -> Outcome:
    task = {"polling": settings.polling, "response_bytes": settings.response_bytes}
    async with Fleet() as fleet:
        size = {"request_bytes": settings.load.record_size_bytes}
        server = await fleet.start("frieda.bench.echo:serve", {**task, **size})
        address = await server.ready()
        return await run_load(
            fleet, "frieda.bench.echo:send", settings.load, {**task, **address}, on_progress
        )


class Spinner:
    """Keeps a loop awake by a callback that re-arms itself: always (busy) or for a while (adaptive)."""

    def __init__(self, polling: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._polling = polling
        self._spinning = False
        self._until_ns = 0
        if polling == "busy":
            self._loop.call_soon(self._spin_for_ever)

    def touch(self) -> None:
        """There is work: in adaptive mode, poll for the next WINDOW_NS."""
        if self._polling == "adaptive":
            self._until_ns = time.monotonic_ns() + WINDOW_NS
            if not self._spinning:
                self._spinning = True
                self._loop.call_soon(self._spin)

    def _spin(self) -> None:
        if time.monotonic_ns() < self._until_ns:
            self._loop.call_soon(self._spin)
        else:
            self._spinning = False

    def _spin_for_ever(self) -> None:
        self._loop.call_soon(self._spin_for_ever)


class EchoServer(asyncio.Protocol):
    """Answers every `request_bytes` bytes with `response`."""

    def __init__(self, request_bytes: int, response: bytes, spinner: Spinner) -> None:
        self._request_bytes = request_bytes
        self._response = response
        self._spinner = spinner
        self._received = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        whole, self._received = divmod(self._received + len(data), self._request_bytes)
        if whole:
            self._transport.write(self._response * whole)
        self._spinner.touch()


class EchoClient(asyncio.Protocol):
    """One producer: sends its share, at most `in_flight` unanswered, and times each answer."""

    def __init__(
        self, load: Load, share: ProducerShare, response_bytes: int, meter: Meter, spinner: Spinner
    ) -> None:
        self._share = share
        self._in_flight = load.in_flight
        self._request = bytes(load.record_size_bytes)
        self._response_bytes = response_bytes
        self._meter = meter
        self._spinner = spinner
        self._received = 0
        self._sent = 0
        self._answered = 0
        self._total = share.warm_up_records + share.records
        self._under_way: deque[tuple[int, int]] = deque()
        self._pacer: Pacer | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def start(self, start_ns: int) -> None:
        """Begin: by the schedule with a rate, else with `in_flight` requests at once."""
        if self._share.rate is not None:
            times_ns = (start_ns + time_ns for time_ns in self._share.intended_times_ns())
            self._pacer = Pacer(times_ns, self._send_intended)
            self._pacer.pump()
        else:
            for _ in range(min(self._in_flight, self._total)):
                self._send(time.monotonic_ns())

    def _send_intended(self, intended_ns: int) -> bool:
        if len(self._under_way) >= self._in_flight:
            return False
        self._send(intended_ns)
        return True

    def _send(self, intended_ns: int) -> None:
        now_ns = time.monotonic_ns()
        if self._sent >= self._share.warm_up_records:
            if self._sent == self._share.warm_up_records:
                self._meter.measuring_since(intended_ns)
            if self._pacer is not None:
                self._meter.lateness.note(now_ns - intended_ns)
        self._sent += 1
        self._under_way.append((intended_ns, now_ns))
        self._transport.write(self._request)
        self._spinner.touch()

    def data_received(self, data: bytes) -> None:
        now_ns = time.monotonic_ns()
        whole, self._received = divmod(self._received + len(data), self._response_bytes)
        for _ in range(whole):
            intended_ns, sent_ns = self._under_way.popleft()
            self._answered += 1
            if self._answered > self._share.warm_up_records:
                if self._pacer is not None:
                    self._meter.record_service_time(now_ns - sent_ns)
                    self._meter.record(now_ns - intended_ns)
                else:
                    self._meter.record(now_ns - sent_ns)
            if self._pacer is None and self._sent < self._total:
                self._send(time.monotonic_ns())
        if self._answered == self._total:
            self._meter.measured_until(now_ns)
            self._finish(None)
        elif self._pacer is not None:
            self._pacer.pump()

    def connection_lost(self, exc: Exception | None) -> None:
        self._finish(exc or ConnectionError("the echo server went away"))

    def _finish(self, error: Exception | None) -> None:
        if self._pacer is not None:
            self._pacer.close()
        if not self.done.done():
            if error is None:
                self.done.set_result(None)
            else:
                self.done.set_exception(error)

    def close(self) -> None:
        """Give up what is under way and end the connection."""
        self._finish(None)
        self._transport.abort()


def _as_is(client: EchoClient) -> EchoClient:
    return client


async def serve(task: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """The server process: on a free port of the loopback address until it is stopped."""
    spinner = Spinner(task["polling"])
    response = bytes(task["response_bytes"])
    server = await asyncio.get_running_loop().create_server(
        lambda: EchoServer(task["request_bytes"], response, spinner), "127.0.0.1", 0, backlog=1024
    )
    async with server:
        await channel.ready({"port": server.sockets[0].getsockname()[1]})
    return {}


async def send(task: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """A client process: the producers of its shares, each on a connection of its own."""
    load = Load(**task["load"])
    loop = asyncio.get_running_loop()
    spinner = Spinner(task["polling"])
    meter = Meter(channel, load)
    clients: list[EchoClient] = []
    try:
        for share in task["shares"]:
            client = EchoClient(
                load, ProducerShare(**share), task["response_bytes"], meter, spinner
            )
            await loop.create_connection(partial(_as_is, client), "127.0.0.1", task["port"])
            clients.append(client)
        start_ns = await channel.ready()
        meter.begin(start_ns)
        await asyncio.sleep(max(0.0, (start_ns - time.monotonic_ns()) / 1e9))
        for client in clients:
            client.start(max(start_ns, time.monotonic_ns()))
        await asyncio.gather(*(client.done for client in clients))
    finally:
        meter.close()
        for client in clients:
            client.close()
    return meter.result()
