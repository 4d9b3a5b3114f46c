"""The typed keyword arguments of the clients and the settings classes say the same."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from frieda.clients.settings import (
    ClientSettings,
    ConsumerSettings,
    ProducerSettings,
    make_config,
)
from frieda.config import ClientConfig, ConsumerConfig, ProducerConfig
from frieda.errors import ConfigError


@pytest.mark.parametrize(
    ("settings", "config"),
    [
        (ClientSettings, ClientConfig),
        (ProducerSettings, ProducerConfig),
        (ConsumerSettings, ConsumerConfig),
    ],
)
def test_every_setting_is_a_typed_keyword_argument(settings: Any, config: Any) -> None:
    known = {spec.name for spec in fields(config)} - {"bootstrap"}
    assert set(settings.__annotations__) == known


def test_values_of_the_wrong_type_are_refused_by_name() -> None:
    for name, value in (
        ("idempotence", 1),
        ("max_in_flight", True),
        ("linger_ms", "5"),
        ("client_id", 7),
        ("batch_bytes", 1.5),
    ):
        with pytest.raises(ConfigError, match=name):
            make_config(ProducerConfig, "tcp://a:1", {name: value})
    with pytest.raises(ConfigError, match="group"):
        make_config(ConsumerConfig, "tcp://a:1", {"group": 7})


def test_whole_numbers_do_for_seconds_and_all_for_acks() -> None:
    config = make_config(
        ProducerConfig, ["tcp://a:1", "tcp://b:2"], {"acks": "all", "linger_ms": 5}
    )
    assert (config.acks, config.linger_ms, config.bootstrap) == (-1, 5, "tcp://a:1,tcp://b:2")
