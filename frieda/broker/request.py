"""A request on its way through the broker: taken up at once, answered when it is done, exactly once."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from frieda.errors import BrokerError, ErrorCode
from frieda.protocol.server import answer_head
from frieda.wire.envelope import encode_error

if TYPE_CHECKING:
    from frieda.broker.broker import Broker
    from frieda.transports.buffers import Lease


MAX_ITEMS: Final = 10_000
"""Topics, partitions or groups that one request may be about: what it makes the broker do at once is bounded."""


def check_count(count: int, what: str) -> None:
    """Raises BrokerError(INVALID_REQUEST) for a request about more than MAX_ITEMS things."""
    if count > MAX_ITEMS:
        raise BrokerError(
            ErrorCode.INVALID_REQUEST,
            f"a request about {count} {what}; at most {MAX_ITEMS} are possible in one",
        )


class Answering(Protocol):
    """Where answers go: the session that the request came by."""

    def finished(
        self, request: Request, head: bytes | None, body: memoryview | None, lease: Lease | None
    ) -> None: ...

    def when_sendable(self, callback: Callable[[], None]) -> None: ...

    def run(self, request: Request, work: Coroutine[Any, Any, None]) -> None: ...

    def failed(self, request: Request, error: Exception) -> None: ...

    @property
    def max_answer_bytes(self) -> int: ...

    @property
    def alive(self) -> bool: ...

    @property
    def interrupts(self) -> set[Callable[[], None]]: ...


class Request:
    """One request. `body` and `lease` are valid only until the handler returns, unless the lease is kept."""

    __slots__ = ("_answered", "body", "correlation_id", "lease", "message", "session", "slot")

    def __init__(
        self,
        session: Answering,
        correlation_id: int,
        message: Any,
        body: memoryview,
        lease: Lease | None,
        slot: int,
    ) -> None:
        self.session = session
        self.correlation_id = correlation_id
        self.message = message
        self.body = body
        self.lease = lease
        self.slot = slot
        self._answered = False

    @property
    def answered(self) -> bool:
        return self._answered

    def answer(
        self, response: tuple[Any, ...], body: memoryview | None = None, lease: Lease | None = None
    ) -> None:
        """Done. `lease`, which holds `body`, is released when the transport let go of it."""
        try:
            head = answer_head(self.correlation_id, response)
        except BaseException:
            if lease is not None:
                lease.release()
            raise
        self._answered = True
        self.session.finished(self, head, body, lease)

    def refuse(self, code: ErrorCode, detail: str) -> None:
        """Failed, with an error for the client."""
        self._answered = True
        self.session.finished(self, encode_error(self.correlation_id, code, detail), None, None)

    def finish_silently(self) -> None:
        """Done, and no answer is wanted (a produce with acks=0)."""
        self._answered = True
        self.session.finished(self, None, None, None)


# A handler answers inside the call when nothing has to wait. What needs a task returns a coroutine, which the
# session runs and cancels when the connection ends.
Handler = Callable[["Broker", Request], Coroutine[Any, Any, None] | None]


class HandlerEntry(NamedTuple):
    """What a handler module registers: which API it serves, and by what function."""

    api_key: int
    handle: Handler
