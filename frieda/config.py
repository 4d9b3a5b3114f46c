"""Every setting of the broker, of topics and of the clients: frozen dataclasses, checked when made.

Where the values come from (file, environment, flags) is the business of `frieda.config_sources`. A field's
meaning is the `doc` of its metadata, which the command line shows (`frieda config dump`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Any, ClassVar, Final, Literal, Self, cast, get_args

from frieda.errors import ConfigError

FlushPolicy = Literal["never", "interval", "batch"]
PollingMode = Literal["event", "adaptive", "busy"]
ValidateMode = Literal["header", "deep"]
Compression = Literal["none", "gzip", "snappy", "lz4", "zstd"]
Ordering = Literal["partition", "producer"]
StartAt = Literal["earliest", "latest"]

KIB: Final = 1024
MIB: Final = 1024 * 1024
UNLIMITED: Final = -1


def setting(
    default: Any, doc: str, *, least: float | None = None, most: float | None = None
) -> Any:
    """A dataclass field with its meaning and, for a number, its bounds (inclusive)."""
    metadata = {"doc": doc, "least": least, "most": most}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


_DATA_PATH: Final[dict[str, tuple[Any, str, float | None, float | None]]] = {
    "rdma_slot_bytes": (
        32 * KIB,
        "shm, verbs: the size of one receive slot, so of the largest message that is sent eagerly",
        KIB,
        MIB,
    ),
    "rdma_window": (
        32,
        "shm, verbs: receive slots of one connection, so how many sends the peer may have under way",
        8,
        4096,
    ),
    "rdma_source_bytes": (
        4 * MIB,
        "shm, verbs: memory of one connection for messages that the peer reads by itself (rendezvous)",
        64 * KIB,
        2**30,
    ),
    "rdma_eager_bytes": (
        UNLIMITED,
        "shm, verbs: messages above this go by rendezvous; -1: the threshold adapts to the load",
        UNLIMITED,
        MIB,
    ),
    "send_hold_ms": (
        0.0,
        "expert: 0: a message leaves the moment its last byte is known (eager flush); above: it is held "
        "until 16 KiB have gathered or for so long (less than 0.5: for a turn of the event loop)",
        0.0,
        1000.0,
    ),
    "buffers_pooled": (
        True,
        "expert: receive into buffers made once; false: memory for each message, within the same bounds",
        None,
        None,
    ),
}


def data_path(name: str) -> Any:
    """A setting that brokers and clients both have: how the bytes of a connection travel."""
    default, doc, least, most = _DATA_PATH[name]
    return setting(default, doc, least=least, most=most)


def nearest(key: str, known: list[str]) -> str:
    """A half sentence that names the known key nearest to `key`, or nothing."""
    match = get_close_matches(key, known, n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else ""


class Checked:
    """What the settings classes share: bounds and choices are checked when one is made."""

    __slots__ = ()
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    def __post_init__(self) -> None:
        for spec in fields(cast(Any, self)):
            check_bounds(spec, getattr(self, spec.name))
        for name, allowed in self.choices.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(
                    f"{name} = {getattr(self, name)!r}: must be one of {', '.join(allowed)}"
                )


def check_bounds(spec: Field[Any], value: Any, name: str | None = None) -> None:
    """Raise ConfigError when a number lies outside the bounds of its field."""
    least, most = spec.metadata.get("least"), spec.metadata.get("most")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if (least is not None and value < least) or (most is not None and value > most):
        bounds = f"at least {least}" if most is None else f"from {least} to {most}"
        raise ConfigError(f"{name or spec.name} = {value}: must be {bounds}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicConfig(Checked):
    """The settings of a topic. On the command line and on the wire they have Kafka's dotted names."""

    retention_ms: int = setting(
        7 * 24 * 3600 * 1000, "delete closed segments older than this; -1: never", least=-1
    )
    retention_bytes: int = setting(
        UNLIMITED,
        "delete the oldest closed segments above this size of a partition; -1: never",
        least=-1,
    )
    segment_bytes: int = setting(
        256 * MIB, "start a new segment file at this size", least=KIB, most=2**31 - 1
    )
    segment_ms: int = setting(
        7 * 24 * 3600 * 1000,
        "start a new segment file when the first record of the open one is this old",
        least=1,
    )
    max_message_bytes: int = setting(
        16 * MIB, "the largest record batch that a produce may carry", least=KIB, most=2**30
    )
    index_interval_bytes: int = setting(
        4 * KIB, "at most this many bytes of log between two index entries", least=KIB
    )
    flush: str = setting(
        "", "when appends reach the disk: never, interval or batch; empty: as the broker is set"
    )
    validate: str = setting(
        "header", "what a produce is checked for: header, or deep (every record is walked)"
    )
    message_timestamp_type: str = setting(
        "CreateTime", "CreateTime: a record keeps the producer's timestamp (the only choice so far)"
    )
    cleanup_policy: str = setting("delete", "what retention does (the only choice so far)")

    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "flush": ("", *get_args(FlushPolicy)),
        "validate": get_args(ValidateMode),
        "message_timestamp_type": ("CreateTime",),
        "cleanup_policy": ("delete",),
    }

    def altered(self, changes: Mapping[str, str]) -> Self:
        """These settings with `changes` (dotted names, values as text). Raises ConfigError naming the key."""
        known = {spec.name.replace("_", "."): spec for spec in fields(self)}
        values: dict[str, Any] = {}
        for key, text in changes.items():
            if key not in known:
                raise ConfigError(f"unknown topic setting {key!r}{nearest(key, list(known))}")
            spec = known[key]
            if spec.type in (int, "int"):
                try:
                    values[spec.name] = int(text)
                except ValueError:
                    raise ConfigError(f"{key} = {text!r}: must be a whole number") from None
                check_bounds(spec, values[spec.name], key)
            else:
                values[spec.name] = text
                allowed = self.choices.get(spec.name, (text,))
                if text not in allowed:
                    raise ConfigError(
                        f"{key} = {text!r}: must be one of {', '.join(c for c in allowed if c)}"
                    )
        return replace(self, **values)

    def as_text(self) -> dict[str, str]:
        """Every setting by its dotted name, the value as text."""
        return {spec.name.replace("_", "."): str(getattr(self, spec.name)) for spec in fields(self)}


def default_buffer_classes() -> dict[int, int]:
    """Sizes and counts of the pool's buffers: 57 MiB of address space, touched only as far as used."""
    return {
        4 * KIB: 64,
        16 * KIB: 64,
        64 * KIB: 32,
        256 * KIB: 16,
        MIB: 16,
        4 * MIB: 4,
        17 * MIB: 1,
    }


def default_listeners() -> tuple[str, ...]:
    return ("tcp://127.0.0.1:9500",)


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerConfig(Checked):
    """The settings of one broker process."""

    broker_id: int = setting(0, "the number of this broker", least=0, most=2**31 - 1)
    data: str = setting("./frieda-data", "the folder of the log")
    listen: tuple[str, ...] = setting(
        default_listeners, "the addresses to listen at, each a transport URL"
    )
    advertise: tuple[str, ...] = setting(
        tuple,
        "the addresses that clients are told; each stands for all of its scheme that it listens at",
    )
    polling: str = setting("adaptive", "how the event loop waits: event, adaptive or busy")
    polling_window_us: int = setting(
        2000, "adaptive: keep polling this long after the last message", least=0, most=1_000_000
    )
    flush: str = setting(
        "never",
        "when appends reach the disk: never, interval or batch (before the acknowledgement)",
    )
    flush_interval_ms: int = setting(
        1000, "flush = interval: at most this long between append and fsync", least=1
    )
    default_partitions: int = setting(
        1, "partitions of a topic that is made without saying how many", least=1, most=10_000
    )
    auto_create_topics: bool = setting(
        False, "make a topic when a client asks for the metadata of one that is missing"
    )
    max_frame_bytes: int = setting(
        17 * MIB,
        "the largest frame; a larger one closes its connection",
        least=64 * KIB,
        most=2**30,
    )
    max_connections: int = setting(10_000, "connections beyond this are closed at once", least=1)
    max_in_flight_requests: int = setting(
        256, "requests of one connection under way; reading pauses at this", least=1
    )
    max_parked_batches: int = setting(
        64, "batches of one producer and partition that may wait for an earlier one", least=0
    )
    park_timeout_ms: int = setting(5000, "how long such a batch may wait", least=1)
    max_producers: int = setting(
        100_000, "idempotent producers remembered for each partition", least=1
    )
    producer_expiry_ms: int = setting(
        24 * 3600 * 1000,
        "forget an idempotent producer that sent nothing for this long",
        least=1000,
    )
    max_fetch_bytes: int = setting(
        4 * MIB,
        "a fetch never answers with more, but for a first batch that is larger",
        least=64 * KIB,
    )
    retention_check_interval_ms: int = setting(60_000, "how often retention is applied", least=10)
    shutdown_timeout_s: float = setting(30.0, "how long a graceful stop may take", least=0.1)
    check_crc_on_fetch: bool = setting(
        True, "check each stored batch before it is sent to a consumer"
    )
    reorder_responses: bool = setting(
        False,
        "answer each connection in the order of its requests (the published first attempt; for comparison)",
    )
    overlapped: bool = setting(
        True,
        "expert: handle each request when it comes; false: a connection's next one after the answer to the last",
    )
    buffers: dict[int, int] = setting(
        default_buffer_classes, "the pool: buffer size in bytes -> how many"
    )
    buffers_pooled: bool = data_path("buffers_pooled")
    rdma_slot_bytes: int = data_path("rdma_slot_bytes")
    rdma_window: int = data_path("rdma_window")
    rdma_source_bytes: int = data_path("rdma_source_bytes")
    rdma_eager_bytes: int = data_path("rdma_eager_bytes")
    send_hold_ms: float = data_path("send_hold_ms")
    topic: TopicConfig = setting(TopicConfig, "the settings of topics that do not say otherwise")

    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "polling": get_args(PollingMode),
        "flush": get_args(FlushPolicy),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig(Checked):
    """What every client has."""

    bootstrap: str = setting("tcp://127.0.0.1:9500", "addresses of brokers, separated by commas")
    transport: str = setting(
        "auto",
        "auto: reached by tcp, use shm on the broker's host and verbs where both have it, else tcp; "
        "or the scheme of the only one to use",
    )
    client_id: str = setting("frieda", "a name for the broker's logs")
    polling: str = setting("adaptive", "how the event loop waits: event, adaptive or busy")
    polling_window_us: int = setting(
        2000, "adaptive: keep polling this long after the last message", least=0, most=1_000_000
    )
    request_timeout_s: float = setting(30.0, "how long one request may take", least=0.001)
    connect_timeout_s: float = setting(
        10.0, "how long one connection attempt may take", least=0.001
    )
    retry_backoff_s: float = setting(
        0.05, "the first pause before a retry; doubles up to 1 s", least=0.0
    )
    metadata_max_age_s: float = setting(300.0, "ask for metadata again after this", least=0.1)
    max_frame_bytes: int = setting(
        17 * MIB, "the largest frame this client takes", least=64 * KIB, most=2**30
    )
    buffers_pooled: bool = data_path("buffers_pooled")
    rdma_slot_bytes: int = data_path("rdma_slot_bytes")
    rdma_window: int = data_path("rdma_window")
    rdma_source_bytes: int = data_path("rdma_source_bytes")
    rdma_eager_bytes: int = data_path("rdma_eager_bytes")
    send_hold_ms: float = data_path("send_hold_ms")

    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {"polling": get_args(PollingMode)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerConfig(ClientConfig):
    """The settings of a Producer."""

    acks: int = setting(-1, "0: none, 1: the leader, -1: all in-sync replicas", least=-1, most=1)
    idempotence: bool = setting(True, "number the batches so that a retry is never stored twice")
    linger_ms: float = setting(
        0.0, "wait this long for a batch to fill; 0: send at once", least=0.0
    )
    batch_bytes: int = setting(64 * KIB, "close a batch at this size", least=64, most=2**30)
    buffer_bytes: int = setting(
        32 * MIB,
        "bytes of records that may wait for their acknowledgement; send() waits above",
        least=KIB,
    )
    max_in_flight: int = setting(5, "batches of one partition under way at once", least=1, most=64)
    delivery_timeout_s: float = setting(
        120.0, "a record fails when not acknowledged within this", least=0.001
    )
    compression: str = setting("none", "none, gzip, snappy, lz4 or zstd")
    ordering: str = setting(
        "partition", "results come in send order for each partition, or for the whole producer"
    )

    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "polling": get_args(PollingMode),
        "compression": get_args(Compression),
        "ordering": get_args(Ordering),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerConfig(ClientConfig):
    """The settings of a Consumer."""

    group: str | None = setting(
        None, "the name that committed offsets are kept under (no rebalancing)"
    )
    start: str = setting("latest", "where to start without a committed offset: earliest or latest")
    min_bytes: int = setting(1, "a fetch waits until this many bytes are there", least=0)
    max_bytes: int = setting(
        MIB, "a fetch brings at most this many bytes of one partition", least=KIB
    )
    max_wait_ms: int = setting(500, "a fetch waits at most this long", least=0)
    prefetch_bytes: int = setting(
        8 * MIB, "fetched bytes that may wait for the application", least=KIB
    )
    auto_commit_interval_s: float = setting(
        0.0, "commit positions this often, when a group is set; 0: only when told", least=0.0
    )
    check_crcs: bool = setting(True, "check each batch's checksum on arrival too")
    isolation: str = setting("read_uncommitted", "read_uncommitted (the only choice so far)")

    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "polling": get_args(PollingMode),
        "start": get_args(StartAt),
        "isolation": ("read_uncommitted",),
    }
