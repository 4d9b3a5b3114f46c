"""Where settings come from: defaults < a TOML file < the environment < command-line flags.

Works for any settings class of `frieda.config`. A setting has a *name*: its field, and for a field
of a nested class `outer.inner` (`topic.retention_ms`; Kafka's `topic.retention.ms` means the same).

    TOML         listen = ["tcp://127.0.0.1:9500"]
                 [topic]
                 retention_ms = 1000                         or "retention.ms" = 1000
    environment  FRIEDA_BROKER_LISTEN=tcp://a:1,tcp://b:2    a list: by commas
                 FRIEDA_BROKER_TOPIC_RETENTION_MS=1000
                 FRIEDA_BROKER_BUFFERS='{"4096": 64}'        a table: JSON, or 4096=64,16384=32
    flags        {"listen": ("tcp://a:1",)}                  None and () mean "not given"

Every mistake is a ConfigError that names the source, the key and what is wanted.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import (
    Any,
    ClassVar,
    Generic,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from frieda.config import check_bounds, nearest
from frieda.errors import ConfigError

Settings = TypeVar("Settings")

DEFAULT_SOURCE = "default"

# Kubernetes sets these in every pod beside a service called "frieda-broker"; they are not ours.
_SERVICE_LINK = re.compile(r"(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT(_\d+_(TCP|UDP|SCTP).*)?)")


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingValue:
    """One setting as loaded: its name, value, where it came from and what it means."""

    name: str
    value: Any
    source: str
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedSettings(Generic[Settings]):
    """Settings and, by name, the source of each that is not a default."""

    settings: Settings
    sources: Mapping[str, str] = field(default_factory=dict)

    def values(self) -> Iterator[SettingValue]:
        """Every setting in the order of the class, those of a nested class last."""
        schema = _Schema.of(type(self.settings))
        for name, row in sorted(schema.rows.items(), key=lambda item: item[1].outer):
            value: Any = self.settings
            for attribute in name.split("."):
                value = getattr(value, attribute)
            source = self.sources.get(name, DEFAULT_SOURCE)
            yield SettingValue(name=name, value=value, source=source, meaning=row.meaning)


def load_settings(
    settings_class: type[Settings],
    *,
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    prefix: str = "",
    reserved: frozenset[str] = frozenset(),
    flags: Mapping[str, Any] | None = None,
) -> LoadedSettings[Settings]:
    """Settings of `settings_class` from every source, the later ones winning.

    `environment` is read where a variable starts with `prefix`; `reserved` names variables with that
    prefix that are not settings. A table (`buffers`) is taken whole from its last source, never
    merged. Raises ConfigError for a file that cannot be read, an unknown key, a wrong type or a
    value out of range.
    """
    schema = _Schema.of(settings_class)
    given: dict[str, tuple[Any, str]] = {}
    if file is not None:
        _take_file(schema, file, given)
    if environment is not None:
        _take_environment(schema, environment, prefix, reserved, given)
    for key, value in (flags or {}).items():
        if value is None or value == ():
            continue
        name = schema.find(key, "flag")
        source = f"flag --{name.replace('_', '-')}"
        given[name] = (_converted(schema.rows[name], key, value, source, from_text=True), source)
    return LoadedSettings(
        settings=cast(Settings, schema.build(given)),
        sources={name: source for name, (_, source) in given.items()},
    )


def dump_toml(loaded: LoadedSettings[Any]) -> str:
    """The settings as TOML, which loads again to the same; comments tell meaning and source.

    Raises ConfigError for a text that UTF-8 cannot hold.
    """
    lines: list[str] = []
    table = ""
    for entry in loaded.values():
        outer, _, inner = entry.name.rpartition(".")
        if outer != table:
            table = outer
            lines += [f"[{outer}]", ""]
        lines += [f"# {_one_line(entry.meaning)}", f"# from: {_one_line(entry.source)}"]
        if entry.value is None:
            lines += [f"# {inner} is not set", ""]
        else:
            lines += [f"{inner} = {_toml_value(entry.name, entry.value)}", ""]
    return "\n".join(lines)


def dump_json(loaded: LoadedSettings[Any]) -> str:
    """The settings as a JSON list of {name, value, source, meaning}."""
    rows = [
        {"name": e.name, "value": e.value, "source": e.source, "meaning": e.meaning}
        for e in loaded.values()
    ]
    return json.dumps(rows, indent=2)


@dataclass(frozen=True, slots=True)
class _Row:
    """One leaf of a settings class: its type, its dataclass field with the bounds, its choices."""

    wanted: Any
    field: Any
    meaning: str
    choices: tuple[str, ...] | None
    outer: str


@dataclass(frozen=True, slots=True)
class _Schema:
    """The leaves of a settings class by name."""

    settings_class: type[Any]
    rows: Mapping[str, _Row]
    nested: Mapping[str, type[Any]]
    _known: ClassVar[dict[type[Any], _Schema]] = {}

    @classmethod
    def of(cls, settings_class: type[Any]) -> _Schema:
        if settings_class not in cls._known:
            rows: dict[str, _Row] = {}
            nested: dict[str, type[Any]] = {}
            hints = get_type_hints(settings_class)
            choices = getattr(settings_class, "choices", {})
            for spec in fields(settings_class):
                wanted = hints[spec.name]
                if is_dataclass(wanted) and isinstance(wanted, type):
                    nested[spec.name] = wanted
                    for name, row in cls.of(wanted).rows.items():
                        rows[f"{spec.name}.{name}"] = _Row(
                            row.wanted, row.field, row.meaning, row.choices, spec.name
                        )
                else:
                    meaning = spec.metadata.get("doc", "")
                    rows[spec.name] = _Row(wanted, spec, meaning, choices.get(spec.name), "")
            cls._known[settings_class] = cls(settings_class, rows, nested)
        return cls._known[settings_class]

    def find(self, key: str, where: str) -> str:
        """The name that `key` means: as it stands, with dashes, or with Kafka's dots."""
        plain = key.replace("-", "_")
        outer, dot, inner = plain.partition(".")
        for name in (plain, plain.replace(".", "_"), f"{outer}{dot}{inner.replace('.', '_')}"):
            if name in self.rows:
                return name
        raise ConfigError(f"{where}: unknown setting {key!r}{nearest(plain, list(self.rows))}")

    def build(self, given: Mapping[str, tuple[Any, str]]) -> Any:
        arguments: dict[str, Any] = {}
        inside: dict[str, dict[str, tuple[Any, str]]] = {outer: {} for outer in self.nested}
        for name, (value, source) in given.items():
            outer, _, inner = name.partition(".")
            if inner:
                inside[outer][inner] = (value, source)
            else:
                arguments[name] = value
        for outer, values in inside.items():
            if values:
                arguments[outer] = _Schema.of(self.nested[outer]).build(values)
        return self.settings_class(**arguments)


def _take_file(schema: _Schema, file: Path, given: dict[str, tuple[Any, str]]) -> None:
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not UTF-8 text: {error.reason}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file} is not valid TOML: {error}") from error
    source = f"file {file}"
    for key, value in _leaves(schema, content, ""):
        name = schema.find(key, str(file))
        if name in given:
            raise ConfigError(f"{file}: {name} is given twice (also as {key!r})")
        given[name] = (
            _converted(schema.rows[name], key, value, str(file), from_text=False),
            source,
        )


def _leaves(schema: _Schema, table: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    """Every value of a table with its dotted key; a table that is a setting's value stays whole."""
    for key, value in table.items():
        name = f"{path}{key}"
        if isinstance(value, dict) and value and name not in schema.rows:
            yield from _leaves(schema, value, f"{name}.")
        elif name not in schema.nested:
            yield name, value
        elif value != {}:
            raise ConfigError(f"{name} = {value!r}: must be a table, as in [{name}]")


def _take_environment(
    schema: _Schema,
    environment: Mapping[str, str],
    prefix: str,
    reserved: frozenset[str],
    given: dict[str, tuple[Any, str]],
) -> None:
    names = {prefix + name.replace(".", "_").upper(): name for name in schema.rows}
    tables = {prefix + name.upper(): name for name in schema.nested}
    # Sorted, so that a whole table comes before the single settings inside it, which win.
    for variable in sorted(environment):
        if not variable.startswith(prefix) or variable in reserved:
            continue
        text, source = environment[variable], f"environment {variable}"
        if variable in names:
            row = schema.rows[names[variable]]
            value = _converted(row, variable, text, "the environment", from_text=True)
            given[names[variable]] = (value, source)
        elif variable in tables:
            for key, value in _table(variable, text).items():
                name = schema.find(f"{tables[variable]}.{key}", variable)
                converted = _converted(schema.rows[name], key, value, variable, from_text=True)
                given[name] = (converted, source)
        elif not _SERVICE_LINK.fullmatch(variable.removeprefix(prefix)):
            hint = nearest(variable, [*names, *tables])
            raise ConfigError(f"the environment: unknown variable {variable}{hint}")


def _table(key: str, text: str) -> Mapping[str, Any]:
    """A table from JSON or from `name=value,name=value`."""
    if text.lstrip().startswith("{"):
        try:
            table = json.loads(text)
        except ValueError as error:
            raise ConfigError(f"{key} = {text!r}: is not valid JSON: {error}") from error
        return cast(dict[str, Any], table)
    pairs = [pair.partition("=") for pair in text.split(",") if pair.strip()]
    if not all(equals for _, equals, _ in pairs):
        raise ConfigError(f"{key} = {text!r}: must be JSON or pairs as in name=value,name=value")
    return {name.strip(): value.strip() for name, _, value in pairs}


def _converted(row: _Row, key: str, value: Any, where: str, *, from_text: bool) -> Any:
    """`value` as the type of the field, within its bounds and choices. Raises ConfigError."""
    wanted = row.wanted
    if from_text and isinstance(value, str):
        value = _parsed(wanted, key, value)
    try:
        converted = _checked_type(wanted, value)
        check_bounds(row.field, converted, key)
    except _WrongTypeError:
        raise ConfigError(f"{where}: {key} = {value!r}: must be {_called(wanted)}") from None
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    if row.choices is not None and converted not in row.choices:
        allowed = ", ".join(choice or "''" for choice in row.choices)
        raise ConfigError(f"{where}: {key} = {value!r}: must be one of {allowed}")
    return converted


class _WrongTypeError(Exception):
    """A value is not of the wanted type; turned into a ConfigError where the key is known."""


def _parsed(wanted: Any, key: str, text: str) -> Any:
    """What `text` says for this type; the text itself where it says nothing sensible."""
    number = {int: int, float: float}.get(wanted)
    if number is not None:
        try:
            return number(text)
        except ValueError:
            return text
    if wanted is bool:
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        return words.get(text.lower(), text)
    if get_origin(wanted) is tuple:
        return [item.strip() for item in text.split(",") if item.strip()]
    if get_origin(wanted) is dict:
        return _table(key, text)
    return text


def _checked_type(wanted: Any, value: Any) -> Any:
    if wanted is bool and isinstance(value, bool):
        return value
    if wanted is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if wanted is float and isinstance(value, int | float) and not isinstance(value, bool):
        if math.isfinite(value):
            return float(value)
    elif _is_text(wanted) and isinstance(value, str):
        return value
    elif get_origin(wanted) is tuple and isinstance(value, list | tuple):
        return tuple(_checked_type(get_args(wanted)[0], item) for item in value)
    elif get_origin(wanted) is dict and isinstance(value, Mapping):
        key_type, value_type = get_args(wanted)
        return {
            _checked_type(key_type, _number(key)): _checked_type(value_type, _number(item))
            for key, item in value.items()
        }
    raise _WrongTypeError


def _is_text(wanted: Any) -> bool:
    optional = get_origin(wanted) in (Union, types.UnionType)
    return wanted is str or (optional and set(get_args(wanted)) == {str, types.NoneType})


def _number(value: Any) -> Any:
    """A TOML or JSON key is always text, and so is every value that came as a pair."""
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            raise _WrongTypeError from None
    return value


def _called(wanted: Any) -> str:
    if get_origin(wanted) is tuple:
        return "a list of texts"
    if get_origin(wanted) is dict:
        return "a table of whole numbers"
    names = {int: "a whole number", float: "a finite number", bool: "true or false"}
    return names.get(wanted, "a text")


def _one_line(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)


def _toml_value(name: str, value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            return _toml_text(name, value)
        case tuple():
            return "[" + ", ".join(_toml_text(name, item) for item in value) + "]"
        case dict():
            return "{ " + ", ".join(f"{key} = {item}" for key, item in value.items()) + " }"
        case _:
            raise ConfigError(f"{name}: cannot be written as TOML")


def _toml_text(name: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{name} = {text!r}: is not a text that UTF-8 can hold") from None
    # JSON's escapes are TOML's too; only DEL needs one that JSON does not ask for.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
