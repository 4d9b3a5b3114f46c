"""Which partition a record goes to."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from frieda.clients.partitioner import Partitioner
from frieda.wire.murmur2 import partition_for_key


def first(_count: int) -> int:
    return 0


@given(st.binary(max_size=40), st.integers(1, 50))
def test_a_key_goes_where_kafkas_clients_send_it(key: bytes, count: int) -> None:
    assert Partitioner(count, 1000).for_key(key) == partition_for_key(key, count)


def test_records_without_a_key_stay_until_a_batchs_worth_of_bytes() -> None:
    partitioner = Partitioner(3, 1000, first)
    chosen = [partitioner.next_sticky(100) for _ in range(30)]
    assert chosen == [0] * 10 + [1] * 10 + [0] * 10


def test_one_partition_is_enough() -> None:
    partitioner = Partitioner(1, 100, first)
    assert {partitioner.next_sticky(1000) for _ in range(5)} == {0}


def test_partitions_without_a_leader_are_left_out() -> None:
    partitioner = Partitioner(3, 100, first)
    partitioner.set_available(3, (1, 2))
    assert {partitioner.next_sticky(100) for _ in range(10)} == {1, 2}
    partitioner.set_available(3, ())
    assert {partitioner.next_sticky(100) for _ in range(10)} >= {0, 1}


@given(st.lists(st.integers(1, 500), min_size=1, max_size=200), st.integers(1, 9))
def test_every_choice_is_a_partition(sizes: list[int], count: int) -> None:
    partitioner = Partitioner(count, 256)
    assert all(0 <= partitioner.next_sticky(size) < count for size in sizes)


def test_a_topic_that_grows_gets_records_in_its_new_partitions() -> None:
    partitioner = Partitioner(1, 100, lambda count: count - 1)
    partitioner.set_available(4, (0, 1, 2, 3))
    assert {partitioner.next_sticky(100) for _ in range(10)} <= {0, 2, 3}
    assert partitioner.for_key(b"k") == partition_for_key(b"k", 4)
