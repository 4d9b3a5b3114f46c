"""One channel: whole messages over a queue pair. The state machine, without event loop and without clock.

This is the receiving half, and what ties it to the other one (`sending`). An eager message is delivered in its slot,
which is posted again after that. While delivery is paused, slots are held with their messages, in order, so
credits dry up and the peer queues; control frames never are.

    event                what happens                                            when delivery is paused
    EAGER, BATCH         deliver each, post the slot again                       hold the slot
    RTS                  lease a buffer, READ; without a buffer wait for one     begin after resume
    READ complete        FIN; deliver the message when it was the last chunk     FIN; hold the message
    FIN, CREDIT          free the source; take the credits; send what waited     the same
    CLOSE, peer gone     end                                                     end when nothing is held
    throw_away           from now on: post slots again, answer RTS with FIN

PURE: `ChannelDriver` is told what concerns the connection; `defer` runs something on a later turn of the loop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from frieda.errors import ConfigError, RemoteProtocolError, TransportError
from frieda.transports.base import ORDERED_BYTES
from frieda.transports.rdma.credits import MIN_WINDOW
from frieda.transports.rdma.frames import (
    BATCH,
    CLOSE,
    CREDIT,
    EAGER,
    FIN,
    HEADER,
    HEADER_BYTES,
    MAX_FINS,
    RTS,
    SIZE_BYTES,
    Chunk,
    read_fin,
    read_messages,
    read_rts,
)
from frieda.transports.rdma.provider import ChannelLimits, QueuePair
from frieda.transports.rdma.rendezvous import IncomingLarge
from frieda.transports.rdma.sending import ChannelDriver, Sender

if TYPE_CHECKING:
    from frieda.transports.buffers import BufferPool, Lease

Deliver = Callable[[memoryview, "Lease | None"], None]
_NO_SLOT: Final = -1
_Held = tuple[int, "deque[memoryview]", "Lease | None"]
"""A slot and what of it is not delivered yet, or a whole message in a lease."""


def check_limits(limits: ChannelLimits) -> None:
    """Can a channel work with these? Raises ConfigError."""
    least_slot = HEADER_BYTES + max(ORDERED_BYTES, SIZE_BYTES * MAX_FINS)
    for name, least in (
        ("slot_bytes", least_slot),
        ("window", MIN_WINDOW),
        ("max_reads", 1),
        ("source_bytes", 1),
        ("max_message_bytes", 1),
    ):
        value = getattr(limits, name)
        if value < least:
            raise ConfigError(f"the RDMA limit {name} = {value}: must be at least {least}")


class Channel:
    """A `CompletionHandler` over one queue pair. Owner: the connection, which calls `end` and then `close`."""

    __slots__ = (
        "_dead",
        "_defer",
        "_driver",
        "_ended",
        "_flowing",
        "_held",
        "_incoming",
        "_largest_frame",
        "_max_message_bytes",
        "_note_activity",
        "_paused",
        "_peer_closed",
        "_post_receive",
        "_queue_pair",
        "_slots",
        "_throwing_away",
        "credits",
        "deliver",
        "sender",
    )

    def __init__(
        self,
        queue_pair: QueuePair,
        pool: BufferPool,
        driver: ChannelDriver,
        *,
        deliver: Deliver,
        eager_bytes: int | None = None,
        note_activity: Callable[[], None],
        defer: Callable[[Callable[[], None]], object],
    ) -> None:
        limits = queue_pair.limits
        check_limits(limits)
        self._driver = driver
        self._note_activity = note_activity
        self._defer = defer
        self._queue_pair = queue_pair
        self._slots: Sequence[memoryview] = queue_pair.receive_slots
        self._post_receive = queue_pair.post_receive
        self._max_message_bytes = limits.max_message_bytes
        self._largest_frame = min(limits.slot_bytes, HEADER_BYTES + limits.max_message_bytes)
        self._incoming = IncomingLarge(pool, queue_pair.post_read, limits, self._buffer_granted)
        self.sender = Sender(queue_pair, self._incoming, driver, eager_bytes, note_activity)
        self.credits = self.sender.credits
        self.deliver = deliver
        self._held: deque[_Held] = deque()
        self._paused = False
        self._flowing = True  # messages may be delivered at once
        self._throwing_away = False
        self._peer_closed = False
        self._dead = False  # the device says nothing more
        self._ended = False

    # ---- for the connection

    def start(self) -> None:
        """The peer is ready: completions may come."""
        self._queue_pair.start(self)

    def pause(self) -> None:
        """Deliver nothing until `resume`."""
        self._paused = True
        self._flowing = False

    def resume(self) -> None:
        """Deliver again, from a later turn of the loop on."""
        if self._paused:
            self._paused = False
            self._defer(self._resume)

    def throw_away(self) -> None:
        """Deliver nothing more for ever; what comes is answered as far as the peer needs it."""
        self._throwing_away = True
        self._flowing = False
        self._incoming.throw_away()
        held, self._held = self._held, deque()
        for slot, _, lease in held:
            if lease is not None:
                lease.release()
            else:
                self._unhold(slot)
        self._end_if_drained()

    def overdue(self, sweep: int, limit: int) -> bool:
        """Has a message been under way for `limit` sweeps, not counting pauses and waits for a buffer?"""
        if self._paused or self._throwing_away:
            return False
        for message in self._incoming.messages:
            if message.lease is not None:
                if not message.since:
                    message.since = sweep
                elif sweep - message.since >= limit:
                    return True
        return False

    @property
    def inside_message(self) -> bool:
        """Has the peer begun a message that is not complete?"""
        return bool(self._incoming.messages)

    def end(self) -> None:
        """From here on nothing is sent or delivered; what is queued is lost and its leases are released."""
        self._ended = True
        self._flowing = False
        self.sender.stop()
        self.sender.discard()

    def close(self, nobody: ChannelDriver, deliver: Deliver) -> None:
        """Close the queue pair, release the leases it had, and keep no reference to anyone. Once, after `end`.

        Not from within a delivery: the message may lie in a slot.
        """
        held, self._held = self._held, deque()
        for _, _, lease in held:
            if lease is not None:
                lease.release()
        del held
        self._slots = ()
        self._queue_pair.close()
        self._incoming.discard()
        self._driver = nobody
        self.deliver = deliver
        self.sender.let_go(nobody)
        del self._queue_pair, self._post_receive, self._incoming, self._defer, self._note_activity

    # ---- CompletionHandler

    def received(self, slot: int, size_bytes: int) -> None:
        # Flat for the same reason as `send`: one unpack, one delivery, one post.
        self._note_activity()
        try:
            view = self._slots[slot]
            kind, returned = HEADER.unpack_from(view)
            if kind == EAGER and self._flowing and HEADER_BYTES < size_bytes <= self._largest_frame:
                credits = self.credits
                if returned:
                    credits.available += returned
                    if credits.available > credits.window or self.sender.waiting:
                        self._pump_and_receive(slot, view[:size_bytes])
                        return
                self.deliver(view[HEADER_BYTES:size_bytes], None)
                if self._dead or self._ended:
                    return
                self._post_receive(slot)
                credits.owed += 1
                if credits.owed >= credits.return_at:
                    self.sender.pump()
            elif not self._ended:
                self._received(kind, returned, slot, view[:size_bytes])
        except Exception as error:  # noqa: BLE001 - whatever the receiver raises ends this connection only
            self._driver.failed(error)

    def sent(self, count: int) -> None:
        self.sender.sent(count)

    def read_finished(self, work_id: int) -> None:
        self._note_activity()
        self._try(lambda: self._read_finished(work_id))

    def failed(self, error: TransportError | None) -> None:
        self._dead = True
        self.sender.stop()
        if error is not None:
            self._driver.failed(error)
        else:
            self._peer_closed = True
            self._end_if_drained()

    # ---- receiving

    def _received(self, kind: int, returned: int, slot: int, frame: memoryview) -> None:
        """Any frame, in any state."""
        size = len(frame)
        if size < HEADER_BYTES:
            raise RemoteProtocolError(
                f"a frame of {size} bytes; it must have {HEADER_BYTES} or more"
            )
        self.credits.returned(returned)
        if kind in (EAGER, BATCH):
            self._hold(slot, read_messages(frame, self._max_message_bytes))
            self._drain()
        elif kind == RTS:
            chunk = read_rts(frame, self._max_message_bytes)
            self._repost(slot)
            self._announced(chunk)
        elif kind == FIN:
            ids = read_fin(frame)
            self._repost(slot)
            self.sender.chunks_read(ids)
        elif kind in (CREDIT, CLOSE) and size == HEADER_BYTES:
            self._repost(slot)
            if kind == CLOSE:
                self._peer_closed = True
                self._end_if_drained()
        else:
            raise RemoteProtocolError(f"a frame of kind {kind} with {size} bytes")
        self.sender.pump()

    def _pump_and_receive(self, slot: int, frame: memoryview) -> None:
        """An eager message that came with credits that something waits for."""
        self.credits.returned(0)
        self.sender.pump()
        if not self._ended:  # sending may have resumed, and the receiver may do anything then
            self._received(EAGER, 0, slot, frame)

    def _hold(self, slot: int, messages: list[memoryview]) -> None:
        if self._throwing_away:
            self._repost(slot)
            return
        if self._peer_closed:
            raise RemoteProtocolError("a message came after CLOSE")
        self.credits.hold()
        self._held.append((slot, deque(messages), None))
        self._flowing = False

    def _announced(self, chunk: Chunk) -> None:
        message = self._incoming.announced(chunk)
        if message is not None:
            self._driver.message_begun()
            if message.lease is not None or not self._paused:
                self._incoming.start(message)

    def _read_finished(self, work_id: int) -> None:
        lease = self._incoming.read_finished(work_id)
        if lease is not None:
            self._held.append((_NO_SLOT, deque(), lease))
            self._flowing = False
        self.sender.pump()  # the FIN first, so that the peer can go on
        self._drain()

    def _drain(self) -> None:
        """Deliver what is held, until the receiver pauses or ends it."""
        while self._held and not (self._paused or self._throwing_away or self._ended):
            slot, messages, lease = self._held[0]
            if lease is not None:
                self._held.popleft()
                try:
                    self.deliver(lease.view, lease)
                finally:
                    lease.release()
                continue
            self.deliver(messages.popleft(), None)
            if not messages and self._held and not self._ended:
                self._held.popleft()
                self._unhold(slot)
        self._flowing = not (self._held or self._paused or self._throwing_away or self._ended)

    def _repost(self, slot: int) -> None:
        if not self._dead:
            self._post_receive(slot)
            self.credits.owed += 1

    def _unhold(self, slot: int) -> None:
        if not self._dead:
            self._post_receive(slot)
            self.credits.unhold()

    def _resume(self) -> None:
        if not (self._ended or self._paused or self._throwing_away):
            for message in self._incoming.messages:
                message.since = 0  # the time spent paused does not count against the peer
            self._try(self._go_on)

    def _go_on(self) -> None:
        if not self._dead:
            self._incoming.start_all()
        self._drain()
        self.sender.pump()
        self._end_if_drained()

    def _buffer_granted(self) -> None:
        self._defer(self._start_granted)  # this runs inside somebody else's `release`

    def _start_granted(self) -> None:
        if not (self._ended or self._dead):
            self._try(self._incoming.start_granted)

    # ---- the end

    def _end_if_drained(self) -> None:
        if self._peer_closed and not self._held and not self._ended:
            self._driver.peer_ended(bool(self._incoming.messages))

    def _try(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:  # noqa: BLE001 - as above
            self._driver.failed(error)
