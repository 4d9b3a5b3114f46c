"""The sending half of a channel: what leaves at once, what waits, and for what.

A message up to the threshold leaves at once as an EAGER frame, straight from the caller's pieces, if no other of its
kind waits and there is a credit. Otherwise it queues, and all that queue leave together once credits return.
Larger messages are offered for READ (`rendezvous`); those that follow may overtake them.

Whatever waits for credits, for room in the send queue or for a source is tried again in `pump`, which the channel
calls on each event that may have changed them. A send is signaled every quarter of the window.

PURE: `ChannelDriver` is told what concerns the connection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from frieda.errors import BrokenError, TransportError
from frieda.transports.base import Bytes
from frieda.transports.rdma.credits import RESERVED, Credits
from frieda.transports.rdma.eager import EagerQueue, thresholds
from frieda.transports.rdma.frames import CLOSE, CREDIT, EAGER, HEADER, headers, pack_fin, pack_rts
from frieda.transports.rdma.provider import QueuePair
from frieda.transports.rdma.rendezvous import COPY_AT_ONCE_BYTES, IncomingLarge, OutgoingLarge

if TYPE_CHECKING:
    from frieda.transports.buffers import Lease


class ChannelDriver(Protocol):
    """What a channel tells its connection. May be called from within any method of the channel."""

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

    def failed(self, error: Exception) -> None:
        """The device failed (TransportError), the peer broke the rules (RemoteProtocolError), or a receiver did."""
        ...

    def peer_ended(self, inside_message: bool) -> None:
        """Nothing more comes, and nothing is held."""
        ...


class Sender:
    """Owner: the channel, which calls `stop` at the end, and `let_go` after the queue pair's close."""

    __slots__ = (
        "_backlog",
        "_closing",
        "_countdown",
        "_driver",
        "_eager_headers",
        "_fast",
        "_incoming",
        "_interval",
        "_max_message_bytes",
        "_note_activity",
        "_open_thresholds",
        "_outgoing",
        "_output_ended",
        "_post_send",
        "_queue",
        "_send_room",
        "_stopped",
        "_thresholds",
        "_unreported",
        "_zeros",
        "credits",
        "progress",
        "waiting",
    )

    def __init__(
        self,
        queue_pair: QueuePair,
        incoming: IncomingLarge,
        driver: ChannelDriver,
        eager_bytes: int | None,
        note_activity: Callable[[], None],
    ) -> None:
        limits = queue_pair.limits
        window = limits.window
        self.credits = Credits(window)
        self.progress = 0
        """Grows whenever something that waited to be sent has moved."""
        self.waiting = False
        """Does something wait for credits, room or a source?"""
        self._driver = driver
        self._note_activity = note_activity
        self._post_send = queue_pair.post_send
        self._eager_headers = headers(EAGER, window)
        self._max_message_bytes = limits.max_message_bytes
        # The threshold by credits; the one for sending at once is 0 where no credit may be spent on data.
        self._thresholds = thresholds(window, limits.slot_bytes, eager_bytes)
        self._open_thresholds = (0,) * (RESERVED + 1) + tuple(
            min(each, limits.max_message_bytes) for each in self._thresholds[RESERVED + 1 :]
        )
        self._zeros = (0,) * (window + 1)
        self._fast = self._open_thresholds
        # Signaled is every `_interval`th send; `_unreported` counts those up to the last signaled one.
        self._send_room = queue_pair.send_room
        self._interval = max(1, min(window, self._send_room) // 4)
        self._countdown = self._interval
        self._unreported = 0
        self._queue = EagerQueue(limits.slot_bytes)
        self._outgoing = OutgoingLarge(queue_pair.take_source, limits)
        self._incoming = incoming
        self._backlog = False  # bytes are queued
        self._closing = False
        self._output_ended = False
        self._stopped = False

    def send(self, head: Bytes, body: Bytes | None, lease: Lease | None) -> None:
        """Send `head` and `body` as one message; `lease` is released when the device has them."""
        # Flat, because every acknowledged produce passes here twice. The one comparison also covers a message that is
        # empty or too large, a queue before this one, missing credits, a full send queue and the end.
        size = len(head) if body is None else len(head) + len(body)
        credits = self.credits
        if not 0 < size <= self._fast[credits.available]:
            self._send_slowly(head, body, lease)
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
            self._driver.failed(error)
            return
        if lease is not None:
            lease.release()
        if not countdown:
            self._signaled()

    @property
    def queued_bytes(self) -> int:
        """What `send` has taken that neither the device nor a source has."""
        return self._queue.queued_bytes + self._outgoing.queued_bytes

    def try_pump(self) -> None:
        """As `pump`, but tell the driver what it raises."""
        try:
            self.pump()
        except Exception as error:  # noqa: BLE001 - ends this connection only
            self._driver.failed(error)

    def sent(self, count: int) -> None:
        """The device has reported `count` sends."""
        self._unreported -= count
        if self.waiting:
            self.try_pump()

    def chunks_read(self, ids: tuple[int, ...]) -> None:
        """The peer said FIN to these. Raises RemoteProtocolError for one that is not offered."""
        for id_ in ids:
            self._outgoing.finished(id_)
        self.progress += 1

    def close_output(self) -> None:
        """Send what is queued, then CLOSE; `output_ended` says when."""
        self._closing = True
        self._fast = self._zeros
        self.try_pump()

    def stop(self) -> None:
        """Post nothing more: the device is dead or about to be closed."""
        self._stopped = True
        self._fast = self._zeros

    def discard(self) -> None:
        """What is queued is lost; its leases are released. May be repeated."""
        self._queue.discard()
        self._outgoing.discard()

    def let_go(self, nobody: ChannelDriver) -> None:
        """The queue pair is closed: keep no reference to it, nor to anyone."""
        self._driver = nobody
        del self._post_send, self._outgoing, self._incoming, self._note_activity

    def hold(self, head: Bytes, body: Bytes | None, lease: Lease | None) -> bool:
        """Queue one message for the next `pump`; whether it was taken (the driver has heard of it if not)."""
        size = len(head) if body is None else len(head) + len(body)
        if not 0 < size <= self._max_message_bytes:
            if lease is not None:
                lease.release()
            self._driver.refuse(size)
            return False
        self._note_activity()
        if size <= self._thresholds[self.credits.available]:
            self._queue.append(head, body, lease, size)
        else:
            self._outgoing.append(head, body, lease, size)
        if self._stopped:
            self._driver.failed(BrokenError("the peer is gone"))
            return False
        self._backlog = True
        return True

    def _send_slowly(self, head: Bytes, body: Bytes | None, lease: Lease | None) -> None:
        if self.hold(head, body, lease):
            self.try_pump()
            if self._backlog and not self._stopped:
                self._driver.queue_grew()

    def pump(self) -> None:
        """Send what waits, as far as credits, room and sources go. Raises TransportError."""
        if self._stopped:
            return
        credits, queue, outgoing = self.credits, self._queue, self._outgoing
        incoming = self._incoming
        while incoming.fins and self._may_send_control():
            self._post((pack_fin(credits.spend(), incoming.take_fins()),))
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
            if self._stopped:
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
        self.waiting = bool(
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
            self.waiting = True
