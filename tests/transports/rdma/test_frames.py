from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frieda.errors import ConfigError, RemoteProtocolError
from frieda.transports.rdma.credits import RESERVED
from frieda.transports.rdma.eager import EagerQueue, thresholds
from frieda.transports.rdma.frames import (
    BATCH,
    EAGER,
    FIN,
    HEADER,
    HEADER_BYTES,
    MAX_BATCH,
    RTS,
    Chunk,
    headers,
    pack_fin,
    pack_rts,
    read_fin,
    read_messages,
    read_rts,
)
from frieda.transports.rdma.provider import RemoteMemory

MAX = 1000
U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)


@given(st.binary(max_size=200), st.sampled_from((None, EAGER, BATCH, RTS, FIN)))
def test_any_bytes_are_read_within_their_bounds_or_refused(data, kind):
    frame = memoryview((b"" if kind is None else HEADER.pack(kind, 1)) + data)
    if len(frame) < HEADER_BYTES:
        return
    for read in (lambda: read_rts(frame, MAX), lambda: read_fin(frame)):
        with suppress(RemoteProtocolError):
            read()
    try:
        messages = read_messages(frame, MAX)
    except RemoteProtocolError:
        return
    assert 0 < len(messages) <= MAX_BATCH
    assert all(0 < len(each) <= MAX for each in messages)
    assert sum(map(len, messages)) <= len(frame) - HEADER_BYTES


@given(st.integers(0, 65535), U32, U32, U32, U32, U64, U64)
def test_an_rts_is_read_back_or_refused(credits, id_, total, position, size, key, address):
    chunk = Chunk(id_, total, position, RemoteMemory(address, key, size))
    frame = memoryview(pack_rts(credits, chunk))
    assert HEADER.unpack_from(frame) == (RTS, credits)
    legal = 0 < total <= MAX and size > 0 and position + size <= total
    if legal:
        assert read_rts(frame, MAX) == chunk
    else:
        with pytest.raises(RemoteProtocolError):
            read_rts(frame, MAX)


@given(st.lists(U32, min_size=1, max_size=50))
def test_a_fin_is_read_back(ids):
    assert read_fin(memoryview(pack_fin(3, ids))) == tuple(ids)


@given(st.lists(st.tuples(st.integers(1, 508), st.integers(0, 508)), min_size=1, max_size=300))
def test_queued_messages_leave_in_order_as_few_frames_that_fit(sizes):
    queue = EagerQueue(512)
    messages = [bytes([number % 256]) * size for number, (size, _) in enumerate(sizes)]
    for message, (size, cut) in zip(messages, sizes, strict=True):
        queue.append(message[:cut], message[cut:] if 0 < cut < size else None, None, size)
        if not 0 < cut < size:
            queue._messages[-1] = (message, None, None, size)
    read = []
    while queue:
        count, pieces = queue.frame(5)
        frame = b"".join(pieces)
        assert len(frame) <= 512
        assert HEADER.unpack_from(frame) == (BATCH if count > 1 else EAGER, 5)
        read += [bytes(each) for each in read_messages(memoryview(frame), 508)]
        queue.taken(count)
    assert read == messages
    assert queue.queued_bytes == 0


def test_headers_are_made_once_for_every_number_of_credits():
    assert [HEADER.unpack(each) for each in headers(EAGER, 3)] == [(EAGER, n) for n in range(4)]


@pytest.mark.parametrize("window", [8, 9, 32, 512])
def test_the_threshold_is_a_whole_slot_while_half_the_window_is_free_and_falls_with_the_credits(
    window,
):
    table = thresholds(window, 32 * 1024, None)
    assert len(table) == window + 1
    assert list(table) == sorted(table)
    assert set(table[window // 2 :]) == {32 * 1024 - HEADER_BYTES}
    assert table[RESERVED] == table[0] == (32 * 1024 - HEADER_BYTES) // 4


def test_a_threshold_that_is_set_stays():
    assert set(thresholds(8, 32 * 1024, 5000)) == {5000}
    assert set(thresholds(8, 4096, 5000)) == {4092}
    with pytest.raises(ConfigError, match="rdma_eager_bytes = 255"):
        thresholds(8, 4096, 255)
