"""The driver of Redis Streams against a real redis-server, and against servers that behave badly."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis

from frieda.bench.drivers.base import ConsumerOptions, ProducerOptions
from frieda.bench.drivers.redis import MAX_IN_FLIGHT, RedisDriver
from frieda.bench.drivers.redis_connection import RedisConnection, RedisError
from frieda.bench.systems.redis import RedisSystem, RunningRedis
from frieda.errors import BrokenError, BrokerError, ConfigError, RemoteProtocolError
from frieda.testing.driver_clauses import DriverConformance
from frieda.testing.driver_endings import EndedSystemConformance
from frieda.testing.driver_probes import Told, read
from frieda.testing.presence import require

DRIVER = RedisDriver()


@pytest.fixture(scope="module", params=["tcp", "unix"])
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningRedis]:
    require(RedisSystem())
    folder: Path = tmp_path_factory.mktemp("redis")
    with RedisSystem().running(folder, "cache") as system:
        yield system if request.param == "tcp" else OverUnixSocket(system)
        system.require_alive()


class OverUnixSocket:
    """The same server by its other address."""

    def __init__(self, system: RunningRedis) -> None:
        self.address = system.unix_address
        self.process = system.process
        self.unix_socket = system.unix_socket


class TestRedis(DriverConformance):
    driver_name = "redis"

    def address_at(self, port: int) -> str:
        return f"redis://127.0.0.1:{port}"

    async def test_another_client_reads_what_was_written_and_its_entries_are_read(
        self, running: RunningRedis, topic: str
    ) -> None:
        async with self.producer(running, topic) as producer:
            told = Told()
            assert producer.submit(b"value", b"key", told.done)
            assert producer.submit(b"other", None, told.done)
            await told.all_of(2)
        with redis.Redis(unix_socket_path=str(running.unix_socket)) as client:
            entries = [
                fields for n in range(3) for _, fields in client.xrange(f"{topic}:{n}", "-", "+")
            ]
            assert sorted(entries, key=len) == [{b"v": b"other"}, {b"v": b"value", b"k": b"key"}]
            client.xadd(f"{topic}:1", {"v": "theirs"})
        async with self.consumer(running, topic) as consumer:
            found = await read(consumer, 3)
        assert b"theirs" in found[1]

    async def test_a_record_that_redis_refuses_fails_alone(
        self, running: RunningRedis, topic: str
    ) -> None:
        told, many = Told(), Told()
        with redis.Redis(unix_socket_path=str(running.unix_socket)) as client:
            async with self.producer(running, topic) as producer:
                client.set(f"{topic}:0", "no stream")
                client.delete(f"{topic}:1", f"{topic}:2")
                for number in range(30):
                    producer.submit(b"value", b"key-%d" % number, told.done)
                await producer.submit_many([b"value"] * 10, many.done)
                await told.all_of(30)
                await many.all_of(10)
        assert 0 < len(told.errors) < 30
        assert all(
            isinstance(error, RedisError) and "WRONGTYPE" in str(error) for error in told.errors
        )
        assert told.count == 30

    async def test_no_more_than_the_bound_is_under_way(
        self, running: RunningRedis, topic: str
    ) -> None:
        told = Told()
        async with self.producer(running, topic) as producer:
            with self.stopped(running):
                taken = 0
                while taken <= MAX_IN_FLIGHT and producer.submit(b"value", None, told.done):
                    taken += 1
                assert taken == MAX_IN_FLIGHT
                many = asyncio.ensure_future(producer.submit_many([b"more"] * 3, told.done))
            await many
            await told.all_of(MAX_IN_FLIGHT + 3)
            assert producer.submit(b"value", None, told.done)
            await told.all_of(MAX_IN_FLIGHT + 4)
        assert told.errors == []

    async def test_a_socket_that_takes_no_more_refuses_until_it_does(
        self, running: RunningRedis, topic: str
    ) -> None:
        told, value = Told(), bytes(1024 * 1024)
        async with self.producer(running, topic) as producer:
            with self.stopped(running):
                taken = 0
                while taken < 200 and producer.submit(value, None, told.done):
                    taken += 1
                assert 4 <= taken < 200
                many = asyncio.ensure_future(producer.submit_many([value] * 20, told.done))
                await asyncio.sleep(0)
                assert not many.done()
            await many
            await told.all_of(taken + 20)
        assert told.errors == []

    async def test_a_consumer_of_a_partition_that_is_not_there_is_told(
        self, running: RunningRedis, topic: str
    ) -> None:
        options = ConsumerOptions(address=running.address, topic=topic, partitions=(0, 3))
        with pytest.raises(BrokerError, match=r"has partitions 0 to 2, not 3"):
            await DRIVER.consumer(options).start()


class TestRedisThatDies(EndedSystemConformance):
    driver_name = "redis"

    def start(self, folder: Path) -> contextlib.AbstractContextManager[RunningRedis]:
        require(RedisSystem())
        return RedisSystem().running(folder, "cache")

    async def test_a_consumer_is_told_too(self, tmp_path: Path) -> None:
        with contextlib.ExitStack() as stack:
            running = stack.enter_context(self.start(tmp_path))
            await DRIVER.make_topic(running.address, "topic")
            consumer = DRIVER.consumer(ConsumerOptions(address=running.address, topic="topic"))
            await consumer.start()
            assert list(await consumer.take(0.0)) == []
            running.process.kill()
            with pytest.raises(BrokenError, match="the connection to redis was lost"):
                await consumer.take(60.0)
            await consumer.close()


@contextlib.asynccontextmanager
async def server_that_says(answer: bytes) -> AsyncIterator[str]:
    """A server that answers whatever comes with these bytes, and closes after an empty answer."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while await reader.read(65536):
                if not answer:
                    break
                writer.write(answer)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", RemoteProtocolError),
        (b"-NOAUTH Authentication required.\r\n", RedisError),
        (b"", BrokenError),
    ],
)
async def test_a_server_that_is_no_redis_is_a_typed_error(
    answer: bytes, error: type[Exception]
) -> None:
    async with server_that_says(answer) as address:
        producer = DRIVER.producer(ProducerOptions(address=address, topic="t"))
        with pytest.raises(error, match="redis"):
            await producer.start()
        await producer.close()


async def test_a_question_that_is_not_answered_ends() -> None:
    async with server_that_says(b"$5\r\nhal") as address:
        connection = RedisConnection()
        await connection.connect(address)
        with pytest.raises(RedisError, match=r"did not answer 'GET' within 0.2 s"):
            await connection.ask("GET", "x", timeout_s=0.2)
        await connection.close()


@pytest.mark.parametrize(
    "address", ["redis://host", "localhost:6379", "nats://host:1", "redis://host:x", "unix://"]
)
def test_an_address_that_is_none_is_named(address: str) -> None:
    with pytest.raises(ConfigError, match=r"must be like redis://host:port or unix:///path"):
        DRIVER.producer(ProducerOptions(address=address, topic="t"))


@pytest.mark.parametrize("position", [7, "7", "1-1-1", "$"])
async def test_a_position_that_is_no_entry_is_named(
    running: RunningRedis, position: int | str
) -> None:
    await DRIVER.make_topic(running.address, "positions")
    options = ConsumerOptions(address=running.address, topic="positions", start={0: position})
    with pytest.raises(ConfigError, match="Redis's are ids of entries"):
        await DRIVER.consumer(options).start()


async def test_what_redis_does_not_have_is_refused(running: RunningRedis) -> None:
    address = running.address
    with pytest.raises(ConfigError, match="replication_factor = 3"):
        await DRIVER.make_topic(address, "t", replication_factor=3)
    with pytest.raises(ConfigError, match="partitions = 0"):
        await DRIVER.make_topic(address, "t", partitions=0)
    with pytest.raises(ConfigError, match="compression = 'lz4'"):
        DRIVER.producer(ProducerOptions(address=address, topic="t", compression="lz4"))
    with pytest.raises(ConfigError, match="'maxlen': the redis driver has no settings"):
        DRIVER.producer(ProducerOptions(address=address, topic="t", extra={"maxlen": 1}))
