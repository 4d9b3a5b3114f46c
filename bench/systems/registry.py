"""The systems by name that are compared with Frieda. Frieda's own is given by the command line."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from frieda.bench.systems.base import System
from frieda.errors import ConfigError

SYSTEMS: Final = {
    "kafka": "frieda.bench.systems.kafka:KafkaSystem",
    "redis": "frieda.bench.systems.redis:RedisSystem",
    "nats": "frieda.bench.systems.nats:NatsSystem",
}


def system(name: str) -> System:
    """The system of this name, which may be `missing()`. Raises ConfigError for another name."""
    place = SYSTEMS.get(name)
    if place is None:
        raise ConfigError(f"system {name!r}: must be one of {', '.join(SYSTEMS)}")
    module, _, kind = place.partition(":")
    made: System = getattr(import_module(module), kind)()
    return made
