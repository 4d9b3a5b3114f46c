"""How `frieda consume` writes a record: its value as it came, a JSON object, or a format string. PURE."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from typing import Final

from frieda.cli.escapes import unescape
from frieda.errors import ConfigError
from frieda.model import Record

Formatter = Callable[[Record], bytes]

_FIELDS: Final[dict[str, Formatter]] = {
    "k": lambda record: record.key or b"",
    "v": lambda record: record.value or b"",
    "o": lambda record: b"%d" % record.offset,
    "p": lambda record: b"%d" % record.partition,
    "t": lambda record: record.topic.encode(),
    "T": lambda record: b"%d" % record.timestamp_ms,
    "h": lambda record: b",".join(
        name.encode() + b"=" + (value or b"") for name, value in record.headers
    ),
}


def record_formatter(output: str) -> tuple[Formatter, bool]:
    """The function for `--output`, and whether its text ends with a newline of its own.

    Raises ConfigError for a format string with an unknown field or escape.
    """
    if output == "value":
        return _FIELDS["v"], False
    if output == "json":
        return _as_json, False
    if "%" not in output:
        raise ConfigError(
            f"--output {output!r}: must be value, json or a format with %k %v %o %p %t %T %h"
        )
    return _by_format(output)


def _by_format(output: str) -> tuple[Formatter, bool]:
    pieces: list[bytes | Formatter] = []
    for text, code in re.findall(r"([^%]*)(%.?)?", output, re.DOTALL):
        if text:
            pieces.append(unescape(text, "--output"))
        if code == "%%":
            pieces.append(b"%")
        elif code:
            field = _FIELDS.get(code[1:])
            if field is None:
                raise ConfigError(
                    f"--output: {code!r} is not a field; there are %k key, %v value, %o offset, "
                    "%p partition, %t topic, %T timestamp in ms, %h headers and %%"
                )
            pieces.append(field)
    last = pieces[-1]

    def formatted(record: Record) -> bytes:
        return b"".join([piece if isinstance(piece, bytes) else piece(record) for piece in pieces])

    return formatted, isinstance(last, bytes) and last.endswith(b"\n")


def _as_json(record: Record) -> bytes:
    return json.dumps(
        {
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "timestamp_ms": record.timestamp_ms,
            "key": _json_text(record.key),
            "value": _json_text(record.value),
            "headers": [[name, _json_text(value)] for name, value in record.headers],
        },
        ensure_ascii=False,
    ).encode()


def _json_text(value: bytes | None) -> str | dict[str, str] | None:
    """UTF-8 as text; other bytes as {"base64": ...}, since JSON has no bytes."""
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}
