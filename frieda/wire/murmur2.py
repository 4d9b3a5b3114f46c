"""Kafka's murmur2, so that a key lands in the partition where Kafka's own clients would put it.

Written as plain Python that Cython also compiles, typed by murmur2.pxd: the masks that keep a number to
32 bits cost nothing there. Source: org.apache.kafka.common.utils.Utils.murmur2 (MurmurHash 2 by Austin
Appleby, seed 0x9747b28c) and BuiltInPartitioner.partitionForKey.
"""

from __future__ import annotations

from typing import Final

# Named, since murmur2.pxd makes them C numbers: Cython takes a literal this large for a Python object.
_MASK: Final = 0xFFFFFFFF
_SEED: Final = 0x9747B28C
_M: Final = 0x5BD1E995


def murmur2(data: bytes) -> int:
    """The 32-bit hash of `data` as an unsigned number (Java shows the same bits as signed)."""
    p = data
    size = len(data)
    h = _SEED ^ (size & _MASK)
    position = 0
    while position + 4 <= size:
        k = p[position] | p[position + 1] << 8 | p[position + 2] << 16 | p[position + 3] << 24
        k = (k * _M) & _MASK
        k ^= k >> 24
        k = (k * _M) & _MASK
        h = ((h * _M) & _MASK) ^ k
        position += 4
    tail = size - position
    if tail == 3:
        h ^= p[position + 2] << 16
    if tail >= 2:
        h ^= p[position + 1] << 8
    if tail >= 1:
        h = ((h ^ p[position]) * _M) & _MASK
    h ^= h >> 13
    h = (h * _M) & _MASK
    return h ^ (h >> 15)


def partition_for_key(key: bytes, partition_count: int) -> int:
    """The partition, 0 to `partition_count` - 1, that Kafka's default partitioner gives `key`.

    ValueError when there is no partition to choose from.
    """
    if partition_count < 1:
        raise ValueError(f"a topic has at least one partition, not {partition_count}")
    return (murmur2(key) & 0x7FFFFFFF) % partition_count
