"""Every error that Frieda can answer or raise: one table of codes, one small family tree.

The numbers are Kafka's own where Kafka has the error, so that a Kafka-protocol listener can pass
them on; Frieda's own start at 10000 (source: the error table of the Kafka protocol guide).

The family tree, by who is at fault:

    FriedaError
    ├── BrokerError        the broker answered a request with an error code
    ├── TransportError     the connection: ClosedError (we closed it), BrokenError (the world did),
    │                      BusyError (used by two tasks), ConnectError, AddressInUseError
    ├── ProtocolError      RemoteProtocolError (the peer sent nonsense), LocalProtocolError (we would)
    ├── StorageError       the log: a code of the table plus the folder or file it happened in
    ├── ConfigError        a setting is unknown or its value is out of range
    ├── CoordinationError  the cluster's metadata store: unreachable or late; ConflictError (the value was another),
    │                      FencedError (another has taken over)
    ├── DeliveryTimeoutError, BufferFullError, ClientClosedError   the client library
    └── MissingDependencyError   an optional package is needed and not installed
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class ErrorCode(IntEnum):
    """An error as it travels in an answer. `ErrorCode(x)` raises ValueError for an unknown number."""

    UNKNOWN_SERVER_ERROR = -1
    NONE = 0
    OFFSET_OUT_OF_RANGE = 1
    CORRUPT_MESSAGE = 2
    UNKNOWN_TOPIC_OR_PARTITION = 3
    LEADER_NOT_AVAILABLE = 5
    NOT_LEADER_OR_FOLLOWER = 6
    REQUEST_TIMED_OUT = 7
    MESSAGE_TOO_LARGE = 10
    NETWORK_EXCEPTION = 13
    INVALID_TOPIC = 17
    NOT_ENOUGH_REPLICAS = 19
    NOT_ENOUGH_REPLICAS_AFTER_APPEND = 20
    INVALID_REQUIRED_ACKS = 21
    INVALID_GROUP_ID = 24
    UNSUPPORTED_VERSION = 35
    TOPIC_ALREADY_EXISTS = 36
    INVALID_PARTITIONS = 37
    INVALID_REPLICATION_FACTOR = 38
    INVALID_CONFIG = 40
    INVALID_REQUEST = 42
    OUT_OF_ORDER_SEQUENCE = 45
    INVALID_PRODUCER_EPOCH = 47
    STORAGE_ERROR = 56
    UNKNOWN_PRODUCER_ID = 59
    FENCED_LEADER_EPOCH = 74
    UNSUPPORTED_COMPRESSION = 76
    INVALID_RECORD = 87
    UNKNOWN_TOPIC_ID = 100
    DISK_FULL = 10001
    LOG_FAILED = 10002
    CORRUPT_LOG = 10003
    BROKER_STOPPING = 10004
    BUSY = 10005


class ErrorRow(NamedTuple):
    """What the table says of one code: may the same request succeed later, and a sentence for people."""

    retriable: bool
    message: str


ERROR_TABLE: dict[ErrorCode, ErrorRow] = {
    ErrorCode.UNKNOWN_SERVER_ERROR: ErrorRow(False, "the broker met a fault of its own; its log has the details"),
    ErrorCode.NONE: ErrorRow(False, "no error"),
    ErrorCode.OFFSET_OUT_OF_RANGE: ErrorRow(False, "the offset is outside the range the partition holds"),
    ErrorCode.CORRUPT_MESSAGE: ErrorRow(True, "the record batch was damaged on its way (its checksum is wrong)"),
    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION: ErrorRow(True, "the broker has no such topic or partition"),
    ErrorCode.LEADER_NOT_AVAILABLE: ErrorRow(True, "the partition has no leader at this moment"),
    ErrorCode.NOT_LEADER_OR_FOLLOWER: ErrorRow(True, "this broker does not lead the partition"),
    ErrorCode.REQUEST_TIMED_OUT: ErrorRow(True, "the request was not done within its time"),
    ErrorCode.MESSAGE_TOO_LARGE: ErrorRow(False, "the record batch is larger than the topic's max.message.bytes"),
    ErrorCode.NETWORK_EXCEPTION: ErrorRow(True, "the connection to the broker was lost"),
    ErrorCode.INVALID_TOPIC: ErrorRow(False, "the topic name is not legal"),
    ErrorCode.NOT_ENOUGH_REPLICAS: ErrorRow(True, "fewer replicas are in sync than acks=all demands; not stored"),
    ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND: ErrorRow(
        True, "stored, but by then fewer replicas were in sync than acks=all demands"
    ),
    ErrorCode.INVALID_REQUIRED_ACKS: ErrorRow(False, "acks must be 0, 1 or -1 (all)"),
    ErrorCode.INVALID_GROUP_ID: ErrorRow(False, "the group name is not legal"),
    ErrorCode.UNSUPPORTED_VERSION: ErrorRow(False, "the broker does not speak this version of the request"),
    ErrorCode.TOPIC_ALREADY_EXISTS: ErrorRow(False, "a topic of this name exists already"),
    ErrorCode.INVALID_PARTITIONS: ErrorRow(False, "the number of partitions is not legal"),
    ErrorCode.INVALID_REPLICATION_FACTOR: ErrorRow(False, "the replication factor is not legal"),
    ErrorCode.INVALID_CONFIG: ErrorRow(False, "a topic setting is unknown or out of range"),
    ErrorCode.INVALID_REQUEST: ErrorRow(False, "the request is malformed"),
    ErrorCode.OUT_OF_ORDER_SEQUENCE: ErrorRow(True, "the batch arrived before one that the same producer sent earlier"),
    ErrorCode.INVALID_PRODUCER_EPOCH: ErrorRow(False, "a newer incarnation of this producer has taken over"),
    ErrorCode.STORAGE_ERROR: ErrorRow(True, "the broker could not write to or read from its disk"),
    ErrorCode.UNKNOWN_PRODUCER_ID: ErrorRow(False, "the broker does not know this producer id"),
    ErrorCode.FENCED_LEADER_EPOCH: ErrorRow(True, "the leader epoch in the request is out of date"),
    ErrorCode.UNSUPPORTED_COMPRESSION: ErrorRow(False, "the broker cannot read this compression"),
    ErrorCode.INVALID_RECORD: ErrorRow(False, "the record batch does not hold what its header says"),
    ErrorCode.UNKNOWN_TOPIC_ID: ErrorRow(True, "the broker has no topic of this id (was it deleted and made again?)"),
    ErrorCode.DISK_FULL: ErrorRow(True, "the broker's disk is full"),
    ErrorCode.LOG_FAILED: ErrorRow(False, "an fsync of this log failed; it takes no more writes until a restart"),
    ErrorCode.CORRUPT_LOG: ErrorRow(False, "the stored bytes at this offset are damaged"),
    ErrorCode.BROKER_STOPPING: ErrorRow(True, "the broker is shutting down"),
    ErrorCode.BUSY: ErrorRow(True, "the broker is at one of its limits; try again"),
}  # fmt: skip


class FriedaError(Exception):
    """The root of every error that Frieda raises on purpose. `retriable`: may trying again help?"""

    retriable: bool = False


class BrokerError(FriedaError):
    """The broker answered with an error. `code` says which, `detail` what and where."""

    def __init__(self, code: ErrorCode, detail: str = "") -> None:
        self.code = code
        self.detail = detail
        self.retriable = ERROR_TABLE[code].retriable
        message = ERROR_TABLE[code].message
        super().__init__(f"{code.name}: {detail or message}")


class CorruptLogError(BrokerError):
    """A fetch met damaged bytes. `next_readable_offset` is where reading can go on (-1: nowhere yet)."""

    def __init__(self, detail: str, next_readable_offset: int) -> None:
        super().__init__(ErrorCode.CORRUPT_LOG, detail)
        self.next_readable_offset = next_readable_offset


class StorageError(BrokerError):
    """The log could not do it: DISK_FULL, STORAGE_ERROR, LOG_FAILED... `detail` names the file."""


class TransportError(FriedaError):
    """The connection failed; the request on it may or may not have been done."""

    retriable = True


class ConnectError(TransportError):
    """No connection could be made: refused, unreachable, or not within the timeout."""


class AddressInUseError(TransportError):
    """Another process listens at this address already."""

    retriable = False


class ClosedError(TransportError):
    """We closed this connection; it can't be used any more."""

    retriable = False


class BrokenError(TransportError):
    """The other side, or the network between, ended this connection."""


class BusyError(TransportError):
    """Two tasks used at once what only one may use."""

    retriable = False


class BufferExhaustedError(TransportError):
    """No buffer of the wanted size class came free in time."""


class ProtocolError(FriedaError):
    """The rules of the protocol were broken."""


class RemoteProtocolError(ProtocolError):
    """The peer sent something that the protocol does not allow; the connection is closed."""


class LocalProtocolError(ProtocolError):
    """This side tried to send something that the protocol does not allow; nothing was sent."""


class ConfigError(FriedaError):
    """A setting is unknown, has the wrong type or is out of range; the message names it."""


class CoordinationError(FriedaError):
    """The cluster's metadata store did not answer in time or is not reachable; the change may or may not be made."""

    retriable = True


class ConflictError(CoordinationError):
    """A change met another value than the one it was made for: nothing was changed; look again.

    `position`: which of the operations it was that did not fit.
    """

    def __init__(self, message: str, position: int = 0) -> None:
        super().__init__(message)
        self.position = position


class FencedError(CoordinationError):
    """Another controller has taken over: nothing was changed, and this one has to stop."""

    retriable = False


class DeliveryTimeoutError(FriedaError):
    """A record was not acknowledged within delivery_timeout_s; it may or may not be stored."""


class BufferFullError(FriedaError):
    """`send_nowait` found the producer's buffer full; `send` would have waited."""

    retriable = True


class ClientClosedError(FriedaError):
    """The producer, consumer or admin client was closed."""


class MissingDependencyError(FriedaError):
    """An optional package is needed for this and not installed; the message says which."""
