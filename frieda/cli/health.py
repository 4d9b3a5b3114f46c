"""`frieda health`: ask a broker how it is."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

import click

from frieda.cli.client_options import (
    client_options,
    client_settings,
    first_of,
    run_until_interrupted,
)
from frieda.cli.exit_codes import ExitCode
from frieda.cli.output import OutputFormat, format_option, show_facts
from frieda.clients.admin import Admin, BrokerHealth
from frieda.clients.settings import ClientSettings
from frieda.config import ClientConfig


@click.command()
@format_option
@client_options
def health(
    output_format: OutputFormat,
    bootstrap: str | None,
    config_file: Path | None,
    assignments: tuple[str, ...],
) -> int:
    """Ask a broker how it is. The exit code is 0 only when it says ok; 3 when none can be reached."""
    settings = client_settings(ClientConfig, bootstrap, config_file, assignments)
    urls = settings.pop("bootstrap")

    async def main(interrupted: asyncio.Event) -> int:
        answered: list[BrokerHealth] = []

        async def ask() -> None:
            async with Admin(urls, **cast(ClientSettings, settings)) as admin:
                answered.append(await admin.broker_health())

        if not await first_of(ask(), interrupted):
            return ExitCode.INTERRUPTED
        (state,) = answered
        if output_format == "json":
            show_facts(
                {
                    "status": state.status,
                    "problems": list(state.problems),
                    "software": state.software,
                    "settings": dict(state.settings),
                    "facts": dict(state.facts),
                },
                output_format,
            )
        else:
            problems = {f"problem {n}": text for n, text in enumerate(state.problems, 1)}
            show_facts(
                {
                    "status": state.status,
                    **problems,
                    "software": state.software,
                    **state.settings,
                    **state.facts,
                },
                output_format,
            )
        return ExitCode.OK if state.status == "ok" else ExitCode.FAILURE

    return run_until_interrupted(main)
