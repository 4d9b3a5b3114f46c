"""`frieda bench`: the benchmarks, all with the same flags for the load."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from frieda.bench.load import Load, default_warm_up
from frieda.bench.report import Result, as_json, summary_lines, window_line

Command = TypeVar("Command", bound=Callable[..., Any])

_LOAD_OPTIONS = (
    click.option("--records", type=int, default=100_000, show_default=True, help="How many."),
    click.option("--record-size", type=int, default=100, show_default=True, help="Bytes of each."),
    click.option("--producers", type=int, default=1, show_default=True, help="Senders in all."),
    click.option("--processes", type=int, default=1, show_default=True, help="They run in these."),
    click.option("--in-flight", type=int, default=1, show_default=True, help="Of one producer."),
    click.option(
        "--rate",
        type=float,
        help="Records a second in all (open loop: latency counts from the intended time). "
        "Without it each producer sends when it may (closed loop).",
    ),
    click.option(
        "--arrivals",
        type=click.Choice(["constant", "poisson"]),
        default="constant",
        show_default=True,
        help="With --rate: evenly spaced, or at random.",
    ),
    click.option("--seed", type=int, default=1, show_default=True, help="Of --arrivals poisson."),
    click.option(
        "--warm-up-records",
        type=int,
        help="Sent before the measured ones. [default: a tenth, at most 20,000]",
    ),
)

_OUTPUT_OPTIONS = (
    click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write a result."),
    click.option(
        "--hgrm",
        "hgrm_file",
        type=click.Path(path_type=Path),
        help="Write the percentile distribution for HdrHistogram's plotter, in microseconds.",
    ),
)


def load_options(command: Command) -> Command:
    """The flags of a load; the command takes them as `**load_flags` for `load_of`."""
    for option in reversed(_LOAD_OPTIONS):
        command = option(command)
    return command


def output_options(command: Command) -> Command:
    """The flags `--json` and `--hgrm`, which `show_result` takes."""
    for option in reversed(_OUTPUT_OPTIONS):
        command = option(command)
    return command


def polling_option(command: Command) -> Command:
    """The flag `--polling`."""
    return click.option(
        "--polling",
        type=click.Choice(["event", "adaptive", "busy"]),
        default="adaptive",
        show_default=True,
        help="How the event loop waits.",
    )(command)


def load_of(flags: dict[str, Any]) -> Load:
    """The load that `load_options` describe. Raises ConfigError."""
    warm_up = flags.pop("warm_up_records")
    return Load(
        record_size_bytes=flags.pop("record_size"),
        warm_up_records=default_warm_up(flags["records"]) if warm_up is None else warm_up,
        **flags,
    )


def show_result(result: Result, json_file: Path | None, hgrm_file: Path | None) -> None:
    """Print the final lines and write the files that were asked for. Raises OSError."""
    for line in summary_lines(result):
        click.echo(line)
    if json_file is not None:
        json_file.write_text(json.dumps(as_json(result), indent=2) + "\n", encoding="utf-8")
    if hgrm_file is not None:
        result.latency.write_hgrm(hgrm_file)


@click.group()
def bench() -> None:
    """Measure latency and throughput.

    Lines are those of kafka-producer-perf-test; a percentile is printed only where at least twenty
    samples lie beyond it (20,000 records for p99.9), else n/a.
    """


@bench.command()
@load_options
@polling_option
@click.option("--response-size", type=int, default=20, show_default=True, help="Bytes answered.")
@output_options
def echo(
    polling: str,
    response_size: int,
    json_file: Path | None,
    hgrm_file: Path | None,
    **load_flags: Any,
) -> None:
    """The floor: the same load against a bare uvloop TCP echo on this machine.

    The server is a process of its own; --polling holds for both sides.
    """
    from frieda.bench.echo import EchoSettings, run_echo  # noqa: PLC0415  (only when it runs)

    settings = EchoSettings(load=load_of(load_flags), polling=polling, response_bytes=response_size)
    result = run_echo(settings, lambda progress: click.echo(window_line(progress)))
    show_result(result, json_file, hgrm_file)
