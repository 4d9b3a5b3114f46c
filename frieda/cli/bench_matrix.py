"""`frieda bench matrix`: a whole table of measurements from a TOML file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from frieda.cli.comparing_options import where_options


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@where_options
@click.option("--rounds", type=int, help="Instead of those of the file.")
@click.option(
    "--records", type=int, help="Of each run, instead of what the file says of its length."
)
def matrix(
    file: Path,
    folder: Path | None,
    output: Path | None,
    cross_check: bool,
    rounds: int | None,
    records: int | None,
) -> None:
    """Measure what FILE lists: producers x sizes x acks x replication x transport x rate.

    Runs take turns and are repeated, as those of `frieda bench compare`. bench/matrices/published.toml is an example:
    what the published evaluation shows. A key of FILE that is not known is refused.
    """
    from frieda.bench.matrix import read_matrix  # noqa: PLC0415  (only when it runs)
    from frieda.bench.plan import Plan  # noqa: PLC0415
    from frieda.cli.comparing import compare_and_show  # noqa: PLC0415
    from frieda.cli.contenders import find_contenders  # noqa: PLC0415

    read = read_matrix(file)
    method = read.method
    if records is not None:
        method = replace(method, records=records, duration_s=None)
    found = find_contenders(
        ",".join(read.frieda), ",".join(read.peers), read.clients, method.polling
    )
    for sentence in found.missing:
        click.echo(sentence, err=True)
    plan = Plan(
        contenders=found.contenders,
        points=read.points,
        method=method,
        durability=read.durability,
        rounds=read.rounds if rounds is None else rounds,
        reference=read.reference,
    )
    compare_and_show(plan, "matrix", folder, output, found.missing, cross_check=cross_check)
