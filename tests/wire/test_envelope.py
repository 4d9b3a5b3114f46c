"""Envelopes: whole, cut at every byte, with trailing bytes, and as garbage."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from struct import pack

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from frieda.errors import ErrorCode, LocalProtocolError, RemoteProtocolError
from frieda.wire.envelope import (
    HEADER_SIZE,
    MAX_HEADER_BYTES,
    MAX_REQUEST_HEADER_BYTES,
    SMALL_HEADER_BYTES,
    encode_answer,
    encode_error,
    encode_request,
    split_answer,
    split_request,
)
from frieda.wire.messages import ApiKey, FetchPartition, FetchRequest

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


@pytest.mark.parametrize(
    ("split", "most"), [(split_request, MAX_REQUEST_HEADER_BYTES), (split_answer, MAX_HEADER_BYTES)]
)
def test_a_header_larger_than_the_limit_is_refused_before_it_is_read(
    split: Callable[[memoryview], object], most: int
) -> None:
    message = HEADER_SIZE.pack(most + 1) + bytes(most + 1)
    with pytest.raises(RemoteProtocolError, match=f"announces a header of {most + 1}; at most"):
        split(memoryview(message))


def test_a_request_that_would_be_refused_for_its_size_is_not_made() -> None:
    with pytest.raises(LocalProtocolError, match="ask for fewer things at once"):
        encode_request(ApiKey.METADATA, 0, 1, (("x" * 200,) * 10_000,))


@pytest.mark.parametrize(
    "header",
    [
        b"\xdd" + pack(">I", 1 << 20) + b"\x80" * ((1 << 20) - 5),
        b"\xdd" + pack(">I", 1 << 19) + b"\x91\x00" * ((1 << 19) - 3),
        b"\xdc\xff\xff" * 1000 + bytes(70_000),
        b"\xdd\x00\x0f\xff\xff" * 1000 + bytes((1 << 20) - 5000),
        b"\x91" * 100_000,
        b"\xdc\xff\xff" * (SMALL_HEADER_BYTES // 3),
    ],
    ids=["empty maps", "small arrays", "nested lengths", "nested great lengths", "deep", "small"],
)
def test_a_hostile_header_is_refused_in_little_memory(header: bytes) -> None:
    message = memoryview(HEADER_SIZE.pack(len(header)) + header)
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError, match="not msgpack"):
            split_request(message)
        assert tracemalloc.get_traced_memory()[1] < 32 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("header", [b"\xdc\xff\xff" * 1000 + bytes(70_000), b"\x91" * 100_000])
def test_a_hostile_answer_costs_a_client_little_memory_too(header: bytes) -> None:
    message = memoryview(HEADER_SIZE.pack(len(header)) + header)
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError, match="not msgpack"):
            split_answer(message)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_the_longest_requests_there_are_fit() -> None:
    asked = tuple(FetchPartition(bytes(16), index, 2**40, 2**20) for index in range(10_000))
    head = encode_request(ApiKey.FETCH, 0, 2**40, FetchRequest(0, 0, 0, 0, asked))
    assert len(head) > 100 * SMALL_HEADER_BYTES
    assert split_request(memoryview(head)).fields[4] == asked


@given(st.binary(max_size=200), st.integers(0, SMALL_HEADER_BYTES))
def test_garbage_in_a_large_header_parses_or_raises_remote_protocol_error(
    data: bytes, more: int
) -> None:
    header = data + bytes(SMALL_HEADER_BYTES + 1 - len(data)) + data * (more // 100)
    for split in (split_request, split_answer):
        with suppress(RemoteProtocolError):
            split(memoryview(HEADER_SIZE.pack(len(header)) + header))


@given(st.binary(max_size=200))
def test_garbage_parses_or_raises_remote_protocol_error(data: bytes) -> None:
    for split in (split_request, split_answer):
        for message in (data, HEADER_SIZE.pack(len(data)) + data):
            try:
                split(memoryview(message))
            except RemoteProtocolError:
                continue
