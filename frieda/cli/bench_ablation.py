"""`frieda bench ablation`: what each of the four designs is worth, in one table."""

from __future__ import annotations

import json
from pathlib import Path

import click

from frieda.cli.bench_side_by_side import noted_load_average, show_case
from frieda.cli.output import show_table
from frieda.errors import ConfigError

_COLUMNS = (
    *("transport", "load", "design", "p50", "p99", "p99.9"),
    *("p50_ratio", "p99_ratio", "p99.9_ratio", "records_per_sec", "mb_per_sec"),
)


@click.command()
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option(
    "--records",
    type=click.IntRange(min=500),
    default=20_000,
    show_default=True,
    help="Of the load `small`; a p99.9 needs 20,000. The others take a share of that.",
)
@click.option(
    "--transport",
    "transports",
    multiple=True,
    type=click.Choice(["tcp", "shm"]),
    help="Only this; may be given several times. [default: both]",
)
@click.option(
    "--load",
    "loads",
    multiple=True,
    metavar="NAME",
    help="Only this load; may be given several times. [default: all]",
)
@click.option(
    "--design",
    "wanted",
    multiple=True,
    metavar="NAME",
    help="Beside `all on` only this design; may be given several times. [default: all]",
)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write a result.")
def ablation(
    rounds: int,
    records: int,
    transports: tuple[str, ...],
    loads: tuple[str, ...],
    wanted: tuple[str, ...],
    json_file: Path | None,
) -> None:
    """All four designs on, and each switched off in turn, on shm and tcp.

    Latencies are medians over the rounds, in microseconds; a ratio is to `all on` of the same round. A design that
    cannot matter for a load should show no difference there: that is the noise of your machine.
    """
    from frieda.bench import ablation as bench  # noqa: PLC0415  (only when it runs)
    from frieda.bench.environment import describe_environment  # noqa: PLC0415
    from frieda.bench.rounds import run_side_by_side  # noqa: PLC0415
    from frieda.cli.measured import fresh_broker  # noqa: PLC0415
    from frieda.cli.own_broker import terminated_like_interrupted  # noqa: PLC0415

    ways = [each for each in bench.TRANSPORTS if not transports or each in transports]
    _require_known(loads, [scene.name for scene in bench.SCENES], "load")
    _require_known(wanted, [design.name for design in bench.DESIGNS], "design")
    scenes = [scene for scene in bench.SCENES if not loads or scene.name in loads]
    designs = [
        design for design in bench.DESIGNS if not wanted or design.name in (bench.ALL_ON, *wanted)
    ]
    load_average = noted_load_average()
    cases = bench.ablation_cases(fresh_broker, records, ways, scenes, designs)
    with terminated_like_interrupted():
        done = run_side_by_side(cases, (), rounds, show_case(rounds))
    rows = bench.ablation_rows(done.measurements, ways, scenes, designs)
    click.echo()
    show_table(_COLUMNS, rows, "text")
    click.echo()
    for scene in scenes:
        click.echo(f"{scene.name}: {scene.meaning}")
    if json_file is not None:
        result = {
            "benchmark": "ablation",
            "rows": rows,
            "measurements": done.measurements,
            "loads": {scene.name: scene.meaning for scene in scenes},
            "designs": {
                design.name: {"polling": design.polling, **design.both, **design.broker}
                for design in designs
            },
            "settings": {"rounds": rounds, "records": records},
            "load_average_at_start": load_average,
            "environment": describe_environment(),
        }
        json_file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _require_known(names: tuple[str, ...], known: list[str], what: str) -> None:
    for name in names:
        if name not in known:
            raise ConfigError(f"there is no {what} {name!r} (known: {', '.join(known)})")
