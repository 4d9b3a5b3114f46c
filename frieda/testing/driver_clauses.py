"""What every driver of the benchmarks must do against its real system; a test class for each inherits it.

The class gives the driver; a module fixture `running` gives the system, started once. Topics are new for each test.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import pytest

from frieda.bench.drivers.base import (
    ConsumerOptions,
    Driver,
    Position,
    ProducerDriver,
    ProducerOptions,
    Start,
)
from frieda.bench.drivers.registry import driver as driver_of
from frieda.bench.systems.base import RunningSystem
from frieda.bench.systems.processes import ChildProcess, free_ports
from frieda.errors import DeliveryTimeoutError, FriedaError, TransportError
from frieda.testing.conversation import eventually
from frieda.testing.driver_probes import GUARD_S, Told, open_sockets, read, take
from frieda.wire.murmur2 import partition_for_key

PARTITIONS: Final = 3
KEYS: Final = tuple(b"key-%d" % number for number in range(10))
_numbers = itertools.count()


class DriverConformance:
    """Inherit it as `class TestSomething(DriverConformance)`, with `driver_name`."""

    driver_name: str
    extra: Mapping[str, object] = {}
    """Settings of the library for every producer."""
    keyed_like_kafka = True
    """Records with a key go where Kafka's own partitioner puts them."""

    @property
    def driver(self) -> Driver:
        """The driver under test."""
        return driver_of(self.driver_name)

    def processes(self, running: Any) -> Sequence[ChildProcess]:
        """The processes of the system."""
        process: ChildProcess = running.process
        return [process]

    @pytest.fixture
    async def topic(self, running: RunningSystem) -> str:
        """A new topic of PARTITIONS partitions."""
        name = f"clause-{os.getpid()}-{next(_numbers)}"
        await self.driver.make_topic(running.address, name, PARTITIONS)
        return name

    @contextlib.contextmanager
    def stopped(self, running: RunningSystem) -> Iterator[None]:
        """The system alive, and silent."""
        processes = self.processes(running)
        for process in processes:
            process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for process in processes:
                process.send_signal(signal.SIGCONT)

    @contextlib.asynccontextmanager
    async def producer(self, running: RunningSystem, topic: str, **options: Any) -> Any:
        """A started producer, closed at the end."""
        values = {"extra": self.extra, "delivery_timeout_s": GUARD_S, **options}
        producer = self.driver.producer(
            ProducerOptions(address=running.address, topic=topic, **values)
        )
        await producer.start()
        try:
            yield producer
        finally:
            await producer.close()

    @contextlib.asynccontextmanager
    async def consumer(
        self, running: RunningSystem, topic: str, start: Start = "earliest", **options: Any
    ) -> Any:
        """A started consumer, closed at the end."""
        consumer = self.driver.consumer(
            ConsumerOptions(address=running.address, topic=topic, start=start, **options)
        )
        await consumer.start()
        try:
            yield consumer
        finally:
            await consumer.close()

    async def send(self, producer: ProducerDriver, values: Sequence[bytes]) -> None:
        """Send keyed records and wait until all are acknowledged."""
        told = Told()
        for number, value in enumerate(values):
            await self.submit(producer, value, KEYS[number % len(KEYS)], told.done_for(number))
        await told.all_of(len(values))
        assert told.errors == []
        assert set(told.by_record.values()) <= {1}

    async def submit(
        self, producer: ProducerDriver, value: bytes, key: bytes | None, done: Any
    ) -> None:
        """Submit one record as soon as the producer takes it."""
        await eventually(
            lambda: producer.submit(value, key, done), "the producer takes a record", GUARD_S
        )

    # --- what is sent is read ---------------------------------------------------------------------------------

    async def test_what_is_submitted_is_acknowledged_once_and_read_in_order(
        self, running: RunningSystem, topic: str
    ) -> None:
        values = [b"%d" % number for number in range(300)]
        async with self.producer(running, topic) as producer:
            await self.send(producer, values)
        async with self.consumer(running, topic) as consumer:
            found = await read(consumer, len(values))
        assert sorted(map(int, itertools.chain(*found.values()))) == list(range(300))
        for partition, records in found.items():
            assert 0 <= partition < PARTITIONS
            by_key: dict[int, list[int]] = {}
            for value in records:
                by_key.setdefault(int(value) % len(KEYS), []).append(int(value))
            for key, numbers in by_key.items():
                assert numbers == sorted(numbers), "in send order"
                assert len(numbers) == 30, "all records of a key are in one partition"
                if self.keyed_like_kafka:
                    assert partition == partition_for_key(KEYS[key], PARTITIONS)

    async def test_many_at_once_are_all_told_of_and_read(
        self, running: RunningSystem, topic: str
    ) -> None:
        values = [b"%d" % number for number in range(25_000)]
        told = Told()
        async with self.producer(running, topic) as producer:
            await producer.submit_many(values[:20_000], told.done)
            await producer.submit_many(values[20_000:], told.done)
            await told.all_of(len(values))
        assert told.count == len(values)
        assert told.errors == []
        async with self.consumer(running, topic) as consumer:
            found = await read(consumer, len(values))
        assert sorted(map(int, itertools.chain(*found.values()))) == list(range(25_000))
        for records in found.values():
            assert list(map(int, records)) == sorted(map(int, records)), "in send order"

    async def test_large_records_come_back_as_they_were(
        self, running: RunningSystem, topic: str
    ) -> None:
        values = [os.urandom(size) for size in (1, 70_000, 500_000, 900_000)]
        told = Told()
        async with self.producer(running, topic) as producer:
            await producer.submit_many(values, told.done)
            await told.all_of(len(values))
        assert told.errors == []
        async with self.consumer(running, topic) as consumer:
            found = await read(consumer, len(values))
        assert sorted(itertools.chain(*found.values())) == sorted(values)

    async def test_done_runs_on_the_loop_with_the_time_of_the_answer(
        self, running: RunningSystem, topic: str
    ) -> None:
        told = Told()
        async with self.producer(running, topic) as producer:
            before_ns = time.monotonic_ns()
            await self.submit(producer, b"value", None, told.done)
            await told.all_of(1)
            after_ns = time.monotonic_ns()
        ((count, ended_ns, error),) = told.calls
        assert (count, error) == (1, None)
        assert before_ns < ended_ns <= after_ns
        assert told.threads == {threading.get_ident()}

    # --- where a consumer stands ------------------------------------------------------------------------------

    async def test_a_consumer_goes_on_from_the_positions_of_another(
        self, running: RunningSystem, topic: str
    ) -> None:
        values = [b"%d" % number for number in range(200)]
        async with self.producer(running, topic) as producer:
            await self.send(producer, values)
        seen: list[bytes] = []
        positions: dict[int, Position] = {}
        async with self.consumer(running, topic) as consumer:
            while len(seen) < 77:
                for taken in await take(consumer, min(10, 77 - len(seen))):
                    seen += taken.values
                    positions[taken.partition] = taken.next_position
        assert len(seen) == 77
        assert json.loads(json.dumps(list(positions.values()))) == list(positions.values())
        async with self.consumer(running, topic, positions) as consumer:
            found = await read(consumer, len(values) - 77)
            assert list(await consumer.take(0.0)) == []
        assert sorted([*seen, *itertools.chain(*found.values())]) == sorted(values)

    async def test_latest_is_what_is_sent_after_the_start(
        self, running: RunningSystem, topic: str
    ) -> None:
        async with (
            self.producer(running, topic) as producer,
            self.consumer(running, topic, "latest") as on_empty,
        ):
            await self.send(producer, [b"old"] * 30)
            async with self.consumer(running, topic, "latest") as consumer:
                await self.send(producer, [b"new"] * 30)
                found = await read(consumer, 30)
            assert set(itertools.chain(*found.values())) == {b"new"}
            found = await read(on_empty, 60)
            assert Counter(itertools.chain(*found.values())) == {b"old": 30, b"new": 30}

    async def test_only_the_partitions_that_were_asked_for_are_read(
        self, running: RunningSystem, topic: str
    ) -> None:
        values = [b"%d" % number for number in range(100)]
        async with self.producer(running, topic) as producer:
            await self.send(producer, values)
        found: dict[int, list[bytes]] = {}
        async with self.consumer(running, topic) as consumer:
            everything = await read(consumer, len(values))
        for partition in everything:
            async with self.consumer(running, topic, partitions=(partition,)) as consumer:
                found |= await read(consumer, len(everything[partition]))
        assert found == everything

    async def test_a_take_without_news_ends_empty_after_its_timeout(
        self, running: RunningSystem, topic: str
    ) -> None:
        async with self.consumer(running, topic, "latest") as consumer:
            began_s = time.monotonic()
            assert list(await consumer.take(0.3)) == []
            assert time.monotonic() - began_s >= 0.29
            async with self.producer(running, topic) as producer:
                await self.send(producer, [b"value"])
                assert await read(consumer, 1)

    async def test_no_more_is_taken_than_was_asked_for(
        self, running: RunningSystem, topic: str
    ) -> None:
        async with self.producer(running, topic) as producer:
            await self.send(producer, [b"%d" % number for number in range(50)])
        async with self.consumer(running, topic) as consumer:
            left = 50
            while left:
                count = sum(len(taken.values) for taken in await take(consumer, 2))
                assert 1 <= count <= 2
                left -= count

    async def test_a_take_that_is_cancelled_loses_nothing(
        self, running: RunningSystem, topic: str
    ) -> None:
        async with (
            self.producer(running, topic) as producer,
            self.consumer(running, topic, "latest") as consumer,
        ):
            found: list[bytes] = []
            cancelled = 0
            for number in range(20):
                taking = asyncio.ensure_future(consumer.take(GUARD_S))
                await asyncio.sleep(0)
                taking.cancel()
                await asyncio.wait((taking,))
                cancelled += taking.cancelled()
                if not taking.cancelled():  # the record before had come already
                    found += itertools.chain(*(taken.values for taken in taking.result()))
                await self.send(producer, [b"%d" % number])
            found += itertools.chain(*(await read(consumer, 20 - len(found))).values())
        assert cancelled
        assert sorted(map(int, found)) == list(range(20))

    # --- what goes wrong --------------------------------------------------------------------------------------

    async def test_a_silent_system_fails_what_is_under_way_after_the_delivery_timeout(
        self, running: RunningSystem, topic: str
    ) -> None:
        told = Told()
        async with self.producer(running, topic, delivery_timeout_s=2.0) as producer:
            await self.submit(producer, b"value", None, told.done)
            await told.all_of(1)
            with self.stopped(running):
                began_ns = time.monotonic_ns()
                for number in range(10):
                    await self.submit(producer, b"value", None, told.done_for(number))
                await told.all_of(11)
        assert told.calls[0][2] is None
        assert len(told.errors) == 10
        for error in told.errors:
            assert isinstance(error, DeliveryTimeoutError | TransportError)
            assert str(error)
        assert set(told.by_record.values()) == {1}
        assert all(ended_ns >= began_ns for _, ended_ns, _ in told.calls[1:])

    async def test_a_system_that_is_not_there_is_a_typed_error(self) -> None:
        (port,) = free_ports(1)
        address = self.address_at(port)
        producer = self.driver.producer(
            ProducerOptions(
                address=address, topic="nowhere", delivery_timeout_s=2.0, extra=self.extra
            )
        )
        try:
            with pytest.raises(FriedaError):
                await asyncio.wait_for(producer.start(), GUARD_S)
        finally:
            await producer.close()

    def address_at(self, port: int) -> str:
        """An address of the system's form at this port."""
        raise NotImplementedError

    async def test_a_topic_that_is_not_there_is_a_typed_error(self, running: RunningSystem) -> None:
        name = f"missing-{os.getpid()}-{next(_numbers)}"
        options = ProducerOptions(address=running.address, topic=name, delivery_timeout_s=5.0)
        producer = self.driver.producer(options)
        try:
            with pytest.raises(FriedaError, match=name):
                await asyncio.wait_for(producer.start(), GUARD_S)
        finally:
            await producer.close()

    async def test_a_second_close_does_nothing_and_nothing_is_sent_after_the_first(
        self, running: RunningSystem, topic: str
    ) -> None:
        async with self.producer(running, topic) as producer:
            await producer.close()
            with pytest.raises(FriedaError):
                producer.submit(b"value", None, Told().done)
            with pytest.raises(FriedaError):
                await producer.submit_many([b"value"], Told().done)
        async with self.consumer(running, topic) as consumer:
            await consumer.close()
            with pytest.raises(FriedaError):
                await consumer.take(0.0)

    async def test_what_is_under_way_at_the_close_is_told_of(
        self, running: RunningSystem, topic: str
    ) -> None:
        told = Told()
        async with self.producer(running, topic) as producer:
            with self.stopped(running):
                for number in range(10):
                    await self.submit(producer, b"value", None, told.done_for(number))
                await producer.close(0.2)
            await told.all_of(10)
        assert set(told.by_record.values()) == {1}
        assert len(told.by_record) == 10

    async def test_nothing_is_left_after_the_close(
        self, running: RunningSystem, topic: str
    ) -> None:
        await self.one_round(running, topic)  # what a library makes once for all stays
        tasks, sockets, threads = asyncio.all_tasks(), open_sockets(), threading.active_count()
        for _ in range(3):
            await self.one_round(running, topic)
        await eventually(lambda: asyncio.all_tasks() <= tasks, "the tasks have ended")
        await eventually(lambda: open_sockets() <= sockets, "the sockets are closed")
        await eventually(lambda: threading.active_count() <= threads, "the threads have ended")

    async def one_round(self, running: RunningSystem, topic: str) -> None:
        """A producer and a consumer from start to close."""
        async with (
            self.producer(running, topic) as producer,
            self.consumer(running, topic, "latest") as consumer,
        ):
            await self.send(producer, [b"value"] * 5)
            await read(consumer, 5)

    # --- what a result says of it -----------------------------------------------------------------------------

    async def test_settings_are_plain_values_with_the_version_of_the_library(
        self, running: RunningSystem, topic: str
    ) -> None:
        async with (
            self.producer(running, topic) as producer,
            self.consumer(running, topic) as consumer,
        ):
            for each in (producer, consumer):
                written = json.loads(json.dumps(each.settings))
                assert written["version"][0].isdigit()
        driver = self.driver
        assert driver.name == self.driver_name
        assert driver.missing() is None

    async def test_making_a_topic_again_changes_nothing(
        self, running: RunningSystem, topic: str
    ) -> None:
        async with self.producer(running, topic) as producer:
            await self.send(producer, [b"value"] * 10)
        await self.driver.make_topic(running.address, topic, PARTITIONS)
        async with self.consumer(running, topic) as consumer:
            assert sum(map(len, (await read(consumer, 10)).values())) == 10
