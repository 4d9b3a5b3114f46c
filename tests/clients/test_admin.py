"""The admin client against a scripted broker."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from frieda import Admin, Producer, TopicPartition
from frieda.clients.admin import CommittedInfo
from frieda.clock import ManualClock
from frieda.errors import BrokerError, ClientClosedError, ConnectError, ErrorCode
from frieda.model import LATEST_TIMESTAMP
from frieda.testing.fake_broker import FakeBroker
from frieda.wire.messages import ApiKey, CommittedOffset

URL = "memory://admin-test"


@pytest.fixture
async def broker() -> AsyncIterator[FakeBroker]:
    async with FakeBroker(URL) as running:
        yield running


@pytest.fixture
async def admin(broker: FakeBroker) -> AsyncIterator[Admin]:
    async with Admin(URL, polling="event", retry_backoff_s=0.001) as client:
        yield client


async def test_a_topic_is_made_described_altered_listed_and_deleted(admin: Admin) -> None:
    topic_id = await admin.create_topic("b", partitions=3, config={"retention.ms": "1000"})
    await admin.create_topic("a")
    assert await admin.list_topics() == ("a", "b")
    await admin.alter_topic("b", {"retention.ms": "2000"})
    info = await admin.describe_topic("b")
    assert info.topic_id == topic_id
    assert info.configs["retention.ms"] == "2000"
    assert [partition.partition for partition in info.partitions] == [0, 1, 2]
    assert [each.name for each in await admin.describe_topics()] == ["a", "b"]
    await admin.delete_topic("b")
    assert await admin.list_topics() == ("a",)


async def test_only_trying_out_makes_nothing(admin: Admin) -> None:
    await admin.create_topic("a", validate_only=True)
    assert await admin.list_topics() == ()


async def test_what_the_broker_refuses_names_the_topic(admin: Admin) -> None:
    await admin.create_topic("a")
    for attempt, code in (
        (admin.create_topic("a"), ErrorCode.TOPIC_ALREADY_EXISTS),
        (admin.delete_topic("x"), ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        (admin.alter_topic("x", {}), ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        (admin.describe_topic("x"), ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
    ):
        with pytest.raises(BrokerError, match=r"topic '[ax]'") as caught:
            await attempt
        assert caught.value.code is code


async def test_offsets_are_found_by_end_and_by_time(broker: FakeBroker, admin: Admin) -> None:
    broker.create_topic("t", partitions=2)
    async with Producer(URL, polling="event") as producer:
        for stamp in (10, 20, 30):
            await producer.send("t", b"x", partition=1, timestamp_ms=stamp)
    first, second = TopicPartition("t", 0), TopicPartition("t", 1)
    assert await admin.beginning_offsets("t") == {first: 0, second: 0}
    assert await admin.end_offsets("t") == {first: 0, second: 3}
    found = await admin.list_offsets({second: 15, first: LATEST_TIMESTAMP})
    assert (found[second].offset, found[second].timestamp_ms) == (1, 20)
    assert found[first].offset == 0
    with pytest.raises(BrokerError, match="no partition 9"):
        await admin.list_offsets({TopicPartition("t", 9): 0})


async def test_offsets_of_a_topic_that_is_missing_name_it(broker: FakeBroker) -> None:
    clock = ManualClock()
    broker.handlers[ApiKey.METADATA] = lambda asked: (asked.proceed(), clock.advance(3600))
    async with Admin(URL, polling="event", clock=clock) as admin:
        with pytest.raises(BrokerError, match="there is no topic 'x'"):
            await admin.end_offsets("x")


async def test_committed_offsets_are_read_by_group(broker: FakeBroker, admin: Admin) -> None:
    broker.committed["g"] = {("t", 1): CommittedOffset("t", 1, 7, 0, "note")}
    place = TopicPartition("t", 1)
    assert await admin.committed("g") == {place: CommittedInfo(7, 0, "note")}
    assert await admin.committed("g", [place, TopicPartition("t", 0)]) == {
        place: CommittedInfo(7, 0, "note")
    }
    assert await admin.committed("nobody") == {}


async def test_a_broker_that_is_busy_is_asked_again(broker: FakeBroker, admin: Admin) -> None:
    broker.fail_next(ApiKey.HEALTH, ErrorCode.BUSY, times=2)
    assert (await admin.broker_health()).status == "ok"
    assert admin.health().connected == (URL,)


async def test_without_a_broker_the_start_fails_and_names_the_address() -> None:
    with pytest.raises(ConnectError, match="memory://nobody"):
        async with Admin("memory://nobody", polling="event", connect_timeout_s=0.03):
            pass


async def test_before_the_start_and_after_the_end_a_sentence_says_so(broker: FakeBroker) -> None:
    admin = Admin(URL, polling="event")
    with pytest.raises(ClientClosedError, match="not started"):
        await admin.list_topics()
    await admin.start()
    await admin.start()
    await admin.close()
    await admin.close()
    with pytest.raises(ClientClosedError, match="closed"):
        await admin.list_topics()
