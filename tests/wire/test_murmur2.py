from types import SimpleNamespace

import pytest
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.partitioner import murmur2 as aiokafka_murmur2
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("key", "signed"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_the_vectors_of_kafkas_own_test(codec: SimpleNamespace, key: bytes, signed: int) -> None:
    assert codec.murmur2.murmur2(key) == signed & 0xFFFFFFFF


@given(key=st.binary(max_size=40))
def test_the_hash_is_that_of_another_client(codec: SimpleNamespace, key: bytes) -> None:
    assert codec.murmur2.murmur2(key) == aiokafka_murmur2(key) & 0xFFFFFFFF


@given(key=st.binary(max_size=40), count=st.integers(1, 2000))
def test_a_key_lands_where_another_client_puts_it(
    codec: SimpleNamespace, key: bytes, count: int
) -> None:
    partitions = list(range(count))
    expected = DefaultPartitioner()(key, partitions, partitions)
    assert codec.murmur2.partition_for_key(key, count) == expected


@pytest.mark.parametrize("count", [0, -1])
def test_a_topic_without_partitions_is_an_error(codec: SimpleNamespace, count: int) -> None:
    with pytest.raises(ValueError, match="at least one partition"):
        codec.murmur2.partition_for_key(b"key", count)
