import json
from contextlib import suppress
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frieda.errors import ConfigError, RemoteProtocolError
from frieda.transports.rdma.bootstrap import (
    HEADER,
    LIMIT_RANGES,
    MAX_BODY_BYTES,
    MAX_TEXT_CHARS,
    VERSION,
    Hello,
    Ready,
    Refused,
    agree,
    body_size,
    check_agreed,
    check_hello,
    check_limits,
    decode,
    encode,
    number_field,
    text_field,
)
from frieda.transports.rdma.provider import ChannelLimits

limits = st.builds(
    ChannelLimits, **{name: st.integers(low, high) for name, (low, high) in LIMIT_RANGES.items()}
)
texts = st.text(max_size=40)
some_fields = st.dictionaries(st.text(max_size=32), st.integers(0, 2**64 - 1) | texts, max_size=5)
messages = (
    st.builds(
        Hello, provider=texts, limits=limits, fields=some_fields, version=st.integers(0, 2**31)
    )
    | st.builds(Ready, fields=some_fields)
    | st.builds(Refused, why=texts)
)


def decoded(data: bytes):
    return decode(data[: HEADER.size], data[HEADER.size :])


def with_body(kind: int, body: bytes) -> bytes:
    return HEADER.pack(b"FrQP", kind, 0, len(body)) + body


@given(messages)
def test_what_is_encoded_is_decoded_again(message):
    data = encode(message)
    assert body_size(data[: HEADER.size]) == len(data) - HEADER.size
    assert decoded(data) == message


@given(st.binary(min_size=8, max_size=200))
def test_any_bytes_are_a_message_or_a_remote_protocol_error(data):
    try:
        size = body_size(data[: HEADER.size])
        decode(data[: HEADER.size], data[HEADER.size :][:size])
    except RemoteProtocolError:
        pass


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)


@given(
    st.integers(0, 255),
    st.dictionaries(
        st.sampled_from(["version", "provider", "limits", "fields", "why"]), json_values
    ),
)
def test_any_object_is_a_message_or_a_remote_protocol_error(kind, content):
    try:
        message = decoded(with_body(kind, json.dumps(content).encode()))
    except RemoteProtocolError:
        return
    assert decoded(encode(message)) == message


@given(messages, st.data())
def test_a_message_with_one_byte_changed_never_raises_anything_else(message, data):
    damaged = bytearray(encode(message))
    damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with suppress(RemoteProtocolError):
        decoded(bytes(damaged))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"\xff\xfe",
        b"[" * MAX_BODY_BYTES,
        b'{"a":' * 800,
        b'{"why":' + b"9" * 4080 + b"}",
    ],
)
def test_a_body_made_to_hurt_the_parser_is_refused(body):
    for kind in (1, 3):
        with pytest.raises(RemoteProtocolError):
            decoded(with_body(kind, body))


@pytest.mark.parametrize("name", [each.name for each in fields(ChannelLimits)])
def test_a_limit_outside_its_range_is_refused_on_both_sides_by_its_name(name):
    low, high = LIMIT_RANGES[name]
    for value in (low - 1, high + 1, -(2**70), 2**70):
        bad = replace(ChannelLimits(), **{name: value})
        with pytest.raises(ConfigError, match=name):
            check_limits(bad)
        with pytest.raises(RemoteProtocolError, match=name):
            decoded(encode(Hello(provider="shm", limits=bad)))
    for value in (low, high):
        assert check_limits(replace(ChannelLimits(), **{name: value}))


def test_a_limit_that_is_true_or_a_fraction_is_no_number():
    for value in (True, 2.0, "32", None):
        bad = replace(ChannelLimits(), window=value)
        with pytest.raises(RemoteProtocolError, match="window"):
            decoded(encode(Hello(provider="shm", limits=bad)))


def test_a_stranger_and_a_size_that_is_too_large_are_seen_in_the_header():
    with pytest.raises(RemoteProtocolError, match="another kind of listener"):
        body_size(b"GET / HT")
    with pytest.raises(RemoteProtocolError, match=str(MAX_BODY_BYTES)):
        body_size(HEADER.pack(b"FrQP", 1, 0, MAX_BODY_BYTES + 1))


def test_what_would_be_too_large_is_not_sent():
    with pytest.raises(ConfigError, match=str(MAX_BODY_BYTES)):
        encode(Ready(fields={str(n): "x" * 500 for n in range(9)}))
    assert len(decoded(encode(Refused(why="y" * 10_000))).why) == MAX_TEXT_CHARS


@given(limits, limits)
def test_what_is_agreed_is_within_what_both_offered(ours, theirs):
    agreed = agree(ours, theirs)
    assert agreed == agree(theirs, ours)
    check_limits(agreed)
    check_agreed(ours, agreed)
    check_agreed(theirs, agreed)


def test_a_broker_that_agrees_to_more_than_was_offered_is_refused():
    with pytest.raises(RemoteProtocolError, match="more than our"):
        check_agreed(ChannelLimits(window=8), ChannelLimits(window=9))


def test_another_provider_and_another_version_are_refused_with_what_to_do():
    hello = Hello(provider="shm", limits=ChannelLimits())
    check_hello(hello, "shm")
    with pytest.raises(RemoteProtocolError, match="scheme"):
        check_hello(hello, "verbs")
    with pytest.raises(RemoteProtocolError, match="same version"):
        check_hello(replace(hello, version=VERSION + 1), "shm")


def test_fields_are_read_with_their_type_and_bound():
    found = {"key": 7, "gid": "fe80"}
    assert number_field(found, "key", 7) == 7
    assert text_field(found, "gid") == "fe80"
    for name, largest in (("key", 6), ("gid", 9), ("missing", 9)):
        with pytest.raises(RemoteProtocolError, match=name):
            number_field(found, name, largest)
    with pytest.raises(RemoteProtocolError, match="key"):
        text_field(found, "key")
