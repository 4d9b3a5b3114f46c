"""The cluster as one broker knows it, put together from single nodes in any order. PURE.

`apply` takes nodes as they are read; `commit` turns what has changed since into a new `ClusterState`. The work is
that of the topics and brokers that changed. A topic shows when its node and all its partitions are known, so that
nobody sees half of one.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Final

from frieda.cluster import nodes
from frieda.cluster.nodes import ControllerNode, TopicNode
from frieda.cluster.state import (
    NO_LEADER,
    BrokerRegistration,
    ClusterState,
    PartitionState,
    TopicState,
)
from frieda.cluster.store import ClusterChange
from frieda.model import TopicPartition

_NOTHING: Final[frozenset[TopicPartition]] = frozenset()


class View:
    """Owned by who reads the nodes."""

    def __init__(self, cluster_id: str) -> None:
        self.state = ClusterState(cluster_id=cluster_id)
        self.wanted_leaders: frozenset[TopicPartition] | None = None
        """The partitions whose preferred leaders are asked for; empty: of all; None: nobody asks."""
        self._orders = False
        self._controller: ControllerNode | None = None
        self._controller_epoch = 0
        self._brokers: dict[int, BrokerRegistration] = {}
        self._topics: dict[str, TopicNode] = {}
        self._names: dict[bytes, str] = {}
        self._partitions: dict[bytes, dict[int, PartitionState]] = {}
        self._replicas: dict[int, set[TopicPartition]] = {}
        self._touched_brokers: set[int] = set()
        self._touched_topics: set[str] = set()
        self._touched_partitions: dict[bytes, set[int]] = {}

    @staticmethod
    def concerns(path: str) -> bool:
        """Whether `apply` makes something of this node."""
        match path.split("/"):
            case ["", "controller" | "controller_epoch" | "preferred_leaders"]:
                return True
            case ["", "brokers" | "topics", _] | ["", "partitions", _, _]:
                return True
        return False

    def paths(self) -> list[str]:
        """Every node that is known to be there."""
        found = [nodes.broker_path(broker) for broker in self._brokers]
        found += [nodes.topic_path(name) for name in self._topics]
        for topic_id, partitions in self._partitions.items():
            found += [nodes.partition_path(topic_id, index) for index in partitions]
        if self._controller is not None:
            found.append(nodes.CONTROLLER)
        if self.wanted_leaders is not None:
            found.append(nodes.PREFERRED_LEADERS)
        return found

    def replicas_on(self, broker_id: int) -> AbstractSet[TopicPartition]:
        """The partitions that a broker holds, as of the last commit."""
        return self._replicas.get(broker_id, _NOTHING)

    def apply(self, path: str, data: bytes | None, version: int = 0) -> None:
        """A node as it was read; `data` is None when there is none. Raises NodeDamagedError; nothing changes then."""
        match path.split("/"):
            case ["", "controller"]:
                self._controller = None if data is None else nodes.decode_controller(path, data)
            case ["", "controller_epoch"]:
                self._controller_epoch = 0 if data is None else nodes.decode_number(path, data)
            case ["", "preferred_leaders"]:
                self.wanted_leaders = None if data is None else nodes.decode_wanted(path, data)
                self._orders = self.wanted_leaders is not None
            case ["", "brokers", identity]:
                broker_id = _number(path, identity)
                if data is None:
                    self._brokers.pop(broker_id, None)
                else:
                    self._brokers[broker_id] = nodes.decode_registration(path, data)
                self._touched_brokers.add(broker_id)
            case ["", "topics", name]:
                self._apply_topic(name, None if data is None else nodes.decode_topic(path, data))
            case ["", "partitions", hexadecimal, index]:
                topic_id = _topic_id(path, hexadecimal)
                partition = _number(path, index)
                state = None if data is None else nodes.decode_partition(path, data, version)
                self._apply_partition(topic_id, partition, state)

    def commit(self) -> ClusterChange | None:
        """Make what was applied the state; None when that is no different."""
        before = self.state
        brokers = frozenset(
            broker
            for broker in self._touched_brokers
            if self._brokers.get(broker) != before.brokers.get(broker)
        )
        topics: dict[str, TopicState | None] = {}
        partitions: set[TopicPartition] = set()
        renewed: set[str] = set()
        names = set(self._touched_topics)
        names |= {
            self._names[topic_id]
            for topic_id in self._touched_partitions
            if topic_id in self._names
        }
        for name in names:
            old, new = before.topics.get(name), self._topic(name)
            if new == old:
                continue
            topics[name] = new
            partitions |= self._note_partitions(name, old, new)
            if old is None or new is None or _outline(old) != _outline(new):
                renewed.add(name)
        controller_id = self._controller.broker_id if self._controller else NO_LEADER
        controller = (controller_id, self._controller_epoch) != (
            before.controller_id,
            before.controller_epoch,
        )
        self._touched_brokers.clear()
        self._touched_topics.clear()
        self._touched_partitions.clear()
        orders, self._orders = self._orders, False
        if not (brokers or topics or controller or orders):
            return None
        self.state = replace(
            before,
            controller_id=controller_id,
            controller_epoch=self._controller_epoch,
            brokers=dict(self._brokers) if brokers else before.brokers,
            topics=_with(before.topics, topics) if topics else before.topics,
        )
        return ClusterChange(
            before=before,
            after=self.state,
            brokers=brokers,
            topics=frozenset(renewed),
            partitions=frozenset(partitions),
            controller=controller,
            orders=orders,
        )

    def _apply_topic(self, name: str, topic: TopicNode | None) -> None:
        old = self._topics.pop(name, None)
        if old is not None:
            del self._names[old.topic_id]
        if topic is not None:
            self._topics[name] = topic
            self._names[topic.topic_id] = name
        self._touched_topics.add(name)

    def _apply_partition(self, topic_id: bytes, index: int, state: PartitionState | None) -> None:
        known = self._partitions.setdefault(topic_id, {})
        if state is None:
            known.pop(index, None)
            if not known:
                del self._partitions[topic_id]
        else:
            known[index] = state
        self._touched_partitions.setdefault(topic_id, set()).add(index)

    def _topic(self, name: str) -> TopicState | None:
        topic = self._topics.get(name)
        if topic is None:
            return None
        known = self._partitions.get(topic.topic_id, {})
        old = self.state.topics.get(name)
        if (
            old is not None
            and old.topic_id == topic.topic_id
            and len(old.partitions) == topic.partitions
        ):
            changed = list(old.partitions)
            for index in self._touched_partitions.get(topic.topic_id, ()):
                if index >= topic.partitions:
                    continue  # it is to be there soon
                if index not in known:
                    return None
                changed[index] = known[index]
            partitions = tuple(changed)
        else:
            found = [known.get(index) for index in range(topic.partitions)]
            partitions = tuple(state for state in found if state is not None)
            if len(partitions) < topic.partitions:
                return None
        return TopicState(
            name=name, topic_id=topic.topic_id, configs=topic.configs, partitions=partitions
        )

    def _note_partitions(
        self, name: str, old: TopicState | None, new: TopicState | None
    ) -> set[TopicPartition]:
        """Which partitions of a topic are another now; keeps the index of who holds what."""
        before = old.partitions if old is not None else ()
        after = new.partitions if new is not None else ()
        again = old is not None and new is not None and old.topic_id != new.topic_id
        changed = set()
        for index in range(max(len(before), len(after))):
            was = before[index] if index < len(before) else None
            now = after[index] if index < len(after) else None
            if was is now or (was == now and not again):
                continue
            partition = TopicPartition(name, index)
            changed.add(partition)
            for broker in was.replicas if was is not None else ():
                self._replicas[broker].discard(partition)
            for broker in now.replicas if now is not None else ():
                self._replicas.setdefault(broker, set()).add(partition)
        return changed


def _outline(topic: TopicState) -> tuple[bytes, dict[str, str], int]:
    return topic.topic_id, topic.configs, len(topic.partitions)


def _with(
    topics: dict[str, TopicState], changed: dict[str, TopicState | None]
) -> dict[str, TopicState]:
    merged = dict(topics)
    for name, topic in changed.items():
        if topic is None:
            merged.pop(name, None)
        else:
            merged[name] = topic
    return merged


def _number(path: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise nodes.NodeDamagedError(
            f"the node {path} in ZooKeeper is named by no number: remove it"
        )
    return int(text)


def _topic_id(path: str, text: str) -> bytes:
    try:
        topic_id = bytes.fromhex(text)
    except ValueError:
        topic_id = b""
    if len(topic_id) != 16:
        raise nodes.NodeDamagedError(
            f"the node {path} in ZooKeeper lies below no topic id: remove it"
        )
    return topic_id
