"""A connection over a queue pair: the contract of `transports.base`, driven by an event loop.

`RdmaConnection(queue_pair, share)` takes over the queue pair of a bootstrap that is done, and closes it. Who
connects or accepts then calls `connection.ready(make_receiver)`, once, on the event loop, and hands the
connection out. When that raises it has aborted the connection; who gives up before it calls `abort`.

The life of a connection is that of `transports.stream`; the events have other names:

    state      send             frames arrive   CLOSE, or peer gone      device fails   close()        abort()
    OPEN       to the channel   deliver         -> ENDED, None, or       -> ENDED,      -> CLOSING     -> ENDED, None
                                                BrokenError when         BrokenError
                                                inside a message
    CLOSING    ClosedError      thrown away     -> ENDED, None           -> ENDED,      wait with the  -> ENDED, None
                                                                         None           others
    ENDED      ClosedError      nothing         nothing                  nothing        wait           nothing
               or BrokenError

CLOSING sends what is queued, waits until the peer has READ what was offered, sends CLOSE, and waits shortly for
the peer to go: what is under way in a queue pair is lost when it is destroyed. ENDED closes the queue pair on a
later turn of the loop, because its slots may lie under a delivery that is further up the stack.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from frieda.errors import BrokenError, RemoteProtocolError, TransportError
from frieda.transports.base import Bytes, Connection, Receiver, TransportRuntime
from frieda.transports.buffers import Lease
from frieda.transports.deadlines import DeadlineSweep
from frieda.transports.holding import HeldSends
from frieda.transports.queued import LINGER_S, QueuedConnection
from frieda.transports.rdma.channel import Channel
from frieda.transports.rdma.provider import QueuePair
from frieda.transports.runtime import check_largest_buffer
from frieda.transports.wire import nobody


class RdmaShare:
    """What the RDMA connections of one transport share: the runtime and the sweep of deadlines.

    Raises ConfigError when no buffer of the pool holds the largest message.
    """

    __slots__ = ("deadlines", "runtime")

    def __init__(self, runtime: TransportRuntime) -> None:
        check_largest_buffer(runtime)
        limits = runtime.limits
        self.runtime = runtime
        self.deadlines = DeadlineSweep(min(limits.message_timeout_s, limits.write_timeout_s))


class RdmaConnection(QueuedConnection):
    """One connection over a queue pair, which it owns. Raises ConfigError for limits that no channel works with."""

    def __init__(self, queue_pair: QueuePair, share: RdmaShare) -> None:
        runtime = share.runtime
        most_bytes = queue_pair.limits.max_message_bytes
        super().__init__(queue_pair.peer, runtime.limits, most_bytes, share.deadlines)
        self._progress = 0  # of the channel, at the sweep `_write_since`
        self._channel = Channel(
            queue_pair,
            runtime.pool,
            self,
            deliver=nobody,
            eager_bytes=runtime.rdma.eager_bytes,
            note_activity=runtime.engine.note_activity,
            defer=self._loop.call_soon,
        )
        self._sender = self._channel.sender
        if runtime.send_hold_s:
            self._held = HeldSends(runtime.send_hold_s, self._sender.try_pump)
            self.send = self._hold  # type: ignore[method-assign]  # the usual one pays nothing for it

    def ready(self, make_receiver: Callable[[Connection], Receiver]) -> None:
        """The peer is ready: make the receiver and begin. Raises what `make_receiver` raises, after an `abort`."""
        try:
            self._channel.start()  # nothing comes before the next poll
            receiver = make_receiver(self)
        except BaseException:
            self.abort()
            raise
        self._receiver = receiver
        self._channel.deliver = receiver.message_received

    # ---- Connection

    def send(self, head: Bytes, body: Bytes | None = None, lease: Lease | None = None) -> None:
        if self._open:
            self._sender.send(head, body, lease)
            return
        self._refuse(0, lease)

    def _hold(self, head: Bytes, body: Bytes | None = None, lease: Lease | None = None) -> None:
        """`send` without eager flush."""
        held = self._held
        if not self._open or held is None:
            RdmaConnection.send(self, head, body, lease)
            return
        self._sender.hold(head, body, lease)
        self.queue_grew()
        if self._open:
            held.grew(self._sender.queued_bytes)

    @property
    def queued_bytes(self) -> int:
        return 0 if self._ended else self._sender.queued_bytes

    def pause_receiving(self) -> None:
        if self._open:
            self._channel.pause()

    def resume_receiving(self) -> None:
        if self._open:
            self._channel.resume()

    # ---- from the channel

    def refuse(self, size_bytes: int) -> None:
        self._refuse(size_bytes, None)

    def queue_grew(self) -> None:
        if not self._write_since:
            self._write_since = self._deadlines.sweeps
            self._progress = self._sender.progress
            self._deadlines.watch(self)
        self._check_queue(self._sender.queued_bytes)

    def queue_emptied(self) -> None:
        self._write_since = 0
        self._resume_sending()

    def output_ended(self) -> None:
        self._linger = self._loop.call_later(LINGER_S, self._end, None)

    def message_begun(self) -> None:
        self._deadlines.watch(self)

    def failed(self, error: Exception) -> None:
        if isinstance(error, RemoteProtocolError):
            text = f"{self._peer}: {error}"
        elif isinstance(error, TransportError):
            text = f"the connection to {self._peer} was lost: {error}"
        else:
            text = f"receiving from {self._peer} failed: {type(error).__name__}: {error}"
        self._break(BrokenError(text), error)

    def peer_ended(self, inside_message: bool) -> None:
        if inside_message:
            self._break(
                BrokenError(f"{self._peer} ended the connection in the middle of a message")
            )
        else:
            self._end(None)

    # ---- from the sweep

    def check_deadlines(self) -> bool:
        """Break the connection when it is past a deadline; False when there is none to keep."""
        if self._ended:
            return False
        sender, sweeps = self._sender, self._deadlines.sweeps
        if self._write_since:
            sender.try_pump()  # a source may be free again that another connection had
        if self._write_since and sender.progress != self._progress:
            self._write_since, self._progress = sweeps, sender.progress
        if self._channel.overdue(sweeps, self._message_sweeps):
            self._message_late()
        else:
            self._check_progress()
        return bool(self._write_since or self._channel.inside_message)

    # ---- ending

    def _begin_close(self) -> None:
        self._open = False
        self._closed_by_us = True
        self._channel.throw_away()
        self._sender.close_output()

    def _receiving_failed(self, error: Exception) -> None:
        self.failed(error)

    def _end(self, error: TransportError | None) -> None:
        """From here on nothing is sent or delivered; what is queued is given back."""
        if self._ended:
            return
        self._enter_end(error)
        self._channel.end()
        self._loop.call_soon(self._finish)

    def _finish(self) -> None:
        """Close the queue pair, and tell the receiver."""
        self._channel.close(_NOBODY, nobody)
        self._lost.set()
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.connection_lost(self._error)


class _Nobody:
    """Whom the channel of an ended connection tells."""

    def refuse(self, size_bytes: int) -> None: ...

    def queue_grew(self) -> None: ...

    def queue_emptied(self) -> None: ...

    def output_ended(self) -> None: ...

    def message_begun(self) -> None: ...

    def failed(self, error: Exception) -> None: ...

    def peer_ended(self, inside_message: bool) -> None: ...


_NOBODY: Final = _Nobody()
