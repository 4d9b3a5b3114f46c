"""What a Kafka broker answers as an error of ours."""

from __future__ import annotations

import pytest

from frieda.bench.drivers.kafka_errors import KafkaError, broker_error, kafka_offset
from frieda.errors import BrokerError, ConfigError, ErrorCode


def test_a_number_of_our_table_is_that_error() -> None:
    error = broker_error(6, "topic 't'")
    assert isinstance(error, BrokerError)
    assert error.code is ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert error.retriable
    assert "topic 't'" in str(error)


@pytest.mark.parametrize(("number", "retriable"), [(75, True), (16, True), (29, False)])
def test_every_error_says_whether_to_try_again(number: int, retriable: bool) -> None:
    assert broker_error(number, "why").retriable is retriable


def test_a_number_that_our_table_does_not_have_is_named() -> None:
    error = broker_error(9999, "why")
    assert isinstance(error, KafkaError)
    assert str(error) == "Kafka's error 9999: why"


def test_an_offset_is_a_whole_number_from_0() -> None:
    assert kafka_offset(0) == 0
    for position in (-1, "7", True):
        with pytest.raises(ConfigError, match="Kafka's positions are offsets"):
            kafka_offset(position)
