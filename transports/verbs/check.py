"""Does a device work, and how fast: two queue pairs of one device, connected to each other, measured.

The latencies are of this process alone, polling without a break: what the device and pyverbs take, without a network,
a peer or an event loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from frieda.errors import BrokenError, TransportError
from frieda.transports.base import TransportRuntime
from frieda.transports.buffers import BufferPool
from frieda.transports.polling import PollingEngine
from frieda.transports.rdma.provider import ChannelLimits
from frieda.transports.verbs.binding import Verbs
from frieda.transports.verbs.bring_up import PeerAddress
from frieda.transports.verbs.choice import Route
from frieda.transports.verbs.completion import VerbsProvider
from frieda.transports.verbs.queue_pair import VerbsQueuePair

WARM_UP = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckPlan:
    """What to measure: SEND there and back, of which half is counted; READ from its post to its completion."""

    count: int = 1000
    send_bytes: int = 100
    read_bytes: int = 64 * 1024
    timeout_s: float = 30.0


async def check(
    verbs: Verbs, route: Route, plan: CheckPlan, measured: Callable[[str, int], None]
) -> None:
    """Measure on this route; `measured` gets "SEND" or "READ" and a latency in ns for each.

    Raises TransportError when the device cannot do it, or not within the plan's time. Occupies the loop.
    """
    engine = PollingEngine("event")
    engine.start()
    pool = BufferPool({plan.read_bytes: 1})
    runtime = TransportRuntime(pool=pool, engine=engine)
    try:
        provider = VerbsProvider(verbs, runtime, route)
        pairs: list[VerbsQueuePair] = []
        try:
            for _ in range(2):
                pairs.append(VerbsQueuePair(provider, _limits(plan)))
            one, other = pairs
            for pair in pairs:
                pair.prepare(_limits(plan))
            one.connect_to(PeerAddress.from_fields(other.fields))
            other.connect_to(PeerAddress.from_fields(one.fields))
            _measure(provider, one, other, plan, measured)
        finally:
            for pair in pairs:
                pair.close()
    finally:
        pool.close()
        engine.close()


def _limits(plan: CheckPlan) -> ChannelLimits:
    return ChannelLimits(
        slot_bytes=max(256, plan.send_bytes),
        window=8,
        max_reads=1,
        source_bytes=max(64 * 1024, plan.read_bytes),
    )


class _End:
    """What one of the two queue pairs was told."""

    def __init__(self, pair: VerbsQueuePair) -> None:
        self.pair = pair
        self.received_count = self.sent_count = self.read_count = 0
        self.failures: list[TransportError | None] = []
        pair.start(self)

    def received(self, slot: int, size_bytes: int) -> None:
        self.received_count += 1
        self.pair.post_receive(slot)

    def sent(self, count: int) -> None:
        self.sent_count += count

    def read_finished(self, work_id: int) -> None:
        self.read_count += 1

    def failed(self, error: TransportError | None) -> None:
        self.failures.append(error)


def _measure(
    provider: VerbsProvider,
    one: VerbsQueuePair,
    other: VerbsQueuePair,
    plan: CheckPlan,
    measured: Callable[[str, int], None],
) -> None:
    here, there = _End(one), _End(other)
    deadline_ns = time.monotonic_ns() + int(plan.timeout_s * 1e9)

    def poll_until(done: Callable[[], bool]) -> None:
        while not done():
            provider.poll()
            for end in (here, there):
                if end.failures:
                    raise end.failures[0] or BrokenError("the other queue pair ended")
            if time.monotonic_ns() > deadline_ns:
                raise TransportError(
                    f"the device {provider.route.device} did not finish within {plan.timeout_s:g} s"
                )

    message = bytes(plan.send_bytes)
    for number in range(1, WARM_UP + plan.count + 1):
        begin_ns = time.perf_counter_ns()
        one.post_send((message,), True)
        poll_until(lambda n=number: there.received_count == n)  # type: ignore[misc]
        other.post_send((message,), True)
        poll_until(lambda n=number: here.received_count == n)  # type: ignore[misc]
        if number > WARM_UP:
            measured("SEND", (time.perf_counter_ns() - begin_ns) // 2)
    source = one.take_source(plan.read_bytes)
    lease = provider.runtime.pool.lease(plan.read_bytes)
    assert source is not None
    assert lease is not None
    source.view[:] = (bytes(range(256)) * (plan.read_bytes // 256 + 1))[: plan.read_bytes]
    try:
        for number in range(1, WARM_UP + plan.count + 1):
            begin_ns = time.perf_counter_ns()
            other.post_read(number, lease, 0, source.remote)
            poll_until(lambda n=number: there.read_count == n)  # type: ignore[misc]
            if number > WARM_UP:
                measured("READ", time.perf_counter_ns() - begin_ns)
        if lease.view != source.view:
            raise TransportError(
                f"a READ by {provider.route.device} brought other bytes than were there"
            )
    finally:
        source.release()
        one.close()
        other.close()
        lease.release()
