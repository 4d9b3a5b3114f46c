"""The bytes of replication: there and back, and what garbage does."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from frieda.errors import LocalProtocolError, RemoteProtocolError
from frieda.replication.codec import Addressed, decode, encode
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

TOPIC = bytes(range(16))
numbers = st.integers(0, 2**63 - 1)
lives = st.text(max_size=60)


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    epochs = sorted(draw(st.sets(numbers, max_size=10)))
    ends = sorted(draw(st.lists(numbers, min_size=len(epochs), max_size=len(epochs))))
    start, end = sorted((draw(numbers), draw(numbers)))
    listed = tuple(map(EpochEnd, epochs, ends))
    return Answer(
        draw(numbers), draw(numbers), draw(lives), listed, draw(st.booleans()), start, end
    )


@st.composite
def appends(draw: st.DrawFn) -> Append:
    base = draw(st.integers(0, 2**62))
    end = base + draw(st.integers(1, 1000))
    batches = draw(st.binary(min_size=1, max_size=300))
    size = len(batches)
    return Append(
        draw(numbers), draw(numbers), base, end, size, draw(numbers), draw(numbers), batches
    )


messages = st.one_of(
    st.builds(Question, numbers, numbers, numbers),
    st.builds(Beat, numbers, numbers, numbers, numbers),
    st.builds(Progress, numbers, numbers, numbers, numbers),
    st.builds(Fenced, numbers),
    st.builds(Lost, numbers, numbers),
    st.builds(Begin, numbers, numbers, lives, numbers, st.booleans(), numbers, numbers),
    answers(),
    appends(),
)


def on_the_wire(message: ReplicationMessage, partition: int = 3) -> bytes:
    head = encode(TOPIC, partition, message)
    if isinstance(message, Append):
        assert isinstance(message.batches, bytes)
        return head + message.batches
    return head


@given(messages, st.integers(0, 2**31 - 1))
def test_a_message_comes_out_as_it_went_in(message: ReplicationMessage, partition: int) -> None:
    data = on_the_wire(message, partition)
    assert decode(memoryview(data)) == Addressed(TOPIC, partition, message)


@given(messages, st.data())
def test_a_message_that_is_cut_or_has_bytes_too_many_is_refused(
    message: ReplicationMessage, data: st.DataObject
) -> None:
    whole = on_the_wire(message)
    cut = data.draw(st.integers(0, len(whole) - 1))
    for wrong in (whole[:cut], whole + b"\0"):
        with pytest.raises(RemoteProtocolError):
            decode(memoryview(wrong))


@given(st.binary(max_size=200), st.integers(0, 9))
@example(b"", 0)
def test_garbage_parses_or_is_refused(rest: bytes, kind: int) -> None:
    data = memoryview(bytes((kind,)) + TOPIC + b"\0\0\0\1" + rest)
    try:
        decoded = decode(data)
    except RemoteProtocolError:
        return
    assert on_the_wire_again(decoded) == bytes(data)


def on_the_wire_again(decoded: Addressed) -> bytes:
    head = encode(decoded.topic_id, decoded.partition, decoded.message)
    if isinstance(decoded.message, Append):
        assert isinstance(decoded.message.batches, memoryview)
        return head + bytes(decoded.message.batches)
    return head


def test_the_batches_of_an_append_are_not_copied() -> None:
    data = bytearray(on_the_wire(Append(1, 1, 0, 1, 4, 0, 0, b"abcd")))
    message = decode(memoryview(data)).message
    data[-1:] = b"x"
    assert isinstance(message, Append)
    assert bytes(message.batches) == b"abcx"  # type: ignore[call-overload]


def test_an_answer_with_more_epochs_than_the_bound_is_refused() -> None:
    epochs = tuple(EpochEnd(number, number) for number in range(MAX_EPOCHS + 1))
    with pytest.raises(RemoteProtocolError, match="at most 1000"):
        decode(memoryview(on_the_wire(Answer(1, 1, "a", epochs, False, 0, 9))))


def test_epochs_out_of_order_are_refused() -> None:
    epochs = (EpochEnd(2, 5), EpochEnd(1, 9))
    with pytest.raises(RemoteProtocolError, match="out of order"):
        decode(memoryview(on_the_wire(Answer(1, 1, "a", epochs, False, 0, 9))))


def test_a_negative_number_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="negative"):
        decode(memoryview(on_the_wire(Progress(1, 1, -1, 0))))


def test_an_incarnation_that_is_too_long_is_not_sent() -> None:
    with pytest.raises(LocalProtocolError, match="256 bytes"):
        encode(TOPIC, 0, Begin(1, 1, "x" * 256, 0, False, 0, 0))
