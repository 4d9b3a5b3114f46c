"""A matrix of measurements from a TOML file: producers x sizes x acks x replication x transport x rate.

    frieda = ["tcp", "shm"]      # transports, or NAME=ADDRESS
    peers = ["kafka"]            # kafka, redis, nats, or NAME=ADDRESS
    kind = "latency"             # or throughput, end-to-end
    durability = "cache"         # or disk
    rounds = 5
    reference = "kafka"          # whose sustained rate a rate_share is of; or slowest

    [method]                     # what is the same everywhere: the fields of frieda.bench.plan.Method
    duration_s = 20.0

    [[points]]                   # every combination of the lists is a point; a single value is a list of one
    producers = [2, 4, 8, 16]
    record_size = [100, 1024]
    rate_share = 0.5

Every key is known, or the file is refused.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path
from types import UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from frieda.bench.plan import Batching, Kind, Method, Point
from frieda.bench.systems.base import Durability
from frieda.errors import ConfigError

MAX_FILE_BYTES: Final = 1024 * 1024
MAX_POINTS: Final = 10_000
_ACKS: Final[Mapping[object, int]] = {0: 0, 1: 1, -1: -1, "all": -1}
_POINT_FIELDS: Final = {
    "producers": "producers",
    "record_size": "record_size_bytes",
    "acks": "acks",
    "brokers": "brokers",
    "replication": "replication",
    "rate": "rate",
    "rate_share": "rate_share",
}
"""Key of the file: field of a Point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """What the file asks for. `frieda` and `peers` are as the flags of `frieda bench compare`."""

    frieda: tuple[str, ...] = ("tcp", "shm")
    peers: tuple[str, ...] = ()
    clients: tuple[str, ...] = ()
    """Of Kafka: confluent-kafka, aiokafka."""
    kind: Kind = "latency"
    durability: Durability = "cache"
    rounds: int = 3
    reference: str = "slowest"
    method: Method
    points: tuple[Point, ...]


_TOP: Final[Mapping[str, Any]] = {
    "frieda": tuple[str, ...],
    "peers": tuple[str, ...],
    "clients": tuple[str, ...],
    "kind": Kind,
    "durability": Durability,
    "rounds": int,
    "reference": str,
}


def read_matrix(path: Path) -> Matrix:
    """Read the file. Raises ConfigError that names the file and the key."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_FILE_BYTES} bytes")
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    try:
        return matrix_of(document)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def matrix_of(document: Mapping[str, Any]) -> Matrix:
    """The matrix that a document describes. Raises ConfigError that names the key."""
    _require_known(document, (*_TOP, "method", "points"), "")
    top = {name: _value(name, document[name], _TOP[name]) for name in _TOP if name in document}
    tables = document.get("points")
    if not isinstance(tables, list) or not tables:
        raise ConfigError("[[points]]: give at least one, with producers, record_size and so on")
    points: list[Point] = []
    for table in tables:
        points += _points(table)
        if len(points) > MAX_POINTS:
            raise ConfigError(f"[[points]]: more than {MAX_POINTS} combinations")
    method = _method(document.get("method", {}), top.get("kind", "latency"))
    return Matrix(**top, method=method, points=tuple(dict.fromkeys(points)))


def _points(table: object) -> list[Point]:
    """Every combination of the lists of one [[points]] that fits: no more copies than brokers."""
    if not isinstance(table, dict):
        raise ConfigError("points: must be tables, [[points]]")
    _require_known(table, tuple(_POINT_FIELDS), "points.")
    hints = get_type_hints(Point)
    lists: list[list[tuple[str, Any]]] = []
    for key, given in table.items():
        field = _POINT_FIELDS[key]
        values = given if isinstance(given, list) else [given]
        if not values:
            raise ConfigError(f"points.{key}: the list is empty")
        if key == "acks":
            checked = [_acks(value) for value in values]
        else:
            checked = [_value(f"points.{key}", value, hints[field]) for value in values]
        lists.append([(field, value) for value in checked])
    combinations = [dict(each) for each in product(*lists)]
    fitting = [
        each for each in combinations if each.get("replication", 1) <= each.get("brokers", 1)
    ]
    if not fitting:
        raise ConfigError("points.replication: is above points.brokers in every combination")
    return [Point(**each) for each in fitting]


def _acks(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str) or value not in _ACKS:
        raise ConfigError(f'points.acks = {value!r}: must be 0, 1 or "all"')
    return _ACKS[value]


def _method(table: object, kind: Kind) -> Method:
    """The method; throughput without a batching of its own gets the fastest for each contender."""
    if not isinstance(table, dict):
        raise ConfigError("method: must be a table, [method]")
    hints = get_type_hints(Method) | get_type_hints(Batching)
    batching_keys = tuple(field.name for field in fields(Batching))
    allowed = [field.name for field in fields(Method) if field.name not in ("kind", "batching")]
    _require_known(table, (*allowed, *batching_keys), "method.")
    values = {name: _value(f"method.{name}", value, hints[name]) for name, value in table.items()}
    chosen = {name: values.pop(name) for name in batching_keys if name in values}
    batching = None if kind == "throughput" and not chosen else Batching(**chosen)
    return Method(kind=kind, batching=batching, **values)


def _require_known(table: Mapping[str, Any], allowed: Sequence[str], prefix: str) -> None:
    for key in table:
        if key not in allowed:
            raise ConfigError(f"{prefix}{key}: unknown; allowed are {', '.join(allowed)}")


def _value(name: str, value: object, hint: Any) -> Any:
    """`value` when it is of the type `hint`: a whole number, a number, text, a choice or a list of text."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        (wanted,) = (each for each in arguments if each is not type(None))
        return _value(name, value, wanted)
    if origin is Literal:
        if value not in arguments:
            raise ConfigError(f"{name} = {value!r}: must be one of {', '.join(arguments)}")
        return value
    if origin is tuple:
        items = value if isinstance(value, list) else [value]
        return tuple(_value(name, item, arguments[0]) for item in items)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or isinstance(value, bool):
        expected = {int: "a whole number", float: "a number", str: "text"}[hint]
        raise ConfigError(f"{name} = {value!r}: must be {expected}")
    return value
