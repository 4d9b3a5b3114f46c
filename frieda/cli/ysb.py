"""`frieda ysb`: the Yahoo Streaming Benchmark."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from frieda.cli.exit_codes import ExitCode
from frieda.cli.output import show_table
from frieda.cli.ysb_compare import compare
from frieda.cli.ysb_options import broker_options, load_options, settings_of

if TYPE_CHECKING:
    from frieda.bench.results import Run
    from frieda.ysb.outcome import YsbOutcome


@click.group()
def ysb() -> None:
    """The Yahoo Streaming Benchmark: ad events through a broker, counted by campaign and window into Redis.

    Every run ends with a check of the counts against those of the generated events.
    """


@ysb.command()
@load_options()
@broker_options()
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write result.json and the histograms into this folder, for `frieda bench figures`.",
)
def run(output: Path | None, **flags: Any) -> int:
    """One run: live progress, then how long after its end each window was last written.

    The exit code is 1 when events were lost or counts are wrong.
    """
    from frieda.bench.environment import describe_environment  # noqa: PLC0415  (only when it runs)
    from frieda.bench.results import Results, write_results  # noqa: PLC0415

    outcome, result = _run_once(flags, kills=0)
    _show(outcome)
    if output is not None:
        results = Results(
            kind="ysb",
            command=shlex.join(["frieda", *sys.argv[1:]]),
            environment=describe_environment(),
            settings={"seed": outcome.settings.seed, "rounds": 1},
            runs=[result],
        )
        click.echo(f"written: {write_results(output, results)}")
    return _exit_code(outcome)


@ysb.command()
@load_options(rate=20_000.0, duration_s=10.0, warm_up_s=0.0, producers=4, window_ms=1000)
@broker_options()
@click.option(
    "--kills",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="So often a worker of the pipeline is killed with SIGKILL in the middle, and started again.",
)
def check(kills: int, **flags: Any) -> int:
    """Are the counts exact? A short run that answers it; the exit code is 1 when they are not."""
    outcome, _ = _run_once(flags, kills=kills)
    from frieda.ysb.result import failures  # noqa: PLC0415  (only when it runs)

    if outcome.kills:
        click.echo(f"workers killed: {outcome.kills}")
    for sentence in failures(outcome) or [outcome.check.sentence()]:
        click.echo(sentence)
    return _exit_code(outcome)


ysb.add_command(compare)


def _run_once(flags: dict[str, Any], kills: int) -> tuple[YsbOutcome, Run]:
    """One run against the broker that the flags choose."""
    from frieda.bench.drivers.registry import driver  # noqa: PLC0415
    from frieda.cli.own_broker import terminated_like_interrupted  # noqa: PLC0415
    from frieda.cli.ysb_systems import chosen_broker, chosen_redis, system_of  # noqa: PLC0415
    from frieda.ysb.benchmark import run_ysb  # noqa: PLC0415
    from frieda.ysb.result import as_run, progress_line  # noqa: PLC0415

    bootstrap, own_broker = flags.pop("bootstrap"), flags.pop("own_broker")
    redis_url, transport = flags.pop("redis_url"), flags.pop("transport")
    name = flags.pop("driver_name")
    # What is wrong with a setting is said before anything is started.
    settings_of(flags, address="", redis_url="", driver=name, kills=kills)
    system = system_of(driver(name).system, transport, flags["broker_polling"])
    with (
        terminated_like_interrupted(),
        chosen_redis(redis_url) as (redis_address, redis_alive),
        chosen_broker(system, bootstrap, own_broker, flags["durability"]) as broker,
    ):
        settings = settings_of(
            flags, address=broker.address, redis_url=redis_address, driver=name, kills=kills
        )

        def require_alive() -> None:
            broker.require_alive()
            redis_alive()

        outcome = run_ysb(
            settings,
            lambda progress: click.echo(progress_line(progress)),
            require_alive,
            broker.cpu_seconds,
        )
        scheme = broker.address.partition("://")[0] if system.name == "frieda" else None
        result = as_run(
            outcome,
            case=" ".join(filter(None, [system.name, scheme])),
            system=system.name,
            durability=flags["durability"] if own_broker else "as the broker has it",
            transport=scheme,
            server_settings=broker.settings,
        )
    return outcome, result


def _show(outcome: YsbOutcome) -> None:
    from frieda.ysb.result import COLUMNS, latency_rows, summary_lines, window_latency  # noqa: PLC0415

    click.echo()
    rows = latency_rows(
        [
            ("window end to last write", window_latency(outcome)),
            ("of it broker and clients (sampled)", outcome.broker_share),
            ("of it each write to Redis", outcome.write_times),
        ]
    )
    show_table(COLUMNS, rows, "text")
    click.echo()
    for line in summary_lines(outcome):
        click.echo(line)


def _exit_code(outcome: YsbOutcome) -> int:
    from frieda.ysb.result import failures  # noqa: PLC0415

    return ExitCode.FAILURE if failures(outcome) else ExitCode.OK
