"""What the benchmark commands share: the flags of a load, what they write, and a broker of their own."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args

import click

from frieda.bench.load import Load, default_warm_up
from frieda.bench.report import Progress, Result, as_json, summary_lines, window_line
from frieda.config import ClientConfig, FlushPolicy, PollingMode

DEFAULT_BOOTSTRAP = ClientConfig().bootstrap
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


_BROKER_OPTIONS = (
    click.option(
        "--own-broker",
        is_flag=True,
        help="Run against a broker of its own, on a throw-away folder, instead of --bootstrap.",
    ),
    click.option(
        "--broker-polling",
        type=click.Choice(get_args(PollingMode)),
        help="Of --own-broker. [default: as --polling]",
    ),
    click.option(
        "--flush",
        type=click.Choice(get_args(FlushPolicy)),
        default="never",
        show_default=True,
        help="Of --own-broker.",
    ),
    click.option(
        "--transport",
        type=click.Choice(["tcp", "shm"]),
        default="tcp",
        show_default=True,
        help="Of --own-broker. Another broker is reached by the scheme of --bootstrap.",
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


def broker_options(command: Command) -> Command:
    """The flags `--own-broker`, `--broker-polling`, `--flush` and `--transport`, which `measured_broker` takes."""
    for option in reversed(_BROKER_OPTIONS):
        command = option(command)
    return command


class MeasuredBroker(NamedTuple):
    """The broker that a benchmark loads, and a call that raises FriedaError when it is known to have died."""

    url: str
    require_alive: Callable[[], None]

    def show(self, progress: Progress) -> None:
        """Print the line of a window. A load must not wait for a broker that has died."""
        click.echo(window_line(progress))
        self.require_alive()


@contextlib.contextmanager
def measured_broker(
    bootstrap: str | None, own_broker: bool, polling: str, flush: str, transport: str
) -> Iterator[MeasuredBroker]:
    """The broker at `bootstrap`, or one of our own that lives as long as the context. Raises FriedaError."""
    if not own_broker:
        yield MeasuredBroker(bootstrap or DEFAULT_BOOTSTRAP, lambda: None)
        return
    # Imported only here: a benchmark of another broker needs none of ours.
    from frieda.cli import own_broker as own  # noqa: PLC0415

    with (
        own.terminated_like_interrupted(),
        own.own_broker(polling, flush, transport=transport) as process,
    ):
        yield MeasuredBroker(process.url, lambda: own.require_alive(process))
