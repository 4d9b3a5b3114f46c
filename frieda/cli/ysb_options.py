"""The flags that the commands of `frieda ysb` share, and the settings they make."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar, get_args

import click

from frieda.bench.drivers.registry import DRIVERS
from frieda.bench.systems.base import DURABILITIES
from frieda.config import PollingMode

if TYPE_CHECKING:
    from frieda.ysb.settings import YsbSettings

Command = TypeVar("Command", bound=Callable[..., Any])
ACKS: Final = {"0": 0, "1": 1, "all": -1}
POLLING: Final = click.Choice(get_args(PollingMode))
_COUNT: Final = click.IntRange(min=1)


def _load_options(
    rate: float, duration_s: float, warm_up_s: float, producers: int, window_ms: int
) -> list[Any]:
    return [
        click.option(
            "--rate",
            type=click.FloatRange(min=1),
            default=rate,
            show_default=True,
            help="Events a second, all producers together.",
        ),
        click.option("--producers", type=_COUNT, default=producers, show_default=True),
        click.option(
            "--processes",
            type=_COUNT,
            help="The producers run in these. [default: 2, or as many as there are producers]",
        ),
        click.option(
            "--duration",
            "duration_s",
            type=click.FloatRange(min=0.1),
            default=duration_s,
            show_default=True,
            metavar="SECONDS",
            help="Of the measured part.",
        ),
        click.option(
            "--warm-up",
            "warm_up_s",
            type=click.FloatRange(min=0),
            default=warm_up_s,
            show_default=True,
            metavar="SECONDS",
            help="The load runs so long before; counted and checked, not measured.",
        ),
        click.option(
            "--window-ms",
            type=_COUNT,
            default=window_ms,
            show_default=True,
            help="Of the windows; the load begins with one, so that all are whole.",
        ),
    ]


_PIPELINE_OPTIONS: Final = [
    click.option("--partitions", type=_COUNT, default=4, show_default=True),
    click.option(
        "--workers", type=_COUNT, default=1, show_default=True, help="Processes of the pipeline."
    ),
    click.option("--campaigns", type=_COUNT, default=100, show_default=True),
    click.option("--ads-per-campaign", type=_COUNT, default=10, show_default=True),
    click.option(
        "--sink-ms",
        type=click.FloatRange(min=1),
        default=1000.0,
        show_default=True,
        help="How often counts and positions are written to Redis.",
    ),
    click.option(
        "--allowed-lateness-ms",
        type=click.IntRange(min=0),
        default=60_000,
        show_default=True,
        help="A view counts until its partition's watermark is so far behind its window's end.",
    ),
    click.option(
        "--skew",
        is_flag=True,
        help="Event times off by up to 50 ms, and some events up to a minute late.",
    ),
    click.option(
        "--late-every",
        type=click.IntRange(min=0),
        default=100_000,
        show_default=True,
        help="With --skew: one in so many events is late.",
    ),
    click.option(
        "--tick-ms",
        type=click.FloatRange(min=0.1),
        default=1.0,
        show_default=True,
        help="A producer sends what has become due so often.",
    ),
]

_CLIENT_OPTIONS: Final = [
    click.option("--acks", type=click.Choice(list(ACKS)), default="1", show_default=True),
    click.option("--linger", "linger_ms", type=float, default=0.0, show_default=True, metavar="MS"),
    click.option(
        "--batch-size",
        "batch_bytes",
        type=_COUNT,
        default=65536,
        show_default=True,
        help="Bytes of a batch.",
    ),
    click.option(
        "--polling",
        type=POLLING,
        default="adaptive",
        show_default=True,
        help="How Frieda's clients wait.",
    ),
    click.option(
        "--broker-polling",
        type=POLLING,
        default="adaptive",
        show_default=True,
        help="How a broker of Frieda's that is started waits.",
    ),
    click.option(
        "--durability",
        type=click.Choice(DURABILITIES),
        default="cache",
        show_default=True,
        help="Of a broker that is started: acknowledged from the page cache, or after fsync.",
    ),
    click.option("--seed", type=int, default=1, show_default=True, help="Of events and ids."),
]

_BROKER_OPTIONS: Final = [
    click.option(
        "-b",
        "--bootstrap",
        metavar="ADDRESS",
        help="The broker's address, as the driver takes it: tcp://host:port, shm://path, host:port...",
    ),
    click.option(
        "--own-broker",
        is_flag=True,
        help="Start the driver's system on a throw-away folder instead.",
    ),
    click.option(
        "--transport",
        type=click.Choice(["tcp", "shm"]),
        default="tcp",
        show_default=True,
        help="Of a broker of Frieda's that is started.",
    ),
    click.option(
        "--driver",
        "driver_name",
        type=click.Choice(list(DRIVERS)),
        default="frieda",
        show_default=True,
        help="The client library of generator and pipeline.",
    ),
    click.option(
        "--redis",
        "redis_url",
        metavar="URL",
        help="redis://host:port/database or unix:///path; it keeps the counts. "
        "[default: a redis-server of our own]",
    ),
]


def load_options(
    rate: float = 120_000.0,
    duration_s: float = 60.0,
    warm_up_s: float = 10.0,
    producers: int = 8,
    window_ms: int = 10_000,
) -> Callable[[Command], Command]:
    """The flags of load, pipeline and clients, with these defaults; the command takes them as `**flags`."""
    return _all(
        [
            *_load_options(rate, duration_s, warm_up_s, producers, window_ms),
            *_PIPELINE_OPTIONS,
            *_CLIENT_OPTIONS,
        ]
    )


def broker_options() -> Callable[[Command], Command]:
    """The flags `--bootstrap`, `--own-broker`, `--transport`, `--driver` and `--redis`."""
    return _all(_BROKER_OPTIONS)


def _all(options: list[Any]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def settings_of(flags: dict[str, Any], **more: Any) -> YsbSettings:
    """The settings that `load_options` describe, and `more` of them. Raises ConfigError."""
    from frieda.ysb.events import Skew  # noqa: PLC0415  (only when it runs)
    from frieda.ysb.settings import YsbSettings  # noqa: PLC0415

    values = {
        name: value
        for name, value in flags.items()
        if name not in ("skew", "late_every", "broker_polling", "durability")
    }
    values["acks"] = ACKS[values["acks"]]
    values["processes"] = values["processes"] or min(2, values["producers"])
    skew = Skew(late_every=flags["late_every"]) if flags["skew"] else None
    return YsbSettings(**values, skew=skew, **more)
