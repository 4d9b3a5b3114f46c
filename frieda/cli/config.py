"""`frieda config`: the settings that a broker would run with, and where each comes from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from frieda.config import BrokerConfig
from frieda.config_sources import LoadedSettings, dump_json, dump_toml, load_settings
from frieda.errors import ConfigError

ENVIRONMENT_PREFIX: Final = "FRIEDA_BROKER_"
FILE_VARIABLE: Final = "FRIEDA_BROKER_CONFIG"


def load_broker_settings(
    config_file: Path | None, flags: Mapping[str, Any]
) -> LoadedSettings[BrokerConfig]:
    """A broker's settings: the file (or the one FRIEDA_BROKER_CONFIG names) < environment < flags.

    `flags` maps a setting's name to its value; None and () mean that the flag was not given.
    Raises ConfigError.
    """
    named = os.environ.get(FILE_VARIABLE)
    return load_settings(
        BrokerConfig,
        file=config_file or (Path(named) if named else None),
        environment=os.environ,
        prefix=ENVIRONMENT_PREFIX,
        reserved=frozenset({FILE_VARIABLE}),
        flags=flags,
    )


def parse_assignments(assignments: tuple[str, ...]) -> dict[str, str]:
    """`("name=value", ...)` as a dict. Raises ConfigError naming what is not of that form."""
    pairs = [assignment.partition("=") for assignment in assignments]
    for assignment, (name, equals, _) in zip(assignments, pairs, strict=True):
        if not name or not equals:
            raise ConfigError(f"{assignment!r}: must be NAME=VALUE, as in flush=batch")
    return {name: value for name, _, value in pairs}


@click.group()
def config() -> None:
    """Show the settings and their sources."""


@config.command()
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="A TOML file.")
@click.option("--set", "assignments", multiple=True, metavar="NAME=VALUE", help="As by a flag.")
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["toml", "json"]),
    default="toml",
    show_default=True,
    help="TOML is a file that --config takes; JSON is for programs.",
)
def dump(config_file: Path | None, assignments: tuple[str, ...], output_format: str) -> None:
    """Print every setting of the broker: its value, where that came from, and its meaning.

    Later sources win: the defaults, the TOML file of --config (or of FRIEDA_BROKER_CONFIG), the
    environment (FRIEDA_BROKER_FLUSH=batch, FRIEDA_BROKER_TOPIC_RETENTION_MS=1000), flags.
    """
    loaded = load_broker_settings(config_file, parse_assignments(assignments))
    click.echo(dump_json(loaded) if output_format == "json" else dump_toml(loaded))
