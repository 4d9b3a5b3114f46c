"""`frieda bench diff`: what got slower or faster between two files of results."""

from __future__ import annotations

from pathlib import Path

import click

from frieda.cli.exit_codes import ExitCode
from frieda.cli.output import OutputFormat, format_option, show_table

_COLUMNS = ("case", "metric", "before", "after", "percent", "p", "verdict", "why")


@click.command()
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
@click.option(
    "--least",
    type=float,
    default=5.0,
    show_default=True,
    metavar="PERCENT",
    help="A smaller difference of the medians is not worth telling.",
)
@click.option(
    "--alpha",
    type=float,
    default=0.05,
    show_default=True,
    help="How often a difference may be told that chance alone has made.",
)
@click.option("--fail", is_flag=True, help="End with exit code 1 when anything got slower.")
@format_option
def diff(
    before: Path,
    after: Path,
    least: float,
    alpha: float,
    fail: bool,
    output_format: OutputFormat,
) -> None:
    """Compare two files of results (or the folders that hold them), case by case.

    The rounds of a case are its samples, and an exact rank-sum test says whether the two files differ by more than
    their rounds do; it needs four rounds on each side. Latencies are in microseconds.
    """
    from frieda.bench.diff import compare_files  # noqa: PLC0415  (only when it runs)
    from frieda.bench.results import read_results  # noqa: PLC0415

    found = compare_files(
        read_results(before), read_results(after), least_percent=least, alpha=alpha
    )
    rows = [
        {
            "case": each.case,
            "metric": each.metric,
            "before": each.before,
            "after": each.after,
            "percent": None if each.percent is None else round(each.percent, 1),
            "p": each.p_value,
            "verdict": each.verdict,
            "why": each.why,
        }
        for each in found.differences
    ]
    show_table(_COLUMNS, rows, output_format)
    told = [each for each in found.differences if each.verdict != "cannot tell"]
    for note in found.notes:
        click.echo(note, err=True)
    click.echo(
        f"{len(told)} of {len(rows)} values can be told; at alpha {alpha:g} about "
        f"{len(told) * alpha:.1f} of them would differ by chance alone.",
        err=True,
    )
    if fail and found.slower:
        raise click.exceptions.Exit(ExitCode.FAILURE)
