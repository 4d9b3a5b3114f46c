"""Which brokers hold a new partition: leaders spread evenly, replicas over as many racks as there are. PURE.

Brokers are put into a list that alternates between racks. The first replica of partition p lies at position
p + start of it; the others follow at a shift that grows each time p has gone round, so that the followers of one
broker's partitions are spread too. A broker is skipped while its rack has a replica and another rack has none.
Source: KIP-36 and Kafka's `AdminUtils.assignReplicasToBrokers`; a broker without a rack counts as a rack of its own,
which makes the algorithm without racks a special case.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from zlib import crc32

from frieda.errors import BrokerError, ErrorCode

Assignment = tuple[tuple[int, ...], ...]
"""For each partition its replicas, the preferred leader first."""


def place(
    topic: str,
    partitions: int,
    replication_factor: int,
    racks: Mapping[int, str | None],
    *,
    first_partition: int = 0,
) -> Assignment:
    """Replicas for the partitions from `first_partition` on; the same for the same arguments.

    `racks`: each broker that may be chosen, with its rack. Topics begin at different brokers, by their names.
    Raises BrokerError(INVALID_REPLICATION_FACTOR) when there are too few brokers.
    """
    if not 1 <= replication_factor <= len(racks):
        raise BrokerError(
            ErrorCode.INVALID_REPLICATION_FACTOR,
            f"a replication factor of {replication_factor} needs as many brokers; there are {len(racks)}",
        )
    rack_of = {broker: rack if rack is not None else broker for broker, rack in racks.items()}
    brokers = alternate_racks(rack_of)
    start = crc32(topic.encode()) % len(brokers)
    return tuple(
        _replicas(brokers, rack_of, replication_factor, start, partition)
        for partition in range(first_partition, first_partition + partitions)
    )


def alternate_racks(rack_of: Mapping[int, str | int]) -> list[int]:
    """The brokers in turns: the first of each rack, the second of each rack, and so on."""
    by_rack: dict[str | int, list[int]] = {}
    for broker in sorted(rack_of):
        by_rack.setdefault(rack_of[broker], []).append(broker)
    racks = sorted(by_rack.values(), key=lambda members: (str(rack_of[members[0]]), members))
    return [broker for turn in zip_longest(*racks) for broker in turn if broker is not None]


def check_assignment(assignment: Sequence[Sequence[int]], brokers: Mapping[int, object]) -> None:
    """Raise BrokerError for replicas that someone wrote down and that cannot be."""
    if not assignment:
        raise BrokerError(ErrorCode.INVALID_PARTITIONS, "a topic has at least one partition")
    for partition, replicas in enumerate(assignment):
        unknown = [broker for broker in replicas if broker not in brokers]
        if not replicas or len(set(replicas)) != len(replicas) or unknown:
            problem = f"broker {unknown[0]} is not there" if unknown else "each broker at most once"
            raise BrokerError(
                ErrorCode.INVALID_REPLICATION_FACTOR,
                f"partition {partition} cannot have the replicas {list(replicas)}: {problem}",
            )


def _replicas(
    brokers: Sequence[int],
    rack_of: Mapping[int, str | int],
    replication_factor: int,
    start: int,
    partition: int,
) -> tuple[int, ...]:
    count = len(brokers)
    first = (partition + start) % count
    chosen = [brokers[first]]
    used_racks = {rack_of[brokers[first]]}
    rack_count = len(set(rack_of.values()))
    shift = start + (partition // count) * rack_count
    step = 0
    while len(chosen) < replication_factor:
        broker = brokers[(first + 1 + (shift + step) % (count - 1)) % count]
        step += 1
        rack = rack_of[broker]
        if broker not in chosen and (rack not in used_racks or len(used_racks) == rack_count):
            chosen.append(broker)
            used_racks.add(rack)
    return tuple(chosen)
