"""A device inside one process that keeps the contract of `transports.rdma.provider`, for tests of what stands on it.

What a real one does rarely it does all the time, the same way for the same seed: completions come late and in
bounded numbers, READs in any order, and on request the queue pair fails at a chosen step. It also watches: whatever a
channel must not do (send where no receive is posted, post a slot twice, use freed memory) is a sentence in
`violations`, which a test compares with none. READs copy when they complete, so a source that was reused too early
shows in the data.

`FakeTransport` makes connections of it under `fake://name`, for the conformance suite.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import Final
from weakref import WeakKeyDictionary

from frieda.errors import AddressInUseError, BrokenError, ConnectError, TransportError
from frieda.transports.address import split_url
from frieda.transports.base import (
    Bytes,
    Connection,
    Listener,
    Receiver,
    Transport,
    TransportRuntime,
)
from frieda.transports.buffers import Lease
from frieda.transports.rdma.connection import RdmaShare
from frieda.transports.rdma.endpoint import adopt
from frieda.transports.rdma.provider import (
    ChannelLimits,
    CompletionHandler,
    RemoteMemory,
    Source,
)

PAGE: Final = 4096
_numbers = count(1)


@dataclass(slots=True, kw_only=True)
class FakePlan:
    """How the device behaves. May be changed while it lives."""

    seed: int = 0
    lateness: float = 0.0
    """How likely each completion is put off to a later poll."""
    per_poll: int = 64
    """At most so many completions in one poll."""
    stingy: float = 0.0
    """How likely a source is smaller than asked for, or none at all."""
    fail_at_step: int | None = None
    """The queue pair that takes this step (a post, a completion; counted from 0 over the device) fails."""
    failure: TransportError | None = BrokenError("the fake device failed as planned")
    """With what; None: as if the peer's process had ended the link."""


class FakeSource:
    """Memory of one side that the other may READ."""

    def __init__(self, owner: FakeQueuePair, size_bytes: int) -> None:
        self._owner = owner
        self._memory = bytearray(size_bytes)
        self._key = next(_numbers)
        owner.sources[self._key] = self

    @property
    def view(self) -> memoryview:
        return memoryview(self._memory)

    @property
    def remote(self) -> RemoteMemory:
        return RemoteMemory(PAGE, self._key, len(self._memory))

    def release(self) -> None:
        if self._owner.sources.pop(self._key, None) is None:
            self._owner.device.violations.append("a source was released twice")
        self._memory[:] = b"\xdd" * len(self._memory)


class FakeDevice:
    """The poll source of its queue pairs. With a loop it polls itself whenever there is something to do."""

    def __init__(
        self, plan: FakePlan | None = None, loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        self.plan = plan or FakePlan()
        self.random = Random(self.plan.seed)
        self.violations: list[str] = []
        self.steps = 0
        self.queue_pairs: dict[FakeQueuePair, None] = {}
        """Those that are not closed."""
        self._busy: dict[FakeQueuePair, None] = {}
        self._loop = loop
        self._scheduled = False

    # ---- PollSource

    def poll(self) -> int:
        found = 0
        for queue_pair in list(self._busy):
            while found < self.plan.per_poll and queue_pair.complete_one():
                found += 1
            if not queue_pair.pending():
                self._busy.pop(queue_pair, None)
        self._schedule()
        return found

    def arm(self) -> bool:
        return not self._busy

    # ---- for its queue pairs

    def wake(self, queue_pair: FakeQueuePair) -> None:
        """There may be something to complete for this one."""
        self._busy[queue_pair] = None
        self._schedule()

    def step(self) -> bool:
        """Count a step: is it the one that fails?"""
        self.steps += 1
        return self.steps - 1 == self.plan.fail_at_step

    def forget(self, queue_pair: FakeQueuePair) -> None:
        """It is closed."""
        self.queue_pairs.pop(queue_pair, None)
        self._busy.pop(queue_pair, None)

    def _schedule(self) -> None:
        if self._loop is not None and self._busy and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        self.poll()


class FakeQueuePair:
    """One end. `join` makes two of them a connection."""

    def __init__(self, device: FakeDevice, limits: ChannelLimits, peer: str) -> None:
        self.device = device
        self.sources: dict[int, FakeSource] = {}
        self._limits = limits
        self._peer = peer
        self._other: FakeQueuePair | None = None
        self._handler: CompletionHandler | None = None
        self._slots = [memoryview(bytearray(limits.slot_bytes)) for _ in range(limits.window)]
        self._posted = deque(range(limits.window))
        self._inbound: deque[bytes] = deque()
        self._sends: deque[bool] = deque()  # signaled or not, those not reported
        self._arrived = 0  # how many of those are with the peer
        self._reads: list[tuple[int, Lease, int, RemoteMemory]] = []
        self._failing: list[TransportError | None] = []
        self._dead = self._closed = False
        device.queue_pairs[self] = None

    def join(self, other: FakeQueuePair) -> None:
        """The other end is this one."""
        self._other, other._other = other, self

    # ---- QueuePair

    @property
    def peer(self) -> str:
        return self._peer

    @property
    def limits(self) -> ChannelLimits:
        return self._limits

    @property
    def receive_slots(self) -> Sequence[memoryview]:
        return self._slots

    @property
    def send_room(self) -> int:
        return self._limits.window + self._limits.window // 2

    def start(self, handler: CompletionHandler) -> None:
        self._handler = handler
        self.device.wake(self)

    def post_send(self, pieces: Sequence[Bytes], signaled: bool) -> None:
        self._check("post_send")
        frame = b"".join(pieces)
        if len(frame) > self._limits.slot_bytes:
            self._violation(f"a SEND of {len(frame)} bytes")
        if len(self._sends) >= self.send_room:
            self._violation("a SEND without room")
        self._sends.append(signaled)
        other = self._other
        if other is not None and not other._closed:
            other._inbound.append(frame)
            if len(other._inbound) > len(other._posted):
                self._violation("a SEND where no receive is posted")
            other.device.wake(other)

    def post_receive(self, slot: int) -> None:
        self._check("post_receive")
        if slot in self._posted:
            self._violation(f"slot {slot} was posted twice")
        self._posted.append(slot)

    def post_read(self, work_id: int, lease: Lease, position: int, remote: RemoteMemory) -> None:
        self._check("post_read")
        if len(self._reads) >= self._limits.max_reads:
            self._violation("too many READs")
        if position + remote.size_bytes > lease.view.nbytes:
            self._violation("a READ past its lease")
        self._source_of(remote)
        self._reads.append((work_id, lease, position, remote))
        self.device.wake(self)

    def take_source(self, size_bytes: int) -> Source | None:
        if self._closed:
            self._violation("take_source after close")
        plan = self.device.plan
        granted = min(
            size_bytes,
            self._limits.source_bytes
            - sum(each.remote.size_bytes for each in self.sources.values()),
        )
        if plan.stingy and self.sources and self.device.random.random() < plan.stingy:
            granted = self.device.random.randint(0, granted)
        return FakeSource(self, granted) if granted else None

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self.sources.clear()
        self._handler = None
        self._inbound.clear()
        self._reads.clear()
        self.device.forget(self)
        other, self._other = self._other, None
        if other is not None and not other._closed:
            other._fail(None)

    # ---- from the device

    def pending(self) -> bool:
        """Is there anything to complete?"""
        return (
            self._handler is not None
            and not self._dead
            and bool(self._inbound or self._reads or self._failing or self._reportable())
        )

    def complete_one(self) -> bool:
        """Complete one thing; False when there is none, or it is put off."""
        handler, random = self._handler, self.device.random
        if handler is None or not self.pending():
            return False
        if random.random() < self.device.plan.lateness:
            return False
        if self._failing and not self._inbound:  # what had arrived is not lost
            self._dead = True
            handler.failed(self._failing[0])
            return True
        if self.device.step():
            self._fail(self.device.plan.failure)
            return True
        choices: list[Callable[[CompletionHandler], None]] = []
        if self._inbound and self._posted:
            choices.append(self._complete_receive)
        if self._reads and not self._failing:
            choices.append(self._complete_read)
        if self._reportable() and not self._failing:
            choices.append(self._complete_sends)
        if not choices:
            return False
        (random.choice(choices) if len(choices) > 1 else choices[0])(handler)
        return True

    def _complete_receive(self, handler: CompletionHandler) -> None:
        frame = self._inbound.popleft()
        slot = self._posted.popleft()
        self._slots[slot][: len(frame)] = frame
        if self._other is not None:
            self._other._arrived += 1
            if self._other._handler is not None:
                self._other.device.wake(self._other)
        handler.received(slot, len(frame))

    def _complete_read(self, handler: CompletionHandler) -> None:
        index = self.device.random.randrange(len(self._reads))
        work_id, lease, position, remote = self._reads.pop(index)
        try:
            source = self._source_of(remote)
        except TransportError as error:
            self._fail(error)
            return
        lease.view[position : position + remote.size_bytes] = source.view[: remote.size_bytes]
        handler.read_finished(work_id)

    def _complete_sends(self, handler: CompletionHandler) -> None:
        done = self._reportable()
        for _ in range(done):
            self._sends.popleft()
        self._arrived -= done
        handler.sent(done)

    def _reportable(self) -> int:
        """How many sends are up to the last signaled one that is with the peer."""
        done = 0
        for number, signaled in enumerate(self._sends, 1):
            if number > self._arrived:
                break
            if signaled:
                done = number
        return done

    def _source_of(self, remote: RemoteMemory) -> FakeSource:
        other = self._other
        if other is None:
            raise BrokenError("a READ from a peer that is gone")
        source = other.sources.get(remote.key)
        if source is None or remote.address != PAGE or remote.size_bytes > len(source.view):
            raise BrokenError(f"a READ of memory that the peer has not offered: {remote}")
        return source

    def _fail(self, error: TransportError | None) -> None:
        """Into the error state, and the other end too."""
        if not self._failing:
            self._failing.append(error)
            self.device.wake(self)
            if self._other is not None:
                self._other._fail(error)

    def _check(self, what: str) -> None:
        if self._closed:
            self._violation(f"{what} after close")
        if not self._failing and self.device.step():
            self._fail(self.device.plan.failure)
        if self._failing:
            raise BrokenError(f"{what}: {self._failing[0] or 'the peer is gone'}")

    def _violation(self, what: str) -> None:
        self.device.violations.append(what)


# ---- the transport

MakeReceiver = Callable[[Connection], Receiver]


class FakeTransport(Transport):
    """Connections over two fake queue pairs between parts of one event loop."""

    scheme = "fake"
    ordered = False

    def __init__(self, runtime: TransportRuntime, plan: FakePlan | None = None) -> None:
        super().__init__(runtime)
        self.device = FakeDevice(plan, asyncio.get_running_loop())
        self._share = RdmaShare(runtime)

    @property
    def limits(self) -> ChannelLimits:
        """What each connection has."""
        rdma = self.runtime.rdma
        return ChannelLimits(
            slot_bytes=rdma.slot_bytes,
            window=rdma.window,
            source_bytes=rdma.source_bytes,
            max_message_bytes=self.runtime.limits.max_message_bytes,
        )

    async def connect(
        self, url: str, make_receiver: MakeReceiver, *, timeout_s: float = 10.0
    ) -> Connection:
        connection = adopt(self.connect_queue_pair(url), self._share, make_receiver)
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            connection.abort()
            raise
        return connection

    def connect_queue_pair(self, url: str) -> FakeQueuePair:
        """One end of a new connection, bare; the listener gets the other on the next turn. Raises ConnectError."""
        listener = _names().get(split_url(url)[1])
        if listener is None:
            raise ConnectError(f"{url}: cannot connect: nobody listens under this name")
        near = FakeQueuePair(self.device, self.limits, f"{url} (listener)")
        far = FakeQueuePair(listener.transport.device, self.limits, f"{url} (client)")
        near.join(far)
        asyncio.get_running_loop().call_soon(listener.accept, far)
        return near

    async def listen(self, url: str, make_receiver: MakeReceiver) -> Listener:
        name = split_url(url)[1]
        names = _names()
        if name in names:
            raise AddressInUseError(f"{url}: somebody listens under this name already")
        names[name] = listener = FakeListener(url, name, self, make_receiver)
        return listener


class FakeListener(Listener):
    """A name that accepts connections."""

    def __init__(
        self, url: str, name: str, transport: FakeTransport, make_receiver: MakeReceiver
    ) -> None:
        self.transport = transport
        self._url = url
        self._name = name
        self._make_receiver = make_receiver

    @property
    def url(self) -> str:
        return self._url

    async def close(self) -> None:
        names = _names()
        if names.get(self._name) is self:
            del names[self._name]

    def accept(self, queue_pair: FakeQueuePair) -> None:
        """Begin the listener's end of a new connection."""
        if _names().get(self._name) is not self:
            queue_pair.close()
            return
        adopt(queue_pair, self.transport._share, self._make_receiver)


_listeners: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, FakeListener]] = (
    WeakKeyDictionary()
)


def _names() -> dict[str, FakeListener]:
    return _listeners.setdefault(asyncio.get_running_loop(), {})
