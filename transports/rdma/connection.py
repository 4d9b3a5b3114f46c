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

import asyncio
from collections.abc import Callable
from typing import Final

from frieda.errors import (
    BrokenError,
    ClosedError,
    LocalProtocolError,
    RemoteProtocolError,
    TransportError,
)
from frieda.transports.base import Bytes, Connection, Receiver, TransportRuntime
from frieda.transports.buffers import Lease
from frieda.transports.deadlines import DeadlineSweep
from frieda.transports.holding import HeldSends
from frieda.transports.rdma.channel import Channel
from frieda.transports.rdma.provider import QueuePair
from frieda.transports.runtime import check_largest_buffer
from frieda.transports.wire import nobody

LINGER_S: Final = 1.0
"""How long a closed connection waits for the peer to go after CLOSE."""


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


class RdmaConnection(Connection):
    """One connection over a queue pair, which it owns. Raises ConfigError for limits that no channel works with."""

    def __init__(self, queue_pair: QueuePair, share: RdmaShare) -> None:
        runtime = share.runtime
        limits = runtime.limits
        self._loop = asyncio.get_running_loop()
        self._peer = queue_pair.peer
        self._deadlines = deadlines = share.deadlines
        self._receiver: Receiver | None = None
        self._max_message_bytes = queue_pair.limits.max_message_bytes
        self._high_water_bytes = limits.high_water_bytes
        self._hard_limit_bytes = max(limits.hard_limit_bytes, 2 * limits.max_message_bytes)
        self._message_timeout_s = limits.message_timeout_s
        self._message_sweeps = deadlines.sweeps_in(limits.message_timeout_s)
        self._write_timeout_s = limits.write_timeout_s
        self._write_sweeps = deadlines.sweeps_in(limits.write_timeout_s)
        self._open = True
        self._ended = False  # neither: CLOSING
        self._error: TransportError | None = None
        self._closed_by_us = False
        self._lost = asyncio.Event()
        self._sending_paused = False
        self._write_since = 0  # the sweep before the queue last moved; 0: nothing is queued
        self._progress = 0  # of the channel, at that sweep
        self._linger: asyncio.TimerHandle | None = None
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
        self._held: HeldSends | None = None
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
        if lease is not None:
            lease.release()
        if self._closed_by_us:
            raise ClosedError(f"the connection to {self._peer} was closed here")
        raise BrokenError(str(self._error or f"{self._peer} ended the connection"))

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

    async def close(self, timeout_s: float = 5.0) -> None:
        if self._open:
            self._begin_close()
        try:
            async with asyncio.timeout(timeout_s):
                await self._lost.wait()
        except TimeoutError:
            self.abort()
            await self._lost.wait()
        except asyncio.CancelledError:
            self.abort()
            raise

    def abort(self) -> None:
        if not self._ended:
            self._closed_by_us = True
            self._end(None)

    @property
    def peer(self) -> str:
        return self._peer

    # ---- from the channel

    def refuse(self, size_bytes: int) -> None:
        if size_bytes == 0:
            raise LocalProtocolError("an empty message cannot be sent")
        raise LocalProtocolError(
            f"a message of {size_bytes} bytes cannot be sent; at most {self._max_message_bytes} are allowed"
        )

    def queue_grew(self) -> None:
        if not self._write_since:
            self._write_since = self._deadlines.sweeps
            self._progress = self._sender.progress
            self._deadlines.watch(self)
        queued = self._sender.queued_bytes
        if queued > self._hard_limit_bytes:
            self._break(
                BrokenError(
                    f"{queued} bytes are queued for {self._peer}, which does not take them; "
                    f"the limit is {self._hard_limit_bytes}"
                )
            )
        elif queued > self._high_water_bytes and not self._sending_paused:
            self._sending_paused = True
            if self._receiver is not None:
                self._receiver.sending_paused()

    def queue_emptied(self) -> None:
        self._write_since = 0
        if self._sending_paused and self._open:
            self._sending_paused = False
            if self._receiver is not None:
                try:
                    self._receiver.sending_resumed()
                except Exception as error:  # noqa: BLE001 - ends this connection only
                    self.failed(error)

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
            self._break(
                BrokenError(
                    f"a message from {self._peer} was not complete within {self._message_timeout_s:g} s"
                )
            )
        elif self._write_since and sweeps - self._write_since >= self._write_sweeps:
            self._break(
                BrokenError(
                    f"{self._peer} took none of {self.queued_bytes} queued bytes "
                    f"for {self._write_timeout_s:g} s"
                )
            )
        return bool(self._write_since or self._channel.inside_message)

    # ---- ending

    def _begin_close(self) -> None:
        self._open = False
        self._closed_by_us = True
        self._channel.throw_away()
        self._sender.close_output()

    def _break(self, error: TransportError, cause: Exception | None = None) -> None:
        if not self._ended:
            error.__cause__ = cause
            self._end(None if self._closed_by_us else error)

    def _end(self, error: TransportError | None) -> None:
        """From here on nothing is sent or delivered; what is queued is given back."""
        if self._ended:
            return
        self._ended = True
        self._open = False
        self._error = error
        if self._linger is not None:
            self._linger.cancel()
        if self._held is not None:
            self._held.cancel()
            self._held = None
            del self.send  # it ties this object into a cycle
        self._deadlines.forget(self)
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
