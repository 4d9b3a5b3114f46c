"""A session: one client's connection at the broker.

Each request goes to its handler the moment it arrives, and its answer leaves the moment it is done
(overlapped processing); with `reorder_responses`, for comparison, answers leave in the order of the requests.
Reading pauses while too many requests are under way or too many bytes wait to be sent.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Final

from frieda.broker.handlers import produce
from frieda.broker.request import Handler, Request
from frieda.errors import (
    BrokerError,
    BufferExhaustedError,
    ErrorCode,
    FriedaError,
    LocalProtocolError,
    RemoteProtocolError,
    TransportError,
)
from frieda.protocol.reorder import ReorderWindow
from frieda.protocol.server import Refusal, ServerProtocol, ServerState
from frieda.wire.envelope import HEADER_SIZE, MAX_HEADER_BYTES, encode_error
from frieda.wire.messages import ApiKey
from frieda.wire.produce import REQUEST_MARK

if TYPE_CHECKING:
    from frieda.broker.broker import Broker
    from frieda.transports.base import Connection
    from frieda.transports.buffers import Lease

logger = logging.getLogger(__name__)

# The correlation id of an error that belongs to no request: the last word before a connection is closed.
NO_REQUEST = -1

# Up to this size the head of an answer fits into any message.
_SMALL_HEAD_BYTES = 4096

_OPEN: Final = ServerState.OPEN

Outgoing = tuple[bytes | None, memoryview | None, "Lease | None"]


class Session:
    """The receiver of one connection. Owned by the server, which forgets it through `on_end`."""

    def __init__(
        self,
        broker: Broker,
        connection: Connection,
        handlers: Mapping[int, Handler],
        on_end: Callable[[Session], None],
    ) -> None:
        self.connection = connection
        self.protocol = ServerProtocol()
        # A produce may be done at once, unless answers wait for their turn or a test has a handler of its own.
        self._at_once = (
            produce.at_once
            if handlers.get(ApiKey.PRODUCE) is produce.handle
            and not broker.config.reorder_responses
            else None
        )
        self.in_flight = 0
        self.alive = True
        # What waits for its own reason and can be answered early: long polls.
        self.interrupts: set[Callable[[], None]] = set()
        self._broker = broker
        self._handlers = handlers
        self._on_end = on_end
        self._max_in_flight = (
            broker.config.max_in_flight_requests if broker.config.overlapped else 1
        )
        self._max_message_bytes = broker.config.max_frame_bytes
        self._tasks: set[asyncio.Task[None]] = set()
        self._window: ReorderWindow[Outgoing] | None = (
            ReorderWindow() if broker.config.reorder_responses else None
        )
        self._sending_paused = False
        self._receiving_paused = False
        self._held: list[Callable[[], None]] = []
        self._idle: asyncio.Event | None = None

    # --- the transport's side -----------------------------------------------------------------------------

    def message_received(self, message: memoryview, lease: Lease | None) -> None:
        if (
            self._at_once is not None
            and message[0] == REQUEST_MARK
            and self.protocol.state is _OPEN
        ):
            try:
                if self._at_once(self._broker, self, message):
                    return
            except Exception as error:  # noqa: BLE001  as below
                self._failed_at_once(message, error)
                return
        try:
            incoming = self.protocol.receive(message)
        except RemoteProtocolError as error:
            self._break(error)
            return
        self.in_flight += 1
        slot = self._window.open() if self._window is not None else 0
        if isinstance(incoming, Refusal):
            refused = Request(self, incoming.correlation_id, None, message, None, slot)
            refused.refuse(incoming.code, incoming.detail)
            return
        api_key, _, correlation_id, payload, body = incoming
        request = Request(self, correlation_id, payload, body, lease, slot)
        try:
            work = self._handlers[api_key](self._broker, request)
        except Exception as error:  # noqa: BLE001  a fault of one handler must not take the session down
            self.failed(request, error)
        else:
            if work is not None:
                self.run(request, work)
        if self.in_flight >= self._max_in_flight:
            self._regulate()

    def sending_paused(self) -> None:
        self._sending_paused = True
        self._regulate()

    def sending_resumed(self) -> None:
        self._sending_paused = False
        held, self._held = self._held, []
        for callback in held:
            callback()
        self._regulate()

    def connection_lost(self, error: TransportError | None) -> None:
        if error is not None:
            self._broker.counters.broken_connections += 1
            logger.info("%s: %s", self.connection.peer, error)
        self.alive = False
        self.protocol.close()
        for task in self._tasks:
            task.cancel()
        self.interrupt()
        held, self._held = self._held, []
        for callback in held:
            callback()
        if self._idle is not None:
            self._idle.set()
        self._on_end(self)

    # --- the requests' side -------------------------------------------------------------------------------

    def finished(
        self, request: Request, head: bytes | None, body: memoryview | None, lease: Lease | None
    ) -> None:
        """A request is done; its answer, if it has one, leaves now or in its turn."""
        self.in_flight -= 1
        if head is not None and (len(head) > _SMALL_HEAD_BYTES or body is not None):
            head, body, lease = self._fitting(request, head, body, lease)
        if self._window is None:
            self._send(head, body, lease)
        else:
            for ready in self._window.fill(request.slot, (head, body, lease)):
                self._send(*ready)
        if self._receiving_paused:
            self._regulate()
        if self.in_flight == 0 and self._idle is not None:
            self._idle.set()

    def when_sendable(self, callback: Callable[[], None]) -> None:
        """Call back once the connection takes more, at once if it does now, and also when it has ended."""
        if self._sending_paused and self.alive:
            self._held.append(callback)
        else:
            callback()

    def run(self, request: Request, work: Coroutine[Any, Any, None]) -> None:
        """Run what a request needs a task for; its errors are the request's, its life the connection's."""
        task = asyncio.get_running_loop().create_task(self._run(request, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def failed(self, request: Request, error: Exception) -> None:
        """A request ended with an exception: one that is meant for its client, or a fault of the broker's own."""
        if isinstance(error, BrokerError) and not request.answered:
            request.refuse(error.code, error.detail)
        elif isinstance(error, BufferExhaustedError) and not request.answered:
            request.refuse(ErrorCode.BUSY, str(error))
        else:
            self.fault(error)
            if not request.answered:
                request.refuse(ErrorCode.UNKNOWN_SERVER_ERROR, "the broker met a fault of its own")

    def fault(self, error: Exception) -> None:
        """Something of the broker's own went wrong over a request."""
        logger.error("a request of %s failed", self.connection.peer, exc_info=error)
        self._broker.counters.faults += 1

    def not_sent(self, error: FriedaError) -> None:
        """The connection ended under an answer; connection_lost tells the rest."""
        logger.debug("an answer to %s was not sent: %s", self.connection.peer, error)

    @property
    def max_answer_bytes(self) -> int:
        """The largest message that the broker may send and the client says it takes."""
        client = self.protocol.client
        if client is None:
            return self._max_message_bytes
        return min(self._max_message_bytes, client.max_message_bytes)

    def interrupt(self) -> None:
        """Let everything that waits only for more data answer now."""
        for interrupt in tuple(self.interrupts):
            interrupt()

    def stop_receiving(self) -> None:
        """Take up no further request."""
        self._receiving_paused = True
        self.connection.pause_receiving()
        self._max_in_flight = 0

    async def drain(self) -> None:
        """After `stop_receiving`: wait until every request under way is answered."""
        self._idle = asyncio.Event()
        self.interrupt()
        if self.in_flight and self.alive:
            await self._idle.wait()

    def _send(self, head: bytes | None, body: memoryview | None, lease: Lease | None) -> None:
        if head is None or not self.alive:
            if lease is not None:
                lease.release()
            return
        try:
            self.connection.send(head, body, lease)
        except (TransportError, LocalProtocolError) as error:
            self.not_sent(error)

    def _failed_at_once(self, message: memoryview, error: Exception) -> None:
        incoming = self.protocol.receive(message)
        self.in_flight += 1
        request = Request(self, incoming.correlation_id, None, message, None, 0)
        self.failed(request, error)

    async def _run(self, request: Request, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except asyncio.CancelledError:
            if not request.answered:
                request.finish_silently()
            raise
        except Exception as error:  # noqa: BLE001  as above
            self.failed(request, error)

    def _fitting(
        self, request: Request, head: bytes, body: memoryview | None, lease: Lease | None
    ) -> Outgoing:
        """The answer, or an error in its place when the client could not take it."""
        size_bytes = len(head) if body is None else len(head) + len(body)
        if size_bytes <= self.max_answer_bytes and len(head) <= MAX_HEADER_BYTES + HEADER_SIZE.size:
            return head, body, lease
        if lease is not None:
            lease.release()
        detail = (
            f"the answer has {size_bytes} bytes, more than can be sent to this client; ask for less"
        )
        error = encode_error(request.correlation_id, ErrorCode.MESSAGE_TOO_LARGE, detail)
        return error, None, None

    def _regulate(self) -> None:
        """Read only while there is room for another request and its answer."""
        full = self._sending_paused or self.in_flight >= self._max_in_flight
        if full and not self._receiving_paused:
            self._receiving_paused = True
            self.connection.pause_receiving()
        elif not full and self._receiving_paused:
            self._receiving_paused = False
            self.connection.resume_receiving()

    def _break(self, error: RemoteProtocolError) -> None:
        """Say why, then close."""
        if self.protocol.state is ServerState.CLOSED:
            return  # a message that was read before the reading stopped
        self.protocol.close()
        self._broker.counters.protocol_errors += 1
        logger.info("%s: %s", self.connection.peer, error)
        self.connection.pause_receiving()
        self._send(encode_error(NO_REQUEST, ErrorCode.INVALID_REQUEST, str(error)), None, None)
        task = asyncio.get_running_loop().create_task(self.connection.close(1.0))
        self._broker.hold_task(task)
