"""The fixed headers of Produce and its answer, and the quick check of a whole one against the thorough one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frieda.errors import BrokerError, LocalProtocolError, RemoteProtocolError
from frieda.testing.batches import make_batch
from frieda.wire.batch import BatchFacts, check_batch, facts_of
from frieda.wire.messages import ProduceRequest, ProduceResponse
from frieda.wire.produce import (
    ACKS_AT,
    ANSWER_BYTES,
    ANSWER_MARK,
    REQUEST_HEADER_BYTES,
    REQUEST_MARK,
    encode_produce,
    encode_produced,
    pack_correlation_id,
    plain_produce,
    produce_prefix,
    split_produce,
    split_produced,
)

REQUESTS = st.builds(
    ProduceRequest,
    topic_id=st.binary(min_size=16, max_size=16),
    partition=st.integers(-(2**31), 2**31 - 1),
    acks=st.integers(-128, 127),
    timeout_ms=st.integers(0, 2**32 - 1),
)
IDS = st.integers(0, 2**63 - 1)
PRODUCE = ProduceRequest(b"t" * 16, 3, 1, 1000)
NUMBERED: dict[str, Any] = {"producer_id": 7, "producer_epoch": 0, "base_sequence": 0}


def whole(batch: bytes, request: ProduceRequest = PRODUCE, correlation_id: int = 9) -> memoryview:
    return memoryview(bytearray(encode_produce(correlation_id, request) + batch))


@given(request=REQUESTS, correlation_id=IDS, version=st.integers(0, 255))
def test_a_request_comes_back(request: ProduceRequest, correlation_id: int, version: int) -> None:
    head = encode_produce(correlation_id, request, version)
    assert len(head) == REQUEST_HEADER_BYTES
    assert (head[0], head[ACKS_AT]) == (REQUEST_MARK, request.acks % 256)
    assert produce_prefix(request, version) + pack_correlation_id(correlation_id) == head
    assert split_produce(memoryview(head + b"batch")) == (version, correlation_id, request)


@given(correlation_id=IDS, base=st.integers(-1, 2**63 - 1), start=st.integers(-1, 2**63 - 1))
def test_an_answer_comes_back(correlation_id: int, base: int, start: int) -> None:
    message = encode_produced(correlation_id, base, start)
    assert (message[0], len(message)) == (ANSWER_MARK, ANSWER_BYTES)
    assert split_produced(memoryview(message)) == (correlation_id, ProduceResponse(base, start))


def test_a_header_cut_or_too_long_at_any_byte_is_refused() -> None:
    head = encode_produce(9, PRODUCE)
    for size in range(len(head)):
        with pytest.raises(RemoteProtocolError, match=f"a Produce of {size} bytes"):
            split_produce(memoryview(head[:size]))
        assert plain_produce(memoryview(head[:size])) is None
    answer = encode_produced(9, 7, 0) + b"xx"
    for size in {*range(1, len(answer) + 1)} - {ANSWER_BYTES}:
        with pytest.raises(RemoteProtocolError, match="an answer to Produce has 32 bytes"):
            split_produced(memoryview(answer[:size]))


def test_a_negative_correlation_id_is_refused() -> None:
    message = memoryview(produce_prefix(PRODUCE) + pack_correlation_id(-1))
    with pytest.raises(RemoteProtocolError, match="correlation id"):
        split_produce(message)


@pytest.mark.parametrize(
    "changes",
    [{"topic_id": b"short"}, {"partition": 2**31}, {"acks": 128}, {"timeout_ms": -1}],
)
def test_what_has_no_room_in_the_header_is_refused_before_it_is_sent(changes: Any) -> None:
    with pytest.raises(LocalProtocolError):
        encode_produce(1, PRODUCE._replace(**changes))


@given(
    values=st.lists(st.binary(max_size=300), min_size=1, max_size=20),
    producer=st.sampled_from([(-1, -1, -1), (7, 0, 0), (2**62, 2**15 - 1, 2**31 - 1)]),
    correlation_id=IDS,
    partition=st.integers(-(2**31), 2**31 - 1),
    acks=st.integers(-1, 1),
)
def test_a_sound_batch_is_understood_at_once(
    values: list[bytes],
    producer: tuple[int, int, int],
    correlation_id: int,
    partition: int,
    acks: int,
) -> None:
    producer_id, epoch, sequence = producer
    batch = bytes(
        make_batch(values, producer_id=producer_id, producer_epoch=epoch, base_sequence=sequence)
    )
    header = check_batch(batch)
    request = PRODUCE._replace(partition=partition, acks=acks)
    assert plain_produce(whole(batch, request, correlation_id)) == (
        correlation_id,
        request.topic_id,
        partition,
        acks,
        BatchFacts(*producer, len(values) - 1, header.max_timestamp_ms),
    )


@given(data=st.data(), value=st.binary(min_size=1, max_size=64))
def test_whatever_is_spoiled_is_left_to_the_thorough_check(
    data: st.DataObject, value: bytes
) -> None:
    message = whole(bytes(make_batch([value, value], **NUMBERED)))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(message) - 1))
        message[at] = data.draw(st.integers(0, 255))
    cut = message[: data.draw(st.integers(0, len(message)) | st.just(len(message)))]
    understood = plain_produce(cut)
    try:
        version, correlation_id, request = split_produce(cut)
        header = check_batch(cut[REQUEST_HEADER_BYTES:])
    except (RemoteProtocolError, BrokerError):
        assert understood is None
        return
    if understood is None:
        assert version != 0 or cut[0] != REQUEST_MARK or not -1 <= request.acks <= 1
    else:
        assert understood[:4] == (correlation_id, *request[:3])
        assert understood.batch == facts_of(header)


def test_a_compressed_batch_is_left_to_the_thorough_check() -> None:
    batch = bytes(make_batch([b"x" * 100], compression="gzip"))
    assert check_batch(batch).compression == "gzip"
    assert plain_produce(whole(batch)) is None


def test_counts_and_timestamps_that_cannot_be_are_left_to_the_thorough_check() -> None:
    from frieda.wire.batch import _CRC_AT, _CRC_STARTS_AT  # noqa: PLC0415
    from frieda.wire.crc import crc32c  # noqa: PLC0415

    for at, new in (
        (23, b"\x00\x00\x00\x07"),  # last offset delta
        (57, b"\x00\x00\x00\x00"),  # no records
        (27, b"\xff" * 7 + b"\xfe"),  # base timestamp -2
        (35, b"\x7f" + b"\xff" * 7),  # max timestamp 2^63 - 1
        (51, b"\xff\xff"),  # an epoch of -1 with a producer id
        (53, b"\xff\xff\xff\xff"),  # a sequence of -1 with a producer id
        (21, b"\x00\x20"),  # a control batch
    ):
        batch = bytearray(make_batch([b"x"], **NUMBERED))
        batch[at : at + len(new)] = new
        batch[_CRC_AT : _CRC_AT + 4] = crc32c(batch, _CRC_STARTS_AT).to_bytes(4, "big")
        with pytest.raises(BrokerError):
            check_batch(batch)
        assert plain_produce(whole(bytes(batch))) is None
