"""The sweep of record sizes and windows that the latency model is fitted to: a closed loop of one sender.

Each cell is a comparison of its own, every system started afresh for it; all cells are measured once before any is
measured again, and each round begins with another system.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from frieda.bench.compare import Comparison, Listener
from frieda.bench.histogram import samples_needed
from frieda.bench.plan import Contender, Method, Plan, Point
from frieda.bench.results import Results, Run
from frieda.bench.systems.base import Durability
from frieda.errors import ConfigError

TAIL_PERCENT: Final = 99.0
MAX_CELL_BYTES: Final = 256 * 1024 * 1024
"""Of the records of a cell: large ones are fewer, though never too few for the tail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSettings:
    """What is swept. `windows` are numbers of records under way; 1 is the sequential sender.

    Raises ConfigError for a sweep that the model cannot be fitted to.
    """

    sizes: tuple[int, ...] = (100, 1024, 4096, 16 * 1024, 64 * 1024, 256 * 1024)
    windows: tuple[int, ...] = (1, 4, 16, 64)
    records: int = 20_000
    rounds: int = 3
    durability: Durability = "cache"
    polling: str = "adaptive"

    def __post_init__(self) -> None:
        least = samples_needed(TAIL_PERCENT)
        if self.records < least:
            raise ConfigError(f"records = {self.records}: the tail, p99, needs {least} at least")
        if len(set(self.sizes)) < 2:
            raise ConfigError("the model needs two sizes or more")
        if 1 not in self.windows:
            raise ConfigError(
                "the model needs a window of 1: L and B are those of a sequential sender"
            )
        if not 1 <= self.rounds <= 1000:
            raise ConfigError(f"rounds = {self.rounds}: must be from 1 to 1000")

    def records_of(self, size_bytes: int) -> int:
        """How many records a cell of this size has."""
        return max(samples_needed(TAIL_PERCENT), min(self.records, MAX_CELL_BYTES // size_bytes))


def run_sweep(
    contenders: Sequence[Contender],
    settings: SweepSettings,
    command: str,
    folder: Path,
    listener: Listener,
) -> Results:
    """Measure every cell in every round, as a file of results of kind "model". Raises FriedaError."""
    runs: list[Run] = []
    environment: dict[str, object] = {}
    for number in range(settings.rounds):
        first = number % max(1, len(contenders))
        order = (*contenders[first:], *contenders[:first])
        for size in settings.sizes:
            for window in settings.windows:
                cell = _cell(order, settings, size, window, command, folder, listener)
                environment = environment or dict(cell.environment)
                runs += [
                    replace(run, round=number, case=f"{run.case}, window {window}")
                    for run in cell.runs
                ]
    return Results(
        kind="model",
        command=command,
        environment=environment,
        settings={**asdict(settings), "contenders": [each.label for each in contenders]},
        runs=tuple(runs),
    )


def _cell(
    contenders: tuple[Contender, ...],
    settings: SweepSettings,
    size: int,
    window: int,
    command: str,
    folder: Path,
    listener: Listener,
) -> Results:
    plan = Plan(
        contenders=contenders,
        points=(Point(record_size_bytes=size),),
        method=Method(
            records=settings.records_of(size),
            processes=1,
            in_flight=window,
            polling=settings.polling,
        ),
        durability=settings.durability,
        rounds=1,
    )
    return Comparison(
        plan=plan, kind="model", command=command, folder=folder, listener=listener
    ).run()
