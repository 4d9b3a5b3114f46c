"""The settings of a run of the benchmark, and the bounds they keep. PURE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from frieda.bench.load import Load
from frieda.errors import ConfigError
from frieda.ysb.events import Skew, duration_records
from frieda.ysb.window import WindowRule


@dataclass(frozen=True, slots=True, kw_only=True)
class YsbSettings:
    """What to run, against what. Raises ConfigError for a value out of range."""

    address: str
    """Of the broker, as the driver takes it."""
    redis_url: str
    driver: str = "frieda"
    topic: str = "ad-events"
    """The topic's name begins so; each run has one of its own."""
    rate: float = 120_000.0
    """Events a second, all producers together."""
    duration_s: float = 60.0
    """Of the measured part, which begins with a window when `warm_up_s` is a whole number of them."""
    warm_up_s: float = 10.0
    """The load runs so long before: its windows are counted and checked, but no figure is of them."""
    producers: int = 8
    processes: int = 2
    """Of the generator."""
    partitions: int = 4
    workers: int = 1
    """Processes of the pipeline."""
    campaigns: int = 100
    ads_per_campaign: int = 10
    window_ms: int = 10_000
    allowed_lateness_ms: int = 60_000
    skew: Skew | None = None
    sink_ms: float = 1000.0
    tick_ms: float = 1.0
    acks: int = 1
    linger_ms: float = 0.0
    batch_bytes: int = 64 * 1024
    max_in_flight: int = 100_000
    """For client libraries whose buffers are counted in records."""
    max_bytes: int = 1024 * 1024
    """Of one fetch."""
    polling: str = "adaptive"
    delivery_timeout_s: float = 30.0
    drain_timeout_s: float = 60.0
    seed: int = 1
    round: int = 0
    """Of a comparison; it shifts the moments at which the sink writes."""
    kills: int = 0
    """How often a worker of the pipeline is killed and started again."""
    producer_extra: Mapping[str, object] = field(default_factory=dict)
    consumer_extra: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        bounds: tuple[tuple[str, float, float, float], ...] = (
            ("rate", self.rate, 0.001, 1e9),
            ("duration_s", self.duration_s, 0.1, 86_400),
            ("warm_up_s", self.warm_up_s, 0, 86_400),
            ("partitions", self.partitions, 1, 1000),
            ("workers", self.workers, 1, 64),
            ("sink_ms", self.sink_ms, 1, 60_000),
            ("tick_ms", self.tick_ms, 0.1, 1000),
            ("kills", self.kills, 0, 1000),
            ("drain_timeout_s", self.drain_timeout_s, 0.1, 3600),
            ("delivery_timeout_s", self.delivery_timeout_s, 0.1, 3600),
        )
        for name, value, least, most in bounds:
            if not least <= value <= most:
                raise ConfigError(f"{name} = {value}: must be from {least:g} to {most:g}")
        if self.workers > self.partitions:
            raise ConfigError(
                f"workers = {self.workers}: must not exceed partitions = {self.partitions}"
            )
        self.load()
        self.rule()

    @property
    def total_s(self) -> float:
        """How long the load lasts, warm-up included."""
        return self.warm_up_s + self.duration_s

    def load(self) -> Load:
        """What the producers send: events at a constant rate by intended times."""
        return Load(
            records=duration_records(self.rate, self.total_s),
            producers=self.producers,
            processes=self.processes,
            rate=self.rate,
            seed=self.seed,
        )

    def rule(self) -> WindowRule:
        """The windows."""
        return WindowRule(self.window_ms, self.allowed_lateness_ms)
