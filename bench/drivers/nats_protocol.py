"""The text protocol of NATS as a client reads it: bytes in, messages out. PURE.

Source: the client protocol in NATS's own documentation (INFO, MSG, HMSG, PING, PONG, +OK, -ERR).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from frieda.errors import RemoteProtocolError

MAX_LINE_BYTES: Final = 64 * 1024
"""INFO, the longest line, lists the servers of a cluster."""
MAX_PAYLOAD_BYTES: Final = 64 * 1024 * 1024
"""More than any server allows (its max_payload is at most 64 MB)."""


class Message(NamedTuple):
    """A message of subscription `sid`; `headers` are raw, empty when it has none."""

    subject: bytes
    sid: int
    reply: bytes
    headers: bytes
    payload: bytes


class Notice(NamedTuple):
    """A line without a message: PING, PONG, INFO, -ERR."""

    kind: bytes
    text: bytes


class NatsReader:
    """Cuts what a server sends into messages and notices."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Message | Notice]:
        """What is complete now. Raises RemoteProtocolError; the connection is of no use then."""
        buffer = self._rest + data if self._rest else data
        found: list[Message | Notice] = []
        position = 0
        while (end := buffer.find(b"\r\n", position)) >= 0:
            line = buffer[position:end]
            start = end + 2
            if line.startswith((b"MSG ", b"HMSG ")):
                subject, sid, reply, header_bytes, size_bytes = _announced(line)
                stop = start + size_bytes
                if len(buffer) < stop + 2:
                    break
                if buffer[stop : stop + 2] != b"\r\n":
                    raise RemoteProtocolError("nats: a message is longer than was announced")
                body = start + header_bytes
                found.append(Message(subject, sid, reply, buffer[start:body], buffer[body:stop]))
                position = stop + 2
                continue
            kind, _, text = line.partition(b" ")
            if kind not in (b"PING", b"PONG", b"INFO", b"-ERR", b"+OK"):
                raise RemoteProtocolError(f"nats: {line[:80]!r} is not of its protocol")
            if kind != b"+OK":
                found.append(Notice(kind, text))
            position = start
        else:
            if len(buffer) - position > MAX_LINE_BYTES:
                raise RemoteProtocolError(f"nats: a line of more than {MAX_LINE_BYTES} bytes")
        self._rest = buffer[position:]
        return found


def status_of(headers: bytes) -> tuple[int, str]:
    """The status in the first line of a message's headers ("NATS/1.0 503 No Responders"); 0 when it has none."""
    first = headers.partition(b"\r\n")[0].split(b" ", 2)
    if len(first) < 2 or not first[1].isdigit():
        return 0, ""
    return int(first[1]), first[2].decode(errors="replace") if len(first) > 2 else ""


def header_of(headers: bytes, name: bytes) -> bytes | None:
    """The value of a header, None when it is not there."""
    for line in headers.split(b"\r\n")[1:]:
        key, separator, value = line.partition(b":")
        if separator and key == name:
            return value.strip()
    return None


def _announced(line: bytes) -> tuple[bytes, int, bytes, int, int]:
    """Subject, sid, reply, and the bytes of the headers and of all that follows."""
    words = line.split()
    sizes = 2 if words[0] == b"HMSG" else 1
    try:
        subject, sid = words[1], int(words[2])
        numbers = [int(word) for word in words[-sizes:]]
    except (ValueError, IndexError):
        raise RemoteProtocolError(f"nats: {line[:80]!r} announces no message") from None
    header_bytes, size_bytes = numbers[0] if sizes == 2 else 0, numbers[-1]
    if len(words) not in (3 + sizes, 4 + sizes) or not 0 <= header_bytes <= size_bytes:
        raise RemoteProtocolError(f"nats: {line[:80]!r} announces no message")
    if size_bytes > MAX_PAYLOAD_BYTES:
        raise RemoteProtocolError(f"nats: a message of {size_bytes} bytes is too large")
    reply = words[3] if len(words) == 4 + sizes else b""
    return subject, sid, reply, header_bytes, size_bytes
