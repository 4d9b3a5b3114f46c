"""What producer, consumer and topics of aiokafka have in common: errors, and what a topic is made of."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import aiokafka
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    BrokerResponseError,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    NodeNotReadyError,
    ProducerClosed,
    RequestTimedOutError,
)

from frieda.bench.drivers.kafka_errors import REQUEST_TIMEOUT_S, TOPIC_SETTINGS, broker_error
from frieda.errors import (
    ClientClosedError,
    ConfigError,
    ConnectError,
    DeliveryTimeoutError,
    ErrorCode,
    FriedaError,
)


def version() -> str:
    """aiokafka's version."""
    return str(aiokafka.__version__)


def error_of(error: BaseException, about: str = "") -> FriedaError:
    """An exception of the library as one of ours; `about` says what it was about."""
    text = ": ".join(filter(None, (about, str(error) or type(error).__name__)))
    match error:
        case FriedaError():
            return error
        case KafkaTimeoutError() | RequestTimedOutError():
            return DeliveryTimeoutError(f"Kafka did not answer in time: {text}")
        case KafkaConnectionError() | NodeNotReadyError():
            return ConnectError(f"Kafka cannot be reached: {text}")
        case ProducerClosed():
            return ClientClosedError("the producer was closed before Kafka had answered")
        case BrokerResponseError():
            return broker_error(error.errno, text)
    return FriedaError(f"aiokafka: {type(error).__name__}: {text}")


@contextlib.contextmanager
def errors_as_ours(about: str = "") -> Iterator[None]:
    """What the library raises inside is raised as FriedaError."""
    try:
        yield
    except KafkaError as error:
        raise error_of(error, about) from None


def made(kind: Callable[..., Any], settings: dict[str, Any]) -> Any:
    """A client of these settings. Raises ConfigError when the library does not like one."""
    try:
        return kind(**settings)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"aiokafka: {error}") from None


async def make_topic(address: str, topic: str, partitions: int, replication_factor: int) -> None:
    """Make a topic and wait until it has its leaders; nothing when it is there. Raises FriedaError."""
    admin = AIOKafkaAdminClient(
        bootstrap_servers=address.split(","), request_timeout_ms=round(REQUEST_TIMEOUT_S * 1000)
    )
    try:
        with errors_as_ours():
            await admin.start()
            new = NewTopic(topic, partitions, replication_factor, topic_configs=TOPIC_SETTINGS)
            answer = await admin.create_topics([new])
            _, number, detail = answer.topic_errors[0]
            if number not in (ErrorCode.NONE, ErrorCode.TOPIC_ALREADY_EXISTS):
                raise broker_error(number, detail or f"topic {topic!r} cannot be made")
            await _until_it_has_leaders(address, topic)
    finally:
        await admin.close()


async def _until_it_has_leaders(address: str, topic: str) -> None:
    """Until the leader of every partition serves it: the metadata names one before it knows of that itself."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=address.split(","),
        group_id=None,
        request_timeout_ms=round(REQUEST_TIMEOUT_S * 1000),
    )
    await consumer.start()
    try:
        partitions = await partitions_of(consumer, topic)
        await consumer.end_offsets([TopicPartition(topic, number) for number in partitions])
    finally:
        await consumer.stop()


async def partitions_of(consumer: AIOKafkaConsumer, topic: str) -> list[int]:
    """The partitions of a topic, which the consumer knows from then on.

    As the producer's partitions_for does; a consumer has nothing of the kind for a topic that it is not subscribed to.
    """
    return sorted(await consumer._client._wait_on_metadata(topic))
