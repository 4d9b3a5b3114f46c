"""`frieda bench consumer`: how fast one consumer reads."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import click

from frieda.cli.bench_options import broker_options, measured_broker, polling_option
from frieda.cli.client_options import bootstrap_option


@click.command()
@bootstrap_option
@click.option("--topic", required=True, help="Read from its beginning.")
@click.option(
    "--records",
    type=click.IntRange(min=1),
    help="How many. [default: all that the topic holds at the start]",
)
@click.option(
    "--fill",
    type=click.IntRange(min=1),
    metavar="N",
    help="Put so many records into the topic first; it is made when it is missing.",
)
@click.option(
    "--record-size", type=int, default=100, show_default=True, help="Of --fill: bytes of each."
)
@click.option(
    "--partitions", type=int, default=1, show_default=True, help="Of a topic that is made."
)
@click.option("--iterate", is_flag=True, help="Use `async for` instead of `getmany`.")
@click.option(
    "--max-bytes", type=int, default=1024 * 1024, show_default=True, help="Of one fetch, at most."
)
@click.option("--check-crcs/--no-check-crcs", default=True, show_default=True)
@click.option(
    "--timeout",
    "timeout_s",
    type=float,
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="Give up when no record comes for so long.",
)
@polling_option
@broker_options
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write a result.")
def consumer(
    bootstrap: str | None,
    topic: str,
    records: int | None,
    fill: int | None,
    record_size: int,
    partitions: int,
    iterate: bool,
    max_bytes: int,
    check_crcs: bool,
    timeout_s: float,
    polling: str,
    own_broker: bool,
    broker_polling: str | None,
    flush: str,
    transport: str,
    json_file: Path | None,
) -> None:
    """Records read from the beginning of a topic, by one consumer in a process of its own.

    The lines are those of kafka-consumer-perf-test; setup.time.ms (connecting, finding the offsets) stands where
    Kafka has the time of the rebalance. --own-broker needs --fill.
    """
    from frieda.bench import consumer as benchmark  # noqa: PLC0415  (only when it runs)
    from frieda.bench.load import Load  # noqa: PLC0415
    from frieda.bench.producer import (  # noqa: PLC0415
        ProducerSettings,
        ensure_topic,
        run_producer,
    )

    if own_broker and fill is None:
        raise click.UsageError("a broker of its own has no records: give --fill N too")
    settings = benchmark.ConsumerSettings(
        topic=topic,
        records=records,
        iterate=iterate,
        polling=polling,
        max_bytes=max_bytes,
        check_crcs=check_crcs,
        timeout_s=timeout_s,
    )
    with measured_broker(
        bootstrap, own_broker, broker_polling or polling, flush, transport
    ) as broker:
        if fill is not None:
            load = Load(records=fill, record_size_bytes=record_size, in_flight=20_000)
            if asyncio.run(ensure_topic(broker.url, topic, partitions)):
                click.echo(f"made topic {topic!r} with {partitions} partitions", err=True)
            filling = ProducerSettings(load=load, topic=topic, bootstrap=broker.url, acks=1)
            filled = run_producer(filling, lambda _: broker.require_alive())
            click.echo(f"filled with {filled.records} records of {record_size} bytes", err=True)

        def show(progress: benchmark.ConsumerProgress) -> None:
            click.echo(benchmark.progress_line(progress))
            broker.require_alive()

        result = benchmark.run_consumer(replace(settings, bootstrap=broker.url), show)
    for line in benchmark.summary_lines(result):
        click.echo(line)
    if json_file is not None:
        text = json.dumps(benchmark.as_json(result), indent=2) + "\n"
        json_file.write_text(text, encoding="utf-8")
