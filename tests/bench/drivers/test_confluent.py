"""confluent-kafka's driver against a real Kafka."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from frieda.bench.drivers.base import ConsumerOptions, ProducerOptions
from frieda.bench.drivers.confluent import ConfluentDriver
from frieda.bench.drivers.kafka_errors import MAX_RECORD_BYTES
from frieda.bench.systems.kafka import KafkaSystem, RunningKafka
from frieda.bench.systems.processes import ChildProcess
from frieda.errors import BrokerError, ConfigError, ErrorCode, MissingDependencyError
from frieda.testing.driver_clauses import DriverConformance
from frieda.testing.driver_endings import EndedSystemConformance
from frieda.testing.driver_probes import Told, read
from frieda.testing.presence import require

DRIVER = ConfluentDriver()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningKafka]:
    require(KafkaSystem(), DRIVER)
    folder: Path = tmp_path_factory.mktemp("kafka")
    with KafkaSystem().running(folder, "cache") as system:
        yield system
        system.require_alive()


class TestConfluent(DriverConformance):
    driver_name = "confluent-kafka"

    def address_at(self, port: int) -> str:
        return f"127.0.0.1:{port}"

    def processes(self, running: Any) -> Sequence[ChildProcess]:
        kafka: RunningKafka = running
        return kafka.processes

    @pytest.mark.parametrize("acks", [0, 1, -1])
    async def test_every_choice_of_acks_delivers(
        self, running: RunningKafka, topic: str, acks: int
    ) -> None:
        values = [b"%d" % number for number in range(100)]
        async with self.producer(running, topic, acks=acks) as producer:
            assert producer.settings["acks"] == acks
            await self.send(producer, values)
        async with self.consumer(running, topic) as consumer:
            found = await read(consumer, len(values))
        assert sorted(itertools.chain(*found.values())) == sorted(values)

    async def test_a_record_of_more_than_kafkas_usual_limit_is_delivered(
        self, running: RunningKafka, topic: str
    ) -> None:
        told, value = Told(), bytes(1024 * 1024)
        async with self.producer(running, topic) as producer:
            await producer.submit_many([value] * 3, told.done)
            await self.submit(producer, value, None, told.done)
            await told.all_of(4)
        assert told.errors == []
        async with self.consumer(running, topic) as consumer:
            found = await read(consumer, 4)
        assert set(itertools.chain(*found.values())) == {value}

    async def test_a_record_above_the_limit_is_refused_by_itself(
        self, running: RunningKafka, topic: str
    ) -> None:
        large = bytes(MAX_RECORD_BYTES + 1)
        async with self.producer(running, topic) as producer:
            with pytest.raises(BrokerError) as caught:
                producer.submit(large, None, Told().done)
            assert caught.value.code is ErrorCode.MESSAGE_TOO_LARGE
            with pytest.raises(BrokerError):
                await producer.submit_many([large], Told().done)
            await self.send(producer, [b"value"])

    async def test_a_full_queue_refuses_one_and_makes_many_wait(
        self, running: RunningKafka, topic: str
    ) -> None:
        told, extra = Told(), {"queue.buffering.max.messages": 100}
        async with self.producer(running, topic, extra=extra) as producer:
            with self.stopped(running):
                taken = 0
                while producer.submit(b"%d" % taken, b"key", told.done):
                    taken += 1
                assert taken == 100
                values = [b"%d" % number for number in range(100, 1000)]
                many = asyncio.ensure_future(producer.submit_many(values, told.done))
                await asyncio.sleep(0)
                assert not many.done()
            await many
            await told.all_of(1000)
        assert told.errors == []
        async with self.consumer(running, topic) as consumer:
            found = await read(consumer, 1000)
        assert sorted(map(int, itertools.chain(*found.values()))) == list(range(1000))

    async def test_the_settings_are_those_of_the_lowest_latency(
        self, running: RunningKafka, topic: str
    ) -> None:
        extra = {"socket.keepalive.enable": True}
        async with self.producer(running, topic, extra=extra) as producer:
            settings = producer.settings
        assert settings["linger.ms"] == 0
        assert settings["socket.nagle.disable"] is True
        assert settings["socket.keepalive.enable"] is True
        assert settings["enable.idempotence"] is False
        assert str(settings["librdkafka"])[0].isdigit()

    async def test_an_offset_that_the_log_does_not_have_is_told(
        self, running: RunningKafka, topic: str
    ) -> None:
        async with self.consumer(running, topic, {0: 1_000_000}) as consumer:
            with pytest.raises(BrokerError) as caught:
                await read(consumer, 1)
        assert caught.value.code is ErrorCode.OFFSET_OUT_OF_RANGE


class TestConfluentWithoutKafka(EndedSystemConformance):
    driver_name = "confluent-kafka"

    def start(self, folder: Path) -> AbstractContextManager[RunningKafka]:
        require(KafkaSystem(), DRIVER)
        return KafkaSystem().running(folder, "cache")

    def kill(self, running: Any) -> None:
        for process in running.processes:
            process.kill()


async def test_a_partition_that_is_not_there_is_named(running: RunningKafka) -> None:
    await DRIVER.make_topic(running.address, "three", 3)
    options = ConsumerOptions(address=running.address, topic="three", partitions=(0, 3))
    with pytest.raises(ConfigError, match="topic 'three' has no partition 3"):
        await DRIVER.consumer(options).start()


@pytest.mark.parametrize("position", ["1-1", -5])
async def test_a_position_that_is_no_offset_is_named(
    running: RunningKafka, position: int | str
) -> None:
    await DRIVER.make_topic(running.address, "positions")
    options = ConsumerOptions(address=running.address, topic="positions", start={0: position})
    with pytest.raises(ConfigError, match="Kafka's positions are offsets"):
        await DRIVER.consumer(options).start()


async def test_more_replicas_than_brokers_are_refused_by_kafka(running: RunningKafka) -> None:
    with pytest.raises(BrokerError) as caught:
        await DRIVER.make_topic(running.address, "replicated", 1, 4)
    assert caught.value.code is ErrorCode.INVALID_REPLICATION_FACTOR


@pytest.mark.parametrize(
    ("extra", "names"),
    [({"no.such.setting": 1}, "no.such.setting"), ({"acks": "many"}, "acks")],
)
async def test_a_setting_that_librdkafka_does_not_take_is_named(
    extra: dict[str, object], names: str
) -> None:
    require(DRIVER)
    producer = DRIVER.producer(ProducerOptions(address="127.0.0.1:1", topic="t", extra=extra))
    with pytest.raises(ConfigError, match=names):
        await producer.start()
    consumer = DRIVER.consumer(
        ConsumerOptions(address="127.0.0.1:1", topic="t", extra={"no.such.setting": 1})
    )
    with pytest.raises(ConfigError, match=r"no\.such\.setting"):
        await consumer.start()


async def test_without_the_library_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("frieda.bench.drivers.confluent.find_spec", lambda _: None)
    sentence = r"confluent-kafka is not installed: pip install 'frieda\[peers\]'"
    with pytest.raises(MissingDependencyError, match=sentence):
        DRIVER.producer(ProducerOptions(address="127.0.0.1:1", topic="t"))
    with pytest.raises(MissingDependencyError, match=sentence):
        DRIVER.consumer(ConsumerOptions(address="127.0.0.1:1", topic="t"))
    with pytest.raises(MissingDependencyError, match=sentence):
        await DRIVER.make_topic("127.0.0.1:1", "t")
