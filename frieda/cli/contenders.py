"""What `--frieda` and `--peers` name: systems that are started for each run, or addresses of some that are there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from frieda.bench.drivers.registry import driver
from frieda.bench.plan import Contender
from frieda.bench.systems.registry import SYSTEMS, system
from frieda.cli.frieda_system import FriedaSystem
from frieda.errors import ConfigError

DRIVERS: Final = {"kafka": "confluent-kafka", "redis": "redis", "nats": "nats"}
STARTED: Final = ("tcp", "shm")
TRANSPORTS: Final = (*STARTED, "verbs")


class Found(NamedTuple):
    """What can be measured here, and for each that cannot a sentence that says how to get it."""

    contenders: tuple[Contender, ...]
    missing: tuple[str, ...]


def find_contenders(
    frieda: str, peers: str, kafka_clients: Sequence[str] = (), polling: str = "adaptive"
) -> Found:
    """Read the two flags, lists with commas; an item is NAME, or NAME=ADDRESS for one that is there.

    `kafka_clients` are drivers, each of which makes a contender of its own. Raises ConfigError.
    """
    wanted = [*_frieda(frieda, polling), *_peers(peers, kafka_clients)]
    usable: list[Contender] = []
    missing: list[str] = []
    for contender in wanted:
        reason = driver(contender.driver).missing()
        if reason is None and contender.system is not None:
            reason = contender.system.missing()
        if reason is None:
            usable.append(contender)
        else:
            missing.append(f"{contender.label} is left out: {reason}")
    return Found(tuple(usable), tuple(missing))


def _frieda(flag: str, polling: str) -> Iterator[Contender]:
    for name, address in _items(flag, TRANSPORTS, "--frieda"):
        label = f"frieda {name}"
        if address is not None:
            if not address.startswith(f"{name}://"):
                raise ConfigError(f"--frieda {name}={address}: must begin with {name}://")
            yield Contender(label=label, driver="frieda", address=address)
        elif name in STARTED:
            yield Contender(label=label, driver="frieda", system=FriedaSystem(name, polling))
        else:
            raise ConfigError(
                f"--frieda {name}: only {' and '.join(STARTED)} are started; "
                f"give the address of a broker: {name}={name}://HOST:PORT"
            )


def _peers(flag: str, kafka_clients: Sequence[str]) -> Iterator[Contender]:
    for name, address in _items(flag, tuple(SYSTEMS), "--peers"):
        drivers = tuple(kafka_clients) if name == "kafka" and kafka_clients else (DRIVERS[name],)
        for used in drivers:
            yield Contender(
                label=name if used == DRIVERS[name] else f"{name} ({used})",
                driver=used,
                system=system(name) if address is None else None,
                address=address,
            )


def _items(flag: str, names: Sequence[str], option: str) -> Iterator[tuple[str, str | None]]:
    """NAME or NAME=ADDRESS, with commas between; an address may have commas of its own (host:1,host:2)."""
    items: list[str] = []
    for part in filter(None, (each.strip() for each in flag.split(","))):
        if part.partition("=")[0] not in names and items and "=" in items[-1]:
            items[-1] += f",{part}"
        else:
            items.append(part)
    for item in items:
        name, has_address, address = item.partition("=")
        if name not in names or (has_address and not address):
            raise ConfigError(
                f"{option} {item}: must be one of {', '.join(names)}, "
                "alone or as NAME=ADDRESS, with commas between"
            )
        yield name, address or None
