"""`frieda bench model`: the published latency model, fitted to a sweep of sizes and windows."""

from __future__ import annotations

import shlex
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from frieda.bench.systems.base import DURABILITIES, Durability

if TYPE_CHECKING:
    from frieda.bench.results import Results, Run


@click.command()
@click.option(
    "--frieda",
    default="tcp,shm",
    show_default=True,
    metavar="LIST",
    help="Transports of Frieda: tcp, shm; or NAME=ADDRESS of a broker that is there (verbs only so).",
)
@click.option(
    "--peers",
    default="",
    metavar="LIST",
    help="kafka, redis, nats: started for each cell; or NAME=ADDRESS of one that is there.",
)
@click.option(
    "--record-size", "sizes", default="100,1KiB,4KiB,16KiB,64KiB,256KiB", show_default=True
)
@click.option(
    "--windows", default="1,4,16,64", show_default=True, help="Records under way, with commas."
)
@click.option("--records", type=int, default=20_000, show_default=True, help="Of each cell.")
@click.option("--rounds", type=int, default=3, show_default=True)
@click.option("--durability", type=click.Choice(DURABILITIES), default="cache", show_default=True)
@click.option(
    "--polling",
    type=click.Choice(["event", "adaptive", "busy"]),
    default="adaptive",
    show_default=True,
    help="Of both sides of Frieda.",
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Where every system keeps its data, in throw-away folders. [default: that for temporary files]",
)
@click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder for result.json, the histograms and the figures.",
)
def model(
    frieda: str,
    peers: str,
    sizes: str,
    windows: str,
    records: int,
    rounds: int,
    durability: Durability,
    polling: str,
    folder: Path | None,
    output: Path,
) -> None:
    """Latency = L + size / B for a sequential sender, and + O(W, R) with a window of W records.

    O(W, R) is fitted as (W - 1)^k (o + size / C): what each of the others costs, the way of its bytes, and how that
    grows with their number. The fit is of the relative error; its residuals are stated.
    """
    from frieda.bench.model_figures import model_charts, model_table, models_of  # noqa: PLC0415
    from frieda.bench.model_sweep import SweepSettings, run_sweep  # noqa: PLC0415
    from frieda.bench.results import write_results  # noqa: PLC0415
    from frieda.cli.comparing import listed, size_of  # noqa: PLC0415
    from frieda.cli.contenders import find_contenders  # noqa: PLC0415
    from frieda.cli.drawn_files import write_figures_if_possible  # noqa: PLC0415
    from frieda.cli.output import show_table  # noqa: PLC0415
    from frieda.cli.own_broker import terminated_like_interrupted  # noqa: PLC0415

    settings = SweepSettings(
        sizes=tuple(listed("--record-size", sizes, size_of)),
        windows=tuple(listed("--windows", windows, int)),
        records=records,
        rounds=rounds,
        durability=durability,
        polling=polling,
    )
    found = find_contenders(frieda, peers, polling=polling)
    for sentence in found.missing:
        click.echo(sentence, err=True)
    with terminated_like_interrupted():
        results = run_sweep(
            found.contenders,
            settings,
            f"frieda {shlex.join(sys.argv[1:])}",
            folder or Path(tempfile.gettempdir()),
            _Told(),
        )
    click.echo(f"written: {write_results(output, results)}\n")
    table = model_table(models_of(results))
    rows = [dict(zip(table.headings, row, strict=True)) for row in table.rows]
    show_table(table.headings, rows, "text")
    for note in table.notes:
        click.echo(note)
    write_figures_if_possible(model_charts(results), output)


class _Told:
    """Tells on the terminal how the sweep goes on."""

    def measured(self, run: Run) -> None:
        window = run.settings.get("in_flight")
        values = ", ".join(
            f"{name} {value:,.1f} us"
            for name in ("mean", "p99")
            if (value := run.latency_us.get(name)) is not None
        )
        spoiled = f"  INVALID: {run.invalid_because}" if run.invalid_because else ""
        click.echo(f"{run.case}, window {window}: {values}{spoiled}")

    def probed(self, what: str) -> None:
        click.echo(what)

    def skipped(self, what: str) -> None:
        click.echo(what, err=True)

    def round_ended(self, results: Results) -> None:
        """Nothing: a cell is one round."""
