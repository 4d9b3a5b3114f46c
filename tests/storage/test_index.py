"""The index files: Kafka's formats, and what can't be right is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frieda.storage.index import IndexDamagedError, OffsetIndex, TimeIndex

pairs = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), max_size=50).map(
    lambda entries: list(
        zip(sorted({a for a, _ in entries}), sorted({b for _, b in entries}), strict=False)
    )
)


@given(pairs, st.integers(0, 10**6))
def test_an_offset_index_finds_the_entry_at_or_below(entries, wanted):
    index = OffsetIndex()
    for offset, position in entries:
        index.append(offset, position)
    again = OffsetIndex.decode(index.encode(), 10**6 + 1, 10**6 + 1)
    expected = max((e for e in entries if e[0] <= wanted), default=(-1, 0))
    assert again.lookup(wanted) == index.lookup(wanted) == expected
    assert list(again.entries()) == entries


@given(pairs, st.integers(0, 10**6))
def test_a_time_index_never_points_behind_the_first_record_of_a_time(entries, wanted):
    index = TimeIndex()
    for stamp, offset in entries:
        index.append(stamp, offset)
    again = TimeIndex.decode(index.encode(), 10**6 + 1)
    assert again.lookup(wanted) == max((o for t, o in entries if t < wanted), default=0)
    assert again.last() == (entries[-1] if entries else (-1, 0))


def test_the_files_are_big_endian_as_kafkas():
    index = OffsetIndex()
    index.append(1, 2)
    assert index.encode() == bytes.fromhex("0000000100000002")
    times = TimeIndex()
    times.append(3, 4)
    times.append(3, 9)
    assert times.encode() == bytes.fromhex("000000000000000300000004")


@pytest.mark.parametrize(
    "data", ["00", "0000000500000002" * 2, "0000000100000099", "0000009900000001"]
)
def test_an_offset_index_that_cannot_be_right_is_refused(data):
    with pytest.raises(IndexDamagedError):
        OffsetIndex.decode(bytes.fromhex(data), segment_size_bytes=50, offset_count=50)


@given(st.binary(max_size=100))
def test_garbage_is_read_or_refused(data):
    for decode in (
        lambda: OffsetIndex.decode(data, 1000, 1000),
        lambda: TimeIndex.decode(data, 1000),
    ):
        try:
            index = decode()
        except IndexDamagedError:
            continue
        assert index.encode() == data
