"""What a cluster agrees on: its brokers, and of each partition who leads it, since when, and who is in sync.

Plain values; `frieda.cluster` keeps them in a metadata store, `frieda.replication` acts on them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

NO_LEADER: Final = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerRegistration:
    """A broker that is there, as it registered itself."""

    broker_id: int
    incarnation: str
    """This life of this broker: another after each restart."""
    listeners: tuple[str, ...]
    """Where clients and other brokers reach it."""
    rack: str | None = None
    tail_certain: bool = True
    """False after a start that may have lost an acknowledged tail: the machine went down and the logs were not
    synced before each acknowledgement. Such a replica is in sync only after it has caught up again, and must not
    be elected as if it had everything (the "last replica standing" of KIP-966)."""
    stopping: bool = False
    """It wants to hand over what it leads."""
    number: int = 0
    """Which registration of this broker it is: grows each time. A replica joins an ISR only as the registration that
    has caught up, not as a later one that may have lost its tail meanwhile (as KIP-903)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionState:
    """Of one partition. Changed by compare-and-set on `version`, fenced by `controller_epoch`.

    `leader_epoch` grows with every election, also when the same broker is elected again. `isr` holds the leader
    while there is one; without a leader it is the last that was agreed on, from whom alone a clean election picks.
    """

    replicas: tuple[int, ...]
    """Who shall have it, the preferred leader first."""
    leader: int = NO_LEADER
    leader_incarnation: str = ""
    """The life of the leader that was elected. Another life of the same broker does not lead: it is elected anew."""
    leader_epoch: int = 0
    isr: tuple[int, ...]
    controller_epoch: int = 0
    adding: tuple[int, ...] = ()
    removing: tuple[int, ...] = ()
    """Of a reassignment that is under way; both are among `replicas` until it is done."""
    version: int = 0
    """Of the stored value: what a compare-and-set names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicState:
    """A topic and its partitions, by index. `configs` holds only what differs from the broker's own."""

    name: str
    topic_id: bytes
    configs: dict[str, str] = field(default_factory=dict)
    partitions: tuple[PartitionState, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterState:
    """Everything at one moment, as one broker knows it."""

    cluster_id: str
    controller_id: int = NO_LEADER
    controller_epoch: int = 0
    brokers: dict[int, BrokerRegistration] = field(default_factory=dict)
    topics: dict[str, TopicState] = field(default_factory=dict)
