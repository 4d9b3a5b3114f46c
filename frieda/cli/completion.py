"""`frieda completion`: the script that teaches a shell to complete frieda's commands."""

from __future__ import annotations

from typing import cast

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script for SHELL.

    For bash, put this into ~/.bashrc:  eval "$(frieda completion bash)"
    """
    generator = cast(type[click.shell_completion.ShellComplete], get_completion_class(shell))
    command = ctx.find_root().command
    click.echo(generator(command, {}, "frieda", "_FRIEDA_COMPLETE").source())
