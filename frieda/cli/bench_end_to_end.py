"""`frieda bench end-to-end`: from produce to consume on one clock, on Frieda and on its peers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from frieda.cli.comparing_options import method_options, point_options, who_options


@click.command("end-to-end")
@who_options
@point_options
@method_options
@click.option(
    "--consumers",
    type=int,
    default=1,
    show_default=True,
    help="They share the partitions, each in a process of its own.",
)
def end_to_end(
    frieda: str,
    peers: str,
    kafka_clients: tuple[str, ...],
    folder: Path | None,
    output: Path | None,
    consumers: int,
    **flags: Any,
) -> None:
    """Latency from when a record should have been sent to when a consumer has it.

    Both times are in the record and of one clock, so a record has at least 16 bytes. The loads and systems are those
    of `frieda bench compare`; the producers' own latencies are kept beside it.
    """
    from frieda.cli.comparing import run_comparison  # noqa: PLC0415  (only when it runs)

    who = (frieda, peers, kafka_clients)
    run_comparison("end-to-end", "end-to-end", who, flags, folder, output, consumers=consumers)
