"""The reader of NATS's protocol: any cut of the bytes gives the same; garbage is a typed error and nothing else."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frieda.bench.drivers.nats_protocol import (
    MAX_LINE_BYTES,
    MAX_PAYLOAD_BYTES,
    Message,
    NatsReader,
    Notice,
    header_of,
    status_of,
)
from frieda.errors import RemoteProtocolError

words = st.text("abc._-$*>019", min_size=1, max_size=20).map(str.encode)
payloads = st.binary(max_size=200)


@st.composite
def messages(draw: st.DrawFn) -> Message:
    headers = draw(st.just(b"") | st.just(b"NATS/1.0\r\na: b\r\n\r\n") | st.binary(max_size=50))
    reply = draw(st.just(b"") | words)
    return Message(draw(words), draw(st.integers(0, 10**6)), reply, headers, draw(payloads))


notices = st.sampled_from(
    [
        Notice(b"PING", b""),
        Notice(b"PONG", b""),
        Notice(b"INFO", b'{"a": 1}'),
        Notice(b"-ERR", b"'x y'"),
    ]
)


def written(each: Message | Notice) -> bytes:
    if isinstance(each, Notice):
        return (each.kind + b" " + each.text).strip() + b"\r\n"
    head = b"%b %d " % (each.subject, each.sid) + (each.reply + b" " if each.reply else b"")
    size = len(each.headers) + len(each.payload)
    body = each.headers + each.payload + b"\r\n"
    if each.headers:
        return b"HMSG " + head + b"%d %d\r\n" % (len(each.headers), size) + body
    return b"MSG " + head + b"%d\r\n" % size + body


@given(st.lists(messages() | notices, max_size=8), st.data())
def test_the_cut_of_the_bytes_does_not_matter(
    sent: list[Message | Notice], data: st.DataObject
) -> None:
    stream = b"+OK\r\n".join(map(written, sent))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    reader = NatsReader()
    found: list[Message | Notice] = []
    for start, stop in itertools.pairwise([0, *cuts, len(stream)]):
        found += reader.feed(stream[start:stop])
    assert found == sent


@given(st.lists(messages(), min_size=1, max_size=3))
def test_byte_by_byte_is_the_same(sent: list[Message]) -> None:
    reader = NatsReader()
    found: list[Message | Notice] = []
    for each in b"".join(map(written, sent)):
        found += reader.feed(bytes([each]))
    assert found == sent


@given(
    st.lists(
        st.binary(max_size=60) | st.sampled_from([b"MSG a 1 5\r\n", b"HMSG a 1 9 5\r\n", b"\r\n"])
    )
)
def test_garbage_is_parsed_or_raises_the_typed_error(pieces: list[bytes]) -> None:
    reader = NatsReader()
    found: list[Message | Notice] = []
    with contextlib.suppress(RemoteProtocolError):
        for piece in pieces:
            found += reader.feed(piece)
    for each in found:
        assert isinstance(each, Message) or each.kind in (b"PING", b"PONG", b"INFO", b"-ERR")


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"GET / HTTP/1.1\r\n", "is not of its protocol"),
        (b"MSG a b 5\r\n", "announces no message"),
        (b"MSG a 1\r\n", "announces no message"),
        (b"MSG a 1 b c 5\r\n", "announces no message"),
        (b"MSG a 1 -5\r\n", "announces no message"),
        (b"HMSG a 1 9 5\r\n", "announces no message"),
        (b"MSG a 1 %d\r\n" % (MAX_PAYLOAD_BYTES + 1), "is too large"),
        (b"MSG a 1 2\r\nabc\r\n", "longer than was announced"),
        (b"x" * (MAX_LINE_BYTES + 1), "a line of more than"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, sentence: str) -> None:
    with pytest.raises(RemoteProtocolError, match=sentence):
        NatsReader().feed(data)


def test_a_status_and_a_header_are_read_from_the_headers() -> None:
    headers = b"NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 7\r\nOther:x\r\n\r\n"
    assert status_of(headers) == (408, "Request Timeout")
    assert header_of(headers, b"Nats-Pending-Messages") == b"7"
    assert header_of(headers, b"Nothing") is None
    assert status_of(b"NATS/1.0 503\r\n\r\n") == (503, "")
    for none in (b"", b"NATS/1.0\r\na: b\r\n\r\n", b"NATS/1.0 x\r\n"):
        assert status_of(none) == (0, "")
