"""One connection to a broker: requests out by callback, answers straight to whoever asked.

The protocol (correlation, credit, versions) is `frieda.protocol.client`; this module adds the deadline of each
request and the queue of what the broker has no credit for yet. Everything runs on one event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from frieda.errors import (
    BrokenError,
    BrokerError,
    ClosedError,
    ConnectError,
    ErrorCode,
    FriedaError,
    TransportError,
)
from frieda.protocol.client import Answer, ClientProtocol, Outgoing
from frieda.wire.messages import HelloResponse, ProduceRequest, ProduceResponse

if TYPE_CHECKING:
    from frieda.clock import Clock
    from frieda.transports.base import Bytes, Connection, Transport
    from frieda.transports.buffers import Lease

OnAnswer = Callable[["Answer | FriedaError", "Lease | None"], None]
OnLost = Callable[["BrokerConnection", "TransportError | None"], None]
Response = TypeVar("Response")

MAX_WAITING_REQUESTS: Final = 10_000
"""Requests of one connection that may wait for the broker's credit."""
_LEAST_SWEEP_S: Final = 0.005


class _Waiting(NamedTuple):
    """A request that waits for credit."""

    request: Any
    on_answer: OnAnswer
    body: Bytes | None
    lease: Lease | None
    deadline_ns: int


class BrokerConnection:
    """A greeted connection; made by `connect`. Owned by who made it, who calls `close` or `abort`.

    `on_lost` is called once when a connection that was handed out has ended, after every request on it got
    its answer.
    """

    __slots__ = (
        "_default_timeout_s",
        "_heard",
        "_last_heard_ns",
        "_loop",
        "_next_sweep_ns",
        "_now_ns",
        "_on_lost",
        "_paused",
        "_pending",
        "_protocol",
        "_sweep",
        "_transport",
        "_waiting",
        "abandoned",
        "is_open",
        "on_complaint",
        "url",
    )

    def __init__(
        self,
        transport: Connection,
        protocol: ClientProtocol,
        clock: Clock,
        url: str,
        default_timeout_s: float,
    ) -> None:
        self.url = url
        self.is_open = True
        self.abandoned = 0
        """Requests that timed out and that the broker may still be working on."""
        self.on_complaint: Callable[[], None] | None = None
        """Called when the broker refused a produce with acks=0, which is all that is known of it."""
        self._transport = transport
        self._protocol = protocol
        self._now_ns = clock.monotonic_ns
        self._default_timeout_s = default_timeout_s
        self._loop = asyncio.get_running_loop()
        self._pending: dict[int, tuple[OnAnswer, int, int]] = {}
        self._waiting: deque[_Waiting] = deque()
        self._paused = False
        self._sweep: asyncio.TimerHandle | None = None
        self._next_sweep_ns = 0
        self._heard = True
        self._last_heard_ns = clock.monotonic_ns()
        self._on_lost: OnLost | None = None

    @classmethod
    async def connect(
        cls,
        transport: Transport,
        url: str,
        *,
        client_id: str,
        software: str,
        max_message_bytes: int,
        clock: Clock,
        request_timeout_s: float,
        connect_timeout_s: float,
        on_lost: OnLost | None = None,
    ) -> BrokerConnection:
        """Connect to `url` and greet. Raises ConnectError or another TransportError, BrokerError when the
        broker refuses the greeting, RemoteProtocolError's text in a BrokenError. Cancellation leaves nothing."""
        protocol = ClientProtocol(
            client_id=client_id, software=software, max_message_bytes=max_message_bytes
        )
        made: list[BrokerConnection] = []

        def make_receiver(connection: Connection) -> BrokerConnection:
            made.append(cls(connection, protocol, clock, url, request_timeout_s))
            return made[0]

        await transport.connect(url, make_receiver, timeout_s=connect_timeout_s)
        (connection,) = made
        try:
            await connection._greet(connect_timeout_s)
        except BaseException as error:
            connection.abort()
            if isinstance(error, BrokerError) and error.code is ErrorCode.REQUEST_TIMED_OUT:
                raise ConnectError(
                    f"{url}: connected, but nobody greeted within {connect_timeout_s:g} s; "
                    "is it a Frieda broker?"
                ) from None
            raise
        connection._on_lost = on_lost
        if not connection.is_open and on_lost is not None:
            on_lost(connection, None)
        return connection

    @property
    def broker(self) -> HelloResponse:
        """Who answered the greeting, and its limits."""
        assert self._protocol.broker is not None, "a connection is handed out greeted"
        return self._protocol.broker

    @property
    def in_flight(self) -> int:
        """Requests without an answer, those that wait for credit included."""
        return len(self._pending) + len(self._waiting)

    @property
    def queued_bytes(self) -> int:
        """What the transport has not handed over yet."""
        return self._transport.queued_bytes

    def submit(
        self,
        request: Any,
        on_answer: OnAnswer,
        body: Bytes | None = None,
        lease: Lease | None = None,
        timeout_s: float | None = None,
    ) -> None:
        """Send a request now, or once the broker has credit for it (requests leave in the order submitted).

        `on_answer(answer, lease)` is called exactly once, on the loop: with the Answer (its `error` is None),
        or with a FriedaError: a BrokerError is what the broker said (or REQUEST_TIMED_OUT after `timeout_s`), a
        TransportError means that nobody knows whether the request was done. The answer's body is valid
        during the call only. A produce with acks=0 is answered when the transport has taken it, which may
        be before this returns, with offset -1.
        Raises ClosedError or BrokenError on an ended connection, LocalProtocolError for a message that is
        too large and BrokerError for an API the broker lacks or a full queue; `on_answer` is not called then.
        """
        if timeout_s is None:
            timeout_s = self._default_timeout_s
        now_ns = self._now_ns()
        deadline_ns = now_ns + int(timeout_s * 1e9)
        if not self.is_open:
            self._refuse(lease)
        if self._waiting or self._paused or self._protocol.credit <= 0:
            if len(self._waiting) >= MAX_WAITING_REQUESTS:
                if lease is not None:
                    lease.release()
                raise BrokerError(
                    ErrorCode.BUSY, f"{MAX_WAITING_REQUESTS} requests wait for {self.url} already"
                )
            self._waiting.append(_Waiting(request, on_answer, body, lease, deadline_ns))
            self._watch(deadline_ns)
            return
        try:
            outgoing = self._protocol.request(request)
        except FriedaError:
            if lease is not None:
                lease.release()
            raise
        self._send(outgoing, request, on_answer, body, lease, deadline_ns, now_ns)

    async def call(
        self, request: Any, timeout_s: float | None = None, *, body: Bytes | None = None
    ) -> Any:
        """Send a request and wait for its response (the NamedTuple that `wire.messages` pairs with it).

        Raises BrokerError or a TransportError. Cancellation leaves only an answer that will be dropped.
        """
        answered: asyncio.Future[Any] = self._loop.create_future()

        def on_answer(answer: Answer | FriedaError, lease: Lease | None) -> None:
            if answered.done():
                return
            if isinstance(answer, FriedaError):
                answered.set_exception(answer)
            else:
                answered.set_result(answer.response)

        self.submit(request, on_answer, body, None, timeout_s)
        return await answered

    async def close(self, timeout_s: float = 5.0) -> None:
        """Hand over what is queued, then end; requests without an answer get ClosedError."""
        self._end(ClosedError(f"the connection to {self.url} was closed"))
        await self._transport.close(timeout_s)

    def abort(self) -> None:
        """End at once; requests without an answer get BrokenError."""
        self._end(BrokenError(f"the connection to {self.url} was given up"))
        self._transport.abort()

    # --- what the transport calls -------------------------------------------------------------------------

    def message_received(self, message: memoryview, lease: Lease | None) -> None:
        """One answer. A RemoteProtocolError escapes: the transport then breaks the connection with it."""
        self._heard = True
        answer = self._protocol.receive(message)
        if answer is None:
            if self.on_complaint is not None:
                self.on_complaint()
            return
        pending = self._pending.pop(answer.correlation_id, None)
        if pending is not None:
            pending[0](answer if answer.error is None else answer.error, lease)
        else:
            self.abandoned -= 1
        if self._waiting:
            self._send_waiting()

    def sending_paused(self) -> None:
        self._paused = True

    def sending_resumed(self) -> None:
        self._paused = False
        self._send_waiting()

    def connection_lost(self, error: TransportError | None) -> None:
        self._end(error or BrokenError(f"the broker at {self.url} ended the connection"), error)

    # --- inside -------------------------------------------------------------------------------------------

    async def _greet(self, timeout_s: float) -> None:
        answered: asyncio.Future[None] = self._loop.create_future()

        def on_answer(answer: Answer | FriedaError, lease: Lease | None) -> None:
            if answered.done():
                return
            if isinstance(answer, FriedaError):
                answered.set_exception(answer)
            else:
                answered.set_result(None)

        now_ns = self._now_ns()
        deadline_ns = now_ns + int(timeout_s * 1e9)
        self._send(self._protocol.greet(), None, on_answer, None, None, deadline_ns, now_ns)
        await answered

    def _send(
        self,
        outgoing: Outgoing,
        request: Any,
        on_answer: OnAnswer,
        body: Bytes | None,
        lease: Lease | None,
        deadline_ns: int,
        now_ns: int,
    ) -> None:
        correlation_id = outgoing.correlation_id
        self._pending[correlation_id] = (on_answer, deadline_ns, now_ns)
        try:
            self._transport.send(outgoing.head, body, lease)
        except FriedaError:
            self._protocol.forget(correlation_id)
            # The end of the connection may have answered it already.
            if self._pending.pop(correlation_id, None) is None:
                return
            raise
        if type(request) is ProduceRequest and request.acks == 0:
            self._protocol.forget(correlation_id)
            if self._pending.pop(correlation_id, None) is not None:
                on_answer(_acks_0_answer(correlation_id), None)
            return
        if deadline_ns < self._next_sweep_ns or self._sweep is None:
            self._watch(deadline_ns)

    def _send_waiting(self) -> None:
        while self._waiting and not self._paused and self._protocol.credit > 0:
            waiting = self._waiting.popleft()
            try:
                outgoing = self._protocol.request(waiting.request)
            except FriedaError as error:
                if waiting.lease is not None:
                    waiting.lease.release()
                waiting.on_answer(error, None)
                continue
            try:
                self._send(outgoing, *waiting, self._now_ns())
            except FriedaError as error:
                waiting.on_answer(error, None)

    def _refuse(self, lease: Lease | None) -> None:
        if lease is not None:
            lease.release()
        raise BrokenError(f"the connection to {self.url} has ended")

    def _end(self, for_requests: TransportError, cause: TransportError | None = None) -> None:
        if not self.is_open:
            return
        self.is_open = False
        self._protocol.close()
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        pending, self._pending = self._pending, {}
        waiting, self._waiting = self._waiting, deque()
        for on_answer, _, _ in pending.values():
            on_answer(for_requests, None)
        for item in waiting:
            if item.lease is not None:
                item.lease.release()
            item.on_answer(for_requests, None)
        if self._on_lost is not None:
            self._on_lost(self, cause)

    # One timer for all requests: it stands at the earliest deadline known, so a closed loop of short requests
    # touches it once in a request timeout and not once for each request.

    def _watch(self, deadline_ns: int) -> None:
        if self._sweep is not None:
            if deadline_ns >= self._next_sweep_ns:
                return
            self._sweep.cancel()
        self._next_sweep_ns = deadline_ns
        wait_s = (deadline_ns - self._now_ns()) / 1e9
        self._sweep = self._loop.call_later(max(wait_s, _LEAST_SWEEP_S), self._sweep_deadlines)

    def _sweep_deadlines(self) -> None:
        self._sweep = None
        now_ns = self._now_ns()
        if self._heard:
            self._heard = False
            self._last_heard_ns = now_ns
        overdue = [key for key, item in self._pending.items() if item[1] <= now_ns]
        late = [self._pending.pop(key) for key in overdue]
        self.abandoned += len(late)
        # A broker that said nothing at all since the request left is not slow: the connection is dead, though
        # no one told us. What else is in flight on it need not wait for its own deadline.
        dead = any(self._last_heard_ns <= submitted_ns for _, _, submitted_ns in late)
        waiting = [item for item in self._waiting if item.deadline_ns <= now_ns]
        if waiting:
            self._waiting = deque(item for item in self._waiting if item.deadline_ns > now_ns)
        for on_answer, _, _ in late:
            on_answer(_timed_out(f"{self.url} did not answer in time"), None)
        for item in waiting:
            if item.lease is not None:
                item.lease.release()
            item.on_answer(_timed_out(f"{self.url} had no credit for it in time"), None)
        if not self.is_open:
            return
        if dead or self.abandoned * 2 > self._protocol.in_flight + self._protocol.credit:
            # Dead, or most of its credit is with requests that nobody waits for: a fresh one has all of it.
            self.abort()
            return
        deadlines = [item[1] for item in self._pending.values()]
        deadlines += [item.deadline_ns for item in self._waiting]
        if deadlines:
            self._watch(min(deadlines))


def _acks_0_answer(correlation_id: int) -> Answer:
    return Answer(correlation_id, ProduceResponse(-1, -1), memoryview(b""), None)


def _timed_out(detail: str) -> BrokerError:
    return BrokerError(ErrorCode.REQUEST_TIMED_OUT, detail)
