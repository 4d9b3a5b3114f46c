"""Connections, metadata and retries of one client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from frieda.clients.network import Network, backoff_s, bootstrap_urls
from frieda.clients.runtime import LoopRuntime
from frieda.clock import Clock, ManualClock
from frieda.config import ClientConfig
from frieda.errors import (
    BrokerError,
    ClientClosedError,
    ConfigError,
    ConnectError,
    ErrorCode,
)
from frieda.testing.fake_broker import Exchange, FakeBroker
from frieda.wire.messages import (
    ApiKey,
    BrokerEntry,
    HealthRequest,
    MetadataResponse,
    PartitionEntry,
    TopicEntry,
)

URL = "memory://network-test"


@pytest.fixture
async def broker() -> AsyncIterator[FakeBroker]:
    async with FakeBroker(URL) as running:
        running.create_topic("t", partitions=2)
        yield running


def make_network(bootstrap: str = URL, clock: Clock | None = None, **settings: Any) -> Network:
    defaults: dict[str, Any] = {"polling": "event", "retry_backoff_s": 0.001}
    network = Network(ClientConfig(bootstrap=bootstrap, **(defaults | settings)), clock=clock)
    network.start()
    return network


async def turns(count: int = 30) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_who_asks_at_the_same_time_shares_one_connection(broker: FakeBroker) -> None:
    network = make_network()
    connections = await asyncio.gather(*(network.any_connection() for _ in range(20)))
    assert len(set(connections)) == 1
    assert broker.count(ApiKey.HELLO) == 1
    await network.close()


async def test_one_who_is_cancelled_does_not_take_the_connection_from_the_others(
    broker: FakeBroker,
) -> None:
    held = broker.hold(ApiKey.HELLO)
    network = make_network()
    waiting = [asyncio.create_task(network.any_connection()) for _ in range(3)]
    await turns()
    waiting[0].cancel()
    await turns()
    held[0].proceed()
    assert (await waiting[1]) is (await waiting[2])
    await network.close()


async def test_who_wants_metadata_at_the_same_time_shares_one_request(broker: FakeBroker) -> None:
    network = make_network()
    await asyncio.gather(*(network.topic("t") for _ in range(20)))
    assert broker.count(ApiKey.METADATA) <= 2
    await network.close()


async def test_the_second_address_is_tried_when_the_first_is_dead(broker: FakeBroker) -> None:
    network = make_network(f"memory://nobody, {URL}")
    connection = await network.any_connection()
    assert connection.url == URL
    await network.close()


async def test_a_call_is_tried_again_until_the_broker_is_there() -> None:
    network = make_network("memory://later")
    call = asyncio.create_task(network.call_any(HealthRequest()))
    await turns()
    async with FakeBroker("memory://later") as broker:
        broker.fail_next(ApiKey.HEALTH, ErrorCode.BUSY, times=2)
        assert (await call).status == "ok"
        await network.close()


async def test_a_call_gives_up_in_time_and_names_the_address() -> None:
    network = make_network("memory://nobody")
    with pytest.raises(ConnectError, match="memory://nobody"):
        await network.call_any(HealthRequest(), timeout_s=0.03)
    await network.close()


async def test_a_refusal_that_trying_again_cannot_help_is_raised_at_once(
    broker: FakeBroker,
) -> None:
    network = make_network()
    broker.fail_next(ApiKey.HEALTH, ErrorCode.INVALID_REQUEST, times=1)
    with pytest.raises(BrokerError, match="INVALID_REQUEST"):
        await network.call_any(HealthRequest())
    await network.close()


async def test_a_topic_that_is_missing_is_asked_for_until_the_deadline_and_then_named(
    broker: FakeBroker,
) -> None:
    clock = ManualClock()
    network = make_network(clock=clock)
    broker.handlers[ApiKey.METADATA] = lambda asked: (asked.proceed(), clock.advance(20))
    with pytest.raises(BrokerError, match="there is no topic 'missing'"):
        await network.topic("missing", timeout_s=60)
    assert broker.count(ApiKey.METADATA) == 3
    await network.close()


async def test_a_topic_that_is_missing_is_named_also_when_the_last_question_has_no_answer(
    broker: FakeBroker,
) -> None:
    clock = ManualClock()
    network = make_network(clock=clock)
    asked = 0

    def metadata(exchange: Exchange) -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            exchange.proceed()
            clock.advance(59.9)

    broker.handlers[ApiKey.METADATA] = metadata
    with pytest.raises(BrokerError, match="there is no topic 'missing'"):
        await network.topic("missing", timeout_s=60)
    assert asked == 2
    await network.close()


async def test_the_leaders_connection_is_used_as_it_was_reached(broker: FakeBroker) -> None:
    """The broker says another address of itself than ours, as one behind a proxy would."""

    def metadata(exchange: Exchange) -> None:
        topic = broker.topics["t"]
        partitions = tuple(PartitionEntry(n, 0, 0, 0, (0,), (0,), ()) for n in range(2))
        exchange.answer(
            MetadataResponse(
                "c",
                0,
                (BrokerEntry(0, None, ("memory://inside", "bogus://x")),),
                (TopicEntry("t", topic.topic_id, 0, "", partitions),),
            )
        )

    broker.handlers[ApiKey.METADATA] = metadata
    network = make_network()
    await network.topic("t")
    connection = await network.connection_for("t", 1)
    assert connection.url == URL
    assert network.open_connection_for("t", 1) is connection
    await network.close()


async def test_each_partition_is_asked_where_it_is_served(broker: FakeBroker) -> None:
    async with FakeBroker("memory://second-process", broker_id=0) as second:

        def metadata(exchange: Exchange) -> None:
            exchange.answer(
                MetadataResponse(
                    "c",
                    0,
                    (BrokerEntry(0, None, (URL,)),),
                    (
                        TopicEntry(
                            "t",
                            bytes(16),
                            0,
                            "",
                            (
                                PartitionEntry(0, 0, 0, 0, (0,), (0,), ()),
                                PartitionEntry(1, 0, 0, 0, (0,), (0,), (second.url,)),
                            ),
                        ),
                    ),
                )
            )

        broker.handlers[ApiKey.METADATA] = metadata
        network = make_network()
        await network.topic("t")
        assert (await network.connection_for("t", 0)).url == URL
        assert (await network.connection_for("t", 1)).url == second.url
        await network.close()


async def test_a_partition_that_is_not_there_and_a_leader_that_is_not_there_are_told_apart(
    broker: FakeBroker,
) -> None:
    network = make_network()
    await network.topic("t")
    with pytest.raises(BrokerError, match="has partitions 0 to 1, not 2"):
        await network.connection_for("t", 2)
    assert network.open_connection_for("t", 2) is None
    await network.close()


async def test_metadata_is_asked_for_again_when_it_is_old(broker: FakeBroker) -> None:
    changed = asyncio.Event()
    network = Network(
        ClientConfig(bootstrap=URL, polling="event", metadata_max_age_s=0.1),
        on_metadata=changed.set,
    )
    network.start()
    await network.topic("t")
    broker.create_topic("t", partitions=5)
    changed.clear()
    await asyncio.wait_for(changed.wait(), 60)
    assert network.metadata.require("t").partition_count == 5
    await network.close()


async def test_closing_ends_every_wait() -> None:
    network = make_network("memory://nobody")
    waiting = [
        asyncio.create_task(network.topic("t")),
        asyncio.create_task(network.any_connection()),
        asyncio.create_task(network.call_any(HealthRequest())),
    ]
    await turns()
    await network.close()
    await network.close()
    for task in waiting:
        with pytest.raises((ClientClosedError, ConnectError)):
            await task
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_before_the_start_and_after_the_end_a_sentence_says_so() -> None:
    network = Network(ClientConfig(bootstrap=URL))
    with pytest.raises(ClientClosedError, match="not started"):
        await network.any_connection()
    network.start()
    await network.close()
    with pytest.raises(ClientClosedError, match="closed"):
        await network.any_connection()
    assert network.health().status == "closed"


async def test_clients_on_one_loop_share_an_engine_and_the_last_one_stops_it() -> None:
    config = ClientConfig(bootstrap=URL, polling="adaptive")
    first, second = LoopRuntime.acquire(config), LoopRuntime.acquire(config)
    other = LoopRuntime.acquire(ClientConfig(bootstrap=URL, polling="event"))
    assert first.engine is second.engine
    assert other.engine is not first.engine
    first.release()
    first.release()
    assert second.engine.statistics.state != "stopped"
    second.release()
    assert first.engine.statistics.state == "stopped"
    other.release()
    third = LoopRuntime.acquire(config)
    assert third.engine is not first.engine
    third.release()


async def test_health_says_who_is_connected_and_what_last_went_wrong(broker: FakeBroker) -> None:
    network = make_network()
    assert network.health().status == "connecting"
    await network.any_connection()
    assert network.health().connected == (URL,)
    broker.cut_connections()
    await turns()
    health = network.health()
    assert health.status == "connecting"
    assert health.reconnects == 1
    assert health.last_error
    await network.close()


def test_bootstrap_addresses_are_a_list_or_a_text_with_commas() -> None:
    assert bootstrap_urls("tcp://a:1, tcp://b:2 ,") == ("tcp://a:1", "tcp://b:2")
    assert bootstrap_urls(["tcp://a:1"]) == ("tcp://a:1",)
    for wrong in ("", " , ", ","):
        with pytest.raises(ConfigError, match="bootstrap is empty"):
            bootstrap_urls(wrong)
    with pytest.raises(ConfigError, match="bootstrap is empty"):
        bootstrap_urls([])
    with pytest.raises(ConfigError, match="localhost:9500"):
        bootstrap_urls("localhost:9500")


def test_pauses_double_up_to_a_second() -> None:
    for attempt, expected in ((0, 0.05), (1, 0.1), (3, 0.4), (30, 1.0), (10_000, 1.0)):
        assert 0.8 * expected <= backoff_s(0.05, attempt) <= 1.2 * expected
