"""The `frieda` command: the table of its subcommands, and what becomes of their errors.

A subcommand's module is imported only when that command runs, so that `frieda produce` never loads
the broker and `frieda --help` loads none of them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final, NamedTuple, cast

import click

import frieda
from frieda.cli.exit_codes import ExitCode, exit_code_of
from frieda.errors import FriedaError

DEBUG_VARIABLE: Final = "FRIEDA_DEBUG"


class Subcommand(NamedTuple):
    """Where a subcommand lives (`module:attribute`) and what it does, in a few words."""

    target: str
    summary: str


SUBCOMMANDS: Final[dict[str, Subcommand]] = {
    "broker": Subcommand("frieda.cli.broker:broker", "Run a broker."),
    "topic": Subcommand("frieda.cli.topic:topic", "Create, list, describe, alter, delete topics."),
    "produce": Subcommand("frieda.cli.produce:produce", "Send lines or a file to a topic."),
    "consume": Subcommand("frieda.cli.consume:consume", "Print the records of a topic."),
    "log": Subcommand("frieda.cli.log:log_group", "Read a data folder offline: verify, dump."),
    "config": Subcommand("frieda.cli.config:config", "Show the settings and their sources."),
    "bench": Subcommand("frieda.cli.bench:bench", "Measure latency and throughput."),
    "ysb": Subcommand("frieda.cli.ysb:ysb", "Run the Yahoo Streaming Benchmark."),
    "demo": Subcommand("frieda.cli.demo:demo", "See it work: broker, a real file, a benchmark."),
    "rdma": Subcommand("frieda.cli.rdma:rdma", "See and check the RDMA devices of this host."),
    "health": Subcommand("frieda.cli.health:health", "Ask a broker how it is."),
    "completion": Subcommand(
        "frieda.cli.completion:completion", "Print a shell completion script."
    ),
}


class PipeClosedError(Exception):
    """Whoever read our output has gone; raised in place of BrokenPipeError, which click swallows."""


class LazyGroup(click.Group):
    """A group whose commands are those of SUBCOMMANDS, each imported when it is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in SUBCOMMANDS:
            return None
        module, _, attribute = SUBCOMMANDS[cmd_name].target.partition(":")
        return cast(click.Command, getattr(import_module(module), attribute))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, row.summary) for name, row in SUBCOMMANDS.items()])

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise PipeClosedError from error


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(frieda.__version__, prog_name="frieda", message="%(prog)s %(version)s")
def cli() -> None:
    """Frieda: a message broker whose one obsession is tail latency."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with a code of `frieda.cli.exit_codes`.

    A user's mistake or a broker's refusal is one sentence on standard error; FRIEDA_DEBUG=1 shows
    the traceback as well. An exception that is none of ours is a bug and keeps its traceback.
    """
    code = run(sys.argv[1:] if arguments is None else arguments)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = ExitCode.PIPE_CLOSED
    if code == ExitCode.PIPE_CLOSED:
        # Python flushes standard output once more at exit; there is no one left to write to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code."""
    try:
        result = cli.main(args=list(arguments), prog_name="frieda", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return ExitCode.USAGE
    except (click.Abort, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    except PipeClosedError:
        return ExitCode.PIPE_CLOSED
    except (FriedaError, OSError, BaseExceptionGroup) as error:
        return _explain(error)
    return result if isinstance(result, int) else ExitCode.OK


def _explain(error: BaseException) -> int:
    """Say in one sentence what failed. Raises `error` again when it is not of a kind we explain."""
    if os.environ.get(DEBUG_VARIABLE, "0") not in ("", "0"):
        sys.excepthook(type(error), error, error.__traceback__)
    cause = error
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    if not isinstance(cause, FriedaError | OSError):
        raise error
    if isinstance(cause, OSError) and cause.strerror:
        sentence = f"{cause.filename}: {cause.strerror}" if cause.filename else cause.strerror
    else:
        sentence = str(cause) or type(cause).__name__
    click.echo(f"frieda: {sentence}", err=True)
    return exit_code_of(cause)


if __name__ == "__main__":
    main()
