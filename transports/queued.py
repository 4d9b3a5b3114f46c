"""The life of a connection that queues what the way out does not take: all of it that is the same on every way.

OPEN, then CLOSING (`close` was called: what is queued still leaves), then ENDED. The tables of `transports.stream` and
`transports.rdma.connection` say what each event does; how bytes travel and how an end is made is theirs.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import Final

from frieda.errors import BrokenError, ClosedError, LocalProtocolError, TransportError
from frieda.transports.base import Connection, Receiver, TransportLimits
from frieda.transports.buffers import Lease
from frieda.transports.deadlines import DeadlineSweep
from frieda.transports.holding import HeldSends

LINGER_S: Final = 1.0
"""How long a closed connection waits for the peer's end after its own."""


class QueuedConnection(Connection):
    """A connection with bounds on its queue, deadlines that a sweep keeps, and one end."""

    def __init__(
        self, peer: str, limits: TransportLimits, max_message_bytes: int, deadlines: DeadlineSweep
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._peer = peer
        self._receiver: Receiver | None = None
        self._deadlines = deadlines
        self._max_message_bytes = max_message_bytes
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
        self._write_since = 0  # the sweep before the queue last made progress; 0: nothing is queued
        self._linger: asyncio.TimerHandle | None = None
        self._held: HeldSends | None = None

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

    # ---- what each way does in its own manner

    @abstractmethod
    def _begin_close(self) -> None:
        """Leave OPEN by our own wish: send what is queued, then end."""

    @abstractmethod
    def _end(self, error: TransportError | None) -> None:
        """Leave for ENDED; nothing when there already."""

    @abstractmethod
    def check_deadlines(self) -> bool:
        """Break the connection when it is past a deadline; False when there is none to keep."""

    @abstractmethod
    def _receiving_failed(self, error: Exception) -> None:
        """The receiver raised this: break the connection."""

    # ---- for both

    def _refuse(self, size_bytes: int, lease: Lease | None) -> None:
        """Raise why a message of this size cannot be sent now."""
        if lease is not None:
            lease.release()
        if not self._open:
            if self._closed_by_us:
                raise ClosedError(f"the connection to {self._peer} was closed here")
            raise BrokenError(str(self._error or f"{self._peer} ended the connection"))
        if size_bytes == 0:
            raise LocalProtocolError("an empty message cannot be sent")
        raise LocalProtocolError(
            f"a message of {size_bytes} bytes cannot be sent; at most {self._max_message_bytes} are allowed"
        )

    def _check_queue(self, queued_bytes: int) -> None:
        """The queue has grown to this."""
        if queued_bytes > self._hard_limit_bytes:
            self._break(
                BrokenError(
                    f"{queued_bytes} bytes are queued for {self._peer}, which does not take them; "
                    f"the limit is {self._hard_limit_bytes}"
                )
            )
        elif queued_bytes > self._high_water_bytes and not self._sending_paused:
            self._sending_paused = True
            if self._receiver is not None:
                self._receiver.sending_paused()

    def _resume_sending(self) -> None:
        """The queue is empty."""
        if self._sending_paused and self._open:
            self._sending_paused = False
            if self._receiver is not None:
                try:
                    self._receiver.sending_resumed()
                except Exception as error:  # noqa: BLE001 - ends this connection only
                    self._receiving_failed(error)

    def _message_late(self) -> None:
        self._break(
            BrokenError(
                f"a message from {self._peer} was not complete within {self._message_timeout_s:g} s"
            )
        )

    def _check_progress(self) -> None:
        """Break the connection when the queue has stood still for too long."""
        if self._write_since and self._deadlines.sweeps - self._write_since >= self._write_sweeps:
            self._break(
                BrokenError(
                    f"{self._peer} took none of {self.queued_bytes} queued bytes "
                    f"for {self._write_timeout_s:g} s"
                )
            )

    def _break(self, error: TransportError, cause: Exception | None = None) -> None:
        if not self._ended:
            error.__cause__ = cause
            self._end(None if self._closed_by_us else error)

    def _enter_end(self, error: TransportError | None) -> None:
        """What every way does first when it ends."""
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
