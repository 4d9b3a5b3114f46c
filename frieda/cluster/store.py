"""The contract of a metadata store: what a broker asks of whoever keeps the cluster's state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from frieda.cluster.election import Tail
from frieda.cluster.state import BrokerRegistration, ClusterState, PartitionState, TopicState
from frieda.model import TopicPartition


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterChange:
    """What is different between two moments that follow each other; both are whole pictures."""

    before: ClusterState
    after: ClusterState
    brokers: frozenset[int] = frozenset()
    """That came, went or registered something else."""
    topics: frozenset[str] = frozenset()
    """That were made, deleted, made again, got other settings or more partitions."""
    partitions: frozenset[TopicPartition] = frozenset()
    """Whose state is another, those of new and of deleted topics among them."""
    controller: bool = False
    """Somebody else is controller, or nobody."""
    orders: bool = False
    """The controller was told to move leadership back to preferred leaders."""


ChangeListener = Callable[[ClusterChange], None]


class MetadataStore(Protocol):
    """Used on the event loop by one broker, which opens and closes it.

    Every method that changes something raises CoordinationError when it is not known whether it was done, and
    BrokerError for what cannot be done (a topic that is there already, too few brokers).
    """

    @property
    def state(self) -> ClusterState:
        """Everything as known here now; whole, never changed in place."""
        ...

    @property
    def lease_until_ns(self) -> int:
        """Until this moment of the monotonic clock nobody else is given what this broker leads for its silence.

        In nanoseconds; 0 without a registration. What it is told to hand over (a stop that it announced, a preferred
        leader, a reassignment) may go before, as soon as the state says so.
        """
        ...

    def on_change(self, listener: ChangeListener) -> None:
        """Have each change told, on the loop, in order; `state` is the new one by then."""
        ...

    async def open(self) -> None:
        """Connect and know everything. Raises CoordinationError."""
        ...

    async def close(self) -> None:
        """Leave the cluster."""
        ...

    async def register(
        self,
        registration: BrokerRegistration,
        *,
        replaces: str | None = None,
        tails: Mapping[tuple[bytes, int], Tail] | None = None,
    ) -> BrokerRegistration:
        """Join the cluster, and stay in it. The `number` of the result says which registration it became.

        `replaces`: the incarnation of this broker's last life, which is known to be over. `tails`: where its logs
        end, by topic id and partition, when it is not certain of them. Raises ConfigError when another process has
        this broker id.
        """
        ...

    async def hand_over(self, timeout_s: float) -> int:
        """Have what this broker leads given to others, before it stops; how many partitions it still leads then.

        What has no other replica in sync stays. Returns at the latest after `timeout_s`.
        """
        ...

    async def create_topic(
        self,
        name: str,
        *,
        partitions: int = 1,
        replication_factor: int = 1,
        configs: Mapping[str, str] | None = None,
        assignment: Sequence[Sequence[int]] | None = None,
    ) -> TopicState:
        """A new topic, its leaders elected. `assignment`: the replicas of each partition, instead of a choice."""
        ...

    async def alter_topic(self, name: str, configs: Mapping[str, str]) -> TopicState:
        """Replace a topic's settings."""
        ...

    async def add_partitions(
        self, name: str, partitions: int, assignment: Sequence[Sequence[int]] | None = None
    ) -> TopicState:
        """Let a topic have `partitions` in all."""
        ...

    async def delete_topic(self, name: str) -> None:
        """A topic and all its partitions."""
        ...

    async def change_isr(
        self,
        topic_id: bytes,
        index: int,
        expected: PartitionState,
        isr: Sequence[int],
        *,
        joining: Mapping[int, int] | None = None,
    ) -> PartitionState:
        """Compare and set by the leader: its ISR becomes `isr`, if the state is still `expected`.

        By the topic's id: what a leader of a deleted topic asks for must not meet another of its name.
        `joining`: of each broker that is new in it, the `number` of the registration that has caught up.
        Raises ConflictError when the state or one of the registrations is another by now: look again.
        """
        ...

    async def allocate_producer_ids(self) -> range:
        """A block of producer ids that nobody else has had or will have."""
        ...

    async def reassign(
        self, partition: TopicPartition, target: Sequence[int] | None
    ) -> PartitionState:
        """Set out to move a partition to `target`; None: back, cancelling a move under way."""
        ...

    async def prefer_leaders(self, partitions: Sequence[TopicPartition] | None = None) -> None:
        """Tell the controller to move leadership back to preferred leaders, of all partitions or of these."""
        ...
