"""A real Kafka, started and stopped: one node, four brokers, and what is said when it cannot be."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import threading
import uuid
from pathlib import Path

import pytest

from frieda.bench.drivers.base import ConsumerOptions, ProducerOptions
from frieda.bench.drivers.confluent import ConfluentDriver
from frieda.bench.systems import kafka
from frieda.bench.systems.kafka import KafkaSystem, brokers_known_to, java_version
from frieda.bench.systems.processes import PEERS_VARIABLE
from frieda.errors import ConfigError, FriedaError
from frieda.testing.conversation import eventually
from frieda.testing.driver_probes import Told, read
from frieda.testing.presence import require

SYSTEM = KafkaSystem()
DRIVER = ConfluentDriver()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_cluster_id_is_never_taken_for_a_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = itertools.chain([b"\xf8" + bytes(15)] * 3, itertools.repeat(b"\x04" + bytes(15)))
    monkeypatch.setattr(kafka.uuid, "uuid4", lambda: uuid.UUID(bytes=next(drawn)))
    assert kafka.new_cluster_id() == "BA" + "A" * 20


@pytest.mark.parametrize(("durability", "flush"), [("cache", None), ("disk", 1)])
def test_one_node_serves_and_leaves_no_process(
    tmp_path: Path, durability: str, flush: int | None
) -> None:
    require(SYSTEM)
    with SYSTEM.running(tmp_path, durability) as running:
        running.require_alive()
        (process,) = running.processes
        pids = process.pids
        assert pids
        assert brokers_known_to(int(running.address.rpartition(":")[2])) == 1
        written = (tmp_path / "broker-1" / "server.properties").read_text()
        assert ("log.flush.interval.messages=1\n" in written) == (durability == "disk")
        if flush is not None:
            assert running.settings["log.flush.interval.messages"] == flush
        assert running.settings["brokers"] == 1
        assert running.version == kafka.kafka_version()
        assert running.cpu_seconds() > 0.1
        assert running.memory_bytes() > 50 * 1024 * 1024
        assert "Kafka Server started" in process.log_tail(1024 * 1024)
    assert process.ended
    assert not any(is_alive(pid) for pid in pids)
    assert running.cpu_seconds() == 0
    # In order: it had the time to say so.
    assert "shut down completed" in process.log_tail(1024 * 1024)


async def test_four_brokers_hold_a_topic_in_four_replicas(tmp_path: Path) -> None:
    require(SYSTEM, DRIVER)
    with SYSTEM.running(tmp_path, "cache", 4) as running:
        addresses = running.address.split(",")
        assert len(addresses) == len(set(addresses)) == len(running.processes) == 4
        ports = [int(address.rpartition(":")[2]) for address in addresses]
        assert [brokers_known_to(port) for port in ports] == [4, 4, 4, 4]
        await DRIVER.make_topic(running.address, "replicated", 4, 4)
        values = [b"%d" % number for number in range(1000)]
        told = Told()
        producer = DRIVER.producer(
            ProducerOptions(
                address=running.address, topic="replicated", acks=-1, delivery_timeout_s=60.0
            )
        )
        await producer.start()
        for number, value in enumerate(values):
            assert producer.submit(value, b"key-%d" % (number % 50), told.done)
        await told.all_of(len(values))
        await producer.close()
        assert told.errors == []
        consumer = DRIVER.consumer(ConsumerOptions(address=running.address, topic="replicated"))
        await consumer.start()
        found = await read(consumer, len(values))
        await consumer.close()
        assert sorted(itertools.chain(*found.values())) == sorted(values)
        assert set(found) == {0, 1, 2, 3}
        for number in range(1, 5):
            replicas = sorted((tmp_path / f"broker-{number}" / "data").glob("replicated-?"))
            assert [folder.name for folder in replicas] == [f"replicated-{n}" for n in range(4)]
            assert all((folder / f"{0:020}.log").stat().st_size for folder in replicas)
        pids = [pid for process in running.processes for pid in process.pids]
        running.processes[3].send_signal(signal.SIGKILL)
        await eventually(lambda: running.processes[3].ended, "broker 4 has ended")
        with pytest.raises(FriedaError, match=r"kafka-4 does not run any more.*end of its log"):
            running.require_alive()
    assert not any(is_alive(pid) for pid in pids)


@pytest.mark.parametrize("brokers", [0, 5])
def test_more_brokers_than_four_are_refused(tmp_path: Path, brokers: int) -> None:
    with (
        pytest.raises(ConfigError, match=rf"brokers = {brokers}: Kafka is run with 1 to 4"),
        SYSTEM.running(tmp_path, "cache", brokers),
    ):
        pytest.fail("it runs")


def test_what_it_says_when_it_cannot_start_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require(SYSTEM)
    monkeypatch.setitem(kafka.DURABILITY, "cache", {"log.flush.interval.messages": "often"})
    with (
        pytest.raises(FriedaError, match=r"(?s)log folder cannot be formatted.*often"),
        SYSTEM.running(tmp_path, "cache"),
    ):
        pytest.fail("it runs")


def test_without_java_it_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("frieda.bench.systems.kafka.find_java", lambda: None)
    sentence = "Java 17 is not installed, which Kafka needs: run 'make peers'"
    assert SYSTEM.missing() == sentence
    with pytest.raises(FriedaError, match=sentence), SYSTEM.running(tmp_path, "cache"):
        pytest.fail("it runs")


def test_without_its_jars_it_says_where_they_should_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    java = fake_java(tmp_path, 'openjdk version "21.0.1" 2023-10-17')
    monkeypatch.setenv("JAVA_HOME", str(java.parents[1]))
    monkeypatch.setenv(PEERS_VARIABLE, str(tmp_path / "peers"))
    assert SYSTEM.missing() == (
        f"Apache Kafka is not in {tmp_path}/peers/kafka/libs: run 'make peers'"
    )


def test_a_java_that_is_too_old_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java = fake_java(tmp_path, 'openjdk version "11.0.2" 2019-01-15')
    monkeypatch.setenv("JAVA_HOME", str(java.parents[1]))
    assert SYSTEM.missing() == (
        f"{java} is Java 11, and Kafka needs 17: run 'make peers', or set JAVA_HOME"
    )


def test_a_java_that_does_not_tell_its_version_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FriedaError, match="does not tell its version but 'gibberish'"):
        java_version(fake_java(tmp_path, "gibberish"))


def fake_java(folder: Path, says: str) -> Path:
    """A program that says so of itself, as Java does: on standard error."""
    program = folder / "home" / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\necho '{says}' >&2\n")
    program.chmod(0o755)
    return program


@pytest.mark.parametrize("answer", [b"", b"\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\0\x04abcd"])
def test_a_port_where_something_else_answers_is_no_kafka(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(OSError, match=r"closed in the middle|is none of Kafka's"):
            brokers_known_to(listener.getsockname()[1])
        thread.join()
