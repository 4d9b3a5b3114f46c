"""The drivers by name. Each is imported only when asked for, since each needs a library of its own."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from frieda.bench.drivers.base import Driver
from frieda.errors import ConfigError, MissingDependencyError

DRIVERS: Final = {
    "frieda": "frieda.bench.drivers.frieda:FriedaDriver",
    "confluent-kafka": "frieda.bench.drivers.confluent:ConfluentDriver",
    "aiokafka": "frieda.bench.drivers.aio_kafka:AiokafkaDriver",
    "redis": "frieda.bench.drivers.redis:RedisDriver",
    "nats": "frieda.bench.drivers.nats:NatsDriver",
}


def driver(name: str) -> Driver:
    """The driver of this name, which may be `missing()`. Raises ConfigError for another name."""
    place = DRIVERS.get(name)
    if place is None:
        raise ConfigError(f"driver {name!r}: must be one of {', '.join(DRIVERS)}")
    module, _, kind = place.partition(":")
    made: Driver = getattr(import_module(module), kind)()
    return made


def usable_driver(name: str) -> Driver:
    """The driver of this name. Raises ConfigError, or MissingDependencyError with what to install."""
    found = driver(name)
    missing = found.missing()
    if missing is not None:
        raise MissingDependencyError(missing)
    return found
