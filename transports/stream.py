"""A connection over any stream of bytes: everything of the contract that does not touch the outside.

`StreamConnection` frames, queues, paces, keeps deadlines and tells its receiver; a `Wire` moves bytes. TCP and
the in-memory transport are two wires, so what the one is tested for holds for the other.

The life of a connection, and what each event does in each state:

    state      send         bytes arrive   peer ends            write fails   close()          abort()
    OPEN       to the wire  deliver        -> ENDED, None, or   -> ENDED,     -> CLOSING       -> ENDED, None
                                           BrokenError when     BrokenError
                                           inside a message
    CLOSING    ClosedError  thrown away    -> ENDED, None       -> ENDED,     wait with the    -> ENDED, None
                                                                None          others
    ENDED      ClosedError  (none come)    nothing              nothing       wait             nothing
               or BrokenError

From ENDED the wire calls `wire_lost` on a later turn of the loop, and that calls `connection_lost` once.
CLOSING sends what is queued, ends the output, and waits shortly for the peer's end: closing a TCP socket while
unread bytes lie in it would make the kernel throw away what it has not sent yet (RFC 1122, 4.2.2.13).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from frieda.errors import BrokenError, RemoteProtocolError, TransportError
from frieda.transports.base import Bytes, Connection, Receiver, TransportRuntime
from frieda.transports.buffers import BufferWaiter, Lease
from frieda.transports.deadlines import DeadlineSweep
from frieda.transports.framing import FrameAssembler, pack_size
from frieda.transports.holding import HeldSends
from frieda.transports.queued import LINGER_S, QueuedConnection
from frieda.transports.runtime import check_largest_buffer
from frieda.transports.sendqueue import SendQueue
from frieda.transports.wire import GONE, Wire, nobody

JOIN_BYTES: Final = 4096
"""Up to this size a message is copied into one piece, which costs less than a vectored write."""
SHARED_BUFFER_BYTES: Final = 128 * 1024
"""The receive buffer that all connections of one transport share."""


class StreamShare:
    """What the stream connections of one transport share: the receive buffer and the sweep of deadlines."""

    __slots__ = ("deadlines", "runtime", "shared_buffer")

    def __init__(self, runtime: TransportRuntime) -> None:
        check_largest_buffer(runtime)
        self.runtime, limits = runtime, runtime.limits
        self.shared_buffer = memoryview(bytearray(SHARED_BUFFER_BYTES))
        self.deadlines = DeadlineSweep(min(limits.message_timeout_s, limits.write_timeout_s))


class StreamConnection(QueuedConnection):
    """One connection over a `Wire`. The wire calls the methods under "from the wire"."""

    def __init__(self, wire: Wire, share: StreamShare) -> None:
        runtime = share.runtime
        limits = runtime.limits
        self.assembler = FrameAssembler(
            share.shared_buffer, runtime.pool, limits.max_message_bytes, nobody
        )
        super().__init__("a peer", limits, limits.max_message_bytes, share.deadlines)
        self._wire = wire
        self._pool = runtime.pool
        self._note_activity = runtime.engine.note_activity
        self._write = wire.write
        self._queue = SendQueue()
        self._receiving_paused = False
        self._resume_scheduled = False
        self._pool_waiter: BufferWaiter | None = None
        self._message_since = 0  # the sweep before the message that is under way; 0: none is
        self._message_begun = 0  # which one that is
        if runtime.send_hold_s:
            self._held = HeldSends(runtime.send_hold_s, self._let_go)
            self.send = self._hold  # type: ignore[method-assign]  # the usual one pays nothing for it

    # ---- Connection

    def send(self, head: Bytes, body: Bytes | None = None, lease: Lease | None = None) -> None:
        # Flat, because every acknowledged produce passes here twice.
        size = len(head) if body is None else len(head) + len(body)
        if not self._open or not 0 < size <= self._max_message_bytes:
            self._refuse(size, lease)
        self._note_activity()
        rest: Bytes | None = None
        if body is None:
            data = pack_size(size) + head
        elif size <= JOIN_BYTES:
            data = b"".join((pack_size(size), head, body))
        else:
            data, rest = pack_size(size) + head, body
        if rest is None and lease is not None:
            lease.release()
            lease = None
        queue = self._queue
        taken = 0
        was_empty = not queue.queued_bytes
        if was_empty:
            try:
                taken = self._write(data) if rest is None else self._wire.writev((data, rest))
            except BlockingIOError:
                pass
            except OSError as error:
                if lease is not None:
                    lease.release()
                self._break(BrokenError(f"sending to {self._peer} failed: {error}"), error)
                return
            if taken == size + 4:
                if lease is not None:
                    lease.release()
                return
        if taken < len(data):
            queue.append(data, None, taken)
            taken = 0
        else:
            taken -= len(data)
        if rest is not None:
            queue.append(rest, lease, taken)
        if was_empty:
            self._wait_for_room()
        self._check_queue(self._queue.queued_bytes)

    @property
    def queued_bytes(self) -> int:
        return self._queue.queued_bytes

    def pause_receiving(self) -> None:
        if self._open:
            self._receiving_paused = True
            self.assembler.hold()
            self._wire.set_reading(False)

    def resume_receiving(self) -> None:
        if self._receiving_paused:
            self._receiving_paused = False
            if self._open:
                self.assembler.unhold()
                self._schedule_resume()

    # ---- from the wire, always on the event loop

    def wire_ready(self, peer: str, make_receiver: Callable[[Connection], Receiver]) -> None:
        """The bytes can flow. Raises what `make_receiver` raises."""
        self._peer = peer
        self._write = self._wire.write
        receiver = make_receiver(self)
        self._receiver = receiver
        self.assembler.deliver = receiver.message_received

    def bytes_arrived(self, count: int) -> None:
        """`count` bytes lie in the buffer that `assembler.get_buffer` gave."""
        self._note_activity()
        try:
            if self.assembler.advance(count):
                self._message_since = 0
                return
        except Exception as error:  # noqa: BLE001 - whatever the receiver raises ends this connection only
            self._receiving_failed(error)
        self._after_delivery()

    def peer_ended(self) -> None:
        """The peer sends nothing more."""
        if self._open and self.assembler.mid_message:
            self._end(BrokenError(f"{self._peer} ended the connection in the middle of a message"))
        else:
            self._end(None)

    def wire_lost(self, error: Exception | None) -> None:
        """The wire is gone: the last call."""
        if self._lost.is_set():
            return
        if not self._ended:
            broken = None
            if error is not None and self._open:
                broken = BrokenError(f"the connection to {self._peer} was lost: {error}")
                broken.__cause__ = error
            self._end(broken)
        self._lost.set()
        receiver, self._receiver = self._receiver, None
        self.assembler.deliver = nobody  # no cycles stay behind for the garbage collector
        self._wire = GONE
        self._write = GONE.write
        if receiver is not None:
            receiver.connection_lost(self._error)

    # ---- from the sweep

    def check_deadlines(self) -> bool:
        """Break the connection when it is past a deadline; False when there is none to keep."""
        if self._ended:
            return False
        sweeps, since = self._deadlines.sweeps, self._message_since
        if since and self.assembler.can_read and sweeps - since >= self._message_sweeps:
            self._pool.late_messages += self.assembler.holds_buffer
            self._message_late()
        else:
            self._check_progress()
        return bool(self._message_since or self._write_since)

    # ---- sending

    def _wait_for_room(self) -> None:
        """The wire is full: go on when it is not."""
        self._write_since = self._deadlines.sweeps
        self._deadlines.watch(self)
        try:
            self._wire.watch_writable(self._wire_writable)
        except OSError as error:  # no descriptor left
            self._break(BrokenError(f"sending to {self._peer} failed: {error}"), error)

    def _wire_writable(self) -> None:
        """All that queued while the wire was busy leaves together."""
        queue = self._queue
        try:
            queue.taken(self._wire.writev(queue.front()))
        except BlockingIOError:
            return
        except OSError as error:
            self._break(BrokenError(f"sending to {self._peer} failed: {error}"), error)
            return
        if queue.queued_bytes:
            self._write_since = self._deadlines.sweeps
            return
        self._write_since = 0
        self._wire.watch_writable(None)
        if self._open:
            self._resume_sending()
        else:
            self._end_output()

    def _hold(self, head: Bytes, body: Bytes | None = None, lease: Lease | None = None) -> None:
        """`send` without eager flush."""
        size = len(head) if body is None else len(head) + len(body)
        if not self._open or not 0 < size <= self._max_message_bytes:
            self._refuse(size, lease)
        self._note_activity()
        self._queue.append(pack_size(size) + head, lease if body is None else None)
        if body is not None:
            self._queue.append(body, lease)
        if self._held is not None and not self._write_since:
            self._held.grew(self._queue.queued_bytes)
        self._check_queue(self._queue.queued_bytes)

    def _let_go(self) -> None:
        """Hand over what was held, all together."""
        if not self._write_since and self._queue.queued_bytes:
            self._wire_writable()
            if self._queue.queued_bytes:
                self._wait_for_room()

    # ---- receiving

    def _receiving_failed(self, error: Exception) -> None:
        if isinstance(error, RemoteProtocolError):
            self._break(BrokenError(f"{self._peer}: {error}"), error)
        else:
            text = f"{type(error).__name__}: {error}"
            self._break(BrokenError(f"receiving from {self._peer} failed: {text}"), error)

    def _after_delivery(self) -> None:
        """Keep the deadline of the message under way, and read on only where there is room."""
        if not self._open:
            return
        assembler = self.assembler
        if not assembler.mid_message:
            self._message_since = 0
        elif not self._message_since or self._message_begun != assembler.begun:
            self._message_begun = assembler.begun
            self._message_since = self._deadlines.sweeps
            self._deadlines.watch(self)
        if not assembler.can_read:
            self._wire.set_reading(False)
            if assembler.wanted_bytes and self._pool_waiter is None:
                self._pool_waiter = self._pool.when_free(assembler.wanted_bytes, self._buffer_free)

    def _buffer_free(self, lease: Lease) -> None:
        self._pool_waiter = None
        self.assembler.grant(lease)
        self._schedule_resume()

    def _schedule_resume(self) -> None:
        # On a later turn, because resume_receiving may be called from within a delivery.
        if not self._resume_scheduled:
            self._resume_scheduled = True
            self._loop.call_soon(self._resume)

    def _resume(self) -> None:
        self._resume_scheduled = False
        if not self._open or self._receiving_paused:
            return
        assembler = self.assembler
        try:
            assembler.resume()
        except Exception as error:  # noqa: BLE001 - whatever the receiver raises ends this connection only
            self._receiving_failed(error)
            return
        self._message_since = 0  # the time spent paused does not count against the peer
        self._wire.set_reading(True)
        self._after_delivery()

    # ---- ending

    def _begin_close(self) -> None:
        if self._held is not None:
            self._held.now()
        self._open = False
        self._closed_by_us = True
        self._stop_receiving()
        self._wire.set_reading(True)  # what still comes is thrown away, and the peer's end is seen
        if not self._queue.queued_bytes:
            self._end_output()

    def _end_output(self) -> None:
        try:
            self._wire.end_output()
        except OSError:
            self._end(None)  # the peer is gone already
        else:
            self._linger = self._loop.call_later(LINGER_S, self._end, None)

    def _end(self, error: TransportError | None) -> None:
        """From here on nothing is sent or delivered; every lease is given back."""
        if self._ended:
            return
        self._enter_end(error)
        if self._write_since:
            self._write_since = 0
            self._wire.watch_writable(None)
        self._stop_receiving()
        self._queue.discard()
        self._wire.abort()

    def _stop_receiving(self) -> None:
        self._receiving_paused = False
        self._message_since = 0
        self.assembler.discard()
        if self._pool_waiter is not None:
            self._pool_waiter.cancel()
            self._pool_waiter = None
