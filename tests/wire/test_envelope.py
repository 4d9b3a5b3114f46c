"""Envelopes: whole, cut at every byte, with trailing bytes, and as garbage."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from frieda.errors import ErrorCode, RemoteProtocolError
from frieda.wire.envelope import (
    HEADER_SIZE,
    MAX_HEADER_BYTES,
    encode_answer,
    encode_error,
    encode_request,
    split_answer,
    split_request,
)

FIELDS = st.lists(
    st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary() | st.booleans(), max_size=5
)


@given(
    api=st.integers(0, 2**15),
    correlation_id=st.integers(0, 2**63 - 1),
    fields=FIELDS,
    body=st.binary(),
)
def test_a_request_comes_back_with_its_body(
    api: int, correlation_id: int, fields: list[object], body: bytes
) -> None:
    head = encode_request(api, 1, correlation_id, tuple(fields))
    envelope = split_request(memoryview(head + body))
    assert envelope[:4] == (api, 1, correlation_id, tuple(fields))
    assert bytes(envelope.body) == body


@given(correlation_id=st.integers(0, 2**63 - 1), fields=FIELDS, body=st.binary())
def test_an_answer_comes_back_with_its_body(
    correlation_id: int, fields: list[object], body: bytes
) -> None:
    envelope = split_answer(memoryview(encode_answer(correlation_id, tuple(fields)) + body))
    assert envelope[:3] == (correlation_id, 0, tuple(fields))
    assert bytes(envelope.body) == body


def test_an_error_carries_its_code_and_detail() -> None:
    envelope = split_answer(memoryview(encode_error(9, ErrorCode.BUSY, "later")))
    assert envelope[:3] == (9, ErrorCode.BUSY, ("later",))


def test_a_header_cut_at_any_byte_is_refused() -> None:
    message = encode_request(0, 0, 5, (b"i" * 16, 3, 1, 30))
    for size in range(len(message)):
        with pytest.raises(RemoteProtocolError):
            split_request(memoryview(message[:size]))


def test_trailing_bytes_are_the_body() -> None:
    message = encode_request(0, 0, 5, ()) + b"x"
    assert bytes(split_request(memoryview(message)).body) == b"x"


@pytest.mark.parametrize(
    "header",
    [
        msgpack.packb([]),
        msgpack.packb([1, 2]),
        msgpack.packb(["0", 0, 1]),
        msgpack.packb([0, None, 1]),
        msgpack.packb([0, 0, -1]),
        msgpack.packb([0, 0, 2**63]),
        msgpack.packb({"api": 1}),
        msgpack.packb(7),
        b"\xc1",
        b"\x91" * 5000,
        b"\x93\x00\x00\xa1\xff",
    ],
)
def test_a_header_that_is_not_one_is_refused(header: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        split_request(memoryview(HEADER_SIZE.pack(len(header)) + header))


def test_a_header_larger_than_the_limit_is_refused_before_it_is_read() -> None:
    message = HEADER_SIZE.pack(MAX_HEADER_BYTES + 1) + bytes(MAX_HEADER_BYTES + 1)
    with pytest.raises(RemoteProtocolError, match="announces"):
        split_request(memoryview(message))


@given(st.binary(max_size=200))
def test_garbage_parses_or_raises_remote_protocol_error(data: bytes) -> None:
    for split in (split_request, split_answer):
        for message in (data, HEADER_SIZE.pack(len(data)) + data):
            try:
                split(memoryview(message))
            except RemoteProtocolError:
                continue
