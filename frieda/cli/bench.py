"""`frieda bench`: the benchmarks, all with the same flags for the load."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, get_args

import click

from frieda.bench.report import window_line
from frieda.cli.bench_ablation import ablation
from frieda.cli.bench_compare import compare
from frieda.cli.bench_consumer import consumer
from frieda.cli.bench_diff import diff
from frieda.cli.bench_end_to_end import end_to_end
from frieda.cli.bench_figures import figures
from frieda.cli.bench_matrix import matrix
from frieda.cli.bench_model import model
from frieda.cli.bench_options import (
    broker_options,
    load_of,
    load_options,
    measured_broker,
    output_options,
    polling_option,
    show_result,
)
from frieda.cli.bench_report import report
from frieda.cli.bench_roofline import roofline
from frieda.cli.bench_side_by_side import side_by_side
from frieda.cli.client_options import bootstrap_option
from frieda.config import Compression


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
    "--call",
    type=click.Choice(["bulk", "send_nowait"]),
    default="bulk",
    show_default=True,
    help="With more than one record in flight and no rate: many values with one call, or one by one.",
)
@broker_options
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
    call: str,
    own_broker: bool,
    broker_polling: str | None,
    flush: str,
    transport: str,
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
    with measured_broker(
        bootstrap, own_broker, broker_polling or polling, flush, transport
    ) as broker:
        if asyncio.run(ensure_topic(broker.url, topic, partitions)):
            click.echo(f"made topic {topic!r} with {partitions} partitions", err=True)
        settings = ProducerSettings(
            load=load,
            topic=topic,
            bootstrap=broker.url,
            acks=ACKS[acks],
            linger_ms=linger,
            batch_bytes=batch_size,
            compression=compression,
            polling=polling,
            call=call,
        )
        result = run_producer(settings, broker.show)
    show_result(result, json_file, hgrm_file)


bench.add_command(consumer)
bench.add_command(side_by_side)
bench.add_command(ablation)
bench.add_command(compare)
bench.add_command(end_to_end)
bench.add_command(matrix)
bench.add_command(diff)
bench.add_command(figures)
bench.add_command(report)
bench.add_command(model)
bench.add_command(roofline)
