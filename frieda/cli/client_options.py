"""What every client command shares: its options, its settings, its event loop and how it is interrupted."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from frieda.cli.config import parse_assignments
from frieda.cli.exit_codes import ExitCode
from frieda.config import ClientConfig
from frieda.config_sources import load_settings
from frieda.event_loop import new_event_loop

Command = TypeVar("Command", bound=Callable[..., Any])
Config = TypeVar("Config", bound=ClientConfig)
Main = Callable[[asyncio.Event], Awaitable[int]]

BOOTSTRAP_VARIABLE: Final = "FRIEDA_BOOTSTRAP"


bootstrap_option: Final = click.option(
    "-b",
    "--bootstrap",
    metavar="URL[,URL...]",
    envvar=BOOTSTRAP_VARIABLE,
    show_envvar=True,
    help="Where to find a broker. [default: tcp://127.0.0.1:9500]",
)


_TRANSPORT: Final = "frieda.transport"


def _remember_transport(context: click.Context, _: click.Parameter, value: str | None) -> None:
    context.meta[_TRANSPORT] = value


def client_options(command: Command) -> Command:
    """The options `--bootstrap`, `--transport`, `--client-config` and `--set`.

    `--transport` is no argument of the command: `client_settings` knows it.
    """
    for decorator in (
        click.option(
            "--set", "assignments", multiple=True, metavar="NAME=VALUE", help="Any client setting."
        ),
        click.option(
            "--client-config",
            "config_file",
            type=click.Path(path_type=Path),
            help="A TOML file of client settings.",
        ),
        click.option(
            "--transport",
            metavar="auto|SCHEME",
            expose_value=False,
            callback=_remember_transport,
            help="How to reach the broker once it is found: tcp, shm, verbs, or the best. [default: auto]",
        ),
        bootstrap_option,
    ):
        command = decorator(command)
    return command


def client_settings(
    config_type: type[Config],
    bootstrap: str | None,
    config_file: Path | None,
    assignments: tuple[str, ...],
    flags: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The keyword arguments of a client, `bootstrap` among them: TOML file < environment < flags.

    A ProducerConfig takes variables that begin with FRIEDA_PRODUCER_, and so on. These commands wait for
    events unless told otherwise: they read and write files in threads, which a spinning loop would hold up.
    Raises ConfigError.
    """
    prefix = f"FRIEDA_{config_type.__name__.removesuffix('Config').upper()}_"
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    context = click.get_current_context(silent=True)
    if context is not None and context.meta.get(_TRANSPORT) is not None:
        given["transport"] = context.meta[_TRANSPORT]
    loaded = load_settings(
        config_type,
        file=config_file,
        environment=os.environ,
        prefix=prefix,
        flags={"bootstrap": bootstrap} | parse_assignments(assignments) | given,
    )
    settings = {spec.name: getattr(loaded.settings, spec.name) for spec in fields(config_type)}
    if "polling" not in loaded.sources:
        settings["polling"] = "event"
    return settings


def run_until_interrupted(main: Main) -> int:
    """Run `main(interrupted)` on a loop of its own and return its exit code.

    The first SIGINT or SIGTERM sets the event, for `main` to end in order; the second cancels it.
    """
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(_watched(main))


async def _watched(main: Main) -> int:
    loop = asyncio.get_running_loop()
    interrupted = asyncio.Event()
    task = asyncio.ensure_future(main(interrupted))

    def interrupt() -> None:
        if interrupted.is_set():
            task.cancel()
        interrupted.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt)
    try:
        return await task
    except asyncio.CancelledError:
        if interrupted.is_set():
            return ExitCode.INTERRUPTED
        raise
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        task.cancel()


async def first_of(wanted: Awaitable[Any], interrupted: asyncio.Event) -> bool:
    """Wait for `wanted` or the interruption, whichever is first; True when `wanted` is done.

    What loses is cancelled. Raises what `wanted` raises.
    """
    work = asyncio.ensure_future(wanted)
    stop = asyncio.ensure_future(interrupted.wait())
    try:
        await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()
            return True
        return False
    finally:
        for task in (work, stop):
            if not task.done():
                task.cancel()
        await asyncio.gather(work, stop, return_exceptions=True)
