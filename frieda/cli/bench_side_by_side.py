"""`frieda bench side-by-side`: the targets beside what this machine gives, in one interleaved run."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from frieda.cli.output import show_table

if TYPE_CHECKING:
    from frieda.bench.side_by_side import BrokerUnderTest, Outcome, Values
    from frieda.testing.brokers import BrokerProcess

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
    beside it. With none of --latency, --crowd, --throughput, --scale all four are done. Keep the machine quiet: the
    load average at the start is part of the result.
    """
    from frieda.bench.environment import describe_environment  # noqa: PLC0415  (only when it runs)
    from frieda.bench.scale import Sizes, require_open_files  # noqa: PLC0415
    from frieda.bench.side_by_side import PARTS, Plan, as_rows, run_side_by_side  # noqa: PLC0415
    from frieda.cli.own_broker import terminated_like_interrupted  # noqa: PLC0415

    parts = [part for part in PARTS if wanted[part]] or PARTS
    sizes = Sizes(written_mib=scale_mib)
    if "scale" in parts:
        require_open_files(sizes.open_files)  # now, not after minutes of other measurements
    load_average = os.getloadavg()[0]
    cores = len(os.sched_getaffinity(0))
    if load_average > cores / 2:
        click.echo(
            f"note: the load average is {load_average:.2f} on {cores} cores; what else runs is in these figures",
            err=True,
        )
    plan = Plan(fresh_broker, records, sizes)
    outcomes: list[Outcome] = []
    measurements: dict[str, Sequence[Values]] = {}
    with terminated_like_interrupted():
        for part in parts:
            cases, targets = plan.part(part)
            done = run_side_by_side(cases, targets, rounds, _show_case(rounds))
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


@dataclass(frozen=True, slots=True)
class _Broker:
    """What the benchmark knows of a broker process."""

    url: str
    process: BrokerProcess

    def cpu_seconds(self) -> float:
        """By the scheduler's own count in ns where the kernel keeps it, else in ticks of 10 ms."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        counts_ns = [int(task.read_text().split()[0]) for task in tasks]
        return sum(counts_ns) / 1e9 if any(counts_ns) else self.process.cpu_seconds()

    def memory_bytes(self) -> int:
        return self.process.memory_bytes()

    def start_again(self, *, kill: bool) -> None:
        from frieda.cli.own_broker import start_again  # noqa: PLC0415

        start_again(self.process, kill=kill)

    def require_alive(self) -> None:
        from frieda.cli.own_broker import require_alive  # noqa: PLC0415

        require_alive(self.process)


@contextlib.contextmanager
def fresh_broker(polling: str, flush: str) -> Iterator[BrokerUnderTest]:
    """A broker process of its own for one case. Raises FriedaError."""
    from frieda.cli.own_broker import own_broker  # noqa: PLC0415

    with own_broker(polling, flush) as process:
        yield _Broker(process.url, process)


def _show_case(rounds: int) -> Callable[[int, str, Values], None]:
    def show(number: int, name: str, values: Values) -> None:
        known = ((key, values.get(key)) for key in _SHOWN)
        shown = ", ".join(f"{key} {value:,.1f}" for key, value in known if value is not None)
        click.echo(f"round {number + 1} of {rounds}  {name:<22} {shown}")

    return show
