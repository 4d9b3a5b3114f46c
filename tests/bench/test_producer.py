"""The producer benchmark against a broker process: what it says was acknowledged is in the log."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from frieda.bench.load import Load, shares
from frieda.bench.meter import Meter
from frieda.bench.producer import LoadedProducer, ProducerSettings, ensure_topic, run_producer
from frieda.bench.worker import Channel
from frieda.clients.admin import Admin
from frieda.clients.producer import Producer
from frieda.clock import ManualClock
from frieda.errors import (
    BrokerError,
    ConfigError,
    ConnectError,
    DeliveryTimeoutError,
    FriedaError,
)
from frieda.testing.brokers import BrokerProcess, running_server
from frieda.testing.conversation import health_of
from frieda.testing.raw_client import raw_client


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


class QuietChannel(Channel):
    """Nobody listens to the progress of this load."""

    def __init__(self) -> None:
        super().__init__(asyncio.StreamReader())

    def progress(self, facts: Mapping[str, Any]) -> None: ...


@pytest.mark.parametrize(
    ("in_flight", "rate", "call"),
    [(1, None, "send"), (500, None, "bulk"), (500, None, "send_nowait"), (500, 1e5, "send_nowait")],
)
async def test_a_load_is_given_up_with_one_error_when_the_broker_is_lost(
    tmp_path: Path, in_flight: int, rate: float | None, call: str
) -> None:
    load = Load(records=10**9, in_flight=in_flight, rate=rate)
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, about: complaints.append(about))
    async with running_server(tmp_path) as server:
        url = server.urls[0]
        async with Admin(url, polling="event") as admin:
            await admin.create_topic("t", partitions=2)
        # The time of its deadlines stands still until the broker is lost.
        clock = ManualClock()
        producer = Producer(url, clock=clock, acks=1, polling="event", delivery_timeout_s=0.5)
        await producer.start()
        while True:
            try:
                await producer.partitions_for("t")
            except ConnectError:  # a slow machine may need longer than 0.5 s
                continue
            break
        ((share,),) = shares(load)
        meter = Meter(QuietChannel(), load)
        meter.begin(time.monotonic_ns())
        loaded = LoadedProducer(producer, "t", load, share, meter, call)
        running = asyncio.ensure_future(loaded.run(time.monotonic_ns()))
        async with raw_client(url) as client:
            while not (await health_of(client)).facts["produced_batches"]:
                pass
        assert not running.done()
    clock.advance(1.0)
    with pytest.raises(DeliveryTimeoutError, match="not acknowledged within"):
        await asyncio.wait_for(running, 60)
    meter.close()
    await producer.close(0.0)
    del running, loaded
    gc.collect()  # a result that nobody asked for would complain now
    assert complaints == []


def test_a_benchmark_does_not_wait_for_a_broker_that_was_killed(tmp_path: Path) -> None:
    with BrokerProcess(tmp_path, "--polling", "event") as broker, ThreadPoolExecutor(1) as thread:
        asyncio.run(ensure_topic(broker.url, "t", 1))
        settings = ProducerSettings(
            load=Load(records=10**9),
            topic="t",
            bootstrap=broker.url,
            polling="event",
            delivery_timeout_s=1.0,
        )
        running = thread.submit(run_producer, settings)
        while not asyncio.run(stored(broker.url, "t")):
            assert not running.done()
        broker.kill()
        with pytest.raises(FriedaError, match=r"process failed: .*not acknowledged within"):
            running.result(60)
