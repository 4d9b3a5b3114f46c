"""What `frieda bench compare`, `matrix` and `end-to-end` share: their flags read, what they show and write."""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from frieda.bench.compare import Comparison
from frieda.bench.comparison import change_rows, rows
from frieda.bench.cross_check import CROSS_CHECKS
from frieda.bench.environment import filesystem_of
from frieda.bench.plan import Batching, Kind, Method, Plan, Point
from frieda.bench.results import Results, Run, write_results
from frieda.cli.bench_side_by_side import noted_load_average
from frieda.cli.contenders import find_contenders
from frieda.cli.exit_codes import ExitCode
from frieda.cli.output import show_table
from frieda.cli.own_broker import terminated_like_interrupted
from frieda.errors import ConfigError

Value = TypeVar("Value")

POINT_FLAGS: Final = (
    *("producers", "sizes", "acks", "brokers", "replication", "rate", "rate_share"),
)
ACKS: Final = {"0": 0, "1": 1, "all": -1, "-1": -1}
UNITS: Final = {"KiB": 1024, "MiB": 1024 * 1024}
COLUMNS: Final = (
    *("case", "valid", "p50", "p99", "p99.9", "p99.9_spread", "max"),
    *("records_per_sec", "mb_per_sec", "server_cpu", "clients_cpu"),
)
CHANGE_COLUMNS: Final = ("point", "what", "against", "p50", "p99", "p99.9", "rounds")
RATE_COLUMNS: Final = ("point", "what", "against", "records_per_sec", "rounds")


def run_comparison(
    kind: str,
    measured: Kind,
    who: tuple[str, str, tuple[str, ...]],
    flags: dict[str, Any],
    folder: Path | None,
    output: Path | None,
    **more: Any,
) -> None:
    """Do what the flags of `compare` or `end-to-end` say; `more` is of the method. Raises FriedaError, OSError."""
    frieda, peers, kafka_clients = who
    point_flags = {name: flags.pop(name) for name in POINT_FLAGS}
    rounds, durability, reference, cross_check = (
        flags.pop(name) for name in ("rounds", "durability", "reference", "cross_check")
    )
    found = find_contenders(frieda, peers, kafka_clients, flags["polling"])
    for sentence in found.missing:
        click.echo(sentence, err=True)
    plan = Plan(
        contenders=found.contenders,
        points=points_of(point_flags),
        method=method_of(measured, flags, **more),
        durability=durability,
        rounds=rounds,
        reference=reference,
    )
    compare_and_show(plan, kind, folder, output, found.missing, cross_check=cross_check)


def method_of(kind: Kind, flags: Mapping[str, Any], **more: Any) -> Method:
    """The method that the flags describe. Raises ConfigError."""
    values = dict(flags)
    values["batching"] = Batching(
        linger_ms=values.pop("linger_ms"), batch_bytes=values.pop("batch_bytes")
    )
    payload: Path | None = values.pop("payload")
    return Method(
        kind=kind,
        payload=None if payload is None else str(payload.resolve()),
        **values | more,
    )


def points_of(flags: Mapping[str, Any]) -> tuple[Point, ...]:
    """Every combination of what the flags list. Raises ConfigError."""
    acks = listed("--acks", flags["acks"], lambda text: ACKS[text])
    producers = listed("--producers", flags["producers"], int)
    sizes = listed("--record-size", flags["sizes"], size_of)
    return tuple(
        Point(
            producers=number,
            record_size_bytes=size,
            acks=each,
            brokers=flags["brokers"],
            replication=flags["replication"],
            rate=flags["rate"],
            rate_share=flags["rate_share"],
        )
        for size, each, number in product(sizes, acks, producers)
    )


def listed(option: str, text: str, read: Callable[[str], Value]) -> list[Value]:
    """A list with commas. Raises ConfigError that names the option."""
    try:
        values = [read(part.strip()) for part in text.split(",")]
    except (ValueError, KeyError):
        raise ConfigError(f"{option} {text}: not a list with commas of what it takes") from None
    return list(dict.fromkeys(values))


def size_of(text: str) -> int:
    """A number of bytes: 100, 16KiB, 1MiB. Raises ValueError."""
    for unit, factor in UNITS.items():
        if text.endswith(unit):
            return int(text.removesuffix(unit)) * factor
    return int(text)


class Shown:
    """Tells on the terminal how a comparison goes on, and writes its results after every round."""

    def __init__(self, plan: Plan, output: Path | None) -> None:
        self._plan = plan
        self._output = output

    def measured(self, run: Run) -> None:
        """A line for each run."""
        head = f"round {run.round + 1} of {self._plan.rounds}  {run.case}: "
        if run.records == 0:
            click.echo(head + str(run.invalid_because))
            return
        latencies = ", ".join(
            f"{name} {value:,.0f} us"
            for name in ("p50", "p99", "p99.9")
            if (value := run.latency_us[name]) is not None
        )
        validity = "" if run.valid else f"  INVALID: {run.invalid_because}"
        click.echo(f"{head}{latencies}, {run.records_per_sec:,.0f} records/s{validity}")

    def probed(self, what: str) -> None:
        """A line for what was found beforehand."""
        click.echo(what)

    def skipped(self, what: str) -> None:
        """A warning."""
        click.echo(what, err=True)

    def round_ended(self, results: Results) -> None:
        """Write what there is: hours of measuring are not lost by what comes later."""
        if self._output is not None:
            write_results(self._output, results)


def compare_and_show(
    plan: Plan,
    kind: str,
    folder: Path | None,
    output: Path | None,
    missing: Sequence[str] = (),
    *,
    cross_check: bool = False,
) -> None:
    """Run the plan, print its tables, write its results. Ends with exit code 1 when a case has no run at all.

    Raises FriedaError, OSError.
    """
    load_average = noted_load_average()
    folder = folder or Path(tempfile.gettempdir())
    if plan.durability == "disk" and filesystem_of(folder) == "tmpfs":
        click.echo(
            f"note: {folder} is in memory: an fsync there costs nothing; give --folder", err=True
        )
    comparison = Comparison(
        plan=plan,
        kind=kind,
        command=f"frieda {shlex.join(sys.argv[1:])}",
        folder=folder,
        listener=Shown(plan, output),
        cross_checks=dict(CROSS_CHECKS) if cross_check else {},
        facts={"load_average_at_start": load_average, "missing": list(missing)},
    )
    with terminated_like_interrupted():
        results = comparison.run()
    show_results(results)
    if output is not None:
        click.echo(f"\nwritten to {write_results(output, results)}")
    nothing = [case for case, runs in results.cases().items() if not any(r.records for r in runs)]
    if nothing:
        click.echo(f"no run came to a result: {'; '.join(nothing)}", err=True)
        raise click.exceptions.Exit(ExitCode.FAILURE)


def show_results(results: Results) -> None:
    """The cases, then the change against each peer, then why runs are invalid."""
    table = rows(results)
    click.echo()
    click.echo(
        "Medians over the rounds; latencies in microseconds; CPU in seconds for a million records."
    )
    show_table(COLUMNS, table, "text")
    change_table = change_rows(results)
    if change_table:
        click.echo()
        click.echo("Change in percent, of one round each: median (least..greatest).")
        columns = RATE_COLUMNS if "records_per_sec" in change_table[0] else CHANGE_COLUMNS
        show_table(columns, change_table, "text")
    for row in table:
        if row["invalid_because"] is not None:
            click.echo(f"{row['case']}: a run is invalid: {row['invalid_because']}")
