"""`frieda demo`: see it work on this machine, in half a minute, with nothing left behind but a picture."""

from __future__ import annotations

import asyncio
import os
import time
from functools import partial
from pathlib import Path
from typing import Final

import click

import frieda
from frieda.bench.consumer import ConsumerSettings, run_consumer
from frieda.bench.consumer import summary_lines as consumer_lines
from frieda.bench.echo import EchoSettings, run_echo
from frieda.bench.figures import text_curve, write_figure
from frieda.bench.load import Load, default_warm_up
from frieda.bench.producer import ProducerSettings, ensure_topic, run_producer
from frieda.bench.report import Result, latencies_us, summary_lines
from frieda.cli.exit_codes import ExitCode
from frieda.cli.own_broker import own_broker, require_alive, terminated_like_interrupted
from frieda.cli.round_trip import MAX_FILE_BYTES, RoundTrip, a_real_file, send_and_read_back
from frieda.errors import ConfigError, MissingDependencyError

PICTURE: Final = "frieda-demo.png"
TOPIC: Final = "demo"
LATENCY_RECORDS: Final = 100_000
QUICK_LATENCY_RECORDS: Final = 20_000
"""The least that a p99.9 needs."""
BULK_RECORDS: Final = 1_000_000
_SHOWN: Final = ("p50", "p99", "p99.9", "max")


@click.command()
@click.option("--quick", is_flag=True, help="Fewer records: about 10 s instead of 30.")
@click.option(
    "--output",
    "folder",
    type=click.Path(exists=True, file_okay=False, writable=True, path_type=Path),
    default=".",
    show_default=True,
    metavar="FOLDER",
    help=f"Where the picture, {PICTURE}, goes.",
)
@click.option(
    "--file",
    "file",
    type=click.Path(exists=True, dir_okay=False, readable=True, path_type=Path),
    help="Send this file. [default: a large one of this Python]",
)
def demo(quick: bool, folder: Path, file: Path | None) -> int:
    """See it work: a broker, a real file through it and back, a latency benchmark.

    Brokers run on throw-away folders and are gone when this ends, also by Ctrl-C. Only the picture stays. Exits with
    1 when the file did not come back byte for byte.
    """
    began = time.monotonic()
    click.echo(f"Frieda {frieda.__version__}, a demonstration on this machine\n")
    with terminated_like_interrupted():
        if not _show_round_trip(file or a_real_file()):
            return ExitCode.FAILURE
        results = _show_latency(QUICK_LATENCY_RECORDS if quick else LATENCY_RECORDS)
        if not quick:
            _show_throughput()
        _show_curve(results, folder / PICTURE)
    click.echo(f"\nDone in {time.monotonic() - began:.0f} s. Next: frieda --help, README.md")
    return ExitCode.OK


# --- the file -----------------------------------------------------------------------------------------------


def _show_round_trip(file: Path) -> bool:
    """Send the file and read it back; whether it came back as it was."""
    size_bytes = file.stat().st_size
    if size_bytes > MAX_FILE_BYTES:
        raise ConfigError(
            f"{file} has {size_bytes} bytes; the demo sends files of at most {MAX_FILE_BYTES}, since one record "
            "must hold it. For a larger one: frieda produce TOPIC --file FILE"
        )
    content = file.read_bytes()
    _step("1", "A real file through a broker and back")
    _line("file", f"{file}, {len(content):,} bytes")
    with own_broker("adaptive") as broker:
        _line("broker", f"process {broker.pid} at {broker.url}, on a throw-away folder")
        in_pieces, whole = send_and_read_back(broker.url, content)
    _line("in pieces", _how(in_pieces))
    _show_comparison(in_pieces)
    _line("whole", _how(whole))
    _show_comparison(whole)
    return in_pieces.same and whole.same


def _how(trip: RoundTrip) -> str:
    records = "1 record" if trip.records == 1 else f"{trip.records} records"
    partitions = "1 partition" if trip.partitions == 1 else f"{trip.partitions} partitions"
    return (
        f"{records} in {partitions}; acknowledged after {trip.sending_s * 1000:.0f} ms, "
        f"read back after {trip.reading_s * 1000:.0f} ms more"
    )


def _show_comparison(trip: RoundTrip) -> None:
    digests = trip.digests
    for what, content, digest in zip(
        ("sent", "received"), (trip.sent, trip.received), digests, strict=True
    ):
        _line("", f"{what:<8} {len(content):>12,} bytes  SHA-256 {digest}")
    _line(
        "",
        "the same, byte for byte" if trip.same else "DIFFERENT: this is a fault, please report it",
    )


# --- the benchmarks -----------------------------------------------------------------------------------------


def _show_latency(records: int) -> dict[str, Result]:
    """The same load on Frieda, by both ways that lead there from here, and on the bare echo, one after the other."""
    load = Load(records=records, warm_up_records=default_warm_up(records))
    click.echo()
    _step("2", "How long one acknowledged record takes")
    _line("load", f"{records:,} records of 100 bytes, one at a time, acks=1, flush=never")
    _line("ways", "TCP over the loopback, and memory that client and broker share; both poll")
    _line("floor", "the same over a bare TCP echo of this Python, which stores nothing")
    runs = {
        "Frieda over TCP": partial(_produce, load, "tcp"),
        "Frieda over shared memory": partial(_produce, load, "shm"),
        "bare echo, sleeping": partial(run_echo, EchoSettings(load=load, polling="event")),
        "bare echo, polling": partial(run_echo, EchoSettings(load=load, polling="adaptive")),
    }
    results: dict[str, Result] = {}
    for name, run in runs.items():
        click.echo(f"\n   {name}")
        results[name] = run()
        _show_lines(summary_lines(results[name]))
    click.echo(f"\n   {'latency in microseconds':<30}" + "".join(f"{name:>10}" for name in _SHOWN))
    for name, result in results.items():
        values = latencies_us(result.latency)
        cells = ("n/a" if values[key] is None else f"{values[key]:,.1f}" for key in _SHOWN)
        click.echo(f"   {name:<30}" + "".join(f"{cell:>10}" for cell in cells))
    return results


def _produce(load: Load, transport: str) -> Result:
    with own_broker("adaptive", transport=transport) as broker:
        asyncio.run(ensure_topic(broker.url, TOPIC, 1))
        settings = ProducerSettings(load=load, topic=TOPIC, bootstrap=broker.url, acks=1)
        return run_producer(settings, lambda _: require_alive(broker))


def _show_throughput() -> None:
    load = Load(records=BULK_RECORDS, warm_up_records=20_000, in_flight=20_000)
    click.echo()
    _step("3", "How many records one producer writes and one consumer reads")
    with own_broker("adaptive") as broker:
        asyncio.run(ensure_topic(broker.url, TOPIC, 1))
        sending = ProducerSettings(
            load=load, topic=TOPIC, bootstrap=broker.url, acks=1, call="send_nowait"
        )
        _show_lines(summary_lines(run_producer(sending, lambda _: require_alive(broker))))
        reading = ConsumerSettings(topic=TOPIC, bootstrap=broker.url)
        _show_lines(consumer_lines(run_consumer(reading, lambda _: require_alive(broker))))


def _show_curve(results: dict[str, Result], path: Path) -> None:
    """The percentile curves here, and as a picture where matplotlib is installed."""
    curves = {name: result.latency for name, result in results.items()}
    click.echo("\n   So many of the records took at most so long; both axes are logarithmic\n")
    click.echo(text_curve(curves))
    first = next(iter(results.values()))
    where = first.environment
    subtitle = (
        f"{first.records:,} records of 100 bytes, one at a time, acks=1, flush=never; "
        f"{where['cores']} cores, {where['cpu']}, {where['python']}"
    )
    click.echo()
    try:
        write_figure(
            path,
            curves,
            "An acknowledged produce by TCP and by shared memory, beside a bare TCP echo",
            subtitle,
        )
    except MissingDependencyError as error:
        _line("picture", f"not drawn: {error}")
    else:
        _line("picture", os.path.normpath(path))


def _step(number: str, title: str) -> None:
    click.echo(f"{number}. {title}")


def _line(name: str, text: str) -> None:
    click.echo(f"   {name:<10} {text}")


def _show_lines(lines: list[str]) -> None:
    for line in lines:
        click.echo(f"   {line}")
