"""What the conformance suite does not say of a connection over a queue pair."""

import asyncio
import gc
import weakref

import pytest

from frieda.errors import BrokenError, ConfigError
from frieda.testing.fake_device import FakePlan, FakeTransport
from frieda.testing.transport_pair import KIB, eventually, make_runtime, transport_pair, turns

URL = "fake://connection"


@pytest.fixture
async def pair():
    async with transport_pair(URL, open_with=lambda _, runtime: FakeTransport(runtime)) as made:
        yield made
        assert made.client.device.violations == made.server.device.violations == []


async def test_an_ended_connection_leaves_no_cycles_for_the_garbage_collector(pair):
    client, server = await pair.connect()
    for size in (10, 100_000):
        client.connection.send(bytes(size))
    await server.received(2)
    await client.connection.close()
    await server.lost()
    await turns()
    seen = [weakref.ref(recorder.connection) for recorder in (client, server)]
    gc.disable()
    try:
        pair.connected.clear()
        pair.accepted.clear()
        del client, server
        await turns()
        assert [ref() for ref in seen] == [None, None]
    finally:
        gc.enable()


async def test_a_pool_without_a_buffer_for_the_largest_message_is_a_config_error():
    runtime = make_runtime(buffers={4 * KIB: 1})
    with pytest.raises(ConfigError, match="max_message_bytes"):
        FakeTransport(runtime)
    runtime.engine.close()
    runtime.pool.close()


async def test_traffic_is_activity_for_the_polling_engine(pair):
    client, server = await pair.connect()
    counts = []
    for recorder in (client, server):
        noted = []
        connection = recorder.connection
        counts.append(noted)
        connection._channel._note_activity = connection._sender._note_activity = (
            lambda noted=noted: noted.append(1)
        )
    client.connection.send(b"small")
    await server.received(1)
    assert [len(each) for each in counts] == [1, 1]
    client.connection.send(bytes(100_000))
    await server.received(2)
    assert len(counts[0]) >= 3  # sent, and the FIN
    assert len(counts[1]) >= 3  # the RTS, and the READ


async def test_a_device_that_fails_breaks_both_ends_and_says_why(pair):
    client, server = await pair.connect()
    pair.server.device.plan.fail_at_step = pair.server.device.steps + 1
    for _ in range(5):
        client.connection.send(b"message")
    for recorder in (client, server):
        error = await recorder.lost()
        assert isinstance(error, BrokenError)
        assert "failed as planned" in str(error)


async def test_a_receiver_that_fails_when_sending_resumes_breaks_its_connection(pair):
    def fail():
        raise ValueError("not now")

    client, server = await pair.connect()
    client.sending_resumed = fail
    server.connection.pause_receiving()
    while not client.paused:
        client.connection.send(bytes(60 * KIB))
    server.connection.resume_receiving()
    assert "not now" in str(await client.lost())


async def test_two_sides_that_close_at_once_both_end_cleanly(pair):
    client, server = await pair.connect()
    for recorder in (client, server):
        recorder.connection.send(bytes(200_000))
    await asyncio.gather(client.connection.close(), server.connection.close())
    assert (client.losses, server.losses) == ([None], [None])


async def test_a_side_that_waits_for_a_source_of_its_own_device_goes_on_by_itself():
    plan = FakePlan(seed=2, stingy=0.9)
    async with transport_pair(
        URL, open_with=lambda _, runtime: FakeTransport(runtime, plan), write_timeout_s=1.0
    ) as pair:
        client, server = await pair.connect()
        messages = [bytes([number]) * 300_000 for number in range(10)]
        for message in messages:
            client.connection.send(message)
        await server.received(10)
        pair.check_arrival(server.messages, messages)
        await eventually(lambda: not client.connection.queued_bytes, "an empty queue")
