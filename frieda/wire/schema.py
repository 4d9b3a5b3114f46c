"""Messages as NamedTuples: from the annotations of a class to a checked decoder of its msgpack fields.

A message travels as a flat msgpack array of its fields, in the order of the class. The annotations allowed
are int, str, bytes, bool, float, `X | None`, `tuple[X, ...]`, `dict[str, X]` and other NamedTuples, which are
arrays again. Fields may be added at the end with a default: an older peer's shorter array is then filled up,
and a newer peer's longer one is cut (both only within one protocol version range).
"""

from __future__ import annotations

import types
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, TypeVar, Union, cast, get_args, get_origin, get_type_hints

Message = TypeVar("Message", bound=NamedTuple)
Check = Callable[[Any, str], Any]


class SchemaError(ValueError):
    """The fields do not fit the message; the text names the field."""


def decode_fields(message_type: type[Message], fields: tuple[Any, ...]) -> Message:
    """Fields as msgpack gave them (arrays as tuples) -> a `message_type`. Raises SchemaError."""
    plan = _plan(message_type)
    # Comparing the tuple of types at once is the fast path: 0.3 us for a flat message of five fields.
    if plan.flat_types is not None and tuple(map(type, fields)) == plan.flat_types:
        return cast(Message, plan.make(fields))
    return cast(Message, plan.decode(fields, message_type.__name__))


class _Plan:
    """How one message class is decoded."""

    __slots__ = ("checks", "flat_types", "least", "make", "names")

    def __init__(self, message_type: type[Any]) -> None:
        hints = get_type_hints(message_type)
        self.names: tuple[str, ...] = message_type._fields
        self.checks = tuple(_check_for(hints[name]) for name in self.names)
        self.least = len(self.names) - len(message_type._field_defaults)
        self.make: Callable[[Any], Any] = message_type._make
        kinds = tuple(hints[name] for name in self.names)
        self.flat_types = kinds if all(kind in (int, str, bytes, bool) for kind in kinds) else None

    def decode(self, value: Any, where: str) -> Any:
        if type(value) is not tuple:
            raise SchemaError(f"{where}: an array is needed, not {type(value).__name__}")
        if len(value) < self.least:
            raise SchemaError(f"{where}: {len(value)} fields, at least {self.least} are needed")
        # A shorter array leaves the last fields at their defaults, a longer one is cut: zip does both,
        # and `make` wants the defaults filled in.
        decoded = [
            check(item, f"{where}.{name}")
            for check, item, name in zip(self.checks, value, self.names, strict=False)
        ]
        if len(decoded) < len(self.names):
            defaults = self.make.__self__._field_defaults  # type: ignore[attr-defined]
            decoded += [defaults[name] for name in self.names[len(decoded) :]]
        return self.make(decoded)


@cache
def _plan(message_type: type[Any]) -> _Plan:
    return _Plan(message_type)


def _check_for(kind: Any) -> Check:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        inner = [argument for argument in arguments if argument is not type(None)]
        if len(inner) != 1 or len(inner) == len(arguments):
            raise TypeError(f"{kind} is not a type that a message may have")
        return _optional(_check_for(inner[0]))
    if origin is tuple:
        return _array(_check_for(arguments[0]))
    if origin is dict:
        return _table(_check_for(arguments[1]))
    if hasattr(kind, "_fields"):
        return _plan(kind).decode
    if kind in (int, str, bytes, bool, float):
        return _exact(kind)
    raise TypeError(f"{kind} is not a type that a message may have")


def _exact(kind: type[Any]) -> Check:
    def check(value: Any, where: str) -> Any:
        if type(value) is not kind:
            raise SchemaError(f"{where}: {kind.__name__} is needed, not {type(value).__name__}")
        return value

    return check


def _optional(inner: Check) -> Check:
    def check(value: Any, where: str) -> Any:
        return None if value is None else inner(value, where)

    return check


def _array(inner: Check) -> Check:
    def check(value: Any, where: str) -> Any:
        if type(value) is not tuple:
            raise SchemaError(f"{where}: an array is needed, not {type(value).__name__}")
        return tuple(inner(item, where) for item in value)

    return check


def _table(inner: Check) -> Check:
    def check(value: Any, where: str) -> Any:
        if type(value) is not dict:
            raise SchemaError(f"{where}: a map is needed, not {type(value).__name__}")
        for key in value:
            if type(key) is not str:
                raise SchemaError(f"{where}: a map's keys are strings, not {type(key).__name__}")
        return {key: inner(item, where) for key, item in value.items()}

    return check
