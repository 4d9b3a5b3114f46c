"""Messages decode from exactly the fields they declare, and from nothing else."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frieda.wire.messages import APIS, OffsetCommit, ProduceRequest
from frieda.wire.schema import SchemaError, decode_fields


class Inner(NamedTuple):
    name: str
    size: int


class Outer(NamedTuple):
    number: int
    label: str | None
    inner: tuple[Inner, ...]
    table: dict[str, str]
    added_later: int = 7


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.binary(max_size=8)
    | st.text(max_size=8)
    | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=10,
)


def test_a_flat_message_decodes_from_its_fields() -> None:
    assert decode_fields(ProduceRequest, (b"i" * 16, 3, 1, 30)) == ProduceRequest(
        b"i" * 16, 3, 1, 30
    )


def test_nested_messages_optionals_and_tables_decode() -> None:
    decoded = decode_fields(Outer, (1, None, (("a", 2), ("b", 3)), {"k": "v"}, 9))
    assert decoded == Outer(1, None, (Inner("a", 2), Inner("b", 3)), {"k": "v"}, 9)


def test_a_field_that_an_older_peer_does_not_send_takes_its_default() -> None:
    assert decode_fields(Outer, (1, "x", (), {})).added_later == 7


def test_a_field_that_this_side_does_not_know_yet_is_ignored() -> None:
    assert decode_fields(Outer, (1, "x", (), {}, 8, "from the future")) == Outer(1, "x", (), {}, 8)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ((1, "x", ()), "fields"),
        (("1", "x", (), {}), "number"),
        ((True, "x", (), {}), "number"),
        ((1, b"x", (), {}), "label"),
        ((1, "x", {}, {}), "inner"),
        ((1, "x", (("a",),), {}), "inner"),
        ((1, "x", (("a", None),), {}), "size"),
        ((1, "x", ("a",), {}), "inner"),
        ((1, "x", (), {"k": 1}), "table"),
        ((1, "x", (), {b"k": "v"}), "table"),
        ((1, "x", (), ()), "table"),
    ],
)
def test_a_field_of_the_wrong_type_is_named(fields: tuple[Any, ...], named: str) -> None:
    with pytest.raises(SchemaError, match=named):
        decode_fields(Outer, fields)


@pytest.mark.parametrize("api", APIS.values(), ids=lambda api: api.key.name)
@given(fields=st.lists(ANYTHING, max_size=6).map(tuple))
def test_garbage_fields_decode_or_raise_schema_error(api: Any, fields: tuple[Any, ...]) -> None:
    for message_type in (api.request, api.response):
        try:
            decoded = decode_fields(message_type, fields)
        except SchemaError:
            continue
        assert isinstance(decoded, message_type)


def test_a_message_with_a_type_that_cannot_travel_is_refused_when_first_used() -> None:
    class Wrong(NamedTuple):
        number: int | str

    with pytest.raises(TypeError, match="not a type that a message may have"):
        decode_fields(Wrong, (1,))


def test_nested_arrays_are_named_by_their_message() -> None:
    with pytest.raises(SchemaError, match="OffsetCommit"):
        decode_fields(OffsetCommit, ("t",))
