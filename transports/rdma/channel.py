"""One channel: whole messages over a queue pair. The state machine, without event loop and without clock.

Sending. A message up to the threshold leaves at once as an EAGER frame, straight from the caller's pieces, if no
other of its kind waits and there is a credit. Otherwise it queues, and all that queue leave together once
credits return. Larger messages are offered for READ (`rendezvous`); those that follow may overtake them.

Receiving. An eager message is delivered in its slot, which is posted again after that. While delivery is paused,
slots are held with their messages, in order, so credits dry up and the peer queues; control frames never are.

    event                what happens                                                  when delivery is paused
    EAGER, BATCH         deliver each, post the slot again                             hold the slot
    RTS                  lease a buffer, READ; without a buffer wait for one           begin after resume
    READ complete        FIN; deliver the message when it was the last chunk           FIN; hold the message
    FIN, CREDIT          free the source; take the credits; send what waited           the same
    CLOSE, peer gone     end                                                           end when nothing is held
    throw_away           from now on: post slots again, answer RTS with FIN

Everything that waits for credits, for room in the send queue or for a source is tried again in `_pump`, which
each event that may have changed them calls. A send is signaled every quarter of the window.

PURE: `ChannelDriver` is told what concerns the connection; `defer` runs something on a later turn of the loop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from frieda.errors import BrokenError, ConfigError, RemoteProtocolError, TransportError
from frieda.transports.base import ORDERED_BYTES, Bytes
from frieda.transports.rdma.credits import MIN_WINDOW, RESERVED, Credits
from frieda.transports.rdma.eager import EagerQueue, thresholds
from frieda.transports.rdma.frames import (
    BATCH,
    CLOSE,
    CREDIT,
    EAGER,
    FIN,
    HEADER,
    HEADER_BYTES,
    RTS,
    RTS_BYTES,
    Chunk,
    headers,
    pack_fin,
    pack_rts,
    read_fin,
    read_messages,
    read_rts,
)
from frieda.transports.rdma.provider import ChannelLimits, QueuePair
from frieda.transports.rdma.rendezvous import COPY_AT_ONCE_BYTES, IncomingLarge, OutgoingLarge

if TYPE_CHECKING:
    from frieda.transports.buffers import BufferPool, Lease

Deliver = Callable[[memoryview, "Lease | None"], None]
_NO_SLOT: Final = -1
_Held = tuple[int, "deque[memoryview]", "Lease | None"]
"""A slot and what of it is not delivered yet, or a whole message in a lease."""


class ChannelDriver(Protocol):
    """What a channel tells its connection. May be called from within any of the channel's methods."""

    def refuse(self, size_bytes: int) -> None:
        """This size cannot be sent: raises."""
        ...

    def queue_grew(self) -> None:
        """More waits to be sent."""
        ...

    def queue_emptied(self) -> None:
        """All that waited is with the device or in sources."""
        ...

    def output_ended(self) -> None:
        """CLOSE was sent, and everything before it has left this side's memory."""
        ...

    def message_begun(self) -> None:
        """The peer has begun a message that takes more than one event."""
        ...

    def receiving_failed(self, error: Exception) -> None:
        """The peer broke the rules, or the receiver raised."""
        ...

    def device_failed(self, error: TransportError) -> None:
        """The queue pair is dead, or refused to post."""
        ...

    def peer_ended(self, inside_message: bool) -> None:
        """Nothing more comes, and nothing is held."""
        ...


def check_limits(limits: ChannelLimits) -> None:
    """Can a channel work with these? Raises ConfigError."""
    least_slot = max(HEADER_BYTES + ORDERED_BYTES, RTS_BYTES, HEADER_BYTES + 4 * limits.max_reads)
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
    """A `CompletionHandler` over one queue pair. Owner: the connection, which calls `end` and then `let_go`."""

    __slots__ = (
        "_backlog",
        "_closing",
        "_countdown",
        "_dead",
        "_defer",
        "_driver",
        "_eager_headers",
        "_ended",
        "_fast",
        "_flowing",
        "_held",
        "_incoming",
        "_interval",
        "_largest_frame",
        "_max_message_bytes",
        "_note_activity",
        "_open_thresholds",
        "_outgoing",
        "_output_ended",
        "_paused",
        "_peer_closed",
        "_post_receive",
        "_post_send",
        "_queue",
        "_send_room",
        "_slots",
        "_thresholds",
        "_throwing_away",
        "_unreported",
        "_waiting",
        "_zeros",
        "credits",
        "deliver",
        "progress",
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
        window = limits.window
        self.credits = Credits(window)
        self.deliver = deliver
        self.progress = 0
        """Grows whenever something that waited to be sent has moved."""
        self._driver = driver
        self._note_activity = note_activity
        self._defer = defer
        self._slots: Sequence[memoryview] = queue_pair.receive_slots
        self._post_send = queue_pair.post_send
        self._post_receive = queue_pair.post_receive
        self._eager_headers = headers(EAGER, window)
        self._max_message_bytes = limits.max_message_bytes
        self._largest_frame = min(limits.slot_bytes, HEADER_BYTES + limits.max_message_bytes)
        # The threshold by credits; the one for sending at once is 0 where no credit may be spent on data.
        self._thresholds = thresholds(window, limits.slot_bytes, eager_bytes)
        self._open_thresholds = (0,) * (RESERVED + 1) + self._thresholds[RESERVED + 1 :]
        self._zeros = (0,) * (window + 1)
        self._fast = self._open_thresholds
        # Signaled is every `_interval`th send; `_unreported` counts those up to the last signaled one.
        self._send_room = queue_pair.send_room
        self._interval = max(1, min(window, self._send_room) // 4)
        self._countdown = self._interval
        self._unreported = 0
        self._queue = EagerQueue(limits.slot_bytes)
        self._outgoing = OutgoingLarge(queue_pair.take_source, limits)
        self._incoming = IncomingLarge(pool, queue_pair.post_read, limits, self._buffer_granted)
        self._held: deque[_Held] = deque()
        self._backlog = False  # bytes are queued
        self._waiting = False  # something waits for credits, room or a source
        self._paused = False
        self._flowing = True  # messages may be delivered at once
        self._throwing_away = False
        self._closing = False
        self._output_ended = False
        self._peer_closed = False
        self._dead = False  # the device says nothing more
        self._ended = False

    # ---- for the connection

    def send(self, head: Bytes, body: Bytes | None, lease: Lease | None) -> None:
        """Send `head` and `body` as one message; `lease` is released when the device has them."""
        # Flat, because every acknowledged produce passes here twice. The one comparison also covers a message that is
        # empty or too large, a queue before this one, missing credits, a full send queue and the end.
        size = len(head) if body is None else len(head) + len(body)
        credits = self.credits
        if not 0 < size <= self._fast[credits.available]:
            self._send_slowly(size, head, body, lease)
            return
        self._note_activity()
        header = self._eager_headers[credits.owed]
        credits.owed = 0
        credits.available -= 1
        self._countdown = countdown = self._countdown - 1
        try:
            self._post_send((header, head) if body is None else (header, head, body), not countdown)
        except TransportError as error:
            if lease is not None:
                lease.release()
            self._driver.device_failed(error)
            return
        if lease is not None:
            lease.release()
        if not countdown:
            self._signaled()

    @property
    def queued_bytes(self) -> int:
        """What `send` has taken that neither the device nor a source has."""
        return self._queue.queued_bytes + self._outgoing.queued_bytes

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

    def close_output(self) -> None:
        """Send what is queued, then CLOSE; `output_ended` says when."""
        self._closing = True
        self._fast = self._zeros
        self._try(self._pump)

    def pump(self) -> None:
        """Try again what waits, in case the device has something free that nobody told of."""
        self._try(self._pump)

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
        self._fast = self._zeros
        self._queue.discard()
        self._outgoing.discard()

    def let_go(self, nobody: ChannelDriver, deliver: Deliver) -> None:
        """The queue pair is closed: release the leases it had, and keep no reference to anyone."""
        self._incoming.discard()
        held, self._held = self._held, deque()
        for _, _, lease in held:
            if lease is not None:
                lease.release()
        self._outgoing.sources.clear()
        self._driver = nobody
        self.deliver = deliver
        self._slots = ()
        del self._post_send, self._post_receive, self._incoming, self._outgoing, self._defer

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
                    if credits.available > credits.window or self._waiting:
                        self._pump_and_receive(slot, view[:size_bytes])
                        return
                self.deliver(view[HEADER_BYTES:size_bytes], None)
                if self._dead or self._ended:
                    return
                self._post_receive(slot)
                credits.owed += 1
                if credits.owed >= credits.return_at:
                    self._pump()
            elif not self._ended:
                self._received(kind, returned, slot, view[:size_bytes])
        except Exception as error:  # noqa: BLE001 - whatever the receiver raises ends this connection only
            self._failed(error)

    def sent(self, count: int) -> None:
        self._unreported -= count
        if self._waiting:
            self._try(self._pump)

    def read_finished(self, work_id: int) -> None:
        self._note_activity()
        if not self._ended:
            self._try(lambda: self._read_finished(work_id))

    def failed(self, error: TransportError | None) -> None:
        if self._ended:
            return
        self._dead = True
        self._fast = self._zeros
        if error is not None:
            self._driver.device_failed(error)
        else:
            self._peer_closed = True
            self._end_if_drained()

    # ---- sending

    def _send_slowly(self, size: int, head: Bytes, body: Bytes | None, lease: Lease | None) -> None:
        if not 0 < size <= self._max_message_bytes:
            if lease is not None:
                lease.release()
            self._driver.refuse(size)
            return
        self._note_activity()
        if size <= self._thresholds[self.credits.available]:
            self._queue.append(head, body, lease, size)
        else:
            self._outgoing.append(head, body, lease, size)
        if self._dead:
            self._driver.device_failed(BrokenError("the peer is gone"))
            return
        self._backlog = True
        self._try(self._pump)
        if self._backlog and not self._ended:
            self._driver.queue_grew()

    def _pump(self) -> None:
        """Send what waits, as far as credits, room and sources go. Raises TransportError."""
        if self._dead or self._ended:
            return
        credits, queue, outgoing = self.credits, self._queue, self._outgoing
        fins = self._incoming.fins
        if fins and self._may_send_control():
            self._post((pack_fin(credits.spend(), fins),))
            self._incoming.fins_sent()
        copy_bytes = COPY_AT_ONCE_BYTES
        moved = True
        while moved and credits.may_send_data() and self._has_room():
            moved = False
            if queue:
                count, pieces = queue.frame(credits.spend())
                self._post(pieces)
                queue.taken(count)
                moved = True
            if copy_bytes > 0 and outgoing and credits.may_send_data() and self._has_room():
                chunk = outgoing.next_chunk()
                if chunk is not None:
                    self._post((pack_rts(credits.spend(), chunk),))
                    copy_bytes -= chunk.memory.size_bytes
                    moved = True
            self.progress += moved
        if credits.owed >= credits.return_at and self._may_send_control():
            self._post((HEADER.pack(CREDIT, credits.spend()),))
        self._settle()

    def _settle(self) -> None:
        """What waits now, and may the next message leave at once?"""
        credits, queue, outgoing = self.credits, self._queue, self._outgoing
        if self._backlog and not queue and not outgoing:
            self._backlog = False
            self._driver.queue_emptied()
            if self._ended:
                return
        if (
            self._closing
            and not self._output_ended
            and not (queue or outgoing or outgoing.sources)
            and self._may_send_control()
        ):
            self._post((HEADER.pack(CLOSE, credits.spend()),))
            self._output_ended = True
            self._driver.output_ended()
        self._waiting = bool(
            queue
            or outgoing
            or self._incoming.fins
            or credits.owed >= credits.return_at
            or self._closing
            or not self._has_room()
        )
        blocked = queue or self._closing or not self._has_room()
        self._fast = self._zeros if blocked else self._open_thresholds

    def _has_room(self) -> bool:
        """May one more be posted to the send queue?"""
        return self._unreported + self._interval <= self._send_room

    def _may_send_control(self) -> bool:
        return self.credits.may_send_control() and self._has_room()

    def _post(self, pieces: Sequence[Bytes]) -> None:
        self._countdown = countdown = self._countdown - 1
        self._post_send(pieces, not countdown)
        if not countdown:
            self._signaled()

    def _signaled(self) -> None:
        """The send just posted will be reported, and with it those before."""
        self._countdown = self._interval
        self._unreported += self._interval
        if not self._has_room():
            self._fast = self._zeros
            self._waiting = True

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
            for id_ in ids:
                self._outgoing.finished(id_)
            self.progress += 1
        elif kind in (CREDIT, CLOSE) and size == HEADER_BYTES:
            self._repost(slot)
            if kind == CLOSE:
                self._peer_closed = True
                self._end_if_drained()
        else:
            raise RemoteProtocolError(f"a frame of kind {kind} with {size} bytes")
        self._pump()

    def _pump_and_receive(self, slot: int, frame: memoryview) -> None:
        """An eager message that came with credits that something waits for."""
        self.credits.returned(0)
        self._pump()
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
        self._pump()  # the FIN first, so that the peer can go on
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
        self._pump()
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
        """Take a step that posts to the device or delivers."""
        try:
            step()
        except Exception as error:  # noqa: BLE001 - ends this connection only
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        if self._ended:
            return
        if isinstance(error, TransportError):
            self._driver.device_failed(error)
        else:
            self._driver.receiving_failed(error)
