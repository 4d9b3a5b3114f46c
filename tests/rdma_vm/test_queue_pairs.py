"""The verbs provider against the kernel's rxe driver: two queue pairs, without any channel on them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from frieda.errors import BrokenError, TransportError
from frieda.testing.transport_pair import KIB, eventually, make_runtime, open_descriptors
from frieda.transports.buffers import BufferPool
from frieda.transports.rdma.provider import ChannelLimits, RemoteMemory
from frieda.transports.verbs import queue_pair
from frieda.transports.verbs.binding import load
from frieda.transports.verbs.bring_up import PeerAddress
from frieda.transports.verbs.choice import Wish, choose
from frieda.transports.verbs.completion import VerbsProvider
from frieda.transports.verbs.devices import read_devices
from frieda.transports.verbs.queue_pair import VerbsQueuePair

LIMITS = ChannelLimits(slot_bytes=4 * KIB, window=16, max_reads=4, source_bytes=2048 * KIB)


class Recorder:
    """A completion handler that remembers."""

    def __init__(self, pair: VerbsQueuePair, repost: bool = True) -> None:
        self.pair = pair
        self.repost = repost
        self.messages: list[bytes] = []
        self.sent_count = 0
        self.reads: list[int] = []
        self.failures: list[TransportError | None] = []

    def received(self, slot: int, size_bytes: int) -> None:
        self.messages.append(bytes(self.pair.receive_slots[slot][:size_bytes]))
        if self.repost:
            self.pair.post_receive(slot)

    def sent(self, count: int) -> None:
        self.sent_count += count

    def read_finished(self, work_id: int) -> None:
        self.reads.append(work_id)

    def failed(self, error: TransportError | None) -> None:
        self.failures.append(error)


def providers(runtime) -> tuple[VerbsProvider, VerbsProvider]:
    verbs = load()
    devices = read_devices(verbs)
    return tuple(
        VerbsProvider(verbs, runtime, choose(devices, Wish(device=name), None, "verbs://test:1"))
        for name in ("rxe0", "rxe1")
    )


def connect(one: VerbsQueuePair, other: VerbsQueuePair, limits: ChannelLimits) -> None:
    one.prepare(limits)
    other.prepare(limits)
    one.connect_to(PeerAddress.from_fields(other.fields))
    other.connect_to(PeerAddress.from_fields(one.fields))


@asynccontextmanager
async def linked(limits: ChannelLimits = LIMITS, *, repost: bool = True) -> AsyncIterator[tuple]:
    """Two recorders on two connected queue pairs of two devices; nothing is left at the end."""
    descriptors = open_descriptors()
    runtime = make_runtime()
    left, right = providers(runtime)
    left.hold(), right.hold()
    one, other = VerbsQueuePair(left, limits), VerbsQueuePair(right, limits)
    try:
        connect(one, other, limits)
        here, there = Recorder(one), Recorder(other, repost)
        one.start(here)
        other.start(there)
        yield here, there, runtime
    finally:
        one.close()
        other.close()
        left.let_go(), right.let_go()
        runtime.engine.close()
        assert runtime.pool.close() == ()
        assert left.closed
        assert right.closed
        assert open_descriptors() <= descriptors


async def test_sends_arrive_in_order_and_one_completion_stands_for_all_before_it():
    async with linked() as (here, there, _):
        messages = [bytes([n]) * (n * 200 + 1) for n in range(16)]
        for number, message in enumerate(messages):
            here.pair.post_send([message[:1], message[1:]], signaled=number % 8 == 7)
        assert here.pair.send_room == 24 - 16
        await eventually(lambda: len(there.messages) == 16, "all messages")
        assert there.messages == messages
        await eventually(lambda: here.sent_count == 16, "all sent")
        assert here.pair.send_room == 24


async def test_a_thousand_sends_go_around_the_slots_in_both_directions():
    async with linked() as (here, there, _):

        async def flood(me: Recorder, peer: Recorder, tag: bytes) -> list[bytes]:
            expected = []
            for number in range(500):
                # What the channel does by credits: never more unconsumed than the peer has receives.
                await eventually(
                    lambda: len(expected) - len(peer.messages) < 12 and me.pair.send_room > 0,
                    "room",
                )
                expected.append(tag + number.to_bytes(2, "big") * (1 + number % 900))
                me.pair.post_send([expected[-1]], signaled=number % 4 == 3)
            await eventually(lambda: len(peer.messages) == 500, "the rest")
            return expected

        sent, answered = await asyncio.gather(flood(here, there, b"a"), flood(there, here, b"b"))
        assert there.messages == sent
        assert here.messages == answered


@pytest.mark.parametrize("windows", [True, False], ids=["windows", "registration"])
async def test_a_read_lands_in_a_lease_and_its_source_is_readable_only_while_held(
    windows, monkeypatch
):
    if not windows:
        real = queue_pair.make_pair
        monkeypatch.setattr(
            queue_pair, "make_pair", lambda *args: real(*args)._replace(windows=False)
        )
    async with linked() as (here, there, runtime):
        size = 300 * KIB
        source = here.pair.take_source(size)
        assert source.remote.size_bytes == size
        source.view[:] = bytes(range(256)) * (size // 256)
        lease = runtime.pool.lease(size + 10)
        there.pair.post_read(77, lease, 10, source.remote)
        await eventually(lambda: there.reads == [77], "the READ")
        assert lease.view[10:] == source.view
        remote = source.remote
        again = here.pair.take_source(100)
        assert again.remote.key != remote.key
        source.release()
        again.release()
        # A stale announcement is refused by the device, on both sides.
        there.pair.post_read(78, lease, 0, remote)
        await eventually(lambda: bool(there.failures and here.failures), "both sides failed")
        assert "refused access to its memory" in str(there.failures[0])
        assert isinstance(here.failures[0], BrokenError)
        assert there.reads == [77]
        lease.release()


async def test_all_sources_in_use_is_none_and_one_released_comes_back():
    async with linked() as (here, _, _runtime):
        held = [here.pair.take_source(10**9) for _ in range(4)]
        assert [each.remote.size_bytes for each in held] == [512 * KIB] * 4
        assert here.pair.take_source(1) is None
        for turn in range(300):  # a window's key has 256 values of its own
            held[turn % 4].release()
            found = []

            def taken(found=found) -> bool:
                source = here.pair.take_source(1000)
                found.extend([source] if source else [])
                return bool(found)

            await eventually(taken, "a free cell")
            held[turn % 4] = found[0]
        assert len({each.remote.address for each in held}) == 4
        assert not here.failures


async def test_many_reads_at_once_all_arrive():
    async with linked() as (here, there, runtime):
        leases, sources = [], []
        for number in range(4):
            source = here.pair.take_source(200 * KIB)
            source.view[:] = bytes([number + 1]) * (200 * KIB)
            lease = runtime.pool.lease(200 * KIB)
            there.pair.post_read(number, lease, 0, source.remote)
            leases.append(lease)
            sources.append(source)
        with pytest.raises(TransportError, match="a READ too many"):
            there.pair.post_read(9, leases[0], 0, sources[0].remote)
        await eventually(lambda: sorted(there.reads) == [0, 1, 2, 3], "four READs")
        for number, lease in enumerate(leases):
            assert lease.view == bytes([number + 1]) * (200 * KIB)
            lease.release()
        for source in sources:
            source.release()


async def test_a_read_into_memory_that_is_in_no_pool_is_registered_for_itself():
    async with linked() as (here, there, _runtime):
        pool = BufferPool({64 * KIB: 2}, pooled=False)
        source = here.pair.take_source(5000)
        source.view[:] = b"x" * 5000
        lease = pool.lease(5000)
        there.pair.post_read(1, lease, 0, source.remote)
        await eventually(lambda: there.reads == [1], "the READ")
        assert lease.view == b"x" * 5000
        lease.release()
        source.release()
        assert pool.close() == ()


@pytest.mark.parametrize(
    "remote",
    [
        RemoteMemory(0, 0, 0),
        RemoteMemory(2**64 - 1, 0, 100),
        RemoteMemory(-1, 0, 100),
        RemoteMemory(0, 2**32, 100),
        RemoteMemory(0, 0, 5000),
        RemoteMemory(0, 0, 3 * 1024 * KIB),
    ],
)
async def test_memory_that_cannot_be_the_peers_is_refused_before_the_device_sees_it(remote):
    async with linked() as (here, _, runtime):
        lease = runtime.pool.lease(4 * KIB)
        with pytest.raises(TransportError, match="cannot be"):
            here.pair.post_read(1, lease, 0, remote)
        lease.release()


async def test_a_send_without_a_receive_is_an_error_of_the_queue_pair():
    async with linked(repost=False) as (here, there, _):
        for _ in range(17):
            here.pair.post_send([b"x"], signaled=True)
        await eventually(lambda: bool(here.failures), "the failure")
        assert "the peer had no receive posted" in str(here.failures[0])
        assert len(here.failures) == 1
        assert len(there.messages) == 16
        with pytest.raises(BrokenError, match="in the error state"):
            here.pair.post_send([b"y"], signaled=True)


async def test_a_queue_pair_forced_into_the_error_state_says_so_once_and_keeps_quiet():
    async with linked() as (here, there, _):
        here.pair.post_send([b"last words"], signaled=True)
        await eventually(lambda: len(there.messages) == 1, "the message")
        verbs = load()
        attributes = verbs.QPAttr(qp_state=verbs.constants.IBV_QPS_ERR)
        here.pair._pair.modify(attributes, verbs.constants.IBV_QP_STATE)
        await eventually(lambda: bool(here.failures), "the failure")
        assert "went into the error state" in str(here.failures[0])
        # The other side learns it from its own device, when that finds nobody any more.
        there.pair.post_send([b"anyone?"], signaled=True)
        await eventually(lambda: bool(there.failures), "the peer's failure", timeout_s=20)
        assert len(here.failures) == len(there.failures) == 1


async def test_what_arrives_before_start_is_handed_over_after_it():
    descriptors = open_descriptors()
    runtime = make_runtime()
    left, right = providers(runtime)
    one, other = VerbsQueuePair(left, LIMITS), VerbsQueuePair(right, LIMITS)
    connect(one, other, LIMITS)
    here, there = Recorder(one), Recorder(other)
    one.start(here)
    one.post_send([b"early"], signaled=True)
    await eventually(lambda: here.sent_count == 1, "the send")
    await asyncio.sleep(0.05)
    other.start(there)
    await eventually(lambda: there.messages == [b"early"], "the early message")
    one.close()
    one.close()
    other.close()
    runtime.engine.close()
    assert runtime.pool.close() == ()
    assert left.closed
    assert right.closed
    assert open_descriptors() <= descriptors


async def test_a_hundred_queue_pairs_come_and_go_on_one_device():
    descriptors = open_descriptors()
    runtime = make_runtime()
    left, right = providers(runtime)
    left.hold(), right.hold()
    limits = ChannelLimits(slot_bytes=1024, window=8, max_reads=2, source_bytes=128 * KIB)
    for turn in range(100):
        one, other = VerbsQueuePair(left, limits), VerbsQueuePair(right, limits)
        connect(one, other, limits)
        here, there = Recorder(one), Recorder(other)
        one.start(here)
        other.start(there)
        for _ in range(turn % 4):
            one.post_send([b"bye"], signaled=True)  # left in the completion queue by the close
        if turn % 10 == 0:
            other.post_send([b"hello"], signaled=False)
            await eventually(lambda here=here: here.messages == [b"hello"], "the message")
        one.close()
        other.close()
    left.let_go(), right.let_go()
    runtime.engine.close()
    assert runtime.pool.close() == ()
    assert open_descriptors() <= descriptors
