"""NATS JetStream under the benchmarks: a stream for each topic, a subject `topic.N` for each partition.

The key of a record chooses its subject, as is NATS's way, and is not stored. Every publication has an inbox of its
own for its acknowledgement; reading is by pull consumers without acknowledgements, one for each partition.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

from frieda.bench.drivers.base import (
    ConsumerOptions,
    Done,
    Position,
    ProducerOptions,
    Start,
    Taken,
)
from frieda.bench.drivers.nats_connection import NatsConnection, NatsError, error_of, publication
from frieda.bench.drivers.nats_protocol import Message, header_of, status_of
from frieda.bench.drivers.pipeline import Pipeline
from frieda.bench.drivers.read_size import ReadSize
from frieda.bench.drivers.wire import require_address
from frieda.clients.partitioner import Partitioner
from frieda.errors import (
    BrokerError,
    ClientClosedError,
    ConfigError,
    ErrorCode,
    FriedaError,
    RemoteProtocolError,
)

MAX_IN_FLIGHT: Final = 4000
"""Publications that may be unacknowledged: nats-py's own bound; the server drops them from 10,000 on."""
PULL_EXPIRES_NS: Final = 30_000_000_000
INACTIVE_NS: Final = 300_000_000_000
"""The server forgets a consumer that has not pulled for so long."""
_STREAM_EXISTS: Final = 10058
_NO_STREAM: Final = 10059
_EXPIRED: Final = 408


class NatsDriver:
    """JetStream over a connection of its own for each producer and consumer."""

    name = "nats"
    system = "nats"

    def missing(self) -> str | None:
        """It needs no library."""
        return None

    async def make_topic(
        self, address: str, topic: str, partitions: int = 1, replication_factor: int = 1
    ) -> None:
        """Make the stream; nothing when it is there. Raises FriedaError."""
        if partitions < 1:
            raise ConfigError(f"partitions = {partitions}: must be at least 1")
        if replication_factor != 1:
            raise ConfigError(
                f"replication_factor = {replication_factor}: NATS is measured on one server"
            )
        config = {
            "name": _stream(topic),
            "subjects": [f"{topic}.{partition}" for partition in range(partitions)],
            "storage": "file",
            "retention": "limits",
            "discard": "old",
            "num_replicas": 1,
            "max_msgs": -1,
            "max_bytes": -1,
        }
        connection = await _connected(address)
        try:
            await connection.ask(f"STREAM.CREATE.{topic}", config)
        except NatsError as error:
            if error.code != _STREAM_EXISTS:
                raise
        finally:
            await connection.close()

    def producer(self, options: ProducerOptions) -> NatsProducer:
        """A producer, not started. Raises ConfigError."""
        return NatsProducer(options)

    def consumer(self, options: ConsumerOptions) -> NatsConsumer:
        """A consumer, not started. Raises ConfigError."""
        return NatsConsumer(options)


class NatsProducer:
    """ProducerDriver: one publication for each record, written at once; submit_many writes many with one call."""

    def __init__(self, options: ProducerOptions) -> None:
        _check(options.address, options.topic, options.extra)
        if options.compression != "none":
            raise ConfigError(f"compression = {options.compression!r}: a publication has none")
        self._options = options
        self._connection: NatsConnection | None = None
        self._pipeline: Pipeline | None = None
        self._prefix_bytes = 0

    @property
    def settings(self) -> Mapping[str, object]:
        """What shapes its figures."""
        return {
            **_client_settings(self._connection),
            "acks": "every publication is acknowledged",
            "key": "chooses the subject, is not stored",
            "linger_ms": 0.0,
            "max_in_flight": MAX_IN_FLIGHT,
            "delivery_timeout_s": self._options.delivery_timeout_s,
        }

    async def start(self) -> None:
        """Connect and learn of the stream. Raises FriedaError; nothing is left open then."""
        options = self._options
        connection = await _connected(
            options.address, self._acknowledged, self._lost, self._has_room
        )
        try:
            count = await _partition_count(connection, options.topic)
        except BaseException:
            await connection.close()
            raise
        prefix = f"{connection.inbox}.p.".encode()
        connection.subscribe(f"{connection.inbox}.p.*")
        subjects = [f"{options.topic}.{partition}".encode() for partition in range(count)]
        partitioner = Partitioner(count, options.batch_bytes)

        limit_bytes = int(connection.info.get("max_payload", 0))

        def encode(number: int, value: bytes, key: bytes | None) -> bytes:
            if len(value) > limit_bytes:
                raise BrokerError(
                    ErrorCode.MESSAGE_TOO_LARGE,
                    f"a record of {len(value)} bytes: this nats-server has max_payload = {limit_bytes}",
                )
            if key is None:
                subject = subjects[partitioner.next_sticky(len(value))]
            else:
                subject = subjects[partitioner.for_key(key)]
            return publication(subject, b"%b%d" % (prefix, number), value)

        self._prefix_bytes = len(prefix)
        timeout_s = options.delivery_timeout_s
        self._pipeline = Pipeline(connection.wire, encode, MAX_IN_FLIGHT, timeout_s, "nats")
        self._connection = connection

    def submit(self, value: bytes, key: bytes | None, done: Done) -> bool:
        """Write one publication; False while MAX_IN_FLIGHT are unacknowledged.

        Raises ClientClosedError, BrokerError for a record above the server's max_payload.
        """
        return self._running.submit(value, key, done)

    async def submit_many(self, values: Sequence[bytes], done: Done) -> None:
        """Write them all, about 256 KiB at once. Raises as `submit`; what comes before is sent all the same."""
        await self._running.submit_many(values, done)

    async def close(self, timeout_s: float = 5.0) -> None:
        """End the connection; what is not acknowledged fails with ClientClosedError. May be repeated."""
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is not None:
            pipeline.close()
        if self._connection is not None:
            await self._connection.close()

    @property
    def _running(self) -> Pipeline:
        if self._pipeline is None:
            raise ClientClosedError("this producer is not started, or closed")
        return self._pipeline

    def _acknowledged(self, messages: list[Message]) -> None:
        pipeline, prefix_bytes = self._pipeline, self._prefix_bytes
        if pipeline is None:
            return
        for message in messages:
            failed = message.headers or b'"error"' in message.payload
            error = _refusal(message) if failed else None
            pipeline.answered(int(message.subject[prefix_bytes:]), error)
        pipeline.answered_all()

    def _lost(self, error: FriedaError) -> None:
        if self._pipeline is not None:
            self._pipeline.fail(error)

    def _has_room(self) -> None:
        if self._pipeline is not None:
            self._pipeline.make_room()


class _PartitionRead:
    """The pull consumer of one partition: what was asked for, and what has come and was not handed out."""

    __slots__ = ("held", "name", "partition", "requested")

    def __init__(self, partition: int, name: str) -> None:
        self.partition = partition
        self.name = name
        self.requested = 0
        self.held: deque[Message] = deque()


class NatsConsumer:
    """ConsumerDriver: a pull request for each partition is always under way. A position is a sequence number."""

    def __init__(self, options: ConsumerOptions) -> None:
        _check(options.address, options.topic, options.extra)
        self._options = options
        self._read_size = ReadSize(options.max_bytes)
        self._connection: NatsConnection | None = None
        self._reads: dict[int, _PartitionRead] = {}
        """By sid, the one that is served next first."""
        self._error: FriedaError | None = None
        self._news: asyncio.Future[None] | None = None

    @property
    def settings(self) -> Mapping[str, object]:
        """What shapes its figures."""
        return {
            **_client_settings(self._connection),
            "max_bytes": self._options.max_bytes,
            "ack_policy": "none",
        }

    async def start(self) -> None:
        """Connect and make a consumer for each partition. Raises FriedaError; nothing is left open then."""
        options, topic = self._options, self._options.topic
        connection = await _connected(options.address, self._came, self._lost)
        try:
            count = await _partition_count(connection, topic)
            wanted = range(count) if options.partitions is None else options.partitions
            for partition in wanted:
                if not 0 <= partition < count:
                    raise BrokerError(
                        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
                        f"topic {topic!r} has partitions 0 to {count - 1}, not {partition}",
                    )
                config = {
                    **_deliver_policy(options.start, partition),
                    "filter_subject": f"{topic}.{partition}",
                    "ack_policy": "none",
                    "replay_policy": "instant",
                    "mem_storage": True,
                    "inactive_threshold": INACTIVE_NS,
                }
                answer = await connection.ask(
                    f"CONSUMER.CREATE.{topic}", {"stream_name": topic, "config": config}
                )
                sid = connection.subscribe(f"{connection.inbox}.c.{partition}")
                self._reads[sid] = _PartitionRead(partition, str(answer["name"]))
        except BaseException:
            await connection.close()
            raise
        self._connection = connection
        for read in self._reads.values():
            self._pull(read)

    async def take(self, timeout_s: float, max_records: int = 10_000) -> Sequence[Taken]:
        """What the pull requests have brought. Raises FriedaError."""
        if max_records < 1:
            raise ConfigError(f"max_records = {max_records}: must be at least 1")
        if self._connection is None:
            raise ClientClosedError("this consumer is not started, or closed")
        if not self._has_held and self._error is None:
            self._news = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._news,), timeout=timeout_s)
            self._news = None
        if self._has_held:
            return self._handed_out(max_records)
        if self._error is not None:
            raise self._error
        return ()

    async def close(self) -> None:
        """End the connection; the server then forgets the consumers. May be repeated."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._lost(ClientClosedError("this consumer is closed"))
            await connection.close()

    @property
    def _has_held(self) -> bool:
        return any(read.held for read in self._reads.values())

    def _handed_out(self, max_records: int) -> list[Taken]:
        found: list[Taken] = []
        left = max_records
        for sid, read in list(self._reads.items()):
            if left and read.held:
                messages = [read.held.popleft() for _ in range(min(left, len(read.held)))]
                left -= len(messages)
                values = [message.payload for message in messages]
                self._read_size.note(len(values), sum(map(len, values)))
                after = sequence_of(messages[-1].reply) + 1
                found.append(Taken(read.partition, values, after))
                # Those that come late in the order are served first the next time.
                self._reads[sid] = self._reads.pop(sid)
            self._pull(read)
        return found

    def _pull(self, read: _PartitionRead) -> None:
        """Ask for more when little is asked for, and all that came was handed out."""
        batch = self._read_size.records - read.requested
        if self._connection is None or read.held or read.requested > batch:
            return
        connection, topic = self._connection, self._options.topic
        request = json.dumps({"batch": batch, "expires": PULL_EXPIRES_NS}).encode()
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{topic}.{read.name}".encode()
        reply = f"{connection.inbox}.c.{read.partition}".encode()
        connection.wire.write(publication(subject, reply, request))
        read.requested += batch

    def _came(self, messages: list[Message]) -> None:
        for message in messages:
            read = self._reads.get(message.sid)
            if read is None:
                continue
            status, text = status_of(message.headers) if message.headers else (0, "")
            if status == 0:
                read.held.append(message)
                read.requested -= 1
            elif status == _EXPIRED:
                pending = header_of(message.headers, b"Nats-Pending-Messages") or b""
                read.requested -= int(pending) if pending.isdigit() else read.requested
                self._pull(read)
            else:
                self._error = self._error or NatsError(
                    f"nats ended a pull request: {status} {text}"
                )
        self._tell()

    def _lost(self, error: FriedaError) -> None:
        self._error = self._error or error
        self._tell()

    def _tell(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)


def sequence_of(reply: bytes) -> int:
    """The stream sequence in the reply subject of a delivered message. Raises RemoteProtocolError.

    Source: JetStream's $JS.ACK subjects, with 9 words, or 11 and more when they name domain and account.
    """
    words = reply.split(b".")
    place = 5 if len(words) == 9 else 7
    try:
        return int(words[place])
    except (IndexError, ValueError):
        raise RemoteProtocolError(f"nats: {reply[:80]!r} names no sequence number") from None


async def _connected(address: str, *handlers: Any) -> NatsConnection:
    require_address(address, "nats")
    connection = NatsConnection(*handlers)
    await connection.connect(address)
    return connection


async def _partition_count(connection: NatsConnection, topic: str) -> int:
    """How many subjects the stream has. Raises BrokerError when there is no such stream."""
    try:
        answer = await connection.ask(f"STREAM.INFO.{topic}", None)
    except NatsError as error:
        if error.code != _NO_STREAM:
            raise
        raise BrokerError(
            ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"nats has no stream {topic!r}: make it first"
        ) from None
    return len(answer["config"]["subjects"])


def _deliver_policy(start: Start, partition: int) -> dict[str, object]:
    if start == "latest":
        return {"deliver_policy": "new"}
    if isinstance(start, Mapping) and partition in start:
        return {
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": _sequence(start[partition]),
        }
    return {"deliver_policy": "all"}


def _sequence(position: Position) -> int:
    if not isinstance(position, int) or position < 1:
        raise ConfigError(f"position {position!r}: those of NATS are sequence numbers from 1")
    return position


def _refusal(message: Message) -> FriedaError:
    """Why a publication was not stored."""
    status, text = status_of(message.headers)
    if status:
        return NatsError(f"nats did not take the record: {status} {text}")
    try:
        return error_of(json.loads(message.payload)["error"])
    except (ValueError, KeyError, TypeError):
        return RemoteProtocolError(f"nats gave no acknowledgement: {message.payload[:80]!r}")


def _stream(topic: str) -> str:
    if not topic or any(letter in " .*>/\\\t\r\n" for letter in topic):
        raise ConfigError(f"topic {topic!r}: the name of a NATS stream has no space, dot, * or >")
    return topic


def _check(address: str, topic: str, extra: Mapping[str, object]) -> None:
    require_address(address, "nats")
    _stream(topic)
    if extra:
        raise ConfigError(f"{next(iter(extra))!r}: the nats driver has no settings of its own")


def _client_settings(connection: NatsConnection | None) -> dict[str, object]:
    return {
        "client": "a connection of the event loop, without a library",
        "version": "" if connection is None else str(connection.info.get("version", "")),
    }
