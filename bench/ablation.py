"""What each of the four designs is worth: all on, and each switched off in turn, on loads where it can matter.

    design               switched off
    eager flush          messages are held for a turn of the event loop, or until 16 KiB have gathered or 1 ms passed
    continuous polling   both event loops sleep between events
    pooled buffers       memory for each message, registered for each message where the transport registers
    overlapped           the broker takes up a connection's next request after the answer to the last
    (reorder)            overlapped, but answers leave the broker in the order of the requests

Every run has a fresh broker. In each round every design runs once on each load and transport; the rounds begin with
different ones.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from frieda.bench.load import Load, default_warm_up
from frieda.bench.producer import Mix
from frieda.bench.rounds import Case, Values
from frieda.bench.under_test import StartBroker, produce_to, values_of

TRANSPORTS: Final = ("tcp", "shm")
HELD_MS: Final = 1.0
ONE_TURN_MS: Final = 0.001
KIB: Final = 1024
SHOWN: Final = ("p50", "p99", "p99.9", "records_per_sec", "mb_per_sec")


@dataclass(frozen=True, slots=True)
class Design:
    """What is on or off: settings of both sides, of the broker alone, and how both event loops wait."""

    name: str
    both: Mapping[str, str | float | bool] = field(default_factory=dict)
    broker: Mapping[str, str | float | bool] = field(default_factory=dict)
    polling: str = "adaptive"

    @property
    def broker_settings(self) -> tuple[str, ...]:
        """As `frieda broker --set` takes them."""
        values = {**self.both, **self.broker}
        return tuple(f"{name}={str(value).lower()}" for name, value in values.items())


ALL_ON: Final = "all on"
DESIGNS: Final = (
    Design(ALL_ON),
    Design("held for a turn", {"send_hold_ms": ONE_TURN_MS}),
    Design("held for 1 ms", {"send_hold_ms": HELD_MS}),
    Design("no polling", polling="event"),
    Design("no pooled buffers", {"buffers_pooled": False}),
    Design("no overlap", broker={"overlapped": False}),
    Design("reorder at the broker", broker={"reorder_responses": True}),
)


@dataclass(frozen=True, slots=True)
class Scene:
    """A load: its name, what of it a reader must know, and how it is run for so many records."""

    name: str
    meaning: str
    share: float
    """Its records for each record of the plan."""
    shape: Mapping[str, Any]
    """Fields of Load."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields of ProducerSettings."""
    flush: str = "never"

    @property
    def mix(self) -> Mix | None:
        """The mix of its records."""
        mix: Mix | None = self.settings.get("mix")
        return mix

    def load(self, records: int) -> Load:
        """For a plan of so many records."""
        own = max(int(records * self.share), 100)
        return Load(records=own, warm_up_records=default_warm_up(own), **self.shape)


_OPEN: Final = {"arrivals": "poisson", "in_flight": 512}
SCENES: Final = (
    Scene("small", "100 B, one at a time, acks=1", 1.0, {}),
    Scene(
        "mixed",
        "2,000/s of 100 B in 4 partitions, every 50th one of 1 MiB to a fifth, one connection, acks=1; "
        "latencies of the small ones",
        1.0,
        {"rate": 2000.0, **_OPEN},
        {"mix": Mix(spread=4, large_every=50), "batch_bytes": 2 * KIB * KIB},
    ),
    Scene(
        "flushed",
        "400/s of 100 B in 4 partitions, one connection, acks=1, flush=batch",
        0.2,
        {"rate": 400.0, **_OPEN},
        {"mix": Mix(spread=4)},
        flush="batch",
    ),
    Scene(
        "mixed, flushed",
        "200/s of 100 B in 4 partitions, every 20th one of 1 MiB to a fifth, one connection, acks=1, flush=batch; "
        "latencies of the small ones",
        0.1,
        {"rate": 200.0, **_OPEN},
        {"mix": Mix(spread=4, large_every=20), "batch_bytes": 2 * KIB * KIB},
        flush="batch",
    ),
    Scene(
        "16 KiB",
        "batches of 16 KiB, 32 records of that size under way, acks=1: throughput",
        0.25,
        {"record_size_bytes": 16 * KIB - 80, "in_flight": 32},
        {"batch_bytes": 16 * KIB},
    ),
    Scene(
        "1 MiB",
        "batches of 1 MiB, 8 records of that size under way, acks=1: throughput",
        0.01,
        {"record_size_bytes": KIB * KIB - 80, "in_flight": 8},
        {"batch_bytes": KIB * KIB},
    ),
)


def ablation_cases(
    start_broker: StartBroker,
    records: int,
    transports: Sequence[str],
    scenes: Sequence[Scene],
    designs: Sequence[Design],
) -> list[Case]:
    """A case for each design on each load and transport. Designs that are compared run after each other."""
    return [
        Case(case_name(transport, scene, design), partial(measure, transport, scene, design))
        for measure in (partial(_measure, start_broker, records),)
        for transport in transports
        for scene in scenes
        for design in designs
    ]


def case_name(transport: str, scene: Scene, design: Design) -> str:
    """How a case is called in the progress and in the JSON."""
    return f"{transport}, {scene.name}, {design.name}"


def _measure(
    start_broker: StartBroker, records: int, transport: str, scene: Scene, design: Design
) -> Values:
    polling = design.polling
    with start_broker(polling, scene.flush, transport, *design.broker_settings) as broker:
        partitions = 1 if scene.mix is None else scene.mix.partitions
        load, client = scene.load(records), dict(design.both)
        done = produce_to(
            broker, load, polling, partitions=partitions, client=client, **scene.settings
        )
    return values_of(done)


def ablation_rows(
    measurements: Mapping[str, Sequence[Values]],
    transports: Sequence[str],
    scenes: Sequence[Scene],
    designs: Sequence[Design],
) -> list[dict[str, object]]:
    """The table: medians over the rounds, and how each p99.9 (or p99) stands to that of all designs on.

    That ratio is the median of the rounds' own ratios.
    """
    rows: list[dict[str, object]] = []
    for transport in transports:
        for scene in scenes:
            base = measurements.get(case_name(transport, scene, Design(ALL_ON)), ())
            for design in designs:
                own = measurements[case_name(transport, scene, design)]
                row: dict[str, object] = {"transport": transport, "load": scene.name}
                row["design"] = design.name
                row |= {name: _median([values[name] for values in own]) for name in SHOWN}
                for name in ("p50", "p99", "p99.9"):
                    row[f"{name}_ratio"] = _ratio(own, base, name)
                rows.append(row)
    return rows


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known and len(known) == len(values) else None


def _ratio(own: Sequence[Values], base: Sequence[Values], name: str) -> float | None:
    pairs = [(mine[name], theirs[name]) for mine, theirs in zip(own, base, strict=False)]
    return _median(
        [mine / theirs if mine is not None and theirs else None for mine, theirs in pairs]
    )
