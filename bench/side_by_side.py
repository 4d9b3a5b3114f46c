"""What Frieda set out to reach, measured as ratios within one interleaved run.

Absolute figures drift on shared machines, so each target compares two things that were measured a moment apart: in
every round each case runs once, with a fresh broker process of its own and nothing else of ours beside it, and the
order of the cases turns from round to round. A ratio is that of one round; what is stated is its median over the
rounds, beside the least and the greatest.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from frieda.bench.consumer import ConsumerSettings, run_consumer
from frieda.bench.echo import EchoSettings, run_echo
from frieda.bench.load import Load, default_warm_up
from frieda.bench.rounds import Case, Target, Values
from frieda.bench.scale import Sizes, bystanders, idle, open_files, write_read_reopen
from frieda.bench.shared_memory import shared_memory_part
from frieda.bench.under_test import (
    TOPIC,
    BrokerUnderTest,
    StartBroker,
    produce_to,
    values_of,
)

PARTS: Final = ("latency", "crowd", "throughput", "scale", "shm")
BATCH_BYTES: Final = 16 * 1024
_BATCH_HEADER_BYTES: Final = 80
"""What a batch of one record needs beside the record's value, a few bytes more or less."""
FLUSHED_SHARE: Final = 10
"""With flush=batch the disk sets the pace: so many times fewer records."""
CROWD_TIMES: Final = 3
"""Records of a crowd for each one of a latency run: its p99.9 scatters more."""
THROUGHPUT_TIMES: Final = 20
"""Records of a throughput run for each one of a latency run: about a second of work."""
IN_BULK: Final = 20_000


class Plan:
    """The cases and targets of each part. `records` is the number of one latency run."""

    def __init__(self, start_broker: StartBroker, records: int, sizes: Sizes | None = None) -> None:
        self._start_broker = start_broker
        self._records = records
        self._sizes = sizes or Sizes()

    def part(self, name: str) -> tuple[list[Case], list[Target]]:
        """The cases and targets of one of PARTS."""
        parts: dict[str, Callable[[], tuple[list[Case], list[Target]]]] = {
            "latency": self._latency,
            "crowd": self._crowd,
            "throughput": self._throughput,
            "scale": self._scale,
            "shm": lambda: shared_memory_part(self._start_broker, self._records),
        }
        return parts[name]()

    def _latency(self) -> tuple[list[Case], list[Target]]:
        load = self._load(self._records)
        cases = [
            Case("echo event", lambda: self._echo(load, "event")),
            Case("echo adaptive", lambda: self._echo(load, "adaptive")),
            Case("frieda event", lambda: self._produce(load, "event")),
            Case("frieda adaptive", lambda: self._produce(load, "adaptive")),
        ]
        targets = [
            Target("p50, adaptive / event echo", "frieda adaptive", "p50", "echo event", 0.5),
            Target("p99.9, adaptive / event echo", "frieda adaptive", "p99.9", "echo event", 0.25),
            Target("p50, adaptive / adaptive echo", "frieda adaptive", "p50", "echo adaptive", 2.5),
            Target(
                "p99.9, adaptive / adaptive echo", "frieda adaptive", "p99.9", "echo adaptive", 2.0
            ),
            Target("p50, event / event echo", "frieda event", "p50", "echo event", 1.6),
        ]
        return cases, targets

    def _crowd(self) -> tuple[list[Case], list[Target]]:
        crowd = self._load(CROWD_TIMES * self._records, producers=8, processes=4)
        fewer = max(self._records // FLUSHED_SHARE, 2_000)
        flushed = self._load(fewer)
        flushed_crowd = self._load(fewer, producers=8, processes=4)
        cases: list[Case] = []
        for polling in ("event", "adaptive"):
            produce = partial(self._produce, polling=polling)
            produce_flushed = partial(produce, flush="batch")
            cases += [
                Case(f"crowd {polling}", partial(produce, crowd)),
                Case(f"flushed {polling}", partial(produce_flushed, flushed)),
                Case(f"flushed crowd {polling}", partial(produce_flushed, flushed_crowd)),
            ]
        targets = [
            Target(
                "p99.9 of 8 producers, adaptive / event",
                "crowd adaptive",
                "p99.9",
                "crowd event",
                1.1,
            ),
            Target(
                "p99 with flush=batch, adaptive / event",
                "flushed adaptive",
                "p99",
                "flushed event",
                1.1,
            ),
            Target(
                "p99 of 8 with flush=batch, adaptive / event",
                "flushed crowd adaptive",
                "p99",
                "flushed crowd event",
                1.1,
            ),
        ]
        return cases, targets

    def _throughput(self) -> tuple[list[Case], list[Target]]:
        many = self._load(THROUGHPUT_TIMES * self._records, in_flight=IN_BULK)
        cases = [
            Case("bulk", lambda: self._produce(many, "adaptive")),
            Case("send_nowait", lambda: self._produce(many, "adaptive", call="send_nowait")),
            Case("getmany", lambda: self._consume(many, iterate=False)),
            Case("async for", lambda: self._consume(many, iterate=True)),
            Case("16 KiB batches", partial(self._broker_cpu, in_flight=4)),
            # Without a target: it shows what being woken for each request costs.
            Case("16 KiB, one at a time", partial(self._broker_cpu, in_flight=1)),
        ]
        rate = "records_per_sec"
        targets = [
            Target("producer, in bulk", "bulk", rate, None, 300_000, False, "records/s"),
            Target("producer, send_nowait", "send_nowait", rate, None, 300_000, False, "records/s"),
            Target("consumer, getmany", "getmany", rate, None, 800_000, False, "records/s"),
            Target("consumer, async for", "async for", rate, None, 800_000, False, "records/s"),
            Target(
                "broker CPU of a 16 KiB produce",
                "16 KiB batches",
                "broker_cpu_us",
                None,
                40.0,
                unit="us",
            ),
        ]
        return cases, targets

    def _scale(self) -> tuple[list[Case], list[Target]]:
        sizes = self._sizes
        load = self._load(self._records)
        cases = [
            Case("alone", lambda: self._produce(load, "adaptive")),
            Case("among bystanders", lambda: self._produce_among_bystanders(load)),
            Case("large log", partial(self._with_broker, write_read_reopen)),
            Case("idle", partial(self._with_broker, idle)),
        ]
        among = f"{sizes.partitions:,} partitions and {sizes.connections:,} idle connections"
        targets = [
            Target(f"p50, among {among} / alone", "among bystanders", "p50", "alone", 1.2),
            Target(
                f"memory, {sizes.written} written and read",
                "large log",
                "memory_mb",
                None,
                150,
                unit="MB",
            ),
            Target(
                f"opening {sizes.written} after a stop",
                "large log",
                "opening_ms",
                None,
                500,
                unit="ms",
            ),
            Target(
                "scanned after kill -9", "large log", "scanned_segments", None, 1, unit="segments"
            ),
            Target("CPU of an idle broker", "idle", "cpu_percent", None, 1, unit="% of a core"),
        ]
        return cases, targets

    def _load(
        self, records: int, *, producers: int = 1, processes: int = 1, in_flight: int = 1
    ) -> Load:
        return Load(
            records=records,
            producers=producers,
            processes=processes,
            in_flight=in_flight,
            warm_up_records=default_warm_up(records),
        )

    def _echo(self, load: Load, polling: str) -> Values:
        return values_of(run_echo(EchoSettings(load=load, polling=polling)))

    def _produce(
        self, load: Load, polling: str, *, flush: str = "never", call: str = "bulk"
    ) -> Values:
        with self._start_broker(polling, flush) as broker:
            return values_of(produce_to(broker, load, polling, call=call))

    def _produce_among_bystanders(self, load: Load) -> Values:
        with (
            open_files(self._sizes.open_files),
            self._start_broker("adaptive", "never") as broker,
            bystanders(broker.url, self._sizes),
        ):
            return values_of(produce_to(broker, load, "adaptive"))

    def _with_broker(self, measure: Callable[[BrokerUnderTest, str, Sizes], Values]) -> Values:
        with self._start_broker("adaptive", "never") as broker:
            return measure(broker, TOPIC, self._sizes)

    def _consume(self, load: Load, *, iterate: bool) -> Values:
        with self._start_broker("adaptive", "never") as broker:
            produce_to(broker, load, "adaptive")
            read = run_consumer(
                ConsumerSettings(
                    topic=TOPIC, bootstrap=broker.url, records=load.records, iterate=iterate
                ),
                lambda _: broker.require_alive(),
            )
        return {"records_per_sec": read.records_per_sec, "mb_per_sec": read.mb_per_sec}

    def _broker_cpu(self, in_flight: int) -> Values:
        """Processor time of a broker that sleeps when it may, for each request, which is one batch of 16 KiB."""
        load = Load(
            records=max(self._records // 5, 5_000),
            record_size_bytes=BATCH_BYTES - _BATCH_HEADER_BYTES,
            in_flight=in_flight,
            warm_up_records=500,
        )
        warm_up = Load(records=500, record_size_bytes=load.record_size_bytes)
        with self._start_broker("event", "never") as broker:
            produce_to(broker, warm_up, "event")
            before_s = broker.cpu_seconds()
            result = produce_to(broker, load, "event", batch_bytes=BATCH_BYTES)
            used_s = broker.cpu_seconds() - before_s
        requests = load.records + load.warm_up_records
        return {"broker_cpu_us": used_s / requests * 1e6, **values_of(result)}
