"""`frieda bench compare`: the same load on Frieda and on its peers, one at a time, in turns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from frieda.cli.comparing_options import method_options, point_options, who_options


@click.command()
@who_options
@point_options
@method_options
@click.option(
    "--throughput",
    is_flag=True,
    help="As fast as it goes, in bulk, each side with the batching it is fastest with (found first; "
    "--linger and --batch-size are not used).",
)
def compare(
    frieda: str,
    peers: str,
    kafka_clients: tuple[str, ...],
    folder: Path | None,
    output: Path | None,
    throughput: bool,
    **flags: Any,
) -> None:
    """The same schedule on several systems, each started afresh for each run and stopped after it.

    Without a rate the loop is closed: --in-flight records of each producer are under way. What is not installed
    is left out with a sentence that says how to get it ('make peers' gets them all). Latencies count from the
    intended send time; a run in which the load generator itself could not keep up is marked invalid.
    """
    from frieda.cli.comparing import run_comparison  # noqa: PLC0415  (only when it runs)

    who = (frieda, peers, kafka_clients)
    if throughput:
        run_comparison("compare", "throughput", who, flags, folder, output, batching=None)
    else:
        run_comparison("compare", "latency", who, flags, folder, output)
