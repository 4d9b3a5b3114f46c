"""The producer benchmark against a broker process: what it says was acknowledged is in the log."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from frieda.bench.load import Load
from frieda.bench.producer import ProducerSettings, ensure_topic, run_producer
from frieda.clients.admin import Admin
from frieda.errors import BrokerError, ConfigError
from frieda.testing.brokers import BrokerProcess


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    folder: Path = tmp_path_factory.mktemp("bench") / "data"
    with BrokerProcess(folder, "--polling", "event") as process:
        yield process
        code, errors = process.stop()
        assert (code, errors) == (0, "")


async def stored(url: str, topic: str) -> int:
    async with Admin(url, polling="event") as admin:
        return sum((await admin.end_offsets(topic)).values())


@pytest.mark.parametrize(
    ("topic", "load", "call"),
    [
        ("one-at-a-time", {"in_flight": 1, "producers": 2, "processes": 2}, "send"),
        ("in-bulk", {"in_flight": 700}, "bulk"),
        ("nowait", {"in_flight": 700, "producers": 2}, "send_nowait"),
        ("nowait-few", {"in_flight": 3}, "send_nowait"),
        ("scheduled", {"in_flight": 50, "rate": 5000.0}, "send_nowait"),
    ],
)
def test_every_record_is_counted_and_stored(
    broker: BrokerProcess, topic: str, load: dict[str, Any], call: str
) -> None:
    made = asyncio.run(ensure_topic(broker.url, topic, 2))
    assert made
    assert not asyncio.run(ensure_topic(broker.url, topic, 2))
    settings = ProducerSettings(
        load=Load(records=2000, warm_up_records=100, **load),
        topic=topic,
        bootstrap=broker.url,
        polling="event",
        call="send_nowait" if call == "send_nowait" else "bulk",
    )
    result = run_producer(settings)
    assert (result.records, result.errors, result.latency.count) == (2000, 0, 2000)
    assert result.settings["call"] == call
    assert result.settings["broker_polling"] == "event"
    assert result.settings["flush"] == "never"
    assert (result.service_time is not None) == ("rate" in load)
    assert asyncio.run(stored(broker.url, topic)) == 2100


def test_a_buffer_smaller_than_what_may_be_in_flight_is_waited_for(broker: BrokerProcess) -> None:
    # 40 records of 1 MiB do not fit into the producer's buffer of 32 MiB.
    asyncio.run(ensure_topic(broker.url, "large", 1))
    settings = ProducerSettings(
        load=Load(records=60, record_size_bytes=1024 * 1024, in_flight=60),
        topic="large",
        bootstrap=broker.url,
        polling="event",
        call="send_nowait",
    )
    result = run_producer(settings)
    assert (result.records, result.errors) == (60, 0)
    assert asyncio.run(stored(broker.url, "large")) == 60


def test_a_topic_that_is_missing_is_named(broker: BrokerProcess) -> None:
    settings = ProducerSettings(load=Load(records=1), topic="absent", bootstrap=broker.url)
    with pytest.raises(BrokerError, match="absent"):
        run_producer(settings)


def test_a_call_that_is_unknown_is_refused() -> None:
    with pytest.raises(ConfigError, match="call = 'fast': must be one of bulk, send_nowait"):
        ProducerSettings(load=Load(records=1), topic="t", call="fast")
