"""What a client knows of the cluster: topics by name and by id, their partitions, leaders and addresses. PURE.

One MetadataResponse may speak of some topics only; what it says of them replaces what was known, and all else
stays.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from frieda.errors import BrokerError, ErrorCode
from frieda.wire.messages import BrokerEntry, MetadataResponse, PartitionEntry, TopicEntry


@dataclass(frozen=True, slots=True)
class TopicMetadata:
    """One topic that exists. `partitions[n]` is partition n."""

    name: str
    topic_id: bytes
    partitions: tuple[PartitionEntry, ...]

    @property
    def partition_count(self) -> int:
        return len(self.partitions)


class Place(NamedTuple):
    """Where something is served: by a broker at any of its listeners, or at endpoints of its own."""

    broker_id: int
    """-1: at these endpoints and nowhere else."""
    listeners: tuple[str, ...]
    host: str
    """The identity of the kernel it runs on, empty when not told."""

    @property
    def key(self) -> object:
        """What stays the same when the addresses of a broker change."""
        return self.listeners if self.broker_id < 0 else self.broker_id


class ClusterMetadata:
    """The cache. Owned by a Network, which updates it."""

    __slots__ = ("_brokers", "_errors", "_names", "_topics", "cluster_id", "updates")

    def __init__(self) -> None:
        self.cluster_id = ""
        self.updates = 0
        """How many answers were taken up."""
        self._brokers: dict[int, BrokerEntry] = {}
        self._topics: dict[str, TopicMetadata] = {}
        self._names: dict[bytes, str] = {}
        self._errors: dict[str, BrokerError] = {}

    @property
    def brokers(self) -> tuple[BrokerEntry, ...]:
        return tuple(self._brokers.values())

    @property
    def topics(self) -> tuple[TopicMetadata, ...]:
        """Every topic known to exist."""
        return tuple(self._topics.values())

    def update(self, response: MetadataResponse, asked: Iterable[str] | None = None) -> None:
        """Take up an answer. `asked` are the topics the request named, None when it asked for all.

        A topic that was asked for and is not in the answer, or any that is missing from an answer for all, is
        forgotten with UNKNOWN_TOPIC_OR_PARTITION.
        """
        self.updates += 1
        self.cluster_id = response.cluster_id
        self._brokers = {broker.broker_id: broker for broker in response.brokers}
        answered = {topic.name for topic in response.topics}
        for name in set(self._topics) if asked is None else asked:
            if name not in answered:
                self._forget(name, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "")
        for topic in response.topics:
            self._take(topic)

    def topic(self, name: str) -> TopicMetadata | None:
        """The topic, or None when it is not known or does not exist (`error` says why)."""
        return self._topics.get(name)

    def error(self, name: str) -> BrokerError | None:
        """What the broker last said against this topic; None when it was never asked or all is well."""
        return self._errors.get(name)

    def name_of(self, topic_id: bytes) -> str | None:
        return self._names.get(topic_id)

    def require(self, name: str) -> TopicMetadata:
        """The topic. Raises the BrokerError that stands in its way."""
        known = self._topics.get(name)
        if known is not None:
            return known
        raise self._errors.get(name) or _unknown(name)

    def partition(self, name: str, partition: int) -> PartitionEntry:
        """One partition. Raises BrokerError: no such topic, no such partition, or what ails it."""
        topic = self.require(name)
        if not 0 <= partition < len(topic.partitions):
            raise BrokerError(
                ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
                f"topic {name!r} has partitions 0 to {len(topic.partitions) - 1}, not {partition}",
            )
        return topic.partitions[partition]

    @property
    def places(self) -> tuple[Place, ...]:
        """Every broker."""
        return tuple(Place(each.broker_id, each.listeners, each.host) for each in self.brokers)

    def place(self, name: str, partition: int) -> Place:
        """The leader and its listeners, or the addresses that serve this partition alone.

        Raises BrokerError, LEADER_NOT_AVAILABLE among them.
        """
        entry = self.partition(name, partition)
        leader = self._brokers.get(entry.leader)
        if leader is None:
            raise BrokerError(
                ErrorCode.LEADER_NOT_AVAILABLE, f"{name}-{partition} has no leader at this moment"
            )
        if entry.endpoints:
            return Place(-1, entry.endpoints, leader.host)
        return Place(entry.leader, leader.listeners, leader.host)

    def _take(self, topic: TopicEntry) -> None:
        if topic.error_code:
            self._forget(topic.name, topic.error_code, topic.detail)
            return
        ordered = sorted(topic.partitions, key=lambda entry: entry.partition)
        if [entry.partition for entry in ordered] != list(range(len(ordered))) or not ordered:
            self._forget(
                topic.name,
                ErrorCode.LEADER_NOT_AVAILABLE,
                f"the broker's answer names not all partitions of {topic.name!r}",
            )
            return
        self._errors.pop(topic.name, None)
        old = self._topics.get(topic.name)
        if old is not None:
            self._names.pop(old.topic_id, None)
        self._topics[topic.name] = TopicMetadata(topic.name, topic.topic_id, tuple(ordered))
        self._names[topic.topic_id] = topic.name

    def _forget(self, name: str, code: int, detail: str) -> None:
        old = self._topics.pop(name, None)
        if old is not None:
            self._names.pop(old.topic_id, None)
        try:
            known = ErrorCode(code)
        except ValueError:
            known, detail = ErrorCode.UNKNOWN_SERVER_ERROR, f"error {code} for {name!r}: {detail}"
        if known is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION:
            self._errors[name] = _unknown(name)
        else:
            self._errors[name] = BrokerError(known, detail or f"topic {name!r}")


def _unknown(name: str) -> BrokerError:
    return BrokerError(
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        f"there is no topic {name!r}; make it with 'frieda topic create {name}'",
    )
