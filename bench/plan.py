"""What a comparison measures: the points, and what is the same at all of them. Values only; `compare` runs them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Final, Literal, get_args

from frieda.bench.drive import DriveSettings
from frieda.bench.load import Arrivals, KeyDistribution, Load, PayloadForm
from frieda.bench.systems.base import DURABILITIES, Durability, System
from frieda.errors import ConfigError

Kind = Literal["latency", "throughput", "end-to-end"]

OPEN_LOOP_IN_FLIGHT: Final = 1000
BULK_IN_FLIGHT: Final = 20_000
MOST_BYTES_UNDER_WAY: Final = 32 * 1024 * 1024
"""Of values, of all producers together: large records have fewer under way."""
MOST_BYTES_A_RUN: Final = 2 * 1024 * 1024 * 1024
"""Of values, in a run as fast as it goes: a second of it says enough, and disks are finite."""
WARM_UP_RECORDS: Final = 20_000
"""A server that compiles as it runs must have done so: as many records as are measured, at most this number."""
PROBE_RECORDS: Final = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A system with the driver that loads it: started for each run (`system`), or there already (`address`)."""

    label: str
    """As in a table: "frieda tcp", "kafka"."""
    driver: str
    system: System | None = None
    address: str | None = None
    extra: Mapping[str, object] = field(default_factory=dict)
    """Settings of the client library, under its own names."""

    def __post_init__(self) -> None:
        if (self.system is None) == (self.address is None):
            raise ConfigError(f"{self.label}: give either a system to start or an address")

    @property
    def ours(self) -> bool:
        """It is Frieda."""
        return self.driver == "frieda"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What differs from case to case, beside the contender.

    `rate` is in records a second over all producers; `rate_share` is a share of the rate that the plan's reference
    sustains; neither: a closed loop.
    """

    producers: int = 1
    record_size_bytes: int = 100
    acks: int = 1
    brokers: int = 1
    replication: int = 1
    rate: float | None = None
    rate_share: float | None = None

    def __post_init__(self) -> None:
        if self.rate is not None and self.rate_share is not None:
            raise ConfigError("give a rate or a share of a rate, not both")
        if self.rate_share is not None and not 0.0 < self.rate_share <= 2.0:
            raise ConfigError(f"rate_share = {self.rate_share}: must be above 0 and at most 2")
        if self.acks not in (-1, 0, 1):
            raise ConfigError(f"acks = {self.acks}: must be 0, 1 or -1 (all)")
        for name, value, most in (
            ("brokers", self.brokers, 64),
            ("replication", self.replication, 64),
        ):
            if not 1 <= value <= most:
                raise ConfigError(f"{name} = {value}: must be from 1 to {most}")
        if self.replication > self.brokers:
            raise ConfigError(
                f"replication = {self.replication}: needs as many brokers, and there are {self.brokers}"
            )

    @property
    def name(self) -> str:
        """For people, and the same in every file that has this point."""
        parts = [
            f"{self.producers} producer{'s' if self.producers > 1 else ''}",
            size_name(self.record_size_bytes),
        ]
        if self.acks != 1:
            parts.append("acks=all" if self.acks == -1 else f"acks={self.acks}")
        if self.brokers > 1:
            parts.append(f"{self.brokers} brokers")
        if self.replication > 1:
            parts.append(f"replication {self.replication}")
        if self.rate is not None:
            parts.append(f"{self.rate:g}/s")
        if self.rate_share is not None:
            parts.append(f"{self.rate_share:.0%} load")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """How a producer gathers records into batches."""

    linger_ms: float = 0.0
    batch_bytes: int = 64 * 1024


BATCHING_CANDIDATES: Final = (
    Batching(linger_ms=0.0, batch_bytes=64 * 1024),
    Batching(linger_ms=0.0, batch_bytes=1024 * 1024),
    Batching(linger_ms=5.0, batch_bytes=64 * 1024),
    Batching(linger_ms=5.0, batch_bytes=1024 * 1024),
)
"""For throughput each side gets the one of these with which it is fastest."""
WITHOUT_BATCHING: Final = frozenset({"redis", "nats"})
"""Drivers whose library knows nothing of either."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """What is the same at every point. `duration_s` gives the records of an open loop: rate x duration."""

    kind: Kind = "latency"
    records: int = 100_000
    duration_s: float | None = None
    warm_up_records: int | None = None
    """None: as many as are measured, at most 20,000."""
    processes: int = 2
    """At most; never more than producers."""
    in_flight: int | None = None
    """Of each producer. None: 1 in a closed loop, 1,000 in an open one, 20,000 in bulk, but at most 32 MiB in all."""
    batching: Batching | None = Batching()
    """None: for each contender and point the fastest of BATCHING_CANDIDATES, found beforehand."""
    compression: str = "none"
    polling: str = "adaptive"
    arrivals: Arrivals = "constant"
    burst_records: int = 100
    keys: int | None = None
    key_distribution: KeyDistribution = "uniform"
    payload: str | None = None
    payload_form: PayloadForm = "lines"
    seed: int = 1
    max_behind_s: float = 10.0
    partitions: int = 1
    consumers: int = 1
    """Of end-to-end."""
    delivery_timeout_s: float = 30.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ConfigError(f"kind = {self.kind!r}: must be one of {', '.join(get_args(Kind))}")
        if self.duration_s is not None and not 0.01 <= self.duration_s <= 86_400:
            raise ConfigError(f"duration_s = {self.duration_s}: must be from 0.01 to 86400 seconds")

    def load(self, point: Point, rate: float | None) -> Load:
        """The load of one case. Raises ConfigError."""
        records = self.records
        if self.duration_s is not None and rate is not None:
            records = max(point.producers, round(rate * self.duration_s))
        if self.kind == "throughput":
            most = MOST_BYTES_A_RUN // point.record_size_bytes
            records = max(point.producers, min(records, most))
        warm_up = self.warm_up_records
        return Load(
            records=records,
            record_size_bytes=point.record_size_bytes,
            producers=point.producers,
            processes=min(self.processes, point.producers),
            rate=rate,
            arrivals=self.arrivals,
            burst_records=self.burst_records,
            keys=self.keys,
            key_distribution=self.key_distribution,
            payload=self.payload,
            payload_form=self.payload_form,
            seed=self.seed,
            in_flight=self.in_flight_at(point, open_loop=rate is not None),
            warm_up_records=min(records, WARM_UP_RECORDS) if warm_up is None else warm_up,
            max_behind_s=self.max_behind_s if rate is not None else None,
        )

    def in_flight_at(self, point: Point, *, open_loop: bool) -> int:
        """How many records of each producer may be under way."""
        if self.in_flight is not None:
            return self.in_flight
        if self.kind != "throughput" and not open_loop:
            return 1
        most = BULK_IN_FLIGHT if self.kind == "throughput" else OPEN_LOOP_IN_FLIGHT
        by_size = MOST_BYTES_UNDER_WAY // (point.record_size_bytes * point.producers)
        return max(2, min(most, by_size))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All cases: every contender at every point, `rounds` times. Raises ConfigError for what cannot be compared."""

    contenders: tuple[Contender, ...]
    points: tuple[Point, ...]
    method: Method = field(default_factory=Method)
    durability: Durability = "cache"
    rounds: int = 3
    reference: str = "slowest"
    """Whose sustained rate a `rate_share` is of: a contender's label, or the "slowest" at each point."""

    def __post_init__(self) -> None:
        labels = [contender.label for contender in self.contenders]
        if not labels:
            raise ConfigError("there is nothing to measure: no system is left")
        if len(set(labels)) < len(labels):
            raise ConfigError(f"a system is named twice: {', '.join(labels)}")
        if not self.points:
            raise ConfigError("there is nothing to measure: no point is given")
        if not 1 <= self.rounds <= 1000:
            raise ConfigError(f"rounds = {self.rounds}: must be from 1 to 1000")
        if self.durability not in DURABILITIES:
            raise ConfigError(
                f"durability = {self.durability!r}: must be one of {', '.join(DURABILITIES)}"
            )
        shared = any(point.rate_share is not None for point in self.points)
        if shared and self.reference not in ("slowest", *labels):
            raise ConfigError(
                f"a share of the rate of {self.reference!r} is asked for, which is not measured: "
                f"name one of {', '.join(labels)}, or slowest"
            )
        if self.method.kind == "throughput" and any(
            point.rate is not None or point.rate_share is not None for point in self.points
        ):
            raise ConfigError("throughput is measured without a rate: give none")
        for point in self.points:
            self.method.load(point, point.rate)

    def described(self) -> dict[str, object]:
        """The settings that hold for the whole file of results."""
        return {
            **asdict(self.method),
            "contenders": [contender.label for contender in self.contenders],
            "durability": self.durability,
            "rounds": self.rounds,
            "reference": self.reference,
            "points": [point.name for point in self.points],
        }


def case_name(contender: Contender, point: Point) -> str:
    """The name of a case: the same in every round, and in every file that measures it again."""
    return f"{contender.label}, {point.name}"


def drive_settings(
    plan: Plan,
    contender: Contender,
    point: Point,
    address: str,
    rate: float | None,
    batching: Batching,
) -> DriveSettings:
    """The load of one case on `address`, with what it is a part of beside it."""
    method = plan.method
    return DriveSettings(
        driver=contender.driver,
        address=address,
        load=method.load(point, rate),
        partitions=method.partitions,
        replication=point.replication,
        acks=point.acks,
        linger_ms=batching.linger_ms,
        batch_bytes=batching.batch_bytes,
        compression=method.compression,
        polling=method.polling,
        manner="bulk" if method.kind == "throughput" else "each",
        delivery_timeout_s=method.delivery_timeout_s,
        extra=contender.extra,
        facts={
            "contender": contender.label,
            "point": point.name,
            "durability": plan.durability,
            "brokers": point.brokers,
            "rate_share": point.rate_share,
            "started": contender.system is not None,
        },
    )


def size_name(size_bytes: int) -> str:
    """100 B, 1 KiB, 1 MiB: whole numbers of the largest unit."""
    for unit, factor in (("MiB", 1024 * 1024), ("KiB", 1024)):
        if size_bytes >= factor and size_bytes % factor == 0:
            return f"{size_bytes // factor} {unit}"
    return f"{size_bytes} B"
