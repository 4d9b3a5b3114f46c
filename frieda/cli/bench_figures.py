"""`frieda bench figures`: what the published evaluation shows, from files of results."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument(
    "results",
    nargs=-1,
    required=True,
    metavar="RESULT...",
    type=click.Path(path_type=Path, exists=True),
)
@click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder for the figures; made when it is missing.",
)
@click.option(
    "--format",
    "formats",
    multiple=True,
    type=click.Choice(["png", "svg"]),
    default=("png", "svg"),
    help="Only this. [default: both]",
)
def figures(results: tuple[Path, ...], output: Path, formats: tuple[str, ...]) -> None:
    """Draw what these files of results hold (`--output` of compare, matrix, end-to-end, model, ysb).

    Percentile latency over message sizes for each number of producers, replicated brokers, throughput, the Yahoo
    Streaming Benchmark, the latency model, the roofline, and the percentile curves of each place. A point is the
    median over the rounds, its bar the least and the greatest. What the files do not hold is named.
    """
    from frieda.bench.published import absent, charts  # noqa: PLC0415  (only when it runs)
    from frieda.bench.results import read_results  # noqa: PLC0415
    from frieda.cli.drawn_files import write_figures  # noqa: PLC0415

    files = [read_results(path) for path in results]
    found = charts(files)
    write_figures(found, output, formats)
    for sentence in absent(files):
        click.echo(f"not drawn: {sentence}", err=True)
    if not found:
        click.echo("nothing was drawn", err=True)
