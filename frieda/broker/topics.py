"""The topics of a broker: found by name for people and by id for requests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from frieda.broker.partition import Partition
from frieda.config import TopicConfig
from frieda.errors import BrokerError, ErrorCode
from frieda.model import illegal_topic_name


@dataclass(slots=True)
class Topic:
    """A topic and its partitions, by number. `config` is the whole of its settings."""

    name: str
    topic_id: bytes
    config: TopicConfig
    partitions: list[Partition]


class Topics:
    """All topics. Constant time by either key, whatever their number."""

    def __init__(self) -> None:
        self._by_name: dict[str, Topic] = {}
        self._by_id: dict[bytes, Topic] = {}

    def __iter__(self) -> Iterator[Topic]:
        return iter(tuple(self._by_name.values()))

    def __len__(self) -> int:
        return len(self._by_name)

    def add(self, topic: Topic) -> None:
        self._by_name[topic.name] = topic
        self._by_id[topic.topic_id] = topic

    def remove(self, topic: Topic) -> None:
        del self._by_name[topic.name]
        del self._by_id[topic.topic_id]

    def get(self, name: str) -> Topic | None:
        return self._by_name.get(name)

    def named(self, name: str) -> Topic:
        """Raises BrokerError: UNKNOWN_TOPIC_OR_PARTITION, or INVALID_TOPIC for what cannot be a name."""
        topic = self._by_name.get(name)
        if topic is None:
            if (problem := illegal_topic_name(name)) is not None:
                raise BrokerError(ErrorCode.INVALID_TOPIC, problem)
            raise BrokerError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"there is no topic {name!r}")
        return topic

    def find(self, topic_id: bytes, index: int) -> Partition | None:
        """A partition, or None: `partition` says what there is instead."""
        topic = self._by_id.get(topic_id)
        if topic is None or not 0 <= index < len(topic.partitions):
            return None
        return topic.partitions[index]

    def partition(self, topic_id: bytes, index: int) -> Partition:
        """Raises BrokerError(UNKNOWN_TOPIC_ID or UNKNOWN_TOPIC_OR_PARTITION)."""
        topic = self._by_id.get(topic_id)
        if topic is None:
            raise BrokerError(
                ErrorCode.UNKNOWN_TOPIC_ID,
                f"there is no topic of id {topic_id[:16].hex()} (was it deleted and made again?)",
            )
        if not 0 <= index < len(topic.partitions):
            raise BrokerError(
                ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
                f"topic {topic.name!r} has partitions 0 to {len(topic.partitions) - 1}, not {index}",
            )
        return topic.partitions[index]

    def all_partitions(self) -> Iterator[Partition]:
        for topic in self:
            yield from topic.partitions
