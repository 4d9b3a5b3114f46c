"""The synchronous clients, against a real broker on a thread of its own."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from frieda.errors import BrokerError, ClientClosedError, ConfigError, ConnectError
from frieda.model import Record, TopicPartition
from frieda.sync import Admin, Consumer, Producer
from frieda.testing.brokers import running_server

T0 = TopicPartition("t", 0)


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """A broker with the topic `t`."""
    ready = threading.Event()
    addresses: list[str] = []
    loop = asyncio.new_event_loop()
    stopping = asyncio.Event()

    async def serve() -> None:
        async with running_server(tmp_path / "data") as server:
            addresses.extend(server.urls)
            ready.set()
            await stopping.wait()

    def run() -> None:
        loop.run_until_complete(serve())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(10)
    with Admin(addresses[0]) as admin:
        admin.create_topic("t")
    yield addresses[0]
    loop.call_soon_threadsafe(stopping.set)
    thread.join()


def send_numbers(url: str, count: int) -> None:
    with Producer(url) as producer:
        results = producer.send_batch("t", [b"%d" % number for number in range(count)])
    assert [result.offset for result in results] == list(range(count))  # type: ignore[union-attr]


def test_what_a_producer_sends_a_consumer_iterates(url: str) -> None:
    with Producer(url) as producer:
        assert producer.send("t", b"one", key=b"k").offset == 0
        futures = [producer.send_nowait("t", b"two"), producer.send_nowait("t", b"three")]
        producer.flush()
        assert [future.result(timeout=60).offset for future in futures] == [1, 2]
        assert producer.partitions_for("t") == 1
        assert producer.health().status == "ok"
    with Consumer(url, "t", start="earliest") as consumer:
        records: list[Record] = []
        for record in consumer:
            records.append(record)
            if len(records) == 3:
                break
    assert [record.value for record in records] == [b"one", b"two", b"three"]


def test_positions_count_only_what_was_iterated_over(url: str) -> None:
    send_numbers(url, 3000)
    with Consumer(url, "t", start="earliest", group="g") as consumer:
        for record in consumer:
            if record.offset == 1500:
                break
        assert consumer.position(T0) == 1501
        assert consumer.lag() == {T0: 1499}
        consumer.commit()
        assert consumer.committed() == {T0: 1501}
        assert next(consumer).offset == 1501
        found = consumer.getmany(timeout_ms=1000, max_records=10)
        assert [record.offset for record in found[T0]] == list(range(1502, 1512))
        assert [next(consumer).offset for _ in range(1488)] == list(range(1512, 3000))


def test_seeking_and_pausing_drop_what_was_taken_ahead(url: str) -> None:
    send_numbers(url, 100)
    with Consumer(url, "t", start="earliest") as consumer:
        assert next(consumer).offset == 0
        consumer.seek(T0, 50)
        assert next(consumer).offset == 50
        consumer.pause(T0)
        assert consumer.paused == (T0,)
        assert consumer.getmany(timeout_ms=10) == {}
        consumer.resume(T0)
        assert next(consumer).offset == 51
        consumer.seek_to_beginning()
        assert next(consumer).offset == 0
        consumer.seek_to_end(T0)
        assert consumer.position(T0) == 100
        assert consumer.beginning_offsets() == {T0: 0}
        assert consumer.end_offsets() == {T0: 100}
        assert consumer.offsets_for_timestamp(0) == {T0: 0}
        consumer.seek_to_timestamp(0)
        assert consumer.getone().offset == 0
        assert consumer.assignment == consumer.partitions_for("t") == (T0,)


def test_an_assignment_can_be_given_before_the_start(url: str) -> None:
    send_numbers(url, 3)
    consumer = Consumer(url, start="earliest")
    consumer.assign([("t", 0)])
    with consumer:
        assert next(consumer).offset == 0
        consumer.assign([T0])
        assert next(consumer).offset == 1


def test_an_interrupted_wait_leaves_the_consumer_usable_and_loses_nothing(url: str) -> None:
    with Consumer(url, "t", start="earliest") as consumer:
        main = threading.main_thread().ident
        assert main is not None
        alarm = threading.Timer(0.2, signal.pthread_kill, [main, signal.SIGINT])
        alarm.start()
        with pytest.raises(KeyboardInterrupt):
            next(consumer)
        alarm.join()
        send_numbers(url, 3)
        assert [next(consumer).offset for _ in range(3)] == [0, 1, 2]


def test_topics_are_administered(url: str) -> None:
    with Admin(url) as admin:
        admin.create_topic("u", partitions=2, config={"retention.ms": "1000"})
        assert {"t", "u"} <= set(admin.list_topics())
        admin.alter_topic("u", {"retention.ms": "2000"})
        assert admin.describe_topic("u").configs["retention.ms"] == "2000"
        assert [info.name for info in admin.describe_topics(["u"])] == ["u"]
        assert admin.end_offsets("u") == {TopicPartition("u", 0): 0, TopicPartition("u", 1): 0}
        assert admin.beginning_offsets("t") == {T0: 0}
        assert admin.list_offsets({T0: 0})[T0].offset == -1
        assert admin.committed("nobody") == {}
        assert admin.broker_health().status == "ok"
        assert admin.health().status == "ok"
        admin.delete_topic("u")
        with pytest.raises(BrokerError, match="UNKNOWN_TOPIC"):
            admin.describe_topic("u")


def test_several_clients_share_one_thread_which_ends_with_the_last(url: str) -> None:
    def threads() -> int:
        return sum(thread.name == "frieda-sync" for thread in threading.enumerate())

    with Producer(url), Consumer(url, "t"), Admin(url):
        assert threads() == 1
    assert threads() == 0


def test_no_broker_is_an_error_and_leaves_no_thread() -> None:
    with pytest.raises(ConnectError):
        Producer("tcp://127.0.0.1:1", connect_timeout_s=0.1).start()
    assert all(thread.name != "frieda-sync" for thread in threading.enumerate())


def test_use_out_of_turn_and_wrong_settings_say_so(url: str) -> None:
    producer = Producer(url)
    with pytest.raises(ClientClosedError, match="not started"):
        producer.send("t", b"x")
    with producer:
        producer.start()
    producer.close()
    with pytest.raises(ClientClosedError, match="closed"):
        producer.send("t", b"x")
    with pytest.raises(ClientClosedError, match="make a new one"):
        producer.start()
    with pytest.raises(ConfigError, match="lingr_ms"):
        Producer(url, lingr_ms=1)  # type: ignore[call-arg]
