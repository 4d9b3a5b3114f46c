"""How many records are asked for at once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from frieda.bench.drivers.read_size import FIRST_RECORD_BYTES, MAX_RECORDS, ReadSize


def test_it_begins_carefully_and_follows_the_size_of_what_came() -> None:
    size = ReadSize(1024 * 1024)
    assert size.records == 1024 * 1024 // FIRST_RECORD_BYTES
    size.note(10, 10_000)
    assert size.records == 1048
    size.note(0, 0)
    assert size.records == 1048, "nothing came, nothing was learnt"
    size.note(5, 0)
    assert size.records == MAX_RECORDS
    size.note(1, 50_000_000)
    assert size.records == 1


@given(
    st.integers(1, 2**30),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 2**40)), max_size=5),
)
def test_it_is_always_within_its_bounds(max_bytes: int, came: list[tuple[int, int]]) -> None:
    size = ReadSize(max_bytes)
    for records, size_bytes in came:
        size.note(records, size_bytes)
        assert 1 <= size.records <= MAX_RECORDS
