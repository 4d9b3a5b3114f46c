"""`frieda bench`: the benchmarks, all with the same flags for the load."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from frieda.bench.load import Load, default_warm_up
from frieda.bench.report import Result, as_json, summary_lines, window_line
from frieda.cli.client_options import bootstrap_option
from frieda.config import ClientConfig, Compression, FlushPolicy, PollingMode

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


@bench.command()
@bootstrap_option
@click.option("--topic", required=True, help="Made when it is missing.")
@click.option(
    "--partitions", type=int, default=1, show_default=True, help="Of a topic that is made."
)
@load_options
@click.option(
    "--acks",
    type=click.Choice(["0", "1", "all"]),
    default="1",
    show_default=True,
    help="As Kafka's.",
)
@click.option("--linger", type=float, default=0.0, show_default=True, metavar="MS")
@click.option("--batch-size", type=int, default=65536, show_default=True, help="Bytes of a batch.")
@click.option("--compression", type=click.Choice(get_args(Compression)), default="none")
@polling_option
@click.option(
    "--own-broker",
    is_flag=True,
    help="Run against a broker of its own, on a throw-away folder, instead of --bootstrap.",
)
@click.option(
    "--broker-polling",
    type=click.Choice(get_args(PollingMode)),
    help="Of --own-broker. [default: as --polling]",
)
@click.option(
    "--flush", type=click.Choice(get_args(FlushPolicy)), default="never", help="Of --own-broker."
)
@output_options
def producer(
    bootstrap: str | None,
    topic: str,
    partitions: int,
    acks: str,
    linger: float,
    batch_size: int,
    compression: str,
    polling: str,
    own_broker: bool,
    broker_polling: str | None,
    flush: str,
    json_file: Path | None,
    hgrm_file: Path | None,
    **load_flags: Any,
) -> None:
    """Acknowledged records through the client library.

    One record in flight (the default) is `await producer.send(...)` in a loop: latency. Give --in-flight
    20000 for throughput: records then go in bulk. With --rate every record has an intended send time, and
    latency counts from it.
    """
    from frieda.bench.producer import ACKS, ProducerSettings, ensure_topic, run_producer  # noqa: PLC0415

    load = load_of(load_flags)
    with _broker(own_broker, bootstrap or DEFAULT_BOOTSTRAP, broker_polling or polling, flush) as url:
        if asyncio.run(ensure_topic(url, topic, partitions)):
            click.echo(f"made topic {topic!r} with {partitions} partitions", err=True)
        settings = ProducerSettings(
            load=load,
            topic=topic,
            bootstrap=url,
            acks=ACKS[acks],
            linger_ms=linger,
            batch_bytes=batch_size,
            compression=compression,
            polling=polling,
        )
        result = run_producer(settings, lambda progress: click.echo(window_line(progress)))
    show_result(result, json_file, hgrm_file)


@contextlib.contextmanager
def _broker(own: bool, bootstrap: str, polling: str, flush: str) -> Iterator[str]:
    """The address to measure: the one given, or that of a broker that lives as long as the context."""
    if not own:
        yield bootstrap
        return
    from frieda.testing.brokers import BrokerProcess  # noqa: PLC0415

    with (
        tempfile.TemporaryDirectory(prefix="frieda-bench-") as folder,
        BrokerProcess(folder, "--polling", polling, "--flush", flush) as process,
    ):
        yield process.url
        process.stop()
