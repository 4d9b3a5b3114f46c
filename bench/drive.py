"""The load generator of the comparisons: one load, through any driver, from processes of their own.

`run_drive` is the producer side; `frieda.bench.end_to_end` adds consumers. Both give a `Run`, as a file of results
holds it. Processor time is taken around the measured part: of the clients by themselves, of the server from outside.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from frieda.bench.drive_worker import MEASURED, MEASURING, SEND
from frieda.bench.driven import Manner
from frieda.bench.drivers.base import ProducerOptions
from frieda.bench.drivers.registry import driver as driver_named
from frieda.bench.drivers.registry import usable_driver
from frieda.bench.fleet import Fleet, Outcome, run_load
from frieda.bench.histogram import hlog
from frieda.bench.load import Lateness, LatenessSummary, Load
from frieda.bench.payload import mean_bytes, values_of
from frieda.bench.report import MIB, Progress, latencies_us
from frieda.bench.results import Run
from frieda.bench.systems.base import RunningSystem
from frieda.bench.verdict import Backlog, invalid_because
from frieda.errors import ConfigError, FriedaError


@dataclass(frozen=True, slots=True, kw_only=True)
class DriveSettings:
    """A load on a system through a driver. `driver` is its name in the registry; `address` as that driver takes it.

    `manner` "each" submits record by record (open loop with a rate, else closed), "bulk" many with one call (no
    rate). `facts` goes into the run's settings as it is: durability, brokers, and the like. Raises ConfigError.
    """

    driver: str
    address: str
    load: Load
    topic: str = ""
    """Made when it is missing. "": a new one of a name of its own."""
    partitions: int = 1
    replication: int = 1
    acks: int = 1
    linger_ms: float = 0.0
    batch_bytes: int = 64 * 1024
    compression: str = "none"
    polling: str = "adaptive"
    manner: Manner = "each"
    delivery_timeout_s: float = 10.0
    extra: Mapping[str, object] = field(default_factory=dict)
    """Settings of the client library, under its own names."""
    facts: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.manner not in ("each", "bulk"):
            raise ConfigError(f"manner = {self.manner!r}: must be one of each, bulk")
        if self.manner == "bulk" and self.load.rate is not None:
            raise ConfigError("manner = 'bulk' has no schedule: give no rate with it")
        if self.manner == "bulk" and self.load.keys is not None:
            raise ConfigError("manner = 'bulk' sends records without keys: give no keys with it")

    def described(self, values: Sequence[bytes]) -> dict[str, object]:
        """The flat settings of a run of this."""
        load = self.load
        open_loop = load.rate is not None
        return {
            "producers": load.producers,
            "processes": load.processes,
            "record_size": round(mean_bytes(values)),
            "records": load.records,
            "warm_up_records": load.warm_up_records,
            "acks": "all" if self.acks == -1 else self.acks,
            "partitions": self.partitions,
            "replication": self.replication,
            "transport": transport_of(self.driver, self.address),
            "rate": load.rate,
            "arrivals": load.arrivals if open_loop else None,
            "burst_records": load.burst_records if load.arrivals == "burst" else None,
            "max_behind_s": load.max_behind_s if open_loop else None,
            "loop": "open" if open_loop else "closed",
            "mode": "throughput" if self.manner == "bulk" else "latency",
            "in_flight": load.in_flight,
            "linger_ms": self.linger_ms,
            "batch_bytes": self.batch_bytes,
            "compression": self.compression,
            "polling": self.polling if self.driver == "frieda" else None,
            "keys": load.keys,
            "key_distribution": load.key_distribution if load.keys is not None else None,
            "payload": "random" if load.payload is None else load.payload_form,
            "seed": load.seed,
            **self.facts,
        }


def transport_of(driver: str, address: str) -> str:
    """What the bytes travel over: the scheme of an address of Frieda's or of a Unix socket, else tcp."""
    scheme, separator, _ = address.partition("://")
    return scheme if separator and (driver == "frieda" or scheme == "unix") else "tcp"


def run_drive(
    settings: DriveSettings,
    *,
    case: str,
    round_number: int = 0,
    server: RunningSystem | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Run:
    """Run the load in worker processes and say what it measured, as one run of `case`.

    `server` is the system that was started for it, if it was: its processor time is measured, and the load does not
    wait for it once it has ended. Raises FriedaError.
    """
    named = with_topic(settings)
    prepare_topic(named)
    return asyncio.run(_drive(named, case, round_number, server, on_progress))


async def _drive(
    settings: DriveSettings,
    case: str,
    round_number: int,
    server: RunningSystem | None,
    on_progress: Callable[[Progress], None],
) -> Run:
    meter = ServerMeter(server, settings.load.processes)
    with blamed_on(server):
        async with Fleet() as fleet:
            outcome = await run_load(
                fleet,
                SEND,
                settings.load,
                task_of(settings),
                meter.watching(on_progress),
                meter.phase,
            )
    return as_run(settings, outcome, case, round_number, meter)


def with_topic(settings: DriveSettings) -> DriveSettings:
    """The same with a topic that nobody else has, where none is named."""
    return settings if settings.topic else replace(settings, topic=f"bench-{secrets.token_hex(4)}")


def prepare_topic(settings: DriveSettings) -> None:
    """Make the topic. Raises FriedaError."""
    made = usable_driver(settings.driver).make_topic(
        settings.address, settings.topic, settings.partitions, settings.replication
    )
    asyncio.run(made)


def task_of(settings: DriveSettings, *, stamped: bool = False) -> dict[str, Any]:
    """What `send` is told, beside its shares."""
    options = ProducerOptions(
        address=settings.address,
        topic=settings.topic,
        acks=settings.acks,
        linger_ms=settings.linger_ms,
        batch_bytes=settings.batch_bytes,
        compression=settings.compression,
        polling=settings.polling,
        max_in_flight=settings.load.in_flight,
        delivery_timeout_s=settings.delivery_timeout_s,
        extra=settings.extra,
    )
    return {
        "driver": settings.driver,
        "options": asdict(options),
        "manner": settings.manner,
        "stamped": stamped,
    }


@contextmanager
def blamed_on(server: RunningSystem | None) -> Iterator[None]:
    """A load that failed because its server has ended says so, with the end of the server's log."""
    try:
        yield
    except FriedaError as error:
        if server is not None:
            try:
                server.require_alive()
            except FriedaError as ended:
                raise ended from error
        raise


class ServerMeter:
    """The processor time of a server from when the first of `processes` measures until the last has."""

    def __init__(self, server: RunningSystem | None, processes: int) -> None:
        self._server = server
        self._left = processes
        self._before_s: float | None = None
        self.used_s: float | None = None
        """None without a server, and before the end."""

    def phase(self, name: str) -> None:
        """A load process begins to measure, or has measured."""
        if self._server is None:
            return
        if name == MEASURING and self._before_s is None:
            self._before_s = self._server.cpu_seconds()
        elif name == MEASURED:
            self._left -= 1
            if self._left == 0 and self._before_s is not None:
                self.used_s = self._server.cpu_seconds() - self._before_s

    def watching(self, on_progress: Callable[[Progress], None]) -> Callable[[Progress], None]:
        """`on_progress`, after a look at whether the server lives."""

        def look(progress: Progress) -> None:
            if self._server is not None:
                self._server.require_alive()
            on_progress(progress)

        return look


def as_run(
    settings: DriveSettings,
    outcome: Outcome,
    case: str,
    round_number: int,
    meter: ServerMeter,
) -> Run:
    """What the load processes measured together as one run. Raises FriedaError when they measured nothing."""
    if outcome.records == 0:
        raise FriedaError(
            f"{case}: no record was measured: {outcome.errors} failed, and the load was given up "
            "when it was more than its bound behind its schedule; give a lower rate"
        )
    values = values_of(settings.load)
    punctual = _punctuality(outcome.parts)
    cpu_s = {"clients": sum(part["cpu_s"] for part in outcome.parts)}
    if meter.used_s is not None:
        cpu_s["server"] = meter.used_s
    rate = outcome.records / outcome.elapsed_s if outcome.elapsed_s > 0 else 0.0
    return Run(
        case=case,
        round=round_number,
        system=driver_named(settings.driver).system,
        driver=settings.driver,
        settings=settings.described(values),
        client_settings=outcome.parts[0]["client_settings"],
        records=outcome.records,
        errors=outcome.errors,
        elapsed_s=round(outcome.elapsed_s, 6),
        records_per_sec=round(rate, 3),
        mb_per_sec=round(rate * mean_bytes(values) / MIB, 6),
        latency_us=latencies_us(outcome.latency),
        service_time_us=latencies_us(outcome.service_time) if outcome.service_time else None,
        lateness_us=_lateness_us(outcome.lateness, punctual),
        backlog=asdict(punctual.backlog) if punctual is not None else None,
        cpu_s={name: round(seconds, 6) for name, seconds in cpu_s.items()},
        extra={"waited_for_processor_s": waited_s(outcome.parts)},
        invalid_because=_invalid_because(settings.load, punctual),
        histogram=outcome.latency.encode(),
        service_histogram=outcome.service_time.encode() if outcome.service_time else None,
        hlog=interval_log(outcome),
    )


def waited_s(parts: Sequence[Mapping[str, Any]]) -> float | None:
    """How long the load processes were ready to run and had no processor, the sum of all of them."""
    waits = [part["waited_s"] for part in parts]
    return None if None in waits else round(sum(waits), 6)


def interval_log(outcome: Outcome) -> str:
    """The windows of an outcome that ended just now as an HdrHistogram interval log."""
    began_ns = outcome.windows[0].start_ns if outcome.windows else time.monotonic_ns()
    return hlog(time.time() - (time.monotonic_ns() - began_ns) / 1e9, outcome.windows)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Punctuality:
    """Of all producers together."""

    own: LatenessSummary
    own_behind_s: float
    held_s: float
    backlog: Backlog


def _punctuality(parts: Sequence[Mapping[str, Any]]) -> _Punctuality | None:
    """None for a closed loop, which has no schedule to keep."""
    rows = [row for part in parts for row in part["punctuality"] or ()]
    if not rows:
        return None
    own = Lateness()
    for row in rows:
        own.add(LatenessSummary(**row["own_lateness"]))
    backlogs = [Backlog(**row["backlog"]) for row in rows]
    backlog = Backlog(
        most=max(each.most for each in backlogs),
        own_most=max(each.own_most for each in backlogs),
        mean=sum(each.mean for each in backlogs) / len(backlogs),
        at_end=sum(each.at_end for each in backlogs),
        unsent=sum(each.unsent for each in backlogs),
    )
    return _Punctuality(
        own=own.summary(),
        own_behind_s=max(row["own_behind_s"] for row in rows),
        held_s=max(row["held_s"] for row in rows),
        backlog=backlog,
    )


def _lateness_us(
    lateness: LatenessSummary | None, punctual: _Punctuality | None
) -> dict[str, float] | None:
    """Lateness whatever its cause, then that which is the generator's own; the longest hold-up of one producer."""
    if lateness is None or punctual is None:
        return None
    return {
        "sends": lateness.sends,
        "mean": round(lateness.mean_us, 3),
        "max": round(lateness.max_us, 3),
        "late_sends": lateness.late_sends,
        "own_mean": round(punctual.own.mean_us, 3),
        "own_max": round(punctual.own.max_us, 3),
        "own_late_sends": punctual.own.late_sends,
        "held_back": round(punctual.held_s * 1e6, 3),
    }


def _invalid_because(load: Load, punctual: _Punctuality | None) -> str | None:
    if punctual is None or load.rate is None:
        return None
    planned_s = (load.records + load.warm_up_records) / load.rate
    return invalid_because(punctual.own, punctual.own_behind_s, planned_s, punctual.backlog.unsent)
