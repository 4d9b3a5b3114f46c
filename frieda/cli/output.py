"""How tables reach standard output: aligned text for people, JSON for programs. The one place."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import click

OutputFormat = Literal["text", "json"]
Row = Mapping[str, object]
Command = TypeVar("Command", bound=Callable[..., Any])


def format_option(command: Command) -> Command:
    """The option `--format text|json` of every command that prints a table."""
    decorator = click.option(
        "--format",
        "output_format",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help="How to print: a table for people, or JSON.",
    )
    return decorator(command)


def show_table(columns: Sequence[str], rows: Sequence[Row], output_format: OutputFormat) -> None:
    """Print rows: as text the `columns` in their order; as JSON a list of objects with all keys."""
    click.echo(as_json(rows) if output_format == "json" else as_text(columns, rows))


def show_facts(facts: Row, output_format: OutputFormat) -> None:
    """Print one thing: as text a line for each of its facts, as JSON one object."""
    if output_format == "json":
        click.echo(as_json(facts))
    else:
        width = max((len(name) for name in facts), default=0)
        for name, value in facts.items():
            click.echo(f"{name:<{width}}  {_cell(value)}")


def as_json(value: Row | Sequence[Row]) -> str:
    """JSON, indented; what JSON does not know (a UUID, a path) as text."""
    return json.dumps(value, indent=2, default=str)


def as_text(columns: Sequence[str], rows: Sequence[Row]) -> str:
    """A table with a heading; a column that holds nothing but numbers is aligned to the right."""
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    right = [bool(rows) and all(_is_number(row.get(column)) for row in rows) for column in columns]
    heading = [column.upper().replace("_", " ") for column in columns]
    widths = [max(map(len, column)) for column in zip(heading, *cells, strict=True)]
    lines = [
        "  ".join(
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in [heading, *cells]
    ]
    return "\n".join(lines)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: object) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.3f}"
        case list() | tuple():
            return ",".join(_cell(item) for item in value)
        case _:
            # A name that came over the wire must not reach the terminal as control codes.
            return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(value))
