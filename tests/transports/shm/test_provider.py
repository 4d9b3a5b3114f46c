"""Which queue pairs are polled, and when their peers have to ring."""

import asyncio
import time
from dataclasses import replace

import pytest

from frieda.testing.transport_pair import eventually, turns
from frieda.transports.polling import PollingEngine
from frieda.transports.shm import provider as provider_module
from frieda.transports.shm import queue_pair as queue_pair_module
from frieda.transports.shm.provider import HOT_FOR_NS, POLLS_BETWEEN_LOOKS, ShmProvider


class Engine:
    """An engine that spins when the test says so, and never by itself."""

    def __init__(self):
        self.spinning = False
        self.sources = []
        self.activities = 0

    def note_activity(self):
        self.activities += 1

    def add_source(self, source):
        self.sources.append(source)

    def remove_source(self, source):
        if source in self.sources:
            self.sources.remove(source)


@pytest.fixture
def engine():
    return Engine()


@pytest.fixture
def spinner(runtime, engine):
    """A provider on that engine, for the broker's ends; the clients' engine sleeps."""
    return ShmProvider(replace(runtime, engine=engine))


@pytest.fixture
def rings(monkeypatch):
    """How often a bell was rung."""
    counted = []
    write = queue_pair_module.os.eventfd_write
    monkeypatch.setattr(
        queue_pair_module.os,
        "eventfd_write",
        lambda *arguments: (counted.append(1), write(*arguments)),
    )
    return counted


async def asleep(ends):
    """Let both ends go to sleep."""
    await turns()
    assert not ends.broker.hot


def now_is(monkeypatch, later_ns):
    now_ns = time.monotonic_ns() + later_ns
    monkeypatch.setattr(provider_module.time, "monotonic_ns", lambda: now_ns)


async def test_a_sleeping_queue_pair_is_rung_once_for_a_burst(bring_up, rings):
    ends = await bring_up()
    await asleep(ends)
    for _ in range(5):
        ends.client.post_send((b"x",), False)
    assert len(rings) == 1
    await eventually(lambda: len(ends.at_broker.messages) == 5, "the burst")


async def test_traffic_makes_a_queue_pair_hot_while_the_engine_spins_and_then_nobody_rings(
    bring_up, spinner, engine, rings
):
    ends = await bring_up(broker_provider=spinner)
    await asleep(ends)
    engine.spinning = True
    ends.client.post_send((b"wake",), False)
    await eventually(lambda: ends.at_broker.messages == [b"wake"], "the first message")
    assert ends.broker.hot
    assert engine.sources == [spinner]
    assert engine.activities > 0
    rings.clear()
    for number in range(1, 30):
        ends.client.post_send((b"x",), False)
        assert spinner.poll() == 1
        assert len(ends.at_broker.messages) == 1 + number
    assert rings == []


async def test_sending_makes_a_queue_pair_hot_too_for_the_answer_comes_soon(
    bring_up, spinner, engine, rings
):
    ends = await bring_up(broker_provider=spinner)
    await asleep(ends)
    engine.spinning = True
    ends.broker.post_send((b"request",), True)
    assert ends.broker.hot
    await eventually(lambda: ends.at_client.messages == [b"request"], "the request")
    rings.clear()
    ends.client.post_send((b"answer",), False)
    assert rings == []
    assert spinner.poll() == 2  # the answer, and that the request was sent
    assert ends.at_broker.sent_count == 1


async def test_before_the_engine_sleeps_all_are_armed_and_the_engine_has_no_source(
    bring_up, spinner, engine, rings
):
    ends = await bring_up(broker_provider=spinner)
    await asleep(ends)
    engine.spinning = True
    ends.broker.post_send((b"x",), False)
    await turns()
    assert spinner.arm() is True
    engine.spinning = False
    assert engine.sources == []
    assert not ends.broker.hot
    rings.clear()
    ends.client.post_send((b"rings",), False)
    assert len(rings) == 1
    await eventually(lambda: ends.at_broker.messages == [b"rings"], "the message")


async def test_a_message_that_comes_while_arming_keeps_the_spin(bring_up, spinner, engine, rings):
    first, second = [await bring_up(broker_provider=spinner) for _ in range(2)]
    await asleep(first)
    engine.spinning = True
    first.broker.post_send((b"x",), False)
    second.broker.post_send((b"x",), False)
    await turns()
    second.client.post_send((b"just now",), False)
    assert spinner.arm() is False
    assert first.broker.hot
    assert second.broker.hot
    assert engine.sources == [spinner]
    rings.clear()
    first.client.post_send((b"needs no bell",), False)
    assert rings == []
    assert spinner.poll() == 2


async def test_when_the_engine_stops_in_between_what_is_there_gets_a_turn_of_the_loop(
    bring_up, spinner, engine
):
    ends = await bring_up(broker_provider=spinner)
    await asleep(ends)
    engine.spinning = True
    ends.broker.post_send((b"x",), False)
    await turns()
    ends.client.post_send((b"not lost",), False)
    engine.spinning = False  # a thread works, or the cores are crowded
    assert spinner.arm() is True
    assert engine.sources == []
    await eventually(lambda: ends.at_broker.messages == [b"not lost"], "the message")
    ends.client.post_send((b"nor this",), False)
    await eventually(lambda: len(ends.at_broker.messages) == 2, "the next")


async def test_the_number_of_hot_ones_is_bounded_and_the_rest_is_rung(
    bring_up, spinner, engine, monkeypatch
):
    monkeypatch.setattr(provider_module, "MAX_HOT", 3)
    everyone = [await bring_up(broker_provider=spinner) for _ in range(6)]
    await asleep(everyone[-1])
    engine.spinning = True
    for ends in everyone:
        ends.broker.post_send((b"x",), False)
    assert spinner.hot == 3
    await turns()
    for ends in everyone:
        ends.client.post_send((b"to all",), False)
    assert spinner.poll() == 3
    await eventually(lambda: all(each.at_broker.messages for each in everyone), "to all")
    assert spinner.hot == 3


async def test_one_without_traffic_is_polled_no_longer(bring_up, spinner, engine, monkeypatch):
    quiet, busy = [await bring_up(broker_provider=spinner) for _ in range(2)]
    await asleep(quiet)
    engine.spinning = True
    quiet.broker.post_send((b"x",), False)
    busy.broker.post_send((b"x",), False)
    for _ in range(POLLS_BETWEEN_LOOKS):
        spinner.poll()
    assert spinner.hot == 2
    now_is(monkeypatch, HOT_FOR_NS + 1_000_000)
    busy.broker.post_send((b"x",), False)
    for _ in range(POLLS_BETWEEN_LOOKS):
        spinner.poll()
    assert not quiet.broker.hot
    assert busy.broker.hot
    quiet.client.post_send((b"rings",), False)
    await eventually(lambda: quiet.at_broker.messages == [b"rings"], "the message")
    assert quiet.broker.hot


async def test_one_that_closes_is_polled_no_longer_also_from_within_a_poll(
    bring_up, spinner, engine
):
    first, second = [await bring_up(broker_provider=spinner) for _ in range(2)]
    await asleep(first)
    engine.spinning = True
    for ends in (first, second):
        ends.broker.post_send((b"x",), False)
        ends.client.post_send((b"x",), False)
    reports = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    first.at_broker.received = lambda slot, size: (first.broker.close(), second.broker.close())
    assert spinner.poll() == 1
    assert spinner.hot == 0
    assert engine.sources == []
    assert second.at_broker.messages == reports == []


async def test_with_a_real_engine_a_conversation_is_polled_and_rests_when_it_is_over(
    runtime, bring_up, rings
):
    engine = PollingEngine("busy")
    engine.start()
    try:
        spinner = ShmProvider(replace(runtime, engine=engine))
        ends = await bring_up(client_provider=spinner, broker_provider=spinner)
        for number in range(200):
            ends.client.post_send((b"x",), False)
            if number == 20:
                rings.clear()
            await turns(2)
            assert len(ends.at_broker.messages) == number + 1
        assert rings == []
        assert spinner.hot >= 1
        await eventually(lambda: spinner.hot == 0, "rest")
        assert (
            engine.statistics.state == "spinning"
        )  # busy never sleeps; it only polls nothing of ours
    finally:
        engine.close()
