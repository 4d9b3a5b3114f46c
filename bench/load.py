"""The load of a benchmark, PURE: who sends how much, when each record should leave, what is warm-up.

Open loop (a rate is given): every record has an intended send time, fixed beforehand; latency counts
from it, so a stall of the system is seen by every record that should have left meanwhile, not by
one. Closed loop (no rate): a record leaves as soon as fewer than `in_flight` are under way.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from typing import Final, Literal, get_args

from frieda.errors import ConfigError

Arrivals = Literal["constant", "poisson", "burst"]
KeyDistribution = Literal["uniform", "zipf"]
PayloadForm = Literal["lines", "blocks"]

NS_PER_S: Final = 1_000_000_000
MAX_RECORD_BYTES: Final = 16 * 1024 * 1024
MAX_WARM_UP_RECORDS: Final = 20_000
MAX_KEYS: Final = 1_000_000
ZIPF_EXPONENT: Final = 0.99
"""That of the Yahoo Cloud Serving Benchmark."""
_KEYS_AT_ONCE: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a benchmark sends. `records` are measured; `warm_up_records` are sent before them.

    `rate` is in records a second over all producers; `in_flight` bounds what each producer has
    under way. Values are random, or come from the file `payload`, whose lines or blocks of
    `record_size_bytes` are sent in turn. Raises ConfigError for a value out of range.
    """

    records: int
    record_size_bytes: int = 100
    producers: int = 1
    processes: int = 1
    rate: float | None = None
    arrivals: Arrivals = "constant"
    seed: int = 1
    in_flight: int = 1
    warm_up_records: int = 0
    burst_records: int = 100
    """With arrivals "burst": so many records of one producer leave at one moment."""
    keys: int | None = None
    """So many different keys, drawn by the seed; None: records have no key."""
    key_distribution: KeyDistribution = "uniform"
    payload: str | None = None
    payload_form: PayloadForm = "lines"
    max_behind_s: float | None = None
    """With a rate: the load is given up when a record is to leave so long after its time. None: it never is."""

    def __post_init__(self) -> None:
        bounds = (
            ("burst_records", self.burst_records, 1, 1_000_000),
            ("keys", 1 if self.keys is None else self.keys, 1, MAX_KEYS),
            ("records", self.records, 1, 10**12),
            ("record_size_bytes", self.record_size_bytes, 1, MAX_RECORD_BYTES),
            ("producers", self.producers, 1, 10_000),
            ("processes", self.processes, 1, 256),
            ("in_flight", self.in_flight, 1, 1_000_000),
            ("warm_up_records", self.warm_up_records, 0, 10**12),
        )
        for name, value, least, most in bounds:
            if not least <= value <= most:
                raise ConfigError(f"{name} = {value}: must be from {least} to {most}")
        if self.processes > self.producers:
            raise ConfigError(
                f"processes = {self.processes}: must not exceed producers = {self.producers}"
            )
        if self.records < self.producers:
            raise ConfigError(
                f"records = {self.records}: must be at least one for each producer "
                f"({self.producers})"
            )
        if self.rate is not None and not 0.001 <= self.rate <= 1e9:
            raise ConfigError(f"rate = {self.rate}: must be from 0.001 to 1e9 records a second")
        if self.max_behind_s is not None and not 0.001 <= self.max_behind_s <= 86_400:
            raise ConfigError(
                f"max_behind_s = {self.max_behind_s}: must be from 0.001 to 86400 seconds"
            )
        choices = (
            ("arrivals", self.arrivals, get_args(Arrivals)),
            ("key_distribution", self.key_distribution, get_args(KeyDistribution)),
            ("payload_form", self.payload_form, get_args(PayloadForm)),
        )
        for name, chosen, allowed in choices:
            if chosen not in allowed:
                raise ConfigError(f"{name} = {chosen!r}: must be one of {', '.join(allowed)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerShare:
    """The part of a load that one producer sends."""

    index: int
    records: int
    warm_up_records: int
    rate: float | None
    phase: float
    """How far into its first interval it starts, 0 to 1, so that producers do not send in step."""
    arrivals: Arrivals
    seed: int
    burst_records: int = 1

    def intended_times_ns(self) -> Iterator[int]:
        """When each record should leave, in ns from the start, warm-up first. Only with a rate."""
        if self.rate is None:
            raise ValueError("a closed loop has no intended send times")
        count = self.warm_up_records + self.records
        match self.arrivals:
            case "poisson":
                return poisson_arrivals(self.rate, count, self.seed)
            case "burst":
                return burst_arrivals(self.rate, count, self.burst_records, self.phase)
            case "constant":
                return constant_arrivals(self.rate, count, self.phase)


def default_warm_up(records: int) -> int:
    """A tenth of the records, at most 20,000."""
    return min(records // 10, MAX_WARM_UP_RECORDS)


def split(total: int, parts: int) -> tuple[int, ...]:
    """`total` in `parts` whole numbers that differ by at most one, the larger ones first."""
    if parts < 1 or total < 0:
        raise ValueError(f"cannot split {total} into {parts} parts")
    each, extra = divmod(total, parts)
    return (each + 1,) * extra + (each,) * (parts - extra)


def shares(load: Load) -> tuple[tuple[ProducerShare, ...], ...]:
    """For each process the shares of its producers; records and rate add up to the load's.

    A producer's rate is in proportion to its records, so that all end together.
    """
    records = split(load.records, load.producers)
    warm_up = split(load.warm_up_records, load.producers)
    producers = [
        ProducerShare(
            index=index,
            records=records[index],
            warm_up_records=warm_up[index],
            rate=None if load.rate is None else load.rate * records[index] / load.records,
            phase=index / load.producers,
            arrivals=load.arrivals,
            seed=load.seed * 1_000_003 + index,
            burst_records=load.burst_records,
        )
        for index in range(load.producers)
    ]
    counts = split(load.producers, load.processes)
    starts = [sum(counts[:process]) for process in range(load.processes)]
    return tuple(
        tuple(producers[start : start + count]) for start, count in zip(starts, counts, strict=True)
    )


def constant_arrivals(rate: float, count: int, phase: float = 0.0) -> Iterator[int]:
    """`count` times in ns from the start, `rate` a second, exactly (nothing adds up over time)."""
    interval_ns = Fraction(NS_PER_S) / Fraction(rate)
    # A common denominator keeps the loop in whole numbers, which is many times faster.
    scaled = interval_ns.limit_denominator(10**6)
    step, unit = scaled.numerator, scaled.denominator
    offset = int(Fraction(phase).limit_denominator(10**6) * step)
    return ((offset + number * step) // unit for number in range(count))


def poisson_arrivals(rate: float, count: int, seed: int) -> Iterator[int]:
    """`count` times in ns from the start, gaps exponential with mean 1 / `rate`, from `seed`."""
    generator = random.Random(seed)
    time_ns = 0.0
    for _ in range(count):
        time_ns += generator.expovariate(rate) * NS_PER_S
        yield int(time_ns)


def burst_arrivals(
    rate: float, count: int, burst_records: int, phase: float = 0.0
) -> Iterator[int]:
    """`count` times in ns from the start, `burst_records` of them equal, `rate` a second on the whole."""
    bursts = -(-count // burst_records)
    times = constant_arrivals(rate / burst_records, bursts, phase)
    sizes = (min(burst_records, count - number * burst_records) for number in range(bursts))
    return (time_ns for time_ns, size in zip(times, sizes, strict=True) for _ in range(size))


def drawn_keys(keys: int, distribution: KeyDistribution, seed: int) -> Iterator[int]:
    """Keys 0 to `keys` - 1 without end, from `seed`; with "zipf" key k has the weight 1 / (k + 1) ** 0.99."""
    generator = random.Random(seed)
    cumulative = None
    if distribution == "zipf":
        cumulative = list(accumulate((rank + 1) ** -ZIPF_EXPONENT for rank in range(keys)))
    while True:
        yield from generator.choices(range(keys), cum_weights=cumulative, k=_KEYS_AT_ONCE)


class Lateness:
    """How far the load generator itself was behind: a benchmark that can't keep its schedule says so.

    `note` is called for each send with the nanoseconds between intended and actual send time.
    """

    __slots__ = ("_count", "_late", "_max_ns", "_sum_ns", "threshold_ns")

    def __init__(self, threshold_ns: int = 1_000_000) -> None:
        self.threshold_ns = threshold_ns
        self._count = 0
        self._late = 0
        self._sum_ns = 0
        self._max_ns = 0

    def note(self, late_ns: int) -> None:
        """One send. A negative value (sent too early) is a fault of the generator: ValueError."""
        if late_ns < 0:
            raise ValueError(f"a record left {-late_ns} ns before its intended time")
        self._count += 1
        self._sum_ns += late_ns
        self._late += late_ns > self.threshold_ns
        self._max_ns = max(self._max_ns, late_ns)

    def add(self, other: LatenessSummary) -> None:
        """Take in what another process noted (with the same threshold)."""
        self._count += other.sends
        self._late += other.late_sends
        self._sum_ns += round(other.mean_us * 1000 * other.sends)
        self._max_ns = max(self._max_ns, round(other.max_us * 1000))

    def summary(self) -> LatenessSummary:
        """What was noted so far."""
        mean_us = self._sum_ns / self._count / 1000 if self._count else 0.0
        return LatenessSummary(
            sends=self._count,
            late_sends=self._late,
            mean_us=mean_us,
            max_us=self._max_ns / 1000,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LatenessSummary:
    """Lateness of a generator. `late_sends` lay over the threshold (1 ms)."""

    sends: int
    late_sends: int
    mean_us: float
    max_us: float
