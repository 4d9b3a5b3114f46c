"""What producer, consumer and topics of aiokafka have in common: errors, and what a topic is made of."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import aiokafka
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    BrokerResponseError,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
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

_LOOK_S: Final = 0.02


def version() -> str:
    """aiokafka's version."""
    return str(aiokafka.__version__)


def error_of(error: BaseException) -> FriedaError:
    """An exception of the library as one of ours."""
    text = str(error) or type(error).__name__
    match error:
        case FriedaError():
            return error
        case KafkaTimeoutError() | RequestTimedOutError():
            return DeliveryTimeoutError(f"Kafka did not answer in time: {text}")
        case KafkaConnectionError():
            return ConnectError(f"Kafka cannot be reached: {text}")
        case ProducerClosed():
            return ClientClosedError("the producer was closed before Kafka had answered")
        case BrokerResponseError():
            return broker_error(error.errno, text)
    return FriedaError(f"aiokafka: {type(error).__name__}: {text}")


@contextlib.contextmanager
def errors_as_ours() -> Iterator[None]:
    """What the library raises inside is raised as FriedaError."""
    try:
        yield
    except KafkaError as error:
        raise error_of(error) from None


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
            await _until_it_has_leaders(admin, topic)
    finally:
        await admin.close()


async def _until_it_has_leaders(admin: AIOKafkaAdminClient, topic: str) -> None:
    deadline_s = time.monotonic() + REQUEST_TIMEOUT_S
    while True:
        (found,) = await admin.describe_topics([topic])
        codes = [found["error_code"], *(part["error_code"] for part in found["partitions"])]
        first = next((code for code in codes if code != ErrorCode.NONE), None)
        if first is None and found["partitions"]:
            return
        if time.monotonic() > deadline_s:
            raise broker_error(
                ErrorCode.LEADER_NOT_AVAILABLE if first is None else first,
                f"topic {topic!r} has no leaders after {REQUEST_TIMEOUT_S:g} s",
            )
        await asyncio.sleep(_LOOK_S)
