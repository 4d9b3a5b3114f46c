"""One connection to a broker: requests out by callback, answers straight to whoever asked.

The protocol (correlation, credit, versions) is `frieda.protocol.client`; this module adds the deadline of each
request and the queue of what the broker has no credit for yet. Everything runs on one event loop.

A produce has a way of its own in (`produce`) and out, straight to who waits for it: it is what every acknowledged
record costs. All other requests are made by `submit` and `call`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from frieda.clients.asking import Asker, OnAnswer, OnProduced, Queued
from frieda.clients.deadline import DeadlineTimer
from frieda.errors import (
    BrokenError,
    BrokerError,
    ClosedError,
    ConnectError,
    ErrorCode,
    FriedaError,
    TransportError,
)
from frieda.protocol.client import PRODUCE, Answer, ClientProtocol, InFlight, Outgoing
from frieda.wire.messages import HelloResponse
from frieda.wire.produce import (
    ACKS_AT,
    ANSWER_BYTES,
    ANSWER_MARK,
    pack_correlation_id,
    unpack_produced,
)

if TYPE_CHECKING:
    from frieda.clock import Clock
    from frieda.transports.base import Bytes, Connection, Transport
    from frieda.transports.buffers import Lease

OnLost = Callable[["BrokerConnection", "TransportError | None"], None]

MAX_WAITING_REQUESTS: Final = 10_000
"""Requests of one connection that may wait for the broker's credit."""
_LEAST_SWEEP_S: Final = 0.005


_new = tuple.__new__


class BrokerConnection:
    """A greeted connection; made by `connect`. Owned by who made it, who calls `close` or `abort`.

    `on_lost` is called once when a connection that was handed out has ended, after every request on it got
    its answer.
    """

    __slots__ = (
        "_deadlines",
        "_default_timeout_ns",
        "_heard",
        "_last_heard_ns",
        "_loop",
        "_now_ns",
        "_on_lost",
        "_paused",
        "_protocol",
        "_ready",
        "_transport",
        "_waiting",
        "abandoned",
        "is_open",
        "on_complaint",
        "ordered",
        "url",
    )

    def __init__(
        self,
        transport: Connection,
        protocol: ClientProtocol,
        clock: Clock,
        url: str,
        default_timeout_s: float,
        *,
        ordered: bool,
    ) -> None:
        self.url = url
        self.ordered = ordered
        """Whether messages arrive in the order they were sent, whatever their size."""
        self.is_open = True
        self.abandoned = 0
        """Requests that timed out and that the broker may still be working on."""
        self.on_complaint: Callable[[], None] | None = None
        """Called when the broker refused a produce with acks=0, which is all that is known of it."""
        self._transport = transport
        self._protocol = protocol
        self._now_ns = clock.monotonic_ns
        self._default_timeout_ns = int(default_timeout_s * 1e9)
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Queued] = deque()
        self._paused = False
        self._ready = False  # open, greeted, not paused, and nobody waits for credit
        self._deadlines = DeadlineTimer(
            self._loop, self._now_ns, self._sweep_deadlines, _LEAST_SWEEP_S
        )
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
            ordered = transport.ordered
            made.append(cls(connection, protocol, clock, url, request_timeout_s, ordered=ordered))
            return made[0]

        await transport.connect(url, make_receiver, timeout_s=connect_timeout_s)
        (connection,) = made
        try:
            await connection._greet(connect_timeout_s)
            connection._look()
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
        return len(self._protocol.in_flight) - self.abandoned + len(self._waiting)

    @property
    def queued_bytes(self) -> int:
        """What the transport has not handed over yet."""
        return self._transport.queued_bytes

    def produce(
        self, prefix: bytes, batch: Bytes, on_produced: OnProduced, subject: Any, now_ns: int
    ) -> None:
        """Send a record batch now, or once the broker has credit for it; `prefix` is by `wire.produce`.

        `on_produced(subject, base_offset, error)` is called exactly once, on the loop, within the default timeout;
        base_offset is -1 with an error, and with acks=0, when it is called as soon as the transport has taken the
        batch, which may be before this returns. `subject` is not None; who it is does not matter here. `now_ns` is
        by the client's clock.
        Raises as `submit`, and calls nobody then.
        """
        asker = _new(Asker, (on_produced, subject, now_ns + self._default_timeout_ns, now_ns))
        protocol = self._protocol
        if self._ready and len(protocol.in_flight) < protocol.max_in_flight:
            self._send_produce(prefix, asker, batch)
        else:
            protocol.version_of(PRODUCE)
            self._later(prefix, asker, batch, None)

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
        during the call only.
        Raises ClosedError or BrokenError on an ended connection, LocalProtocolError for a message that is
        too large and BrokerError for an API the broker lacks or a full queue; `on_answer` is not called then.
        """
        now_ns = self._now_ns()
        timeout_ns = self._default_timeout_ns if timeout_s is None else int(timeout_s * 1e9)
        asker = Asker(on_answer, None, now_ns + timeout_ns, now_ns)
        if self._waiting or self._paused or not self.is_open or self._protocol.credit <= 0:
            self._later(request, asker, body, lease)
        else:
            self._send(request, asker, body, lease)

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
        if message[0] == ANSWER_MARK and len(message) == ANSWER_BYTES:
            _, correlation_id, base_offset, _ = unpack_produced(message)
            in_flight = self._protocol.in_flight
            found = in_flight.get(correlation_id)
            if found is not None:
                on_answer, subject, _, _ = found[1]
                if on_answer is not None and subject is not None:
                    del in_flight[correlation_id]
                    on_answer(subject, base_offset, None)
                    if self._waiting:
                        self._send_waiting()
                    return
        self._answered(message, lease)

    def sending_paused(self) -> None:
        self._paused = True
        self._look()

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
        asker = Asker(on_answer, None, now_ns + int(timeout_s * 1e9), now_ns)
        self._hand_over(self._protocol.greet(asker), asker, None, None)
        await answered

    def _answered(self, message: memoryview, lease: Lease | None) -> None:
        answer = self._protocol.receive(message)
        if answer is None:
            if self.on_complaint is not None:
                self.on_complaint()
            return
        asker: Asker = answer.kept
        if asker.on_answer is None:
            self.abandoned -= 1
        elif answer.error is not None:
            asker.fail(answer.error)
        else:
            asker.on_answer(answer, lease)
        if self._waiting:
            self._send_waiting()

    def _send_produce(self, prefix: bytes, asker: Asker, batch: Bytes | None) -> None:
        # By hand what `ClientProtocol.request` and `_hand_over` do, since every acknowledged record passes here.
        protocol = self._protocol
        in_flight = protocol.in_flight
        correlation_id = protocol.next_correlation_id
        protocol.next_correlation_id = correlation_id + 1
        in_flight[correlation_id] = (PRODUCE, asker)
        try:
            self._transport.send(prefix + pack_correlation_id(correlation_id), batch)
        except FriedaError:
            # The end of the connection may have answered it already.
            if in_flight.pop(correlation_id, None) is not None:
                raise
            return
        if asker[2] < self._deadlines.next_ns:
            self._deadlines.watch(asker[2])
        if prefix[ACKS_AT] == 0 and in_flight.pop(correlation_id, None) is not None:
            asker[0](asker[1], -1, None)  # type: ignore[misc]

    def _send(self, request: Any, asker: Asker, body: Bytes | None, lease: Lease | None) -> None:
        try:
            outgoing = self._protocol.request(request, asker)
        except FriedaError:
            if lease is not None:
                lease.release()
            raise
        self._hand_over(outgoing, asker, body, lease)

    def _hand_over(
        self, outgoing: Outgoing, asker: Asker, body: Bytes | None, lease: Lease | None
    ) -> None:
        try:
            self._transport.send(outgoing.head, body, lease)
        except FriedaError:
            # The end of the connection may have answered it already.
            if self._protocol.in_flight.pop(outgoing.correlation_id, None) is not None:
                raise
            return
        self._deadlines.watch(asker.deadline_ns)

    def _later(self, request: Any, asker: Asker, body: Bytes | None, lease: Lease | None) -> None:
        """Queue a request that cannot leave now. Raises as `submit`."""
        try:
            if not self.is_open:
                raise BrokenError(f"the connection to {self.url} has ended")
            if len(self._waiting) >= MAX_WAITING_REQUESTS:
                raise BrokerError(
                    ErrorCode.BUSY, f"{MAX_WAITING_REQUESTS} requests wait for {self.url} already"
                )
        except FriedaError:
            if lease is not None:
                lease.release()
            raise
        self._waiting.append(Queued(request, asker, body, lease))
        self._look()
        self._deadlines.watch(asker.deadline_ns)

    def _send_waiting(self) -> None:
        while self._waiting and not self._paused and self._protocol.credit > 0:
            request, asker, body, lease = self._waiting.popleft()
            try:
                if type(request) is bytes:
                    self._send_produce(request, asker, body)
                else:
                    self._send(request, asker, body, lease)
            except FriedaError as error:
                asker.fail(error)
        self._look()

    def _look(self) -> None:
        """Whether a produce may leave at once, but for the broker's credit."""
        blocked = self._paused or self._waiting or not self._protocol.speaks(PRODUCE)
        self._ready = self.is_open and not blocked

    def _end(self, for_requests: TransportError, cause: TransportError | None = None) -> None:
        if not self.is_open:
            return
        self.is_open = False
        in_flight = self._protocol.close()
        waiting, self._waiting = self._waiting, deque()
        self._look()
        self._deadlines.cancel()
        for _, asker in in_flight:
            asker.fail(for_requests)
        for item in waiting:
            item.fail(for_requests)
        if self._on_lost is not None:
            self._on_lost(self, cause)

    def _sweep_deadlines(self) -> None:
        now_ns = self._now_ns()
        if self._heard:
            self._heard = False
            self._last_heard_ns = now_ns
        late = self._abandon_late(now_ns)
        # A broker that said nothing at all since the request left is not slow: the connection is dead, though
        # no one told us. What else is in flight on it need not wait for its own deadline.
        dead = any(self._last_heard_ns <= asker.sent_ns for asker in late)
        waiting = [item for item in self._waiting if item.asker.deadline_ns <= now_ns]
        if waiting:
            self._waiting = deque(item for item in self._waiting if item.asker.deadline_ns > now_ns)
            self._look()
        for asker in late:
            asker.fail(_timed_out(f"{self.url} did not answer in time"))
        for item in waiting:
            item.fail(_timed_out(f"{self.url} had no credit for it in time"))
        if not self.is_open:
            return
        if dead or self.abandoned * 2 > self._protocol.max_in_flight:
            # Dead, or most of its credit is with requests that nobody waits for: a fresh one has all of it.
            self.abort()
            return
        in_flight: Iterable[InFlight] = self._protocol.in_flight.values()
        deadlines = [asker.deadline_ns for _, asker in in_flight if asker.on_answer is not None]
        deadlines += [item.asker.deadline_ns for item in self._waiting]
        if deadlines:
            self._deadlines.watch(min(deadlines))

    def _abandon_late(self, now_ns: int) -> list[Asker]:
        """Those whose time is over; their answers, should they come, are nobody's."""
        in_flight = self._protocol.in_flight
        late: list[Asker] = []
        for correlation_id, (api, asker) in in_flight.items():
            if asker.on_answer is not None and asker.deadline_ns <= now_ns:
                late.append(asker)
                in_flight[correlation_id] = (api, asker._replace(on_answer=None))
        self.abandoned += len(late)
        return late


def _timed_out(detail: str) -> BrokerError:
    return BrokerError(ErrorCode.REQUEST_TIMED_OUT, detail)
