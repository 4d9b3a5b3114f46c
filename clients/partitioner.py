"""Which partition a record goes to: the one that was asked for, the one of its key, or the sticky one. PURE.

By key as Kafka's clients do it (murmur2), so that keys land where those would put them. Without a key all
records go to one partition until about a batch's worth of bytes went there, then to another: small batches are
what many partitions would otherwise cost (KIP-480; counted in bytes and not in batches, as KIP-794, so that
single records sent one at a time do not hop from partition to partition).
"""

from __future__ import annotations

import random
from collections.abc import Callable

from frieda.wire.murmur2 import partition_for_key


class Partitioner:
    """The choice for one topic. `switch_bytes` is how much goes to a sticky partition before the next."""

    __slots__ = (
        "_available",
        "_choose",
        "_left_bytes",
        "_switch_bytes",
        "partition_count",
        "sticky",
    )

    def __init__(
        self,
        partition_count: int,
        switch_bytes: int,
        choose: Callable[[int], int] = random.randrange,
    ) -> None:
        self.partition_count = partition_count
        self._available: tuple[int, ...] = tuple(range(partition_count))
        self._choose = choose
        self._switch_bytes = switch_bytes
        self._left_bytes = switch_bytes
        self.sticky = self._available[choose(partition_count)]

    def set_available(self, partition_count: int, available: tuple[int, ...]) -> None:
        """The topic's partitions changed: `available` are those with a leader (none: all are tried)."""
        self.partition_count = partition_count
        self._available = available or tuple(range(partition_count))
        if self.sticky not in self._available:
            self._switch()

    def for_key(self, key: bytes) -> int:
        """Where records of this key go, whether its leader is there or not."""
        return partition_for_key(key, self.partition_count)

    def next_sticky(self, size_bytes: int) -> int:
        """Where a record of this size without a key goes."""
        partition = self.sticky
        self._left_bytes -= size_bytes
        if self._left_bytes <= 0:
            self._switch()
        return partition

    def _switch(self) -> None:
        self._left_bytes = self._switch_bytes
        others = [partition for partition in self._available if partition != self.sticky]
        if others:
            self.sticky = others[self._choose(len(others))]
        elif self._available:
            self.sticky = self._available[0]
