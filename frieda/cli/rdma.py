"""`frieda rdma`: what RDMA devices this host has, which one verbs:// would use, and whether it works."""

from __future__ import annotations

import asyncio
from typing import Final

import click

from frieda.bench.histogram import LatencyHistogram
from frieda.cli.output import OutputFormat, Row, format_option, show_table
from frieda.event_loop import new_event_loop
from frieda.transports.verbs.binding import load
from frieda.transports.verbs.check import CheckPlan, check
from frieda.transports.verbs.choice import Verdict, Wish, choose, survey
from frieda.transports.verbs.devices import read_devices

_NO_DEVICE: Final = (
    "this host has no RDMA device; soft-RoCE makes one of a network interface:  rdma link add rxe0 type rxe "
    "netdev eth0 ; without any, use tcp://, or shm:// for processes of one host"
)
_DEVICE_COLUMNS: Final = (
    "device",
    "port",
    "state",
    "link_layer",
    "lid",
    "gid_index",
    "gid",
    "verdict",
)
_CHECK_COLUMNS: Final = (
    "operation",
    "size_bytes",
    "samples",
    "p50_us",
    "p99_us",
    "p99_9_us",
    "max_us",
)
_PERCENTILES: Final = {"p50_us": 50.0, "p99_us": 99.0, "p99_9_us": 99.9}


@click.group()
def rdma() -> None:
    """See the RDMA devices of this host and check them. verbs:// uses one."""


@rdma.command()
@click.option("--for-address", metavar="IP", help="As for a connection from this address of ours.")
@format_option
def devices(for_address: str | None, output_format: OutputFormat) -> None:
    """List devices, ports and addresses: what would be chosen, and why the others not."""
    found = read_devices(load())
    verdicts = survey(found, Wish(), for_address)
    rows = [_row(verdict, first=place == 0) for place, verdict in enumerate(verdicts)]
    if rows or output_format == "json":
        show_table(_DEVICE_COLUMNS, rows, output_format)
    else:
        click.echo(_NO_DEVICE)


@rdma.command("check")
@click.option("--device", help="[default: the one that would be chosen]")
@click.option("--port", type=click.IntRange(min=1), help="Of the device.")
@click.option("--gid", type=click.IntRange(min=0), help="The index of the address.")
@click.option("--count", type=click.IntRange(min=1), default=20_000, show_default=True)
@click.option("--send-bytes", type=click.IntRange(1, 65536), default=100, show_default=True)
@click.option("--read-bytes", type=click.IntRange(1, 2**26), default=65536, show_default=True)
@click.option("--timeout", "timeout_s", type=float, default=60.0, show_default=True, metavar="S")
@format_option
def check_command(
    device: str | None,
    port: int | None,
    gid: int | None,
    count: int,
    send_bytes: int,
    read_bytes: int,
    timeout_s: float,
    output_format: OutputFormat,
) -> None:
    """Connect a device to itself and measure SEND (one way) and READ."""
    verbs = load()
    route = choose(read_devices(verbs), Wish(device, port, gid), None, "frieda rdma check")
    plan = CheckPlan(count=count, send_bytes=send_bytes, read_bytes=read_bytes, timeout_s=timeout_s)
    histograms = {"SEND": LatencyHistogram(), "READ": LatencyHistogram()}
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(
            check(verbs, route, plan, lambda operation, ns: histograms[operation].record(ns))
        )
    sizes = {"SEND": send_bytes, "READ": read_bytes}
    rows = [
        _latencies(operation, sizes[operation], histogram)
        for operation, histogram in histograms.items()
    ]
    if output_format == "text":
        address = f", {route.gid.address} ({route.gid.kind})" if route.gid else ""
        click.echo(f"{route.device} port {route.port.number}{address}: works")
    show_table(_CHECK_COLUMNS, rows, output_format)


def _row(verdict: Verdict, first: bool) -> Row:
    port, gid = verdict.port, verdict.gid
    usable = verdict.rank is not None
    return {
        "device": verdict.device,
        "port": port.number if port else None,
        "state": port.state if port else None,
        "link_layer": port.link_layer if port else None,
        "lid": port.lid if port else None,
        "gid_index": gid.index if gid else None,
        "gid": str(gid.address) if gid else None,
        "gid_kind": gid.kind if gid else None,
        "chosen": first and usable,
        "usable": usable,
        "why": verdict.why,
        "verdict": ("chosen: " if first else "usable: ") + verdict.why
        if usable
        else f"no: {verdict.why}",
    }


def _latencies(operation: str, size_bytes: int, histogram: LatencyHistogram) -> Row:
    def microseconds(ns: int | None) -> float | None:
        return None if ns is None else ns / 1000

    return {
        "operation": operation,
        "size_bytes": size_bytes,
        "samples": histogram.count,
        **{
            name: microseconds(histogram.percentile(percent))
            for name, percent in _PERCENTILES.items()
        },
        "max_us": microseconds(histogram.max_ns),
    }
