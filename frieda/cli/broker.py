"""`frieda broker`: run a broker until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path
from typing import get_args

import click

from frieda.cli.assembly import make_server
from frieda.cli.config import load_broker_settings, parse_assignments
from frieda.config import BrokerConfig, FlushPolicy, PollingMode
from frieda.event_loop import new_event_loop

# A thread that runs Python code may keep the interpreter this long before the event loop gets it back.
SWITCH_INTERVAL_S = 0.0005


@click.command()
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="A TOML file.")
@click.option("--id", "broker_id", type=int, help="The number of this broker. [default: 0]")
@click.option("--data", help="The folder of the log. [default: ./frieda-data]")
@click.option(
    "--listen",
    multiple=True,
    metavar="URL",
    help="An address to listen at; may be given several times. [default: tcp://127.0.0.1:9500]",
)
@click.option(
    "--polling",
    type=click.Choice(get_args(PollingMode)),
    help="How the event loop waits. [default: adaptive]",
)
@click.option(
    "--flush",
    type=click.Choice(get_args(FlushPolicy)),
    help="When appends reach the disk: never (the kernel decides), interval, or batch (before the "
    "acknowledgement). [default: never]",
)
@click.option(
    "--set", "assignments", multiple=True, metavar="NAME=VALUE", help="Any other setting."
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
)
def broker(
    config_file: Path | None,
    broker_id: int | None,
    data: str | None,
    listen: tuple[str, ...],
    polling: str | None,
    flush: str | None,
    assignments: tuple[str, ...],
    log_level: str,
) -> None:
    """Run a broker.

    Settings come from a TOML file, then the environment (FRIEDA_BROKER_...), then flags; `frieda config
    dump` shows them all. It listens on the loopback address unless told otherwise: there is no
    authentication yet, so do not open it to a network that you do not trust.

    When it is ready it prints one line with its addresses. SIGTERM or SIGINT end it in order: it stops
    accepting, finishes what is under way, flushes and exits with 0.
    """
    logging.basicConfig(
        level=log_level.upper(),
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    flags = {
        "broker_id": broker_id,
        "data": data,
        "listen": listen,
        "polling": polling,
        "flush": flush,
        **parse_assignments(assignments),
    }
    settings = load_broker_settings(config_file, flags).settings
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_serve(settings))


async def _serve(settings: BrokerConfig) -> None:
    server = make_server(settings)

    def ready() -> None:
        click.echo(
            f"frieda broker {settings.broker_id} is ready at {', '.join(server.urls)} "
            f"(data {settings.data}, flush {settings.flush}, polling {settings.polling})"
        )
        sys.stdout.flush()

    await server.run(ready)
