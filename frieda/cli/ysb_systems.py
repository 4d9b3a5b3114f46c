"""The broker and the Redis that a run of `frieda ysb` uses: those it is given, or some of its own."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from frieda.bench.systems.base import Durability, System
from frieda.bench.systems.redis import RedisSystem
from frieda.bench.systems.registry import system as find_system
from frieda.cli.frieda_system import FriedaSystem
from frieda.config import ClientConfig
from frieda.errors import ConfigError, MissingDependencyError


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkedBroker:
    """A broker as a run sees it."""

    address: str
    settings: Mapping[str, object] = field(default_factory=dict)
    cpu_seconds: Callable[[], float] = lambda: 0.0
    require_alive: Callable[[], None] = lambda: None


def system_of(name: str, transport: str, polling: str) -> System:
    """The system of this name, to be started. Raises ConfigError for one there is not."""
    if name == "frieda":
        return FriedaSystem(transport, polling)
    return find_system(name)


@contextlib.contextmanager
def started(system: System, durability: str) -> Iterator[BenchmarkedBroker]:
    """The system on a throw-away folder. Raises MissingDependencyError when it is not installed, FriedaError."""
    if (missing := system.missing()) is not None:
        raise MissingDependencyError(missing)
    with (
        tempfile.TemporaryDirectory(prefix="frieda-ysb-") as folder,
        system.running(Path(folder), cast(Durability, durability)) as running,
    ):
        yield BenchmarkedBroker(
            address=running.address,
            settings={"version": running.version, **running.settings},
            cpu_seconds=running.cpu_seconds,
            require_alive=running.require_alive,
        )


@contextlib.contextmanager
def chosen_broker(
    system: System, bootstrap: str | None, own_broker: bool, durability: str
) -> Iterator[BenchmarkedBroker]:
    """The broker at `bootstrap`, or one that is started. Raises ConfigError when neither or both are asked for."""
    if own_broker:
        if bootstrap is not None:
            raise ConfigError("--bootstrap and --own-broker: give one of them")
        with started(system, durability) as broker:
            yield broker
        return
    if bootstrap is None and system.name != "frieda":
        raise ConfigError(f"where is {system.name}? give --bootstrap ADDRESS or --own-broker")
    yield BenchmarkedBroker(address=bootstrap or ClientConfig().bootstrap)


@contextlib.contextmanager
def chosen_redis(url: str | None) -> Iterator[tuple[str, Callable[[], None]]]:
    """(address, a call that raises FriedaError when it has died) of the given Redis, or of one that is started."""
    if url is not None:
        yield url, lambda: None
        return
    redis = RedisSystem()
    if (missing := redis.missing()) is not None:
        raise MissingDependencyError(f"{missing}; or give one that runs: --redis URL")
    with (
        tempfile.TemporaryDirectory(prefix="frieda-ysb-") as folder,
        redis.running(Path(folder), "cache") as running,
    ):
        yield running.unix_address, running.require_alive
