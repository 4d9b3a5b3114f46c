"""`frieda topic`: make, show, change and delete topics."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import click

from frieda.cli.client_options import (
    client_options,
    client_settings,
    first_of,
    run_until_interrupted,
)
from frieda.cli.config import parse_assignments
from frieda.cli.exit_codes import ExitCode
from frieda.cli.output import OutputFormat, Row, format_option, show_facts, show_table
from frieda.clients.admin import Admin, TopicInfo
from frieda.clients.settings import ClientSettings
from frieda.config import ClientConfig
from frieda.errors import BrokerError, ErrorCode

Command = TypeVar("Command", bound=Callable[..., Any])

_LIST_COLUMNS: Final = ("name", "partitions", "records", "size_bytes")
_PARTITION_COLUMNS: Final = (
    "partition",
    "leader",
    "log_start_offset",
    "log_end_offset",
    "high_watermark",
    "size_bytes",
    "segments",
    "producers",
    "failure",
)


@click.group()
def topic() -> None:
    """Create, list, describe, alter and delete topics."""


@topic.command()
@click.argument("name")
@click.option("--partitions", type=click.IntRange(min=1), help="[default: as the broker is set]")
@click.option(
    "--replication-factor", type=click.IntRange(min=1), help="[default: as the broker is set]"
)
@click.option(
    "-c",
    "--config",
    "topic_config",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting of the topic, as in retention.ms=60000; may be given several times.",
)
@click.option("--if-not-exists", is_flag=True, help="Do nothing when the topic is there already.")
@client_options
def create(
    name: str,
    partitions: int | None,
    replication_factor: int | None,
    topic_config: tuple[str, ...],
    if_not_exists: bool,
    **connect: Any,
) -> int:
    """Make the topic NAME."""
    config = parse_assignments(topic_config)

    async def work(admin: Admin) -> None:
        try:
            await admin.create_topic(name, partitions or -1, replication_factor or -1, config)
        except BrokerError as error:
            if not (if_not_exists and error.code is ErrorCode.TOPIC_ALREADY_EXISTS):
                raise

    return _with_admin(work, **connect)


@topic.command("list")
@format_option
@client_options
def list_topics(output_format: OutputFormat, **connect: Any) -> int:
    """List all topics."""

    async def work(admin: Admin) -> None:
        rows = [_summary(info) for info in await admin.describe_topics()]
        show_table(_LIST_COLUMNS, rows, output_format)

    return _with_admin(work, **connect)


@topic.command()
@click.argument("name")
@format_option
@client_options
def describe(name: str, output_format: OutputFormat, **connect: Any) -> int:
    """Show the settings and the partitions of the topic NAME."""

    async def work(admin: Admin) -> None:
        info = await admin.describe_topic(name)
        rows: list[Row] = [
            {column: getattr(partition, column) for column in _PARTITION_COLUMNS}
            for partition in info.partitions
        ]
        summary = {**_summary(info), "topic_id": str(uuid.UUID(bytes=info.topic_id))}
        if output_format == "json":
            facts = {**summary, "configs": dict(info.configs), "partitions": rows}
            show_facts(facts, output_format)
            return
        show_facts(summary | dict(info.configs), output_format)
        click.echo()
        show_table(_PARTITION_COLUMNS, rows, output_format)

    return _with_admin(work, **connect)


@topic.command()
@click.argument("name")
@click.option("--if-exists", is_flag=True, help="Do nothing when there is no such topic.")
@client_options
def delete(name: str, if_exists: bool, **connect: Any) -> int:
    """Delete the topic NAME and all its records."""

    async def work(admin: Admin) -> None:
        try:
            await admin.delete_topic(name)
        except BrokerError as error:
            if not (if_exists and error.code is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION):
                raise

    return _with_admin(work, **connect)


@topic.command()
@click.argument("name")
@click.option(
    "-c",
    "--config",
    "topic_config",
    multiple=True,
    required=True,
    metavar="KEY=VALUE",
    help="A setting to change, as in retention.ms=60000; may be given several times.",
)
@client_options
def alter(name: str, topic_config: tuple[str, ...], **connect: Any) -> int:
    """Change settings of the topic NAME; those not named stay."""
    config = parse_assignments(topic_config)

    async def work(admin: Admin) -> None:
        await admin.alter_topic(name, config)

    return _with_admin(work, **connect)


def _summary(info: TopicInfo) -> dict[str, object]:
    return {
        "name": info.name,
        "partitions": len(info.partitions),
        "records": sum(each.high_watermark - each.log_start_offset for each in info.partitions),
        "size_bytes": sum(each.size_bytes for each in info.partitions),
    }


def _with_admin(
    work: Callable[[Admin], Awaitable[None]],
    bootstrap: str | None,
    config_file: Path | None,
    assignments: tuple[str, ...],
) -> int:
    settings = client_settings(ClientConfig, bootstrap, config_file, assignments)
    urls = settings.pop("bootstrap")

    async def main(interrupted: asyncio.Event) -> int:
        async def connected() -> None:
            async with Admin(urls, **cast(ClientSettings, settings)) as admin:
                await work(admin)

        done = await first_of(connected(), interrupted)
        return ExitCode.OK if done else ExitCode.INTERRUPTED

    return run_until_interrupted(main)
