"""`frieda bench side-by-side`: the targets beside what this machine gives, in one interleaved run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from frieda.cli.output import show_table

if TYPE_CHECKING:
    from frieda.bench.rounds import Outcome, Values

_COLUMNS = ("what", "target", "median", "least", "greatest", "unit", "met")
_SHOWN = (
    *("p50", "p99", "p99.9", "records_per_sec", "broker_cpu_us"),
    *("memory_mb", "opening_ms", "opening_after_kill_ms", "scanned_segments", "cpu_percent"),
)


@click.command("side-by-side")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option(
    "--records",
    type=click.IntRange(min=2000),
    default=50_000,
    show_default=True,
    help="Of one latency run; a p99.9 needs 20,000. Throughput takes 20 times as many.",
)
@click.option(
    "--latency", is_flag=True, help="One producer, 100 B, one in flight, beside the bare echo."
)
@click.option(
    "--crowd", is_flag=True, help="8 producers in 4 processes, and flush=batch: adaptive to event."
)
@click.option(
    "--throughput", is_flag=True, help="Producer, consumer, and the broker's CPU for 16 KiB."
)
@click.option(
    "--scale", is_flag=True, help="Many partitions and connections, a large log, an idle broker."
)
@click.option(
    "--shm", is_flag=True, help="Shared memory beside TCP: 1 to 16 producers, throughput."
)
@click.option(
    "--scale-mib",
    type=click.IntRange(min=1),
    default=1024,
    show_default=True,
    help="Of --scale: the size of the large log, in the folder for temporary files.",
)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write a result.")
def side_by_side(
    rounds: int, records: int, scale_mib: int, json_file: Path | None, **wanted: bool
) -> None:
    """Targets beside measurements: ratios of runs that took turns, with their spread over the rounds.

    Every run has a fresh broker process, on a throw-away folder, and acks=1; nothing else of Frieda's runs
    beside it. With none of --latency, --crowd, --throughput, --scale, --shm all are done. Keep the machine quiet: the
    load average at the start is part of the result.
    """
    from frieda.bench.environment import describe_environment  # noqa: PLC0415  (only when it runs)
    from frieda.bench.rounds import as_rows, run_side_by_side  # noqa: PLC0415
    from frieda.bench.scale import Sizes, require_open_files  # noqa: PLC0415
    from frieda.bench.side_by_side import PARTS, Plan  # noqa: PLC0415
    from frieda.cli.measured import fresh_broker  # noqa: PLC0415
    from frieda.cli.own_broker import terminated_like_interrupted  # noqa: PLC0415

    parts = [part for part in PARTS if wanted[part]] or PARTS
    sizes = Sizes(written_mib=scale_mib)
    if "scale" in parts:
        require_open_files(sizes.open_files)  # now, not after minutes of other measurements
    load_average = noted_load_average()
    plan = Plan(fresh_broker, records, sizes)
    outcomes: list[Outcome] = []
    measurements: dict[str, Sequence[Values]] = {}
    with terminated_like_interrupted():
        for part in parts:
            cases, targets = plan.part(part)
            done = run_side_by_side(cases, targets, rounds, show_case(rounds))
            outcomes += done.outcomes
            measurements |= done.measurements
    click.echo()
    rows = as_rows(outcomes)
    show_table(_COLUMNS, rows, "text")
    if json_file is not None:
        result = {
            "benchmark": "side-by-side",
            "targets": [
                {**row, "rounds": outcome.values}
                for row, outcome in zip(rows, outcomes, strict=True)
            ],
            "measurements": measurements,
            "settings": {
                "rounds": rounds,
                "records": records,
                "record_size": 100,
                "acks": 1,
                "scale": asdict(sizes),
            },
            "load_average_at_start": load_average,
            "environment": describe_environment(),
        }
        json_file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def show_case(rounds: int) -> Callable[[int, str, Values], None]:
    """What prints a line for each case that was measured."""

    def show(number: int, name: str, values: Values) -> None:
        known = ((key, values.get(key)) for key in _SHOWN)
        shown = ", ".join(f"{key} {value:,.1f}" for key, value in known if value is not None)
        click.echo(f"round {number + 1} of {rounds}  {name:<26} {shown}")

    return show


def noted_load_average() -> float:
    """The load average, with a warning when other work will be in the figures."""
    load_average = os.getloadavg()[0]
    cores = len(os.sched_getaffinity(0))
    if load_average > cores / 2:
        click.echo(
            f"note: the load average is {load_average:.2f} on {cores} cores; what else runs is in these figures",
            err=True,
        )
    return load_average
