"""Shared memory beside TCP: one producer, many on a schedule, more processes than cores, and throughput.

Each case has a fresh broker that listens by one transport only. The load of the many is what TCP in event mode
carries: half of what it does when every producer sends as fast as it is answered, measured once.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from frieda.bench.load import Load, default_warm_up
from frieda.bench.rounds import Case, Target, Values
from frieda.bench.under_test import StartBroker, produce_to, values_of

CROWDS: Final = (2, 4, 8, 16)
"""Producers in one process."""
CARRIED_SHARE: Final = 0.5
"""Of what TCP in event mode does without a schedule."""
PROCESSES: Final = 4
MANY: Final = 16
"""Producers in PROCESSES processes."""
MANY_TIMES: Final = 3
"""Their records for each one of a latency run: their p99.9 scatters more."""
IN_FLIGHT: Final = 64
"""Of one producer on a schedule."""
KIB: Final = 1024
_BATCH_HEADER_BYTES: Final = 80
"""What a batch of one record needs beside the record's value, a few bytes more or less."""
_BATCH: Final = 16 * KIB
_LARGE: Final = 1024 * KIB

_TCP_EVENT: Final = ("tcp", "event")
_TCP_ADAPTIVE: Final = ("tcp", "adaptive")
_SHM: Final = ("shm", "adaptive")


def shared_memory_part(start_broker: StartBroker, records: int) -> tuple[list[Case], list[Target]]:
    """The cases and targets; `records` is the number of one latency run."""
    measure = _Measure(start_broker, records)
    parts = [_alone(measure), _processes(measure), _throughput(measure)]
    parts += [_crowd(measure, producers) for producers in CROWDS]
    return [case for cases, _ in parts for case in cases], [
        target for _, targets in parts for target in targets
    ]


class _Measure:
    """Runs one case."""

    def __init__(self, start_broker: StartBroker, records: int) -> None:
        self.records = records
        self._start_broker = start_broker
        self._rates: dict[int, float] = {}

    def produce(self, way: tuple[str, str], load: Load, **settings: Any) -> Values:
        """The load on a fresh broker that is reached by `way`: its transport, and how both sides poll."""
        transport, polling = way
        with self._start_broker(polling, "never", transport) as broker:
            return values_of(produce_to(broker, load, polling, **settings))

    def on_schedule(self, way: tuple[str, str], producers: int) -> Values:
        """So many producers of one process, at the rate that TCP in event mode carries."""
        rate = self._rate(producers)
        load = _load(self.records, producers=producers, rate=rate, in_flight=IN_FLIGHT)
        return {**self.produce(way, load), "rate": rate}

    def _rate(self, producers: int) -> float:
        if producers not in self._rates:
            load = _load(max(self.records // 5, 2_000), producers=producers)
            done = self.produce(_TCP_EVENT, load)["records_per_sec"] or 0.0
            self._rates[producers] = round(max(CARRIED_SHARE * done, 1.0))
        return self._rates[producers]


def _load(records: int, **shape: Any) -> Load:
    values: dict[str, Any] = {
        "records": records,
        "warm_up_records": default_warm_up(records),
        "arrivals": "poisson",
        **shape,
    }
    return Load(**values)


def _alone(measure: _Measure) -> tuple[list[Case], list[Target]]:
    load = _load(measure.records)
    ways = {"tcp event": _TCP_EVENT, "tcp adaptive": _TCP_ADAPTIVE, "shm adaptive": _SHM}
    cases = [Case(name, partial(measure.produce, way, load)) for name, way in ways.items()]
    mine = "shm adaptive"
    targets = [
        Target("p50, shm adaptive", mine, "p50", None, 25.0, unit="us"),
        Target("p50, shm adaptive / tcp event", mine, "p50", "tcp event", 0.25),
        Target("p99.9, shm adaptive / tcp event", mine, "p99.9", "tcp event", 0.1),
        Target("p50, shm adaptive / tcp adaptive", mine, "p50", "tcp adaptive", 0.6),
        Target("p99.9, shm adaptive / tcp adaptive", mine, "p99.9", "tcp adaptive", 1.0),
    ]
    return cases, targets


def _crowd(measure: _Measure, producers: int) -> tuple[list[Case], list[Target]]:
    name = f"{producers} producers"
    ways = {"tcp event": _TCP_EVENT, "tcp adaptive": _TCP_ADAPTIVE, "shm": _SHM}
    cases = [
        Case(f"{name}, {way}", partial(measure.on_schedule, ways[way], producers)) for way in ways
    ]
    targets = [
        Target(
            f"p99.9 of {name}, shm / {against}",
            f"{name}, shm",
            "p99.9",
            f"{name}, {against}",
            bound,
        )
        for against, bound in (("tcp event", 0.2), ("tcp adaptive", 0.7))
    ]
    return cases, targets


def _processes(measure: _Measure) -> tuple[list[Case], list[Target]]:
    load = _load(MANY_TIMES * measure.records, producers=MANY, processes=PROCESSES)
    name = f"{MANY} in {PROCESSES} processes"
    cases = [
        Case(f"{name}, tcp event", partial(measure.produce, _TCP_EVENT, load)),
        Case(f"{name}, shm", partial(measure.produce, _SHM, load)),
    ]
    targets = [
        Target(
            f"{value} of {name}, shm / tcp event", f"{name}, shm", value, f"{name}, tcp event", 1.1
        )
        for value in ("p50", "p99.9")
    ]
    return cases, targets


def _throughput(measure: _Measure) -> tuple[list[Case], list[Target]]:
    sizes = {
        "16 KiB batches": (_BATCH, max(measure.records // 4, 500), 32),
        "1 MiB messages": (_LARGE, max(measure.records // 100, 50), 8),
    }
    cases: list[Case] = []
    targets: list[Target] = []
    for name, (batch_bytes, records, in_flight) in sizes.items():
        load = _load(
            records, record_size_bytes=batch_bytes - _BATCH_HEADER_BYTES, in_flight=in_flight
        )
        for way in (_TCP_ADAPTIVE, _SHM):
            run = partial(measure.produce, way, load, batch_bytes=batch_bytes)
            cases.append(Case(f"{name}, {way[0]}", run))
        targets.append(
            Target(
                f"MB/s of {name}, shm / tcp",
                f"{name}, shm",
                "mb_per_sec",
                f"{name}, tcp",
                2.0,
                at_most=False,
            )
        )
    return cases, targets
