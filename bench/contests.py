"""Which runs may stand beside each other in one figure or table, PURE.

A contest is a set of runs under the same conditions: what is promised (durability, acks, replication) and what is
sent (arrivals, rate, keys) never differ within one. In it a place is a number of producers and a record size, and a
series is a system as it is loaded. Where a series would stand twice at one place, what differs parts the contest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Final, NamedTuple

from frieda.bench.comparison import Spread
from frieda.bench.histogram import LatencyHistogram
from frieda.bench.results import Results, Run
from frieda.bench.ticks import plain, size
from frieda.errors import ConfigError

MODES: Final = ("latency", "end-to-end", "throughput", "ysb")
OTHER_KINDS: Final = frozenset({"model", "roofline"})
"""Files whose runs are a sweep for a figure of their own."""
ALWAYS_APART: Final = (
    *("durability", "brokers", "replication", "acks", "loop", "arrivals", "burst_records"),
    *("rate_share", "keys", "key_distribution", "payload", "consumers"),
)
_APART_BETWEEN_SYSTEMS: Final = ("rate", "in_flight")
_APART_WITHIN_A_SERIES: Final = (
    *("compression", "polling", "linger_ms", "batch_bytes", "partitions", "processes"),
    *("workers", "campaigns", "window_ms", "sink_ms", "skew"),
)
NAMES: Final = {
    ("kafka", "confluent-kafka"): "Kafka",
    ("redis", "redis"): "Redis Streams",
    ("nats", "nats"): "NATS JetStream",
}
DURABILITY_MEANING: Final = {
    "cache": "acknowledged from the page cache",
    "disk": "acknowledged after fsync",
}


BROKER_SHARE: Final = "broker_share_histogram"
"""In a run's `extra`: an encoded histogram."""


class Place(NamedTuple):
    """Where a case stands in a contest."""

    producers: int
    record_size_bytes: int

    @property
    def name(self) -> str:
        """8 producers, 100 B."""
        return f"{self.producers} producer{'' if self.producers == 1 else 's'}, {size(self.record_size_bytes)}"


class Entry(NamedTuple):
    """A run, and the number of the file that it is from."""

    run: Run
    file: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """Runs under the same conditions. `conditions` are the settings that all share, those that part contests."""

    mode: str
    conditions: Mapping[str, object]
    entries: Sequence[Entry]

    @property
    def runs(self) -> list[Run]:
        """All of them, invalid ones too."""
        return [entry.run for entry in self.entries]

    @property
    def places(self) -> list[Place]:
        """In ascending order."""
        return sorted({place_of(run) for run in self.runs})

    @property
    def series(self) -> list[str]:
        """Frieda's first, then in order of their names."""
        names = {series_of(run) for run in self.runs}
        return sorted(names, key=lambda name: (not name.startswith("Frieda"), name))

    def at(self, place: Place, series: str) -> list[Run]:
        """The rounds of a series at a place, invalid ones too."""
        return [run for run in self.runs if place_of(run) == place and series_of(run) == series]

    def valid_at(self, place: Place, series: str) -> list[Run]:
        """The rounds that say something about the system."""
        return [run for run in self.at(place, series) if run.valid]

    @property
    def durability(self) -> str:
        """ "cache" or "disk"; "not stated" for a system that was there already and said nothing."""
        return str(self.conditions.get("durability") or "not stated")

    @property
    def brokers(self) -> str:
        """1 broker; 4 brokers, replication 4."""
        return _brokers(self.conditions)

    def described(self, places: Sequence[Place] | None = None) -> str:
        """The conditions as a sentence for a figure's subtitle, the rates those at `places` (None: all)."""
        told = self.conditions
        durability = self.durability
        parts = [f"durability {durability} ({DURABILITY_MEANING.get(durability, 'not compared')})"]
        if told.get("acks") is not None:
            parts.append(f"acks={told['acks']}")
        parts.append(self.brokers)
        parts.append(self._load(self.places if places is None else places))
        for name in ("keys", "key_distribution", "consumers", *_APART_WITHIN_A_SERIES):
            if told.get(name) is not None:
                parts.append(f"{name.replace('_', ' ')} {told[name]}")
        return "; ".join(parts)

    def rounds(self) -> str:
        """What a mark and its range are, as a part of a sentence."""
        most = max(
            (len(self.valid_at(*each)) for each in product(self.places, self.series)), default=0
        )
        return "one round" if most <= 1 else f"median, least and greatest of {most} rounds"

    def _load(self, places: Sequence[Place]) -> str:
        runs = [run for run in self.runs if place_of(run) in places]
        rates = [number(run.settings["rate"]) for run in runs if run.settings.get("rate")]
        if not rates:
            if self.mode == "throughput":
                return "as fast as it goes, in bulk"
            in_flight = {run.settings.get("in_flight") for run in runs} - {None}
            return "closed loop" + "".join(
                f", {each} in flight" for each in in_flight if len(in_flight) == 1
            )
        least, greatest = plain(min(rates)), plain(max(rates))
        rate = least if least == greatest else f"{least} to {greatest}"
        share = self.conditions.get("rate_share")
        of = f", {number(share):.0%} of what the reference sustains" if share is not None else ""
        arrivals = str(self.conditions.get("arrivals") or "scheduled").replace("poisson", "Poisson")
        what = "events" if self.mode == "ysb" else "records"
        return f"open loop, {arrivals} arrivals, {rate} {what}/s{of}"


def contests(files: Sequence[Results]) -> list[Contest]:
    """The contests of these files, in the order in which they first appear."""
    parts: dict[tuple[object, ...], list[Entry]] = {}
    for file, results in enumerate(files):
        if results.kind in OTHER_KINDS:
            continue
        for run in results.runs:
            key = (mode_of(run), *(_hashable(run.settings.get(name)) for name in ALWAYS_APART))
            parts.setdefault(key, []).append(Entry(run, file))
    found = []
    for (mode, *values), entries in parts.items():
        conditions = dict(zip(ALWAYS_APART, values, strict=True))
        for further, rest in _parted(str(mode), entries):
            found.append(
                Contest(mode=str(mode), conditions={**conditions, **further}, entries=rest)
            )
    return found


def mode_of(run: Run) -> str:
    """What a run measured."""
    if run.settings.get("consumers") is not None:
        return "end-to-end"
    return str(run.settings.get("mode") or "latency")


def place_of(run: Run) -> Place:
    """Where a run stands."""
    return Place(
        int(number(run.settings.get("producers") or 1)),
        int(number(run.settings.get("record_size") or 0)),
    )


def series_of(run: Run) -> str:
    """The name of a system as it is loaded, the same in every figure."""
    transport = run.settings.get("transport")
    if run.system == "frieda":
        return f"Frieda {transport}"
    name = NAMES.get((run.system, run.driver))
    if name is None:
        name = f"{run.system.capitalize()} ({run.driver})"
    return name if transport in (None, "tcp") else f"{name} ({transport})"


def spread(runs: Sequence[Run], value: Callable[[Run], float | None]) -> Spread | None:
    """Median, least and greatest over the rounds; None when a round cannot say."""
    values = [told for run in runs if (told := value(run)) is not None]
    return Spread.of(values) if len(values) == len(runs) else None


def latency_ns(run: Run, percentile: str) -> float | None:
    """A percentile of a run ("p99.9", "max", "mean"); None when its samples cannot carry it."""
    value = run.latency_us.get(percentile)
    return None if value is None else max(value * 1000, 1.0)


def cores(run: Run, whose: str) -> float | None:
    """How many processors the "server" or the "clients" kept busy; None when it was not measured."""
    used = run.cpu_s.get(whose)
    return used / run.elapsed_s if used and run.elapsed_s > 0 else None


def merged_latency(runs: Iterable[Run]) -> LatencyHistogram:
    """All rounds together."""
    total = LatencyHistogram()
    for run in runs:
        total.merge(run.histogram)
    return total


def broker_share(runs: Sequence[Run]) -> LatencyHistogram | None:
    """The part of the latency that the broker took, all rounds together; None where a run has not measured it."""
    total = LatencyHistogram()
    for run in runs:
        encoded = run.extra.get(BROKER_SHARE)
        if not isinstance(encoded, str):
            return None
        try:
            total.merge(encoded)
        except ValueError as error:
            raise ConfigError(f"{run.case}: {BROKER_SHARE} is damaged: {error}") from None
    return total if total.count else None


def number(value: object) -> float:
    """A setting as a number. Raises ConfigError for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(
            f"a run of the file of results has the setting {value!r} where a number is needed"
        )
    return float(value)


def _parted(mode: str, entries: Sequence[Entry]) -> Iterator[tuple[dict[str, object], list[Entry]]]:
    """The entries in parts in which no series stands twice at one place, each with what parts it."""
    by_rate = [
        name for name in _APART_BETWEEN_SYSTEMS if (mode, name) != ("throughput", "in_flight")
    ]
    if _collide(entries, lambda entry: entry.file, series_of):
        for _, part in _by(entries, lambda entry: entry.file):
            yield from _parted(mode, part)
        return
    for names, owner in ((by_rate, lambda _: ""), (_APART_WITHIN_A_SERIES, series_of)):
        for name in names:
            value = _setting(name)
            if _collide(entries, value, owner):
                for told, part in _by(entries, value):
                    for further, rest in _parted(mode, part):
                        yield {name: told, **further}, rest
                return
    yield {}, list(entries)


def _collide(
    entries: Sequence[Entry], value: Callable[[Entry], object], owner: Callable[[Run], str]
) -> bool:
    """Whether one owner has two values at one place. None is no value: the setting does not apply."""
    seen: dict[tuple[str, Place], object] = {}
    for entry in entries:
        told = value(entry)
        if told is not None:
            key = (owner(entry.run), place_of(entry.run))
            if seen.setdefault(key, told) != told:
                return True
    return False


def _by(
    entries: Sequence[Entry], value: Callable[[Entry], object]
) -> Iterator[tuple[object, list[Entry]]]:
    """The entries by value; those to which it does not apply are in every part."""
    values = dict.fromkeys(told for entry in entries if (told := value(entry)) is not None)
    for each in values:
        yield each, [entry for entry in entries if value(entry) in (None, each)]


def _setting(name: str) -> Callable[[Entry], object]:
    return lambda entry: _hashable(entry.run.settings.get(name))


def _hashable(value: object) -> object:
    return value if value is None or isinstance(value, str | int | float | bool) else repr(value)


def _brokers(told: Mapping[str, Any]) -> str:
    brokers, replication = told.get("brokers"), told.get("replication")
    text = "1 broker" if brokers in (None, 1) else f"{brokers} brokers"
    return text if replication in (None, 1) else f"{text}, replication {replication}"
