"""A reliable connected queue pair, as `transports.rdma.provider` wants one.

    MADE (INIT) --prepare: slots, receives posted--> --connect_to: RTR, RTS--> CONNECTED --start--> LIVE
    any --first bad completion, or the link's end--> FAILED --close--> CLOSED

The first bad completion is the cause; those that follow are the rest being flushed. Of a bad completion only its
number and status are valid (ibv_poll_cq(3)).

Sends are copied into slots of registered memory and posted from there; small ones go inline where the device has
that, so that it need not fetch them. Work requests and their scatter elements are made once for each slot. A
completion of a send, or of a READ behind it, says that all sends before it are done, so not every one needs its own.

Its deadlines are those of `bring_up`: a peer that does not acknowledge is given up after about 3.8 s.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from ipaddress import IPv6Address
from typing import Any, Final, NoReturn

from frieda.errors import BrokenError, ClosedError, TransportError
from frieda.transports.base import Bytes
from frieda.transports.buffers import Lease
from frieda.transports.rdma.link import Link
from frieda.transports.rdma.provider import (
    ChannelLimits,
    CompletionHandler,
    RemoteMemory,
    Source,
)
from frieda.transports.verbs.binding import reason_of
from frieda.transports.verbs.bring_up import (
    PeerAddress,
    connect_pair,
    initialize_pair,
    make_pair,
)
from frieda.transports.verbs.completion import (
    KIND_SHIFT,
    READ,
    RECEIVE,
    SEND,
    VerbsProvider,
)
from frieda.transports.verbs.memory import Region, address_of
from frieda.transports.verbs.sources import Sources

_SEND_BASE: Final = SEND << KIND_SHIFT
_READ_BASE: Final = READ << KIND_SHIFT
_SIGNALED: Final = 2  # enum ibv_send_flags
_INLINE: Final = 8
_FLUSHED: Final = 5
_CAUSES: Final = {  # enum ibv_wc_status
    1: "a message of the peer is larger than a receive slot",
    2: "the device refused a work request of ours (queue pair operation error)",
    4: "the device refused access to our own memory",
    _FLUSHED: "the queue pair went into the error state",
    6: "a memory window could not be bound",
    7: "the peer's answer was malformed",
    8: "the device refused access to our own memory",
    9: "the peer's device refused a request as invalid",
    10: "the peer refused access to its memory",
    11: "the peer's device failed at a request",
    12: "the peer's device does not answer",
    13: "the peer had no receive posted",
    19: "the device failed fatally",
    20: "the peer's device timed out",
}


class VerbsQueuePair:
    """One queue pair, from the handshake to `close`. It holds its provider for so long."""

    def __init__(self, provider: VerbsProvider, offered: ChannelLimits) -> None:
        """Made for at most `offered`. Raises TransportError."""
        self._provider = provider
        self._verbs = provider.verbs
        self._limits = offered
        self._handler: CompletionHandler | None = None
        self._early: list[tuple[int, int, int]] = []
        self._link: Link | None = None
        self._link_over = False
        self._link_error: TransportError | None = None
        self._pair: Any = None
        self._peer = "the peer"
        self._failed = False
        self._closed = False
        self._slots: list[memoryview] = []
        self._region: Region | None = None
        self._sources: Sources | None = None
        self._receives: list[Any] = []
        self._sends: list[_Post] = []
        self._send_views: list[memoryview] = []
        self._posted = 0  # sends ever posted, and of these the ones that are complete
        self._completed = 0
        self._reads: list[_Post] = []
        self._free_reads: list[int] = []
        self._reading: list[tuple[int, int, Any]] = []
        self._first_sequence = secrets.randbelow(2**24)
        sends = offered.window + offered.window // 2
        self.capacity = offered.window + sends + offered.max_reads * 3
        provider.hold()
        try:
            self._owner = provider.admit(self)
        except BaseException:
            provider.let_go()
            raise
        try:
            made = make_pair(provider, sends, offered)
            self._pair = made.pair
            self._inline_bytes = made.inline_bytes
            self._windows = made.windows
            initialize_pair(provider, made.pair)
        except BaseException:
            self._give_back()
            raise

    # ---- coming up

    @property
    def fields(self) -> dict[str, int | str]:
        """What the peer's device must know."""
        route = self._provider.route
        return {
            "queue_pair": self._pair.qp_num,
            "first_sequence": self._first_sequence,
            "link_layer": route.port.link_layer,
            "lid": route.port.lid,
            "gid": str(route.gid.address if route.gid else IPv6Address(0)),
            "mtu": route.port.mtu,
        }

    def prepare(self, agreed: ChannelLimits) -> None:
        """Take memory for what was agreed and post every receive. Raises TransportError or ConfigError."""
        self._limits = agreed
        verbs, provider = self._verbs, self._provider
        sends = agreed.window + agreed.window // 2
        size = agreed.slot_bytes
        writable = verbs.constants.IBV_ACCESS_LOCAL_WRITE
        what = "the slots of a connection"
        total = (agreed.window + sends) * size
        region = self._region = Region(verbs, provider.domain, total, writable, what)
        self._slots = region.cut(0, size, agreed.window)
        self._send_views = region.cut(agreed.window * size, size, sends)
        for slot in range(agreed.window):
            element = verbs.SGE(region.address + slot * size, size, region.key)
            number = self._owner | (RECEIVE << KIND_SHIFT) | slot
            self._receives.append(verbs.RecvWR(number, 1, [element]))
            element.close()  # its content was copied
        for slot in range(sends):
            address = region.address + (agreed.window + slot) * size
            self._sends.append(_Post(verbs, verbs.constants.IBV_WR_SEND, address, region.key))
        for _ in range(agreed.max_reads):
            self._reads.append(_Post(verbs, verbs.constants.IBV_WR_RDMA_READ, 0, 0))
        self._free_reads = list(range(agreed.max_reads))
        self._reading = [(0, 0, None)] * agreed.max_reads
        self._sources = Sources(provider, self._pair, self._owner, agreed, self._windows)
        for slot in range(agreed.window):
            self.post_receive(slot)

    def connect_to(self, peer: PeerAddress) -> None:
        """Bring the queue pair up to this peer. Raises TransportError."""
        reads = self._limits.max_reads
        connect_pair(self._provider, self._pair, self._first_sequence, reads, peer)

    def attach(self, link: Link) -> None:
        """The handshake is over; the link is ours and its end is the peer's."""
        self._link = link
        self._peer = link.peer
        link.watch(self._link_ended)

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
        return len(self._sends) - (self._posted - self._completed)

    def start(self, handler: CompletionHandler) -> None:
        self._handler = handler
        if self._early:
            self._provider.return_later(self._early)
            self._early = []
        if self._link_over:
            self._provider.link_ended(self)

    def post_send(self, pieces: Sequence[Bytes], signaled: bool) -> None:
        # Flat: this is the hot path of every message.
        posted = self._posted
        if self._failed or posted - self._completed >= len(self._sends):
            self._refuse("a send", "all send slots are in use")
        slot = posted % len(self._sends)
        view = self._send_views[slot]
        end = 0
        for piece in pieces:
            begin, end = end, end + len(piece)
            view[begin:end] = piece
        post = self._sends[slot]
        post.element.length = end
        request = post.request
        request.wr_id = self._owner | _SEND_BASE | (posted + 1)
        request.send_flags = (_SIGNALED if signaled else 0) | (
            _INLINE if end <= self._inline_bytes else 0
        )
        try:
            self._pair.post_send(request)
        except self._verbs.error as error:
            self._broke("a send", error)
        self._posted = posted + 1

    def post_receive(self, slot: int) -> None:
        if self._failed:
            self._refuse("a receive", "none is expected")
        try:
            self._pair.post_recv(self._receives[slot])
        except self._verbs.error as error:
            self._broke("a receive", error)

    def post_read(self, work_id: int, lease: Lease, position: int, remote: RemoteMemory) -> None:
        size = remote.size_bytes
        if self._failed or not self._free_reads:
            self._refuse("a READ", "more are in flight than was agreed")
        if not (
            0 < size <= self._limits.source_bytes
            and 0 <= position <= lease.view.nbytes - size
            and 0 <= remote.address <= 2**64 - size
            and 0 <= remote.key < 2**32
        ):
            raise TransportError(f"{self._peer} offers memory that cannot be: {remote}")
        address = address_of(lease.view) + position
        key = self._provider.pool_regions.key_of(address, size)
        alone = None
        if key is None:
            alone = self._provider.pool_regions.register_alone(address, size)
            key = alone.lkey
        index = self._free_reads.pop()
        post = self._reads[index]
        post.element.addr = address
        post.element.length = size
        post.element.lkey = key
        post.request.wr_id = self._owner | _READ_BASE | index
        post.request.send_flags = _SIGNALED
        post.request.set_wr_rdma(remote.key, remote.address)
        self._reading[index] = (work_id, self._posted, alone)
        try:
            self._pair.post_send(post.request)
        except self._verbs.error as error:
            self._broke("a READ", error)

    def take_source(self, size_bytes: int) -> Source | None:
        if self._failed or self._sources is None:
            self._refuse("a source", "the queue pair is not prepared")
        try:
            return self._sources.take(size_bytes)
        except self._verbs.error as error:
            self._broke("a source", error)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = self._failed = True
        self._handler = None
        if self._link is not None:
            self._link.close()
        self._give_back()

    # ---- what the provider calls

    def completed(self, kind: int, number: int, status: int, size_bytes: int) -> None:
        handler = self._handler
        if handler is None:
            if (
                not self._closed
            ):  # before `start`: the peer may be quicker than our side of the handshake
                self._early.append(
                    (self._owner | (kind << KIND_SHIFT) | number, status, size_bytes)
                )
        elif self._failed:
            pass  # what is flushed after the cause
        elif status:
            cause = _CAUSES.get(status, "a work request failed")
            self._fail(BrokenError(f"{self._peer}: {cause} (completion status {status})"))
        elif kind == RECEIVE:
            handler.received(number, size_bytes)
        elif kind == SEND:
            self._sent_through(number)
        elif kind == READ:
            work_id, sends_before, alone = self._reading[number]
            if alone is not None:
                alone.close()
            self._reading[number] = (0, 0, None)
            self._free_reads.append(number)
            self._sent_through(sends_before)
            if not self._failed:
                handler.read_finished(work_id)
        elif self._sources is not None:
            self._sources.completed(kind, number)

    def ended(self) -> None:
        if not self._failed:
            self._fail(self._link_error)

    # ---- inside

    def _sent_through(self, number: int) -> None:
        count = number - self._completed
        if count > 0 and self._handler is not None:
            self._completed = number
            self._handler.sent(count)

    def _link_ended(self, error: TransportError | None) -> None:
        self._link_over = True
        self._link_error = error
        if self._handler is not None:
            self._provider.link_ended(self)

    def _fail(self, error: TransportError | None) -> None:
        handler = self._handler
        if handler is not None:
            self._failed = True
            handler.failed(error)

    def _refuse(self, what: str, why: str) -> NoReturn:
        if self._closed:
            raise ClosedError(f"{self._peer}: the queue pair was closed")
        if self._failed:
            raise BrokenError(f"{self._peer}: {what} on a queue pair in the error state")
        raise TransportError(f"{self._peer}: {what} too many: {why}")

    def _broke(self, what: str, error: Exception) -> NoReturn:
        raise TransportError(
            f"{self._peer}: the device did not take {what}: {reason_of(error)}"
        ) from error

    def _give_back(self) -> None:
        """Give everything back: windows before the queue pair they are bound to, that before its memory."""
        if self._sources is not None:
            self._sources.close_windows()
        if self._pair is not None:
            self._pair.close()
        if self._sources is not None:
            self._sources.close()
        for _, _, alone in self._reading:
            if alone is not None:
                alone.close()
        for each in (*self._sends, *self._reads):
            each.close()
        for receive in self._receives:
            receive.close()
        self._receives.clear()
        if self._region is not None:
            for view in self._send_views:
                view.release()
            self._region.close()
        self._provider.dismiss(self._owner, self)
        self._provider.let_go()


class _Post:
    """A send work request and its one scatter element, made once and posted many times."""

    __slots__ = ("element", "request")

    def __init__(self, verbs: Any, opcode: int, address: int, key: int) -> None:
        self.element = verbs.SGE(address, 0, key)
        self.request = verbs.SendWR(0, opcode, 1, 0, [self.element], 0)
        self.request.close()  # it has a copy of the element; from here on it points at the element itself
        self.request.sg_list = self.element

    def close(self) -> None:
        # In this order the request points at nothing, in the versions of pyverbs that free at collection too.
        self.element.close()
        self.request.sg_list = self.element
