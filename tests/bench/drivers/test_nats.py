"""The driver of NATS JetStream against a real nats-server, and against servers that behave badly."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import nats
import pytest

from frieda.bench.drivers.base import ConsumerOptions, ProducerOptions
from frieda.bench.drivers.nats import MAX_IN_FLIGHT, NatsDriver, sequence_of
from frieda.bench.drivers.nats_connection import NatsConnection, NatsError
from frieda.bench.systems.nats import MAX_PAYLOAD_BYTES, NatsSystem, RunningNats
from frieda.bench.systems.processes import (
    ChildProcess,
    accepts_connections,
    find_program,
    free_ports,
)
from frieda.errors import BrokenError, BrokerError, ConfigError, ErrorCode, RemoteProtocolError
from frieda.testing.driver_clauses import DriverConformance
from frieda.testing.driver_endings import EndedSystemConformance
from frieda.testing.driver_probes import GUARD_S, Told, read
from frieda.testing.presence import require

DRIVER = NatsDriver()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNats]:
    require(NatsSystem())
    folder: Path = tmp_path_factory.mktemp("nats")
    with NatsSystem().running(folder, "cache") as system:
        yield system
        system.require_alive()


class TestNats(DriverConformance):
    driver_name = "nats"

    def address_at(self, port: int) -> str:
        return f"nats://127.0.0.1:{port}"

    async def test_another_client_reads_what_was_written_and_its_messages_are_read(
        self, running: RunningNats, topic: str
    ) -> None:
        async with self.producer(running, topic) as producer:
            await self.send(producer, [b"ours"] * 10)
        client = await nats.connect(running.address)
        try:
            stream = client.jetstream()
            info = await stream.stream_info(topic)
            assert info.state.messages == 10
            assert info.config.subjects == [f"{topic}.{partition}" for partition in range(3)]
            message = await stream.get_msg(topic, seq=1)
            assert message.data == b"ours"
            await stream.publish(f"{topic}.1", b"theirs", headers={"with": "headers"})
        finally:
            await client.close()
        async with self.consumer(running, topic) as consumer:
            found = await read(consumer, 11)
        assert found[1][-1] == b"theirs"

    async def test_a_record_above_the_limit_of_the_server_is_refused_by_itself(
        self, running: RunningNats, topic: str
    ) -> None:
        told = Told()
        async with self.producer(running, topic) as producer:
            large = bytes(MAX_PAYLOAD_BYTES + 1)
            with pytest.raises(BrokerError, match="max_payload = 8388608") as caught:
                producer.submit(large, None, told.done)
            assert caught.value.code is ErrorCode.MESSAGE_TOO_LARGE
            with pytest.raises(BrokerError, match="max_payload = 8388608"):
                await producer.submit_many([b"value", large], told.done)
            assert producer.submit(large[1:], None, told.done)
            await told.all_of(1)
        assert told.errors == []

    async def test_records_for_a_stream_that_was_deleted_fail(
        self, running: RunningNats, topic: str
    ) -> None:
        told = Told()
        async with self.producer(running, topic) as producer:
            await self.send(producer, [b"value"])
            client = await nats.connect(running.address)
            await client.jetstream().delete_stream(topic)
            await client.close()
            assert producer.submit(b"value", None, told.done)
            await told.all_of(1)
        (error,) = told.errors
        assert isinstance(error, NatsError)
        assert "did not take the record: 503" in str(error)

    async def test_a_consumer_of_a_stream_that_was_deleted_is_told(
        self, running: RunningNats, topic: str
    ) -> None:
        async with self.consumer(running, topic) as consumer:
            client = await nats.connect(running.address)
            await client.jetstream().delete_stream(topic)
            await client.close()
            with pytest.raises(NatsError, match="nats ended a pull request: 409"):
                await consumer.take(GUARD_S)

    async def test_no_more_than_the_bound_is_under_way(
        self, running: RunningNats, topic: str
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
        assert told.errors == []

    async def test_a_socket_that_takes_no_more_refuses_until_it_does(
        self, running: RunningNats, topic: str
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

    async def test_pull_requests_that_expire_are_made_again(
        self, running: RunningNats, topic: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("frieda.bench.drivers.nats.PULL_EXPIRES_NS", 20_000_000)
        async with (
            self.consumer(running, topic) as consumer,
            self.producer(running, topic) as producer,
        ):
            for number in range(5):
                assert list(await consumer.take(0.1)) == []
                await self.send(producer, [b"%d" % number])
                assert list((await read(consumer, 1)).values()) == [[b"%d" % number]]

    async def test_a_consumer_of_a_partition_that_is_not_there_is_told(
        self, running: RunningNats, topic: str
    ) -> None:
        options = ConsumerOptions(address=running.address, topic=topic, partitions=(0, 3))
        with pytest.raises(BrokerError, match=r"has partitions 0 to 2, not 3"):
            await DRIVER.consumer(options).start()

    @pytest.mark.parametrize("position", ["7", 0, -1])
    async def test_a_position_that_is_no_sequence_number_is_named(
        self, running: RunningNats, topic: str, position: int | str
    ) -> None:
        options = ConsumerOptions(address=running.address, topic=topic, start={0: position})
        with pytest.raises(ConfigError, match="those of NATS are sequence numbers"):
            await DRIVER.consumer(options).start()

    async def test_an_error_of_the_interface_has_its_number(self, running: RunningNats) -> None:
        connection = NatsConnection()
        await connection.connect(running.address)
        with pytest.raises(NatsError, match="stream not found") as caught:
            await connection.ask("STREAM.INFO.nothing", None)
        assert caught.value.code == 10059
        await connection.close()
        with pytest.raises(ConfigError, match="replication_factor = 2"):
            await DRIVER.make_topic(running.address, "replicated", replication_factor=2)
        with pytest.raises(ConfigError, match="partitions = 0"):
            await DRIVER.make_topic(running.address, "empty", partitions=0)


class TestNatsThatDies(EndedSystemConformance):
    driver_name = "nats"

    def start(self, folder: Path) -> contextlib.AbstractContextManager[RunningNats]:
        require(NatsSystem())
        return NatsSystem().running(folder, "cache")

    async def test_a_consumer_is_told_too(self, tmp_path: Path) -> None:
        with contextlib.ExitStack() as stack:
            running = stack.enter_context(self.start(tmp_path))
            await DRIVER.make_topic(running.address, "topic")
            consumer = DRIVER.consumer(ConsumerOptions(address=running.address, topic="topic"))
            await consumer.start()
            assert list(await consumer.take(0.0)) == []
            running.process.kill()
            with pytest.raises(BrokenError, match="the connection to nats was lost"):
                await consumer.take(GUARD_S)
            await consumer.close()


@contextlib.asynccontextmanager
async def server_that_says(*answers: bytes) -> AsyncIterator[str]:
    """A server that says these one after the other, the first at once, and then closes."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            for answer in answers:
                writer.write(answer)
                await reader.read(65536)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(
    ("answers", "error", "sentence"),
    [
        ([b"HTTP/1.1 400\r\n"], RemoteProtocolError, "is not of its protocol"),
        ([b"INFO not json\r\n"], RemoteProtocolError, "INFO is not JSON"),
        ([b"-ERR 'Authorization Violation'\r\n"], BrokenError, "Authorization Violation"),
        ([], BrokenError, "was lost"),
    ],
)
async def test_a_server_that_is_no_nats_is_a_typed_error(
    answers: list[bytes], error: type[Exception], sentence: str
) -> None:
    async with server_that_says(*answers) as address:
        producer = DRIVER.producer(ProducerOptions(address=address, topic="t"))
        with pytest.raises(error, match=sentence):
            await producer.start()
        await producer.close()


async def test_a_server_without_jetstream_is_told_of(tmp_path: Path) -> None:
    require(NatsSystem())
    (port,) = free_ports(1)
    command = [find_program("nats-server") or "", "-a", "127.0.0.1", "-p", str(port)]
    with ChildProcess("plain", command, tmp_path) as process:
        process.wait_until(lambda: accepts_connections(port), GUARD_S)
        with pytest.raises(NatsError, match="has no JetStream: start it with -js"):
            await DRIVER.make_topic(f"nats://127.0.0.1:{port}", "t")


@pytest.mark.parametrize("topic", ["", "a.b", "a b", "a*"])
def test_a_topic_that_no_stream_can_be_named_is_named(topic: str) -> None:
    with pytest.raises(ConfigError, match="the name of a NATS stream has no"):
        DRIVER.producer(ProducerOptions(address="nats://127.0.0.1:1", topic=topic))


def test_what_nats_does_not_have_is_refused() -> None:
    address = "nats://127.0.0.1:1"
    with pytest.raises(ConfigError, match="compression = 'lz4'"):
        DRIVER.producer(ProducerOptions(address=address, topic="t", compression="lz4"))
    with pytest.raises(ConfigError, match="'y': the nats driver has no settings"):
        DRIVER.producer(ProducerOptions(address=address, topic="t", extra={"y": 1}))
    with pytest.raises(ConfigError, match="'x': the nats driver has no settings"):
        DRIVER.consumer(ConsumerOptions(address=address, topic="t", extra={"x": 1}))
    with pytest.raises(ConfigError, match=r"must be like nats://host:port"):
        DRIVER.consumer(ConsumerOptions(address="redis://h:1", topic="t"))


def test_the_sequence_stands_in_both_forms_of_the_reply() -> None:
    assert sequence_of(b"$JS.ACK.stream.consumer.1.42.7.1700000000000000000.0") == 42
    assert sequence_of(b"$JS.ACK.hub.HASH.stream.consumer.1.42.7.1700000000000000000.0") == 42
    for reply in (b"", b"$JS.ACK.stream.consumer.1.x.7.1.0", b"_INBOX.1"):
        with pytest.raises(RemoteProtocolError, match="names no sequence number"):
            sequence_of(reply)
