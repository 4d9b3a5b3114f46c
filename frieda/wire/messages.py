"""The messages of the native protocol: every API, its versions, its request and its answer.

`docs/protocol.md` describes the same for people who write a client in another language. The API numbers are
Kafka's where Kafka has the API; Frieda's own start at 10000.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final, NamedTuple

PROTOCOL_VERSION: Final = 1


class ApiKey(IntEnum):
    """The number of an API in a request header."""

    PRODUCE = 0
    FETCH = 1
    LIST_OFFSETS = 2
    METADATA = 3
    COMMIT_OFFSETS = 8
    FETCH_OFFSETS = 9
    CREATE_TOPICS = 19
    DELETE_TOPICS = 20
    INIT_PRODUCER = 22
    DESCRIBE_TOPICS = 32
    ALTER_TOPICS = 33
    HELLO = 10000
    HEALTH = 10001


# --- Hello: always the first request of a connection ------------------------------------------------------


class ApiRange(NamedTuple):
    api_key: int
    min_version: int
    max_version: int


class HelloRequest(NamedTuple):
    min_protocol_version: int
    max_protocol_version: int
    software: str
    client_id: str
    max_message_bytes: int
    """The largest message that the sender of this takes."""


class HelloResponse(NamedTuple):
    protocol_version: int
    software: str
    cluster_id: str
    broker_id: int
    max_message_bytes: int
    max_in_flight: int
    """Requests of this connection that the broker works on at once; more wait in the transport."""
    max_parked_batches: int
    apis: tuple[ApiRange, ...]
    instance: str = ""
    """Drawn when the broker's process started: who says the same is the same process."""


# --- Produce: the body is one record batch ----------------------------------------------------------------


class ProduceRequest(NamedTuple):
    topic_id: bytes
    partition: int
    acks: int
    timeout_ms: int


class ProduceResponse(NamedTuple):
    base_offset: int
    log_start_offset: int


# --- Fetch: the answer's body is the batches of each partition, end to end --------------------------------


class FetchPartition(NamedTuple):
    topic_id: bytes
    partition: int
    offset: int
    max_bytes: int
    leader_epoch: int = -1


class FetchRequest(NamedTuple):
    max_wait_ms: int
    min_bytes: int
    max_bytes: int
    isolation_level: int
    partitions: tuple[FetchPartition, ...]


class FetchedPartition(NamedTuple):
    topic_id: bytes
    partition: int
    error_code: int
    detail: str
    high_watermark: int
    last_stable_offset: int
    log_start_offset: int
    next_readable_offset: int
    """After CORRUPT_LOG: where reading can go on; else -1."""
    size_bytes: int


class FetchResponse(NamedTuple):
    partitions: tuple[FetchedPartition, ...]


# --- ListOffsets ------------------------------------------------------------------------------------------


class OffsetQuery(NamedTuple):
    topic_id: bytes
    partition: int
    timestamp_ms: int
    """A time, or model.LATEST_TIMESTAMP or model.EARLIEST_TIMESTAMP."""


class ListOffsetsRequest(NamedTuple):
    partitions: tuple[OffsetQuery, ...]


class OffsetAnswer(NamedTuple):
    topic_id: bytes
    partition: int
    error_code: int
    detail: str
    offset: int
    timestamp_ms: int
    leader_epoch: int


class ListOffsetsResponse(NamedTuple):
    partitions: tuple[OffsetAnswer, ...]


# --- Metadata ---------------------------------------------------------------------------------------------


class MetadataRequest(NamedTuple):
    topics: tuple[str, ...] | None
    """None: all topics."""
    allow_auto_create: bool


class BrokerEntry(NamedTuple):
    broker_id: int
    rack: str | None
    listeners: tuple[str, ...]
    host: str = ""
    """The identity of the running kernel (Linux: the boot id); empty: not known."""


class PartitionEntry(NamedTuple):
    partition: int
    error_code: int
    leader: int
    leader_epoch: int
    replicas: tuple[int, ...]
    in_sync_replicas: tuple[int, ...]
    endpoints: tuple[str, ...]
    """Where this partition is served, when not at all of its leader's listeners; else empty."""


class TopicEntry(NamedTuple):
    name: str
    topic_id: bytes
    error_code: int
    detail: str
    partitions: tuple[PartitionEntry, ...]


class MetadataResponse(NamedTuple):
    cluster_id: str
    controller_id: int
    brokers: tuple[BrokerEntry, ...]
    topics: tuple[TopicEntry, ...]


# --- CreateTopics, DeleteTopics, DescribeTopics, AlterTopics ----------------------------------------------


class NewTopic(NamedTuple):
    name: str
    partitions: int
    """-1: as the broker is set."""
    replication_factor: int
    configs: dict[str, str]


class CreateTopicsRequest(NamedTuple):
    topics: tuple[NewTopic, ...]
    validate_only: bool


class TopicOutcome(NamedTuple):
    name: str
    topic_id: bytes
    error_code: int
    detail: str


class CreateTopicsResponse(NamedTuple):
    topics: tuple[TopicOutcome, ...]


class DeleteTopicsRequest(NamedTuple):
    topics: tuple[str, ...]


class DeleteTopicsResponse(NamedTuple):
    topics: tuple[TopicOutcome, ...]


class DescribeTopicsRequest(NamedTuple):
    topics: tuple[str, ...] | None


class PartitionDescription(NamedTuple):
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
    """Why this log takes no writes, or empty."""


class TopicDescription(NamedTuple):
    name: str
    topic_id: bytes
    error_code: int
    detail: str
    configs: dict[str, str]
    partitions: tuple[PartitionDescription, ...]


class DescribeTopicsResponse(NamedTuple):
    topics: tuple[TopicDescription, ...]


class TopicChange(NamedTuple):
    name: str
    configs: dict[str, str]


class AlterTopicsRequest(NamedTuple):
    topics: tuple[TopicChange, ...]


class AlterTopicsResponse(NamedTuple):
    topics: tuple[TopicOutcome, ...]


# --- CommitOffsets, FetchOffsets --------------------------------------------------------------------------


class OffsetCommit(NamedTuple):
    topic: str
    partition: int
    offset: int
    leader_epoch: int
    metadata: str


class CommitOffsetsRequest(NamedTuple):
    group: str
    member_id: str
    generation: int
    """-1 and an empty member while groups only name their offsets."""
    commits: tuple[OffsetCommit, ...]


class CommitOutcome(NamedTuple):
    topic: str
    partition: int
    error_code: int
    detail: str


class CommitOffsetsResponse(NamedTuple):
    partitions: tuple[CommitOutcome, ...]


class GroupPartition(NamedTuple):
    topic: str
    partition: int


class FetchOffsetsRequest(NamedTuple):
    group: str
    partitions: tuple[GroupPartition, ...] | None
    """None: all that the group has committed."""


class CommittedOffset(NamedTuple):
    topic: str
    partition: int
    offset: int
    """-1: none."""
    leader_epoch: int
    metadata: str


class FetchOffsetsResponse(NamedTuple):
    partitions: tuple[CommittedOffset, ...]


# --- InitProducer, Health ---------------------------------------------------------------------------------


class InitProducerRequest(NamedTuple):
    transactional_id: str | None
    producer_id: int
    """-1 for a new one; else the id whose epoch is to rise."""
    producer_epoch: int


class InitProducerResponse(NamedTuple):
    producer_id: int
    producer_epoch: int


class HealthRequest(NamedTuple):
    pass


class HealthResponse(NamedTuple):
    status: str
    """ok, degraded (a log takes no writes) or stopping."""
    problems: tuple[str, ...]
    software: str
    facts: dict[str, int]
    """Counters and sizes by name."""
    settings: dict[str, str]
    """What shapes its latency: flush and polling, and what the polling engine does."""


class Api(NamedTuple):
    """One API: its number, the versions this build speaks, and its two messages."""

    key: ApiKey
    min_version: int
    max_version: int
    request: type[Any]
    response: type[Any]


APIS: Final[dict[int, Api]] = {
    api.key: api
    for api in (
        Api(ApiKey.PRODUCE, 0, 0, ProduceRequest, ProduceResponse),
        Api(ApiKey.FETCH, 0, 0, FetchRequest, FetchResponse),
        Api(ApiKey.LIST_OFFSETS, 0, 0, ListOffsetsRequest, ListOffsetsResponse),
        Api(ApiKey.METADATA, 0, 0, MetadataRequest, MetadataResponse),
        Api(ApiKey.COMMIT_OFFSETS, 0, 0, CommitOffsetsRequest, CommitOffsetsResponse),
        Api(ApiKey.FETCH_OFFSETS, 0, 0, FetchOffsetsRequest, FetchOffsetsResponse),
        Api(ApiKey.CREATE_TOPICS, 0, 0, CreateTopicsRequest, CreateTopicsResponse),
        Api(ApiKey.DELETE_TOPICS, 0, 0, DeleteTopicsRequest, DeleteTopicsResponse),
        Api(ApiKey.INIT_PRODUCER, 0, 0, InitProducerRequest, InitProducerResponse),
        Api(ApiKey.DESCRIBE_TOPICS, 0, 0, DescribeTopicsRequest, DescribeTopicsResponse),
        Api(ApiKey.ALTER_TOPICS, 0, 0, AlterTopicsRequest, AlterTopicsResponse),
        Api(ApiKey.HELLO, 0, 0, HelloRequest, HelloResponse),
        Api(ApiKey.HEALTH, 0, 0, HealthRequest, HealthResponse),
    )
}
API_OF_REQUEST: Final[dict[type[Any], Api]] = {api.request: api for api in APIS.values()}
