"""Two channels on fake devices, driven by hand: no event loop, no clock, every completion where the test wants it."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Final

from frieda.testing.fake_device import FakeDevice, FakePlan, FakeQueuePair
from frieda.transports.base import ORDERED_BYTES
from frieda.transports.buffers import BufferPool, Lease
from frieda.transports.rdma.channel import Channel
from frieda.transports.rdma.provider import ChannelLimits

BUFFERS: Final = {1024: 2, 64 * 1024: 2}
LIMITS: Final = ChannelLimits(
    slot_bytes=512, window=8, max_reads=3, source_bytes=8192, max_message_bytes=40_000
)


class Side:
    """A channel with its device, its pool, its driver and its receiver, which remember."""

    def __init__(
        self, name: str, plan: FakePlan, limits: ChannelLimits, eager_bytes: int | None
    ) -> None:
        self.device = FakeDevice(plan)
        self.queue_pair = FakeQueuePair(self.device, limits, name)
        self.pool = BufferPool(BUFFERS)
        self.lent = BufferPool({limits.max_message_bytes: 256})
        """What `send` gives away with its messages."""
        self.deferred: deque[Callable[[], None]] = deque()
        self.sent: list[bytes] = []
        self.received: list[bytes] = []
        self.errors: list[Exception] = []
        self.ends: list[bool] = []
        self.grown = self.emptied = 0
        self.output_has_ended = self.closed = False
        self.on_message: Callable[[Side], None] | None = None
        self.channel = Channel(
            self.queue_pair,
            self.pool,
            self,
            deliver=self._deliver,
            eager_bytes=eager_bytes,
            note_activity=lambda: None,
            defer=self.deferred.append,
        )

    @property
    def alive(self) -> bool:
        """Neither failed nor ended."""
        return not (self.errors or self.ends or self.closed)

    def send(self, data: bytes, cut: int = 0) -> None:
        """Send `data`: the bytes up to `cut` as head, the rest as a leased body."""
        lease = self.lent.lease(len(data) - cut) if 0 < cut < len(data) else None
        self.sent.append(data)
        if lease is None:
            self.channel.sender.send(data, None, None)
        else:
            lease.view[:] = data[cut:]
            self.channel.sender.send(data[:cut], lease.view, lease)

    def turn(self) -> None:
        """A turn of an event loop: the deferred calls, then a poll."""
        for _ in range(len(self.deferred)):
            self.deferred.popleft()()
        if not self.closed:
            self.device.poll()

    def close(self) -> None:
        """The end, as a connection brings it about."""
        if not self.closed:
            self.channel.end()
            self.channel.close(self, _nobody)
            self.closed = True

    def _deliver(self, message: memoryview, lease: Lease | None) -> None:
        self.received.append(bytes(message))
        if self.on_message is not None:
            self.on_message(self)

    # ---- ChannelDriver

    def refuse(self, size_bytes: int) -> None:
        raise ValueError(size_bytes)

    def queue_grew(self) -> None:
        self.grown += 1

    def queue_emptied(self) -> None:
        self.emptied += 1

    def output_ended(self) -> None:
        self.output_has_ended = True

    def message_begun(self) -> None: ...

    def failed(self, error: Exception) -> None:
        if self.alive:
            self.errors.append(error)
            self.channel.end()

    def peer_ended(self, inside_message: bool) -> None:
        if self.alive:
            self.ends.append(inside_message)
            self.channel.end()


class TwoChannels:
    """Both sides, joined and started."""

    def __init__(
        self,
        plan: FakePlan | None = None,
        limits: ChannelLimits = LIMITS,
        eager_bytes: int | None = None,
    ) -> None:
        plan = plan or FakePlan()
        self.sides = tuple(Side(name, plan, limits, eager_bytes) for name in ("left", "right"))
        self.left, self.right = self.sides
        self.left.queue_pair.join(self.right.queue_pair)
        for side in self.sides:
            side.channel.start()

    def settle(self, turns: int = 3000) -> None:
        """Turn until nothing is left to do; fails when that takes more than `turns`."""
        for _ in range(turns):
            if not any(
                side.deferred or (not side.closed and side.queue_pair.pending())
                for side in self.sides
            ):
                return
            for side in self.sides:
                side.turn()
        raise AssertionError(f"still busy after {turns} turns")

    def check_rules(self) -> None:
        """Nobody has broken the contract of the device."""
        for side in self.sides:
            assert side.device.violations == []
            credits = side.channel.credits
            assert 0 <= credits.available <= credits.window
            assert 0 <= credits.held <= credits.window - 3

    def check_delivered(self) -> None:
        """Each message arrived once, the small ones in order, and all that was lent is back."""
        for here, there in ((self.left, self.right), (self.right, self.left)):
            assert here.errors == []
            assert Counter(there.received) == Counter(here.sent)
            arrived, sent = (
                [each for each in some if len(each) <= ORDERED_BYTES]
                for some in (there.received, here.sent)
            )
            assert arrived == sent
            assert here.channel.sender.queued_bytes == 0
            assert here.queue_pair.sources == {}
            assert here.lent.in_use == 0
            assert here.pool.in_use == 0

    def end(self) -> None:
        """Close both sides; then nothing may be out."""
        for side in self.sides:
            side.close()
            assert side.queue_pair.sources == {}
            assert side.device.queue_pairs == {}
            assert side.device.violations == []
            assert side.lent.close() == ()
            assert side.pool.close() == ()


def _nobody(message: memoryview, _lease: Lease | None) -> None:
    raise AssertionError(f"{len(message)} bytes were delivered after the end")
