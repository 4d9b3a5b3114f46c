"""`frieda bench roofline`: what the broker gets out of the processor, by the processor's own counters."""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from frieda.bench.environment import describe_environment
from frieda.errors import MissingDependencyError

if TYPE_CHECKING:
    from frieda.bench.results import Run
    from frieda.bench.roofline import Counters


@click.command()
@click.option("--producers", default="1,2,4,8,16", show_default=True, help="With commas.")
@click.option(
    "--transport",
    "transports",
    multiple=True,
    type=click.Choice(["tcp", "shm"]),
    default=("tcp",),
    show_default=True,
    help="May be given several times.",
)
@click.option("--records", type=click.IntRange(min=1000), default=200_000, show_default=True)
@click.option("--record-size", type=click.IntRange(min=1), default=100, show_default=True)
@click.option("--processes", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--in-flight", type=click.IntRange(min=1), default=16, show_default=True)
@click.option(
    "--polling",
    type=click.Choice(["event", "adaptive", "busy"]),
    default="event",
    show_default=True,
    help="Of both sides. A broker that spins retires instructions that do no work.",
)
@click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder for result.json and the plot.",
)
def roofline(
    producers: str, transports: tuple[str, ...], polling: str, output: Path, **flags: Any
) -> None:
    """Operations per byte of memory traffic against operations per second, of the broker's processes.

    It needs `perf` and a processor whose counters can be read, which virtual machines rarely have. Without them a
    result is written that says so, and the exit code is 2.
    """
    from frieda.bench.results import Results, write_results  # noqa: PLC0415  (only when it runs)
    from frieda.bench.roofline import find_counters, measure_roofs  # noqa: PLC0415
    from frieda.bench.roofline_figure import roofline_chart  # noqa: PLC0415
    from frieda.cli.comparing import listed  # noqa: PLC0415
    from frieda.cli.drawn_files import write_figures_if_possible  # noqa: PLC0415
    from frieda.cli.own_broker import terminated_like_interrupted  # noqa: PLC0415

    crowds = listed("--producers", producers, int)
    results = Results(
        kind="roofline",
        command=f"frieda {shlex.join(sys.argv[1:])}",
        environment=describe_environment(),
        settings={"producers": crowds, "polling": polling, **flags},
        runs=(),
    )
    try:
        counters = find_counters()
    except MissingDependencyError as error:
        click.echo(f"{write_results(output, replace(results, extra={'missing': str(error)}))}")
        raise
    with terminated_like_interrupted():
        roofs = measure_roofs(counters)
        runs = [
            _measured(counters, transport, crowd, polling, flags)
            for transport in transports
            for crowd in crowds
        ]
    results = replace(results, runs=runs, extra={"roofs": asdict(roofs)})
    click.echo(f"{write_results(output, results)}")
    chart = roofline_chart(results)
    write_figures_if_possible([] if chart is None else [chart], output)


def _measured(
    counters: Counters, transport: str, producers: int, polling: str, flags: dict[str, Any]
) -> Run:
    from frieda.bench.load import Load, default_warm_up  # noqa: PLC0415  (only when it runs)
    from frieda.bench.roofline import measure_roofline  # noqa: PLC0415
    from frieda.cli.frieda_system import FriedaSystem  # noqa: PLC0415

    records = flags["records"]
    load = Load(
        records=records,
        record_size_bytes=flags["record_size"],
        producers=producers,
        processes=min(flags["processes"], producers),
        in_flight=flags["in_flight"],
        warm_up_records=default_warm_up(records),
    )
    run = measure_roofline(
        f"frieda {transport}", "frieda", FriedaSystem(transport, polling), counters, load, polling
    )
    click.echo(f"{run.case}: {run.records_per_sec:,.0f} records/s")
    return run
