"""`frieda ysb compare`: the same benchmark on Frieda and on its peers, in turns."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from frieda.cli.exit_codes import ExitCode
from frieda.cli.output import show_table
from frieda.cli.ysb_options import load_options, settings_of
from frieda.errors import ConfigError

if TYPE_CHECKING:
    from frieda.bench.results import Run
    from frieda.ysb.comparison import Contender

TRANSPORTS: Final = ("tcp", "shm")
PEER_DRIVERS: Final = {"kafka": "confluent-kafka", "redis": "redis", "nats": "nats"}


@click.command()
@click.option(
    "--peers", default="kafka", show_default=True, help=f"With commas: {', '.join(PEER_DRIVERS)}."
)
@click.option(
    "--frieda",
    "transports",
    default="tcp,shm",
    show_default=True,
    help="Transports of Frieda's, with commas.",
)
@click.option(
    "--client",
    type=click.Choice(["confluent-kafka", "aiokafka"]),
    default="confluent-kafka",
    show_default=True,
    help="The client library for Kafka.",
)
@click.option("--rounds", type=click.IntRange(min=1), default=4, show_default=True)
@load_options()
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write result.json and the histograms into this folder, for `frieda bench figures`.",
)
def compare(
    peers: str, transports: str, client: str, rounds: int, output: Path | None, **flags: Any
) -> int:
    """Frieda and its peers one at a time, each with a fresh broker and a fresh redis-server, in interleaved rounds.

    Everything else is the same: events, rates, processes, sink and the moments at which it writes, which move on from
    round to round. Percentiles are of all rounds together; a p99 needs 2,000 windows of campaigns, which is four
    rounds of a minute. A peer that is not installed is left out, and it is said how to get it.
    """
    from frieda.bench.environment import describe_environment  # noqa: PLC0415  (only when it runs)
    from frieda.bench.results import Results, write_results  # noqa: PLC0415
    from frieda.bench.rounds import Case, interleaved  # noqa: PLC0415
    from frieda.cli.own_broker import terminated_like_interrupted  # noqa: PLC0415
    from frieda.ysb.comparison import CHANGE_COLUMNS, COLUMNS, changes, rows  # noqa: PLC0415

    settings_of(flags, address="", redis_url="")
    contenders = _contenders(peers, transports, client, flags)
    runs: list[Run] = []
    cases = {each.name: each for each in contenders}
    # interleaved() only orders them.
    order = [Case(name, dict) for name in cases]
    with terminated_like_interrupted():
        for number, (name, _) in interleaved(order, rounds):
            click.echo(f"round {number + 1} of {rounds}: {name}")
            runs.append(_measure(cases[name], flags, number))
    click.echo()
    show_table(COLUMNS, rows(runs), "text")
    click.echo()
    show_table(CHANGE_COLUMNS, changes(runs), "text")
    for run in runs:
        for sentence in _sentences(run):
            click.echo(sentence)
    if output is not None:
        results = Results(
            kind="ysb",
            command=shlex.join(["frieda", *sys.argv[1:]]),
            environment=describe_environment(),
            settings={"seed": flags["seed"], "rounds": rounds},
            runs=runs,
        )
        click.echo(f"written: {write_results(output, results)}")
    wrong = any(run.extra["failures"] for run in runs)
    return ExitCode.FAILURE if wrong else ExitCode.OK


def _contenders(peers: str, transports: str, client: str, flags: dict[str, Any]) -> list[Contender]:
    """Who takes part. Raises ConfigError for a name there is not, and when nobody is left."""
    from frieda.bench.drivers.registry import driver  # noqa: PLC0415
    from frieda.cli.ysb_systems import system_of  # noqa: PLC0415
    from frieda.ysb.comparison import Contender  # noqa: PLC0415

    found = []
    for name in _names(transports, TRANSPORTS, "--frieda"):
        system = system_of("frieda", name, flags["broker_polling"])
        found.append(Contender(f"frieda {name}", system, "frieda", name))
    for name in _names(peers, tuple(PEER_DRIVERS), "--peers"):
        used = client if name == "kafka" else PEER_DRIVERS[name]
        system = system_of(name, "", "")
        missing = system.missing() or driver(used).missing()
        if missing is not None:
            click.echo(f"{name} is left out: {missing}", err=True)
            continue
        found.append(Contender(name, system, used, None))
    if not found:
        raise ConfigError("nobody is left to measure")
    return found


def _names(text: str, known: tuple[str, ...], flag: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    for name in names:
        if name not in known:
            raise ConfigError(f"{flag} {name}: must be one of {', '.join(known)}")
    return list(dict.fromkeys(names))


def _measure(contender: Contender, flags: dict[str, Any], number: int) -> Run:
    """One run with a broker and a Redis of its own."""
    from frieda.cli.ysb_systems import chosen_redis, started  # noqa: PLC0415
    from frieda.ysb.benchmark import run_ysb  # noqa: PLC0415
    from frieda.ysb.result import as_run, holds, progress_line  # noqa: PLC0415

    with (
        chosen_redis(None) as (redis_address, redis_alive),
        started(contender.system, flags["durability"]) as broker,
    ):
        settings = settings_of(
            flags,
            address=broker.address,
            redis_url=redis_address,
            driver=contender.driver,
            round=number,
        )

        def require_alive() -> None:
            broker.require_alive()
            redis_alive()

        outcome = run_ysb(
            settings,
            lambda progress: click.echo(progress_line(progress)),
            require_alive,
            broker.cpu_seconds,
        )
    click.echo(holds(outcome))
    return as_run(
        outcome,
        case=contender.name,
        system=contender.system.name,
        durability=flags["durability"],
        transport=contender.transport,
        server_settings=broker.settings,
    )


def _sentences(run: Run) -> list[str]:
    """What was wrong in a run, and why its latencies are not valid."""
    failures = run.extra["failures"]
    assert isinstance(failures, list)
    spoiled = [] if run.invalid_because is None else [run.invalid_because]
    return [f"{run.case}, round {run.round + 1}: {each}" for each in [*failures, *spoiled]]
