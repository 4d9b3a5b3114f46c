"""The admin client: topics, offsets and the health of a broker.

async with Admin("tcp://127.0.0.1:9500") as admin:
    await admin.create_topic("events", partitions=4)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self, Unpack

from frieda.clients.health import ClientHealth
from frieda.clients.network import Network
from frieda.clients.settings import ClientSettings, make_config
from frieda.clock import Clock
from frieda.config import ClientConfig
from frieda.errors import BrokerError, ClientClosedError, ErrorCode
from frieda.model import EARLIEST_TIMESTAMP, LATEST_TIMESTAMP, TopicPartition
from frieda.wire import messages as m


@dataclass(frozen=True, slots=True)
class PartitionInfo:
    """One partition as its broker describes it. Offsets are those of the moment."""

    partition: int
    leader: int
    leader_epoch: int
    log_start_offset: int
    log_end_offset: int
    high_watermark: int
    size_bytes: int
    segments: int
    producers: int
    failure: str
    """Why its log takes no writes; empty when it does."""


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """One topic: its id, its settings by their dotted names, its partitions in order."""

    name: str
    topic_id: bytes
    configs: Mapping[str, str]
    partitions: tuple[PartitionInfo, ...]


@dataclass(frozen=True, slots=True)
class OffsetInfo:
    """Where a time lies in a partition. `offset` is -1 when no record is that young."""

    offset: int
    timestamp_ms: int
    leader_epoch: int


@dataclass(frozen=True, slots=True)
class CommittedInfo:
    """What a group has committed for a partition."""

    offset: int
    leader_epoch: int
    metadata: str


@dataclass(frozen=True, slots=True)
class BrokerHealth:
    """What a broker says of itself. `status`: ok, degraded (a log takes no writes) or stopping."""

    status: str
    problems: tuple[str, ...]
    software: str
    facts: Mapping[str, int]
    """Counters and sizes by name."""
    settings: Mapping[str, str]
    """Flush and polling, and what the polling engine does."""


class Admin:
    """Administers a cluster. Use it with `async with`.

    Every method raises BrokerError for what the broker refuses and a TransportError when no broker answers
    within request_timeout_s; a request is tried again until then as long as that can help. Cancellation leaves
    at most a request that the broker does all the same.
    """

    def __init__(
        self,
        bootstrap: str | Iterable[str] = "tcp://127.0.0.1:9500",
        *,
        clock: Clock | None = None,
        **settings: Unpack[ClientSettings],
    ) -> None:
        self.config = make_config(ClientConfig, bootstrap, settings)
        self._network = Network(self.config, clock=clock, allow_auto_create=False)
        self._started = False

    async def start(self) -> None:
        """Connect. Raises ConnectError when no broker answers within connect_timeout_s; nothing is left open then."""
        if self._started:
            return
        self._network.start()
        self._started = True
        try:
            await self._network.reach(self.config.connect_timeout_s)
        except BaseException:
            await self._network.close()
            raise

    async def close(self, timeout_s: float = 5.0) -> None:
        """End the connections. May be repeated."""
        await self._network.close(timeout_s)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def create_topic(
        self,
        name: str,
        partitions: int = -1,
        replication_factor: int = -1,
        config: Mapping[str, str] | None = None,
        *,
        validate_only: bool = False,
    ) -> bytes:
        """Make a topic and return its id. -1: as the broker is set. `config` has dotted names.

        TOPIC_ALREADY_EXISTS may also be the echo of our own request, when its first answer was lost.
        """
        new = m.NewTopic(name, partitions, replication_factor, dict(config or {}))
        answer: m.CreateTopicsResponse = await self._call(
            m.CreateTopicsRequest((new,), validate_only)
        )
        outcome = answer.topics[0]
        _raise_for(outcome)
        return outcome.topic_id

    async def delete_topic(self, name: str) -> None:
        """Delete a topic and all its records."""
        answer: m.DeleteTopicsResponse = await self._call(m.DeleteTopicsRequest((name,)))
        _raise_for(answer.topics[0])

    async def alter_topic(self, name: str, config: Mapping[str, str]) -> None:
        """Change settings of a topic; those not named stay."""
        request = m.AlterTopicsRequest((m.TopicChange(name, dict(config)),))
        answer: m.AlterTopicsResponse = await self._call(request)
        _raise_for(answer.topics[0])

    async def list_topics(self) -> tuple[str, ...]:
        """The names of all topics, sorted."""
        answer: m.MetadataResponse = await self._call(m.MetadataRequest(None, False))
        return tuple(sorted(topic.name for topic in answer.topics if not topic.error_code))

    async def describe_topic(self, name: str) -> TopicInfo:
        """One topic in full."""
        (topic,) = await self.describe_topics((name,))
        return topic

    async def describe_topics(self, names: Iterable[str] | None = None) -> tuple[TopicInfo, ...]:
        """Topics in full, in the order asked for; all, sorted by name, when not told which."""
        wanted = None if names is None else tuple(names)
        answer: m.DescribeTopicsResponse = await self._call(m.DescribeTopicsRequest(wanted))
        for topic in answer.topics:
            _raise_for(topic)
        found = {topic.name: _topic_info(topic) for topic in answer.topics}
        return tuple(found[name] for name in (sorted(found) if wanted is None else wanted))

    async def list_offsets(
        self, queries: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, OffsetInfo]:
        """For each partition the offset of a time (milliseconds since the epoch), or of
        `model.EARLIEST_TIMESTAMP` or `model.LATEST_TIMESTAMP`."""
        topics = {name: await self._network.topic(name) for name in {tp.topic for tp in queries}}
        asked = tuple(
            m.OffsetQuery(topics[place.topic].topic_id, place.partition, timestamp_ms)
            for place, timestamp_ms in queries.items()
        )
        answer: m.ListOffsetsResponse = await self._call(m.ListOffsetsRequest(asked))
        names = {topic.topic_id: name for name, topic in topics.items()}
        found: dict[TopicPartition, OffsetInfo] = {}
        for item in answer.partitions:
            place = TopicPartition(names[item.topic_id], item.partition)
            _raise_for_code(item.error_code, item.detail or str(place))
            found[place] = OffsetInfo(item.offset, item.timestamp_ms, item.leader_epoch)
        return found

    async def beginning_offsets(self, topic: str) -> dict[TopicPartition, int]:
        """The first offset of each partition of a topic."""
        return await self._ends(topic, EARLIEST_TIMESTAMP)

    async def end_offsets(self, topic: str) -> dict[TopicPartition, int]:
        """The offset behind the last record of each partition of a topic."""
        return await self._ends(topic, LATEST_TIMESTAMP)

    async def committed(
        self, group: str, partitions: Iterable[TopicPartition] | None = None
    ) -> dict[TopicPartition, CommittedInfo]:
        """What a group has committed, for these partitions or for all; those without a commit are left out."""
        wanted = None
        if partitions is not None:
            wanted = tuple(m.GroupPartition(place.topic, place.partition) for place in partitions)
        answer: m.FetchOffsetsResponse = await self._call(m.FetchOffsetsRequest(group, wanted))
        return {
            TopicPartition(item.topic, item.partition): CommittedInfo(
                item.offset, item.leader_epoch, item.metadata
            )
            for item in answer.partitions
            if item.offset >= 0
        }

    async def broker_health(self) -> BrokerHealth:
        """What the broker says of itself."""
        answer: m.HealthResponse = await self._call(m.HealthRequest())
        return BrokerHealth(*answer)

    def health(self) -> ClientHealth:
        """How this client's connections are."""
        return self._network.health()

    async def _ends(self, topic: str, which: int) -> dict[TopicPartition, int]:
        count = (await self._network.topic(topic)).partition_count
        queries = {TopicPartition(topic, index): which for index in range(count)}
        return {place: info.offset for place, info in (await self.list_offsets(queries)).items()}

    async def _call(self, request: object) -> Any:
        if not self._started:
            raise ClientClosedError("this client is not started: use 'async with' or await start()")
        return await self._network.call_any(request)


def _topic_info(topic: m.TopicDescription) -> TopicInfo:
    partitions = tuple(PartitionInfo(*entry) for entry in topic.partitions)
    return TopicInfo(topic.name, topic.topic_id, topic.configs, partitions)


def _raise_for(outcome: m.TopicOutcome | m.TopicDescription) -> None:
    _raise_for_code(outcome.error_code, outcome.detail or f"topic {outcome.name!r}")


def _raise_for_code(number: int, detail: str) -> None:
    if not number:
        return
    try:
        code = ErrorCode(number)
    except ValueError:
        raise BrokerError(
            ErrorCode.UNKNOWN_SERVER_ERROR, f"error {number}, unknown to this client: {detail}"
        ) from None
    raise BrokerError(code, detail)
