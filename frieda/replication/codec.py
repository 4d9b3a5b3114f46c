"""The bytes of the messages of replication. PURE.

Big-endian. Every message begins with its kind (uint8), the topic's id (16 bytes) and the partition (int32). Then come
its numbers, int64 each, in the order of the class, truth values as 0 and 1, the number of epochs last; then, where it
has one, the incarnation (uint8 size, UTF-8) and the epochs (int64 epoch and int64 end offset for each). Behind an
Append lie the batches as they are stored: `size_bytes` of them, to the end of the message. The transport frames it.

Garbage parses, or raises RemoteProtocolError, nothing else; sizes are checked before memory is taken.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from struct import Struct
from struct import error as StructError
from typing import Any, Final, NamedTuple

from frieda.errors import LocalProtocolError, RemoteProtocolError
from frieda.replication.messages import (
    MAX_EPOCHS,
    Answer,
    Append,
    Beat,
    Begin,
    EpochEnd,
    Fenced,
    Lost,
    Progress,
    Question,
    ReplicationMessage,
)

MAX_INCARNATION_BYTES: Final = 255

_HEAD: Final = Struct(">B16si")
_EPOCH: Final = Struct(">qq")
_NUMBERED: Final[dict[int, tuple[type[Any], Struct]]] = {
    1: (Question, Struct(">3q")),
    2: (Beat, Struct(">4q")),
    3: (Progress, Struct(">4q")),
    4: (Fenced, Struct(">1q")),
    5: (Lost, Struct(">2q")),
}
_APPEND, _BEGIN, _ANSWER = 6, 7, 8
_APPEND_NUMBERS: Final = Struct(">7q")
_BEGIN_NUMBERS: Final = Struct(">6q")
_ANSWER_NUMBERS: Final = Struct(">6q")
_KIND_OF: Final = {kind: number for number, (kind, _) in _NUMBERED.items()}


class Addressed(NamedTuple):
    """A message and the partition it is about."""

    topic_id: bytes
    partition: int
    message: ReplicationMessage


def encode(topic_id: bytes, partition: int, message: ReplicationMessage) -> bytes:
    """The head of a message. Behind that of an Append its `batches` follow on the wire, which are not copied.

    Raises LocalProtocolError for an incarnation that is too long.
    """
    kind = _KIND_OF.get(type(message))
    if kind is not None:
        return _HEAD.pack(kind, topic_id, partition) + _NUMBERED[kind][1].pack(*message)
    if isinstance(message, Append):
        return _HEAD.pack(_APPEND, topic_id, partition) + _APPEND_NUMBERS.pack(*message[:7])
    if isinstance(message, Begin):
        numbers = _BEGIN_NUMBERS.pack(*message[:2], *message[3:])
        head = _HEAD.pack(_BEGIN, topic_id, partition)
        return head + numbers + _text(message.incarnation)
    assert isinstance(message, Answer)
    numbers = _ANSWER_NUMBERS.pack(*message[:2], *message[4:], len(message.epochs))
    epochs = b"".join(_EPOCH.pack(*entry) for entry in message.epochs)
    head = _HEAD.pack(_ANSWER, topic_id, partition)
    return head + numbers + _text(message.incarnation) + epochs


def decode(data: memoryview) -> Addressed:
    """A whole message. An Append's `batches` is a view into `data`. Raises RemoteProtocolError."""
    try:
        kind, topic_id, partition = _HEAD.unpack_from(data)
        rest = data[_HEAD.size :]
        if kind == _APPEND:
            message: ReplicationMessage = _append(rest)
        elif kind in _NUMBERED:
            make, numbers = _NUMBERED[kind]
            message = make._make(numbers.unpack(rest))
        elif kind in _LONGER:
            message = _LONGER[kind](rest)
        else:
            raise RemoteProtocolError(f"a message of replication is of the unknown kind {kind}")
    except (StructError, UnicodeDecodeError) as error:
        raise RemoteProtocolError(
            f"a message of replication of {len(data)} bytes makes no sense: {error}"
        ) from None
    if partition < 0 or min(number for number in message if type(number) is int) < 0:
        raise RemoteProtocolError(
            f"a {type(message).__name__} of replication for partition {partition} holds a negative number"
        )
    return Addressed(topic_id, partition, message)


def _append(rest: memoryview) -> Append:
    append = Append._make((*_APPEND_NUMBERS.unpack_from(rest), rest[_APPEND_NUMBERS.size :]))
    _, _, base_offset, end_offset, size_bytes, _, _, _ = append
    held = len(rest) - _APPEND_NUMBERS.size
    if size_bytes != held or not held or end_offset <= base_offset:
        raise RemoteProtocolError(
            f"an Append of replication announces {size_bytes} bytes from offset {base_offset} to {end_offset} and "
            f"holds {held}"
        )
    return append


def _begin(rest: memoryview) -> Begin:
    epoch, stream, offset, reset, high_watermark, start = _BEGIN_NUMBERS.unpack_from(rest)
    incarnation, left = _read_text(rest[_BEGIN_NUMBERS.size :])
    if left:
        raise RemoteProtocolError(f"a Begin of replication has {len(left)} bytes too many")
    return Begin(epoch, stream, incarnation, offset, _truth(reset), high_watermark, start)


def _answer(rest: memoryview) -> Answer:
    epoch, stream, more, start, end, count = _ANSWER_NUMBERS.unpack_from(rest)
    incarnation, left = _read_text(rest[_ANSWER_NUMBERS.size :])
    if not 0 <= count <= MAX_EPOCHS or len(left) != count * _EPOCH.size:
        raise RemoteProtocolError(
            f"an Answer of replication announces {count} epochs in {len(left)} bytes; at most {MAX_EPOCHS} are allowed"
        )
    epochs = tuple(EpochEnd._make(entry) for entry in _EPOCH.iter_unpack(left))
    for before, after in pairwise(epochs):
        if after.epoch <= before.epoch or after.end_offset < before.end_offset:
            raise RemoteProtocolError("the epochs in an Answer of replication are out of order")
    if start > end or (epochs and epochs[0].epoch < 0):
        raise RemoteProtocolError(
            f"an Answer of replication tells of a log from {start} to {end}, first epoch {epochs[:1]}"
        )
    return Answer(epoch, stream, incarnation, epochs, _truth(more), start, end)


_LONGER: Final[dict[int, Callable[[memoryview], ReplicationMessage]]] = {
    _BEGIN: _begin,
    _ANSWER: _answer,
}


def _text(text: str) -> bytes:
    encoded = text.encode()
    if len(encoded) > MAX_INCARNATION_BYTES:
        raise LocalProtocolError(
            f"an incarnation of {len(encoded)} bytes; at most {MAX_INCARNATION_BYTES} can be sent"
        )
    return bytes((len(encoded),)) + encoded


def _read_text(data: memoryview) -> tuple[str, memoryview]:
    if not data or len(data) < 1 + data[0]:
        raise RemoteProtocolError("a message of replication ends within its incarnation")
    end = 1 + data[0]
    return str(data[1:end], "utf-8"), data[end:]


def _truth(number: int) -> bool:
    if number not in (0, 1):
        raise RemoteProtocolError(f"a truth value in a message of replication is {number}")
    return number == 1
