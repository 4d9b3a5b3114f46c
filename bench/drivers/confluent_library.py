"""What producer, consumer and topics of confluent-kafka have in common: settings, errors, what a topic is made of."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import confluent_kafka
import confluent_kafka.admin
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from frieda.bench.drivers.kafka_errors import REQUEST_TIMEOUT_S, TOPIC_SETTINGS, broker_error
from frieda.errors import (
    BrokerError,
    ClientClosedError,
    ConfigError,
    ConnectError,
    DeliveryTimeoutError,
    ErrorCode,
    FriedaError,
)

T = TypeVar("T")

admin_part: Any = confluent_kafka.admin
"""Its types are incomplete."""

_LOOK_S: Final = 0.02


def library_settings(address: str) -> dict[str, Any]:
    """What every client is told."""
    return {
        "bootstrap.servers": address,
        "socket.nagle.disable": True,
        # Connect to every broker at once rather than with the first record for it.
        "enable.sparse.connections": False,
        # What goes wrong is raised; the library would write it to standard error as well.
        "log_level": 2,
    }


def versions() -> dict[str, object]:
    """The versions of the package and of librdkafka."""
    return {
        "version": str(confluent_kafka.version()),
        "librdkafka": str(confluent_kafka.libversion()[0]),
    }


def made(kind: Callable[[dict[str, Any]], T], settings: Mapping[str, Any]) -> T:
    """A client of these settings. Raises ConfigError when librdkafka does not like one."""
    try:
        return kind(dict(settings))
    except KafkaException as error:
        raise ConfigError(f"confluent-kafka: {error.args[0].str()}") from None
    except (TypeError, ValueError) as error:
        raise ConfigError(f"confluent-kafka: {error}") from None


def error_of(error: Any) -> FriedaError:
    """A KafkaError of the library as one of ours."""
    code, text = error.code(), error.str()
    if code in (KafkaError._MSG_TIMED_OUT, KafkaError._TIMED_OUT, KafkaError._TIMED_OUT_QUEUE):
        return DeliveryTimeoutError(f"Kafka did not answer in time: {text}")
    if code in (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._RESOLVE):
        return ConnectError(f"Kafka cannot be reached: {text}")
    if code in (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT, KafkaError._DESTROY):
        return ClientClosedError(f"the producer was closed before Kafka had answered: {text}")
    if code == KafkaError._AUTO_OFFSET_RESET:
        return BrokerError(ErrorCode.OFFSET_OUT_OF_RANGE, text)
    if code < -1:
        return FriedaError(f"librdkafka: {text}")
    return broker_error(code, text)


def partitions_of(client: Any, topic: str, timeout_s: float) -> list[int]:
    """The partitions of a topic, which the client knows from then on; blocks. Raises FriedaError."""
    try:
        found = client.list_topics(topic, timeout=timeout_s).topics[topic]
    except KafkaException as error:
        raise error_of(error.args[0]) from None
    for each in (found, *found.partitions.values()):
        if each.error is not None:
            raise broker_error(each.error.code(), f"topic {topic!r}: {each.error.str()}")
    return sorted(found.partitions)


def make_topic(address: str, topic: str, partitions: int, replication_factor: int) -> None:
    """Make a topic and wait until it has its leaders; nothing when it is there; blocks. Raises FriedaError."""
    new = admin_part.NewTopic(topic, partitions, replication_factor, config=TOPIC_SETTINGS)
    deadline_s = time.monotonic() + REQUEST_TIMEOUT_S
    admin = made(admin_part.AdminClient, library_settings(address))
    try:
        admin.create_topics([new], request_timeout=REQUEST_TIMEOUT_S)[topic].result(
            REQUEST_TIMEOUT_S + 1.0
        )
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise error_of(error.args[0]) from None
    except TimeoutError:
        raise ConnectError(f"Kafka at {address} did not make topic {topic!r} in time") from None
    retried(lambda: _require_leaders(admin, topic), deadline_s)


def retried(attempt: Callable[[], T], deadline_s: float) -> T:
    """What `attempt` returns; again and again while it raises what may pass. Blocks. Raises FriedaError.

    `deadline_s`: on the monotonic clock.
    """
    while True:
        try:
            return attempt()
        except FriedaError as error:
            if not error.retriable or time.monotonic() > deadline_s:
                raise
        time.sleep(_LOOK_S)


def _require_leaders(admin: Any, topic: str) -> None:
    """Raise FriedaError, mostly retriable, unless the leader of every partition serves it.

    The metadata names a leader before that one knows of it itself.
    """
    partitions = partitions_of(admin, topic, REQUEST_TIMEOUT_S)
    wanted = {
        TopicPartition(topic, number): admin_part.OffsetSpec.latest() for number in partitions
    }
    found = admin.list_offsets(wanted, request_timeout=REQUEST_TIMEOUT_S)
    try:
        for future in found.values():
            future.result(REQUEST_TIMEOUT_S + 1.0)
    except KafkaException as error:
        raise error_of(error.args[0]) from None
    except TimeoutError:
        raise ConnectError(f"Kafka did not tell the offsets of topic {topic!r} in time") from None
