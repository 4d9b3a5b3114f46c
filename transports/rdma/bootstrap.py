"""The words of the handshake that brings a queue pair up, as bytes.

PURE: bytes in, values out. Who says what, over the bootstrap socket:

    client                          broker
    Hello(limits, fields)  ->
                           <-       Hello(agreed limits, fields)   or Refused(why)
    Ready                  ->                                      or Refused(why)
                           <-       Ready

Each side says Ready when the other may send: its receives are posted and its memory is mapped. `fields` is what
the provider needs (queue pair numbers, addresses, keys): a few names with a number or a short text each.

A message is an 8-byte header (magic, kind, reserved, size) and a JSON object of at most MAX_BODY_BYTES, so
that its size is known and checked before anything is read. Whatever bytes a peer sends, decoding gives a
message or raises RemoteProtocolError.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Final, NoReturn

from frieda.errors import ConfigError, RemoteProtocolError
from frieda.transports.rdma.provider import ChannelLimits

VERSION: Final = 1
"""What this code speaks. A side that gets a Hello of another version refuses."""
HEADER: Final = struct.Struct(">4sBBH")
MAGIC: Final = b"FrQP"
MAX_BODY_BYTES: Final = 4096
MAX_FIELDS: Final = 32
MAX_NAME_CHARS: Final = 32
MAX_TEXT_CHARS: Final = 512
MAX_NUMBER: Final = 2**64 - 1

LIMIT_RANGES: Final[dict[str, tuple[int, int]]] = {
    "slot_bytes": (512, 8 * 1024 * 1024),
    "window": (8, 4096),
    "max_reads": (1, 1024),
    "source_bytes": (64 * 1024, 1024 * 1024 * 1024),
    "max_message_bytes": (1, 2**31 - 1),
}
"""What each figure of ChannelLimits may be, both ends included. Nothing outside is agreed to."""

Fields = Mapping[str, int | str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """The first word of each side. The broker's carries what is agreed: of each limit the smaller one."""

    provider: str
    """The scheme of the URL: a client of one provider may meet the socket of another."""
    limits: ChannelLimits
    fields: Fields = field(default_factory=dict)
    version: int = VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The other side may send."""

    fields: Fields = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """No connection; `why` is a sentence for people."""

    why: str


Message = Hello | Ready | Refused

_KINDS: Final = {Hello: 1, Ready: 2, Refused: 3}


def encode(message: Message) -> bytes:
    """The bytes of `message`. Raises ConfigError when it is too large to be sent."""
    content: dict[str, object]
    match message:
        case Hello():
            content = {
                "version": message.version,
                "provider": message.provider,
                "limits": {
                    each.name: getattr(message.limits, each.name) for each in fields(ChannelLimits)
                },
                "fields": dict(message.fields),
            }
        case Ready():
            content = {"fields": dict(message.fields)}
        case Refused(why=why):
            content = {"why": why[:MAX_TEXT_CHARS]}
    body = json.dumps(content, separators=(",", ":")).encode("ascii")
    if len(body) > MAX_BODY_BYTES:
        raise ConfigError(
            f"a handshake message of {len(body)} bytes is over the limit of {MAX_BODY_BYTES}"
        )
    return HEADER.pack(MAGIC, _KINDS[type(message)], 0, len(body)) + body


def body_size(header: bytes) -> int:
    """How many bytes follow this header of HEADER.size bytes. Raises RemoteProtocolError."""
    magic, _, _, size = HEADER.unpack(header)
    if magic != MAGIC:
        raise RemoteProtocolError(
            f"the handshake begins with {header[:4]!r}, not {MAGIC!r}: is this another kind of listener?"
        )
    if size > MAX_BODY_BYTES:
        raise RemoteProtocolError(
            f"the peer announced a handshake message of {size} bytes; the limit is {MAX_BODY_BYTES}"
        )
    return int(size)


def decode(header: bytes, body: bytes) -> Message:
    """The message that was sent. Raises RemoteProtocolError for anything that is none."""
    if body_size(header) != len(body):
        _nonsense(f"{len(body)} bytes follow a header that says {body_size(header)}")
    kind = header[4]
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError(f"the handshake is no JSON: {error}") from None
    if not isinstance(content, dict):
        _nonsense("the message is no JSON object")
    match kind:
        case 1:
            return Hello(
                version=_number(content, "version"),
                provider=_text(content, "provider"),
                limits=_limits(content.get("limits")),
                fields=_fields(content),
            )
        case 2:
            return Ready(fields=_fields(content))
        case 3:
            return Refused(why=_text(content, "why"))
    raise RemoteProtocolError(f"the peer's handshake is wrong: there is no message of kind {kind}")


def agree(ours: ChannelLimits, theirs: ChannelLimits) -> ChannelLimits:
    """Of each limit the smaller one."""
    return ChannelLimits(
        **{
            each.name: min(getattr(ours, each.name), getattr(theirs, each.name))
            for each in fields(ChannelLimits)
        }
    )


def check_hello(hello: Hello, provider: str) -> None:
    """Does the peer speak this version and this provider? Raises RemoteProtocolError, saying what to do."""
    if hello.provider != provider:
        raise RemoteProtocolError(
            f"the peer speaks {hello.provider!r} here and we speak {provider!r}: use its own scheme in the URL"
        )
    if hello.version != VERSION:
        raise RemoteProtocolError(
            f"the peer speaks version {hello.version} of the queue pair handshake and we speak {VERSION}: "
            "run the same version of Frieda on both sides"
        )


def check_agreed(ours: ChannelLimits, agreed: ChannelLimits) -> None:
    """Is what the broker calls agreed within what we offered? Raises RemoteProtocolError."""
    if agree(ours, agreed) != agreed:
        raise RemoteProtocolError(f"the broker agreed to {agreed}, which is more than our {ours}")


def check_limits(limits: ChannelLimits) -> ChannelLimits:
    """`limits` themselves when each is in its range. Raises ConfigError, naming the one that is not."""
    for name, (low, high) in LIMIT_RANGES.items():
        value = getattr(limits, name)
        if not low <= value <= high:
            raise ConfigError(f"{name} = {value}: must be from {low} to {high}")
    return limits


def number_field(of: Fields, name: str, largest: int = MAX_NUMBER) -> int:
    """The number called `name`, from 0 to `largest`. Raises RemoteProtocolError."""
    value = of.get(name)
    if not isinstance(value, int) or not 0 <= value <= largest:
        _nonsense(f"the field {name!r} is {value!r}, not a number from 0 to {largest}")
    return value


def text_field(of: Fields, name: str) -> str:
    """The text called `name`. Raises RemoteProtocolError."""
    value = of.get(name)
    if not isinstance(value, str):
        _nonsense(f"the field {name!r} is {value!r}, not a text")
    return value


def _nonsense(what: str) -> NoReturn:
    raise RemoteProtocolError(f"the peer's handshake is wrong: {what}")


def _number(content: Mapping[str, object], name: str, low: int = 0, high: int = MAX_NUMBER) -> int:
    value = content.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        _nonsense(f"{name} is {str(value)[:40]}, not a number from {low} to {high}")
    return value


def _text(content: Mapping[str, object], name: str) -> str:
    value = content.get(name)
    if not isinstance(value, str) or len(value) > MAX_TEXT_CHARS:
        _nonsense(f"{name} is not a text of at most {MAX_TEXT_CHARS} characters")
    return value


def _limits(content: object) -> ChannelLimits:
    if not isinstance(content, dict):
        _nonsense("it has no limits")
    return ChannelLimits(
        **{name: _number(content, name, low, high) for name, (low, high) in LIMIT_RANGES.items()}
    )


def _fields(content: Mapping[str, object]) -> Fields:
    found = content.get("fields", {})
    if not isinstance(found, dict) or len(found) > MAX_FIELDS:
        _nonsense(f"fields is not an object of at most {MAX_FIELDS} names")
    for name, value in found.items():
        if len(name) > MAX_NAME_CHARS:
            _nonsense(
                f"a field has a name of {len(name)} characters; the limit is {MAX_NAME_CHARS}"
            )
        if isinstance(value, str):
            _text(found, name)
        else:
            _number(found, name)
    return found
