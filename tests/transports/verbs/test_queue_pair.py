"""Queue pairs and their provider on a stand-in for pyverbs; the real one is in tests/rdma_vm."""

from __future__ import annotations

import asyncio
import errno
from contextlib import asynccontextmanager

import pytest
from fake_pyverbs import FakeVerbs

from frieda.errors import BrokenError, ClosedError, ConfigError, TransportError
from frieda.testing.transport_pair import KIB, eventually, make_runtime, open_descriptors, turns
from frieda.transports.buffers import BufferPool
from frieda.transports.rdma.provider import ChannelLimits
from frieda.transports.verbs.bring_up import PeerAddress
from frieda.transports.verbs.check import CheckPlan, check
from frieda.transports.verbs.choice import Wish, choose
from frieda.transports.verbs.completion import VerbsProvider
from frieda.transports.verbs.devices import read_devices
from frieda.transports.verbs.queue_pair import VerbsQueuePair

LIMITS = ChannelLimits(slot_bytes=4 * KIB, window=8, max_reads=2, source_bytes=64 * KIB)


class Told:
    """A completion handler that remembers."""

    def __init__(self, pair: VerbsQueuePair) -> None:
        self.pair = pair
        self.messages: list[bytes] = []
        self.sent_count = 0
        self.reads: list[int] = []
        self.failures: list[TransportError | None] = []
        self.on_message = pair.post_receive

    def received(self, slot: int, size_bytes: int) -> None:
        self.messages.append(bytes(self.pair.receive_slots[slot][:size_bytes]))
        self.on_message(slot)

    def sent(self, count: int) -> None:
        self.sent_count += count

    def read_finished(self, work_id: int) -> None:
        self.reads.append(work_id)

    def failed(self, error: TransportError | None) -> None:
        self.failures.append(error)


def route(verbs: FakeVerbs, device: str = "fake0"):
    return choose(read_devices(verbs), Wish(device=device), None, "verbs://test:1")


@asynccontextmanager
async def linked(verbs: FakeVerbs, polling="event", started=True):
    """Two queue pairs on one device, and the runtime; at the end nothing is left of them."""
    descriptors = open_descriptors()
    runtime = make_runtime(polling=polling)
    provider = VerbsProvider(verbs, runtime, route(verbs)).hold()
    pairs = VerbsQueuePair(provider, LIMITS), VerbsQueuePair(provider, LIMITS)
    try:
        for pair in pairs:
            pair.prepare(LIMITS)
        pairs[0].connect_to(PeerAddress.from_fields(pairs[1].fields))
        pairs[1].connect_to(PeerAddress.from_fields(pairs[0].fields))
        told = [Told(pair) for pair in pairs]
        for each in told if started else told[:1]:
            each.pair.start(each)
        yield *told, runtime, provider
    finally:
        for pair in pairs:
            pair.close()
            pair.close()
        provider.let_go()
        runtime.engine.close()
        assert runtime.pool.close() == ()
        assert provider.closed
        assert verbs.left() == {}
        assert open_descriptors() <= descriptors


@pytest.fixture(
    params=[{}, {"windows": False}, {"inline_bytes": 0}], ids=["full", "windowless", "no inline"]
)
def verbs(request) -> FakeVerbs:
    return FakeVerbs(**request.param)


@pytest.mark.parametrize("polling", ["event", "adaptive", "busy"])
async def test_sends_arrive_in_order_and_their_slots_go_round(verbs, polling):
    async with linked(verbs, polling) as (here, there, _, _provider):
        sent: list[bytes] = []

        def room() -> bool:  # as the channel keeps it by credits
            return here.pair.send_room > 0 and len(sent) - len(there.messages) < 8

        for number in range(200):
            await eventually(room, "room")
            sent.append(b"%d" % number * (1 + number * 3))
            pieces = [sent[-1][:1], memoryview(sent[-1])[1:]]
            here.pair.post_send(pieces, signaled=number % 4 == 3)
        await eventually(lambda: there.messages == sent, "all messages")
        await eventually(lambda: here.sent_count == 200, "all completions")
        assert here.pair.send_room == 12


async def test_a_read_finishes_in_its_lease_and_says_that_the_sends_before_it_are_done(verbs):
    async with linked(verbs) as (here, there, runtime, _):
        source = here.pair.take_source(10_000)
        source.view[:] = b"0123456789" * 1000
        lease = runtime.pool.lease(10_500)
        there.pair.post_send([b"unreported"], signaled=False)
        there.pair.post_read(5, lease, 500, source.remote)
        await eventually(lambda: there.reads == [5], "the READ")
        assert lease.view[500:] == b"0123456789" * 1000
        assert there.sent_count == 1
        lease.release()
        source.release()
        assert here.pair.take_source(1) is not None


async def test_memory_is_readable_only_while_its_source_is_held(verbs):
    async with linked(verbs) as (here, there, runtime, _):
        source = here.pair.take_source(1000)
        source.release()
        await turns()
        lease = runtime.pool.lease(1000)
        there.pair.post_read(1, lease, 0, source.remote)
        await eventually(lambda: bool(there.failures and here.failures), "both failed")
        assert "refused access to its memory" in str(there.failures[0])
        assert "error state" in str(here.failures[0])
        assert there.reads == []
        lease.release()


async def test_sources_run_out_and_come_back(verbs):
    async with linked(verbs) as (here, _, _runtime, _provider):
        for _turn in range(300):
            held = [here.pair.take_source(10**6), here.pair.take_source(1)]
            assert [each.remote.size_bytes for each in held] == [32 * KIB, 1]
            assert here.pair.take_source(1) is None
            for each in held:
                each.release()
            await turns(4)  # until the windows are closed


async def test_a_read_into_unpooled_memory_is_registered_while_it_lasts(verbs):
    async with linked(verbs) as (here, there, _, _provider):
        pool = BufferPool({64 * KIB: 1}, pooled=False)
        regions = verbs.alive["MR"]
        lease, source = pool.lease(3000), here.pair.take_source(3000)
        held = verbs.alive["MR"]
        source.view[:] = bytes(3000)
        there.pair.post_read(1, lease, 0, source.remote)
        assert verbs.alive["MR"] == held + 1
        await eventually(lambda: there.reads == [1], "the READ")
        source.release()
        lease.release()
        assert verbs.alive["MR"] <= regions + 1  # the sources' own region
        pool.close()


async def test_the_first_bad_completion_is_the_cause_and_said_once(verbs):
    async with linked(verbs) as (here, there, _, _provider):
        there.on_message = lambda slot: None
        for _ in range(10):
            here.pair.post_send([b"x"], signaled=True)
        await eventually(lambda: bool(here.failures), "the failure")
        await turns()
        assert len(here.failures) == 1
        assert "had no receive posted (completion status 13)" in str(here.failures[0])
        with pytest.raises(BrokenError, match="error state"):
            here.pair.post_send([b"x"], signaled=True)
        with pytest.raises(BrokenError, match="error state"):
            here.pair.post_receive(0)
        with pytest.raises(BrokenError, match="error state"):
            here.pair.take_source(1)


async def test_what_arrives_before_start_waits_for_it(verbs):
    async with linked(verbs, started=False) as (here, there, _, _provider):
        here.pair.post_send([b"early"], signaled=True)
        await eventually(lambda: here.sent_count == 1, "the send")
        await turns()
        assert there.messages == []
        there.pair.start(there)
        assert there.messages == []  # only from the next poll on
        await eventually(lambda: there.messages == [b"early"], "the early message")


async def test_a_handler_may_close_its_queue_pair_and_nothing_more_comes(verbs):
    async with linked(verbs) as (here, there, _, _provider):
        there.on_message = lambda slot: there.pair.close()
        for _ in range(5):
            here.pair.post_send([b"x"], signaled=False)
        await eventually(lambda: bool(there.messages), "the first")
        await turns()
        assert there.messages == [b"x"]
        assert there.failures == []
        with pytest.raises(ClosedError):
            there.pair.post_send([b"x"], signaled=True)


async def test_more_than_was_agreed_is_refused_on_this_side(verbs):
    async with linked(verbs) as (here, there, runtime, _):
        source = here.pair.take_source(10)
        lease = runtime.pool.lease(100)
        for number in range(2):
            there.pair.post_read(number, lease, 0, source.remote)
        with pytest.raises(TransportError, match="a READ too many"):
            there.pair.post_read(2, lease, 0, source.remote)
        there.on_message = lambda slot: None
        await eventually(lambda: there.reads == [0, 1], "the READs")
        lease.release()
        source.release()


async def test_a_device_that_takes_no_work_is_a_transport_error(verbs):
    async with linked(verbs) as (here, there, runtime, _):
        source = here.pair.take_source(10)
        lease = runtime.pool.lease(10)
        verbs.refuse_posts = True
        with pytest.raises(TransportError, match="did not take a send: Cannot allocate memory"):
            here.pair.post_send([b"x"], signaled=True)
        with pytest.raises(TransportError, match="did not take a READ"):
            there.pair.post_read(1, lease, 0, source.remote)
        with pytest.raises(TransportError, match="did not take a receive"):
            there.pair.post_receive(0)
        source.release()
        lease.release()


async def test_many_queue_pairs_make_the_completion_queue_grow_up_to_what_the_device_has():
    verbs = FakeVerbs()
    verbs.attributes["max_cqe"] = verbs.largest_queue = 1500
    runtime = make_runtime()
    provider = VerbsProvider(verbs, runtime, route(verbs)).hold()
    pairs: list[VerbsQueuePair] = []

    def make_pairs() -> None:
        while True:
            pairs.append(VerbsQueuePair(provider, LIMITS))

    with pytest.raises(ConfigError, match="completion queues of at most 1500"):
        make_pairs()
    assert len(pairs) == 1500 // pairs[0].capacity
    for pair in pairs:
        pair.close()
    VerbsQueuePair(provider, LIMITS).close()
    provider.let_go()
    runtime.engine.close()
    runtime.pool.close()
    assert verbs.left() == {}


@pytest.mark.parametrize("allowed", [0, 1, 3, 4, 5, 6])
async def test_memory_that_cannot_be_locked_leaves_nothing_behind(verbs, allowed):
    verbs.registrations_left = allowed
    runtime = make_runtime()
    made = []

    def make() -> None:
        provider = VerbsProvider(verbs, runtime, route(verbs)).hold()
        made.append(provider.let_go)
        for _ in range(3):
            pair = VerbsQueuePair(provider, LIMITS)
            made.append(pair.close)
            pair.prepare(LIMITS)

    with pytest.raises(ConfigError, match="ulimit -l"):
        make()
    for undo in reversed(made):
        undo()
    runtime.engine.close()
    runtime.pool.close()
    assert verbs.left() == {}


async def test_another_error_of_registration_is_told_as_it_is():
    verbs = FakeVerbs()
    verbs.registrations_left, verbs.registration_errno = 0, errno.EINVAL
    runtime = make_runtime()
    with pytest.raises(TransportError, match="Invalid argument"):
        VerbsProvider(verbs, runtime, route(verbs))
    runtime.engine.close()
    runtime.pool.close()
    assert verbs.left() == {}


async def test_a_queue_pair_that_cannot_be_made_or_routed_leaves_nothing_behind():
    verbs = FakeVerbs(inline_bytes=-1)
    runtime = make_runtime()
    provider = VerbsProvider(verbs, runtime, route(verbs)).hold()
    with pytest.raises(TransportError, match="makes no queue pair"):
        VerbsQueuePair(provider, LIMITS)
    verbs.most_inline, verbs.refuse_windows, verbs.refuse_route = 0, True, True
    pair = VerbsQueuePair(provider, LIMITS)
    pair.prepare(LIMITS)
    with pytest.raises(TransportError, match="cannot reach the peer"):
        pair.connect_to(PeerAddress.from_fields(pair.fields))
    elsewhere = PeerAddress.from_fields({**pair.fields, "link_layer": "InfiniBand"})
    with pytest.raises(TransportError, match=r"\?device="):
        pair.connect_to(elsewhere)
    pair.close()
    provider.let_go()
    runtime.engine.close()
    runtime.pool.close()
    assert verbs.left() == {}


async def test_devices_that_cannot_be_opened_are_listed_with_the_reason():
    verbs = FakeVerbs()
    verbs.broken.add("fake0")
    first, second = read_devices(verbs)
    assert (first.name, first.problem) == ("fake0", "it cannot be opened: Permission denied")
    assert second.ports[0].gids[0].kind == "RoCE v2"
    assert verbs.left() == {}
    runtime = make_runtime()
    chosen = route(verbs, "fake1")
    verbs.broken.add("fake1")
    with pytest.raises(TransportError, match="cannot be opened"):
        VerbsProvider(verbs, runtime, chosen)
    runtime.engine.close()
    runtime.pool.close()


async def test_the_check_measures_and_leaves_nothing(verbs):
    measured: dict[str, list[int]] = {"SEND": [], "READ": []}
    plan = CheckPlan(count=30, send_bytes=200, read_bytes=70_000)
    await check(verbs, route(verbs), plan, lambda kind, ns: measured[kind].append(ns))
    assert [len(each) for each in measured.values()] == [30, 30]
    assert min(measured["SEND"]) > 0
    await asyncio.sleep(0)
    assert verbs.left() == {}


async def test_a_check_of_a_device_that_fails_says_how():
    verbs = FakeVerbs()
    verbs.refuse_route = True
    with pytest.raises(TransportError, match="cannot reach"):
        await check(verbs, route(verbs), CheckPlan(count=1), lambda kind, ns: None)
    verbs.refuse_route = False
    with pytest.raises(TransportError, match="did not finish within 0 s"):
        await check(verbs, route(verbs), CheckPlan(timeout_s=0.0), lambda kind, ns: None)
    assert verbs.left() == {}
