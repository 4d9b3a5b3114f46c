import asyncio
from dataclasses import replace
from random import Random

import pytest

from frieda.errors import BrokenError, BusyError, ClosedError, LocalProtocolError
from frieda.testing.transport_pair import eventually, turns
from frieda.transports.rdma.provider import RemoteMemory
from frieda.transports.shm import queue_pair as queue_pair_module
from frieda.transports.shm.layout import Layout
from frieda.transports.shm.queue_pair import KEPT_SOURCE_BYTES, MOST_AT_ONCE
from frieda.transports.shm.sources import READ_STEP_BYTES


def mappings():
    with open("/proc/self/maps") as file:
        return sum("frieda-shm" in line for line in file)


async def offer(ends, content):
    """Source memory of the broker with this content."""
    source = ends.broker.take_source(len(content))
    source.view[: len(content)] = content
    return source


async def test_messages_arrive_in_order_both_ways_through_many_laps(ends):
    there = [bytes([n % 256]) * (1 + n % 512) for n in range(500)]
    back = [bytes([255 - n % 256]) * (1 + n % 99) for n in range(500)]
    for number in range(500):
        ends.client.post_send((there[number][:1], there[number][1:]), number % 4 == 3)
        ends.broker.post_send((back[number],), False)
        if number % ends.client.limits.window == 7:
            await eventually(lambda n=number: len(ends.at_broker.messages) == n + 1, "there")
            await eventually(lambda n=number: len(ends.at_client.messages) == n + 1, "back")
    await eventually(lambda: len(ends.at_broker.messages) == 500, "all there")
    await eventually(lambda: len(ends.at_client.messages) == 500, "all back")
    assert ends.at_broker.messages == there
    assert ends.at_client.messages == back
    assert ends.at_client.sent_count == 500


async def test_nothing_is_told_from_within_a_post(ends, runtime):
    source = await offer(ends, b"content")
    lease = runtime.pool.lease(7)
    ends.client.post_send((b"message",), True)
    ends.client.post_read(1, lease, 0, source.remote)
    assert ends.at_broker.messages == ends.at_client.reads == []
    assert ends.at_client.sent_count == 0
    await eventually(lambda: ends.at_client.sent_count == 1, "sent")
    await eventually(lambda: ends.at_client.reads == [1], "read")
    await eventually(lambda: ends.at_broker.messages == [b"message"], "received")
    lease.release()
    source.release()


async def test_sends_are_reported_up_to_the_last_signaled_one(ends):
    for signaled in (False, False, True, False):
        ends.client.post_send((b"x",), signaled)
    await eventually(lambda: ends.at_client.sent_count == 3, "three")
    await turns()
    assert ends.at_client.sent_count == 3
    ends.client.post_send((b"x",), True)
    await eventually(lambda: ends.at_client.sent_count == 5, "five")


async def test_more_sends_than_receives_break_the_connection(ends):
    ends.at_broker.hold = True
    for _ in range(ends.client.limits.window):
        ends.client.post_send((b"x",), False)
    await eventually(lambda: len(ends.at_broker.messages) == 8, "all slots are held")
    assert ends.client.send_room == 8
    ends.client.post_send((b"one without a credit",), False)
    await eventually(lambda: len(ends.at_broker.failures) == 1, "the failure")
    assert "no receive is posted" in str(ends.at_broker.failures[0])
    assert isinstance(ends.at_broker.failures[0], BrokenError)


async def test_a_send_that_is_too_large_or_finds_no_room_is_refused_and_nothing_breaks(ends):
    with pytest.raises(LocalProtocolError):
        ends.client.post_send((bytes(513),), False)
    for _ in range(8):
        ends.client.post_send((b"x",), False)
    assert ends.client.send_room == 0
    with pytest.raises(BusyError):
        ends.client.post_send((b"x",), False)
    await eventually(lambda: ends.client.send_room == 8, "room")
    assert ends.at_client.failures == ends.at_broker.failures == []


# ---- READ


async def test_a_read_copies_the_peers_source_in_steps_while_messages_pass(ends, runtime):
    content = Random(1).randbytes(3 * READ_STEP_BYTES + 17)
    source = await offer(ends, content)
    lease = runtime.pool.lease(len(content) + 100)
    ends.client.post_read(7, lease, 100, source.remote)
    ends.broker.post_send((b"passes between",), False)
    await eventually(lambda: ends.at_client.reads == [7], "the READ")
    assert ends.at_client.log == ["message", "read"]
    assert ends.at_client.messages == [b"passes between"]
    assert lease.view[100:] == content
    lease.release()
    source.release()


async def test_reads_are_bounded_and_finish_each_once(ends, runtime):
    source = await offer(ends, b"content")
    lease = runtime.pool.lease(7 * 4)
    for number in range(4):
        ends.client.post_read(number, lease, 7 * number, source.remote)
    with pytest.raises(BusyError, match="4 READs"):
        ends.client.post_read(9, lease, 0, source.remote)
    await eventually(lambda: len(ends.at_client.reads) == 4, "all READs")
    assert sorted(ends.at_client.reads) == [0, 1, 2, 3]
    assert bytes(lease.view) == b"content" * 4
    lease.release()
    source.release()


async def test_a_range_that_cannot_be_the_peers_is_refused_before_anything_is_touched(
    ends, runtime
):
    source = await offer(ends, b"content")
    address, key, _ = source.remote
    size = ends.client.limits.source_bytes
    lease = runtime.pool.lease(1000)
    for remote in (
        (address, key + 1, 7),
        (address, key - 1, 7),
        (-1, key, 7),
        (size - 6, key, 7),
        (size, key, 1),
        (0, key, size + 1),
        (0, key, 0),
        (0, key, -5),
        (2**63, key, 7),
    ):
        with pytest.raises(BrokenError, match="no memory of its own"):
            ends.client.post_read(1, lease, 0, RemoteMemory(*remote))
    for position in (-1, 994):
        with pytest.raises(LocalProtocolError, match="does not fit"):
            ends.client.post_read(1, lease, position, source.remote)
    lease.release()
    source.release()


async def test_a_read_under_way_lets_go_of_its_lease_at_close(ends, runtime):
    source = await offer(ends, bytes(READ_STEP_BYTES * 3))
    lease = runtime.pool.lease(READ_STEP_BYTES * 3)
    ends.client.post_read(1, lease, 0, source.remote)
    await turns(1)
    ends.client.close()
    lease.release()
    assert runtime.pool.in_use == 0
    source.release()


# ---- sources


async def test_sources_are_bounded_and_come_back(ends):
    sources = [ends.client.take_source(100_000) for _ in range(4)]
    assert ends.client.take_source(1) is None
    assert len({each.remote.address for each in sources}) == 4
    for each in sources:
        assert len(each.view) == each.remote.size_bytes == 100_000
        each.release()
        with pytest.raises(LocalProtocolError, match="released twice"):
            each.release()
    whole = ends.client.take_source(10**9)
    assert whole.remote.size_bytes == ends.client.limits.source_bytes
    whole.release()


async def test_close_releases_the_sources_that_are_left(ends):
    source = ends.client.take_source(10)
    ends.client.close()
    with pytest.raises(ValueError, match="released"):
        source.view[0] = 1
    with pytest.raises(LocalProtocolError, match="released twice"):
        source.release()
    assert mappings() == 1


async def test_memory_that_somebody_still_views_goes_with_the_last_view(ends):
    part = ends.client.take_source(10).view[:5]
    ends.client.close()
    assert mappings() == 2
    part[:] = b"still"
    part.release()
    assert mappings() == 1


def resident_kib():
    """How much shared memory of connections is in memory."""
    total, ours = 0, False
    with open("/proc/self/smaps") as file:
        for line in file:
            if line[0] in "0123456789abcdef":
                ours = "frieda-shm" in line
            elif ours and line.startswith("Rss:"):
                total += int(line.split()[1])
    return total


async def test_after_a_rest_the_memory_of_large_messages_goes_back(ends, monkeypatch):
    monkeypatch.setattr(queue_pair_module, "REST_S", 0.01)
    before = resident_kib()
    for _ in range(2):
        source = ends.client.take_source(1024 * 1024)
        source.view[:] = b"x" * 1024 * 1024
        assert resident_kib() >= before + 1024
        source.release()
        await eventually(lambda: ends.client._trimmer is None, "the trimmer")
        assert resident_kib() <= before + KEPT_SOURCE_BYTES // 1024
    source = ends.client.take_source(1024 * 1024)
    assert bytes(source.view) == b"x" * KEPT_SOURCE_BYTES + bytes(1024 * 1024 - KEPT_SOURCE_BYTES)
    source.release()
    ends.client.close()  # with the trimmer waiting


# ---- the end


async def test_what_the_peer_sent_before_it_closed_is_delivered_before_the_end(ends):
    for number in range(8):
        ends.client.post_send((bytes([number]),), False)
    ends.client.close()
    await eventually(lambda: bool(ends.at_broker.failures), "the end")
    assert ends.at_broker.messages == [bytes([number]) for number in range(8)]
    assert ends.at_broker.failures == [None]
    await turns()
    assert ends.at_broker.failures == [None]


async def test_a_process_that_writes_on_without_its_socket_is_ended_too(ends):
    def answer_with_more(slot, size):
        remember(slot, size)
        ends.client._send_ring.put((b"more",))

    await turns()
    remember, ends.at_broker.received = ends.at_broker.received, answer_with_more
    ends.client._send_ring.put((b"first",))
    ends.client._link.close()
    await eventually(lambda: ends.at_broker.failures == [None], "the end")
    assert len(ends.at_broker.messages) <= ends.client.limits.window + MOST_AT_ONCE


async def test_nonsense_in_the_ring_ends_the_connection_with_the_cause(ends):
    layout = Layout.of(ends.client.limits)
    ends.client.post_send((b"fine",), False)
    await eventually(lambda: ends.at_broker.messages == [b"fine"], "the message")
    at = layout.directions[0].ring_at + layout.stride
    ends.client._shared[at : at + 4] = b"\xff\xff\xff\xff"
    ends.broker._schedule()
    await eventually(lambda: len(ends.at_broker.failures) == 1, "the failure")
    error = ends.at_broker.failures[0]
    assert isinstance(error, BrokenError)
    assert "0xffffffff" in str(error)
    with pytest.raises(BrokenError, match="0xffffffff"):
        ends.broker.post_send((b"x",), False)
    assert ends.broker.send_room == 0
    assert ends.at_client.failures == []


async def test_a_consumer_that_counts_wrong_fails_the_post_that_sees_it(ends):
    at = Layout.of(ends.client.limits).directions[0].consumed_at
    ends.broker._shared[at : at + 4] = b"\xff\xff\xff\xff"
    for _ in range(8):
        ends.client.post_send((b"x",), False)
    with pytest.raises(BrokenError, match="says it is at"):
        ends.client.post_send((b"x",), False)
    await eventually(lambda: len(ends.at_client.failures) == 1, "the failure")


async def test_after_close_nothing_is_told_and_everything_refuses(ends):
    before = mappings()
    assert before == 2
    ends.broker.post_send((b"never seen",), True)
    ends.client.close()
    ends.client.close()
    assert mappings() == 1
    await turns()
    assert ends.at_client.messages == ends.at_client.failures == []
    for refused in (
        lambda: ends.client.post_send((b"x",), False),
        lambda: ends.client.take_source(1),
        lambda: ends.client.post_read(1, None, 0, RemoteMemory(0, 0, 1)),
    ):
        with pytest.raises(ClosedError):
            refused()
    assert ends.client.send_room == 0
    await eventually(lambda: ends.at_broker.failures == [None], "the peer sees it")
    ends.broker.close()
    assert mappings() == 0


@pytest.mark.parametrize("event", ["received", "sent", "failed"])
async def test_a_handler_may_close_within_any_completion(ends, event):
    def close(*_):
        calls.append(event)
        ends.client.close()

    calls = []
    setattr(ends.at_client, event, close)
    if event == "failed":
        ends.broker.close()
    else:
        for _ in range(3):
            ends.broker.post_send((b"x",), False)
        ends.client.post_send((b"x",), True)
    await eventually(lambda: bool(calls), event)
    await turns()
    assert calls == [event]


async def test_a_handler_that_raises_fails_only_its_own_queue_pair(bring_up):
    def fail(slot, size):
        raise ValueError("a bug")

    reports = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    bad, good = await bring_up(), await bring_up()
    bad.at_broker.received = fail
    bad.client.post_send((b"x",), False)
    await eventually(lambda: len(bad.at_broker.failures) == 1, "the failure")
    assert "a bug" in str(bad.at_broker.failures[0])
    assert len(reports) == 1
    good.client.post_send((b"x",), False)
    await eventually(lambda: good.at_broker.messages == [b"x"], "the other connection")


async def test_one_poll_delivers_a_bounded_number(bring_up):
    ends = await bring_up(replace((await bring_up()).client.limits, window=4 * MOST_AT_ONCE))
    await turns()
    for _ in range(3 * MOST_AT_ONCE):
        ends.client.post_send((b"x",), False)
    assert ends.broker.poll() == MOST_AT_ONCE
    await eventually(lambda: len(ends.at_broker.messages) == 3 * MOST_AT_ONCE, "the rest")
