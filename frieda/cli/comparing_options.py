"""The flags of `frieda bench compare` and `end-to-end`, which `frieda.cli.comparing` reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from frieda.bench.load import Arrivals, KeyDistribution, PayloadForm
from frieda.bench.systems.base import DURABILITIES
from frieda.config import Compression, PollingMode

Command = TypeVar("Command", bound=Callable[..., Any])

_WHO = (
    click.option(
        "--frieda",
        default="tcp,shm",
        show_default=True,
        metavar="LIST",
        help="Transports of Frieda: tcp, shm; or NAME=ADDRESS of a broker that is there (verbs only so).",
    ),
    click.option(
        "--peers",
        default="",
        metavar="LIST",
        help="kafka, redis, nats: started one at a time; or NAME=ADDRESS of one that is there.",
    ),
    click.option(
        "--client",
        "kafka_clients",
        multiple=True,
        type=click.Choice(["confluent-kafka", "aiokafka"]),
        help="Of Kafka; may be given twice. [default: confluent-kafka]",
    ),
)
_WHERE = (
    click.option(
        "--folder",
        type=click.Path(path_type=Path, exists=True, file_okay=False),
        help="Where every system keeps its data, in throw-away folders. [default: that for temporary files]",
    ),
    click.option(
        "--output",
        type=click.Path(path_type=Path),
        help="A folder for result.json and the histograms, written after every round.",
    ),
    click.option(
        "--cross-check",
        is_flag=True,
        help="Then run Kafka's own ProducerPerformance at each point, and keep what it says in the result.",
    ),
)
_METHOD = (
    click.option("--durability", type=click.Choice(DURABILITIES), default="cache", show_default=True,
                 help="When an acknowledgement is given: from the page cache, or after fsync."),
    click.option("--rounds", type=int, default=3, show_default=True),
    click.option(
        "--records",
        type=int,
        default=100_000,
        show_default=True,
        help="Of each run; with --throughput as many as make 2 GiB at most.",
    ),
    click.option("--duration", "duration_s", type=float, metavar="SECONDS",
                 help="With a rate: instead of --records."),
    click.option("--warm-up-records", type=int,
                 help="Before the measured ones. [default: as many as those, at most 20,000]"),
    click.option("--processes", type=int, default=2, show_default=True,
                 help="The producers run in these, on every side the same."),
    click.option("--in-flight", type=int,
                 help="Of one producer. [default: 1; with a rate 1,000; in bulk 20,000; at most 32 MiB]"),
    click.option("--linger", "linger_ms", type=float, default=0.0, show_default=True, metavar="MS"),
    click.option("--batch-size", "batch_bytes", type=int, default=65536, show_default=True),
    click.option("--compression", type=click.Choice(get_args(Compression)), default="none"),
    click.option("--polling", type=click.Choice(get_args(PollingMode)), default="adaptive",
                 show_default=True, help="Of Frieda, both sides."),
    click.option("--arrivals", type=click.Choice(get_args(Arrivals)), default="constant",
                 show_default=True, help="With a rate: evenly spaced, at random, or many at once."),
    click.option("--burst", "burst_records", type=int, default=100, show_default=True,
                 help="Records of one producer that leave at one moment with --arrivals burst."),
    click.option("--keys", type=int, help="So many different keys. [default: records without]"),
    click.option("--key-distribution", type=click.Choice(get_args(KeyDistribution)),
                 default="uniform", show_default=True),
    click.option("--payload", type=click.Path(path_type=Path, exists=True, dir_okay=False),
                 help="Send what this file holds. [default: random bytes]"),
    click.option("--payload-form", type=click.Choice(get_args(PayloadForm)), default="lines",
                 show_default=True, help="Of --payload: a record is a line, or --record-size bytes."),
    click.option("--partitions", type=int, default=1, show_default=True),
    click.option("--seed", type=int, default=1, show_default=True),
    click.option("--max-behind", "max_behind_s", type=float, default=10.0, show_default=True,
                 metavar="SECONDS", help="With a rate: give a run up when it is so far behind."),
)  # fmt: skip
_POINTS = (
    click.option("--producers", default="1", show_default=True, metavar="LIST"),
    click.option("--record-size", "sizes", default="100", show_default=True, metavar="LIST",
                 help="Bytes, or like 16KiB, 1MiB."),
    click.option("--acks", default="1", show_default=True, metavar="LIST", help="0, 1, all."),
    click.option("--brokers", type=int, default=1, show_default=True),
    click.option("--replication", type=int, default=1, show_default=True),
    click.option("--rate", type=float, help="Records a second in all (open loop)."),
    click.option("--rate-share", type=float,
                 help="Open loop at this share of the rate that --rate-of sustains, found first."),
    click.option("--rate-of", "reference", default="slowest", show_default=True,
                 metavar="NAME", help="One of those measured, or slowest."),
)  # fmt: skip


def who_options(command: Command) -> Command:
    """Who is measured, and where the data and the results go."""
    return _with(command, (*_WHO, *_WHERE))


def where_options(command: Command) -> Command:
    """Where the data and the results go."""
    return _with(command, _WHERE)


def method_options(command: Command) -> Command:
    """The flags that `method_of` takes."""
    return _with(command, _METHOD)


def point_options(command: Command) -> Command:
    """The flags that `points_of` takes."""
    return _with(command, _POINTS)


def _with(command: Command, options: tuple[Callable[[Command], Command], ...]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command
