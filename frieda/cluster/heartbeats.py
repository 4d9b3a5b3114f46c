"""kazoo's client with the two things it hides or lacks: when the last answered heartbeat was sent, and tree watches.

ZooKeeper counts a session's timeout anew whenever it receives something from the client. What it received last,
and when, the client cannot know; but whatever was answered was received after it was sent. So the session lives at
least until the sending time of the last answered message plus the timeout. kazoo keeps that moment to itself: its
`ConnectionHandler` remembers when it last sent anything, answered or not. `HeartbeatConnection` notes the time
before each message (`_submit`; the handshake in `_invoke`) and matches the answers (`_read_header`).

One caveat for an ensemble: a follower answers heartbeats by itself and tells its leader of them every half tick. A
follower that dies in between takes up to half a tick of life with it, and one that is cut off from its leader goes on
answering for up to syncLimit ticks. A lease's margin (`frieda.cluster.registration`) covers the former; the latter is
why the safety of acks=all rests on epochs and never on the lease alone.

kazoo has no persistent recursive watches (as of 2.11), which ZooKeeper has had since 3.6: `AddWatch` is that request,
and `_read_watch_event` passes the events on.

Holds for kazoo 2.10 and 2.11, whose internals these are; `require_fitting_kazoo` checks each of them at start.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import math
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Final, NamedTuple

import kazoo
from kazoo.client import KazooClient
from kazoo.exceptions import SessionExpiredError, SessionMovedError
from kazoo.handlers.threading import SequentialThreadingHandler
from kazoo.protocol.connection import PING_XID, ConnectionHandler
from kazoo.protocol.serialization import Connect, Watch, int_struct, write_string
from kazoo.retry import KazooRetry

from frieda.errors import MissingDependencyError

_RECURSIVE: Final = 1
_RETRY_S: Final = 0.1
_MAX_RETRY_S: Final = 1.0
_CONNECT_SHARE: Final = 0.25
"""Of the session timeout: three servers can be tried in vain before the session is over."""
_MIN_CONNECT_TIMEOUT_S: Final = 0.5
_NO_LIFE_SIGNS: Final = frozenset({SessionExpiredError.code, SessionMovedError.code})
_SIGNATURES: Final[dict[str, tuple[str, ...]]] = {
    "_submit": ("self", "request", "timeout", "xid"),
    "_invoke": ("self", "timeout", "request", "xid"),
    "_read_header": ("self", "timeout"),
    "_read_watch_event": ("self", "buffer", "offset"),
}


class Heartbeat(NamedTuple):
    """The last answered message of a session: its sending time on the monotonic clock, and what was negotiated."""

    session_id: int
    sent_ns: int
    timeout_ns: int


NO_HEARTBEAT: Final = Heartbeat(0, 0, 0)


@dataclass(frozen=True, slots=True)
class AddWatch:
    """The request for a watch of `path` and everything below it that stays until the connection ends.

    Source: ZooKeeper's `AddWatchRequest` and `ZooDefs.OpCode.addWatch`.
    """

    path: str
    type: ClassVar[int] = 106

    def serialize(self) -> bytes:
        return bytes(write_string(self.path)) + bytes(int_struct.pack(_RECURSIVE))

    @staticmethod
    def deserialize(_data: bytes, _offset: int) -> bool:
        """The answer: an error code in a record of its own, which is 0 where the header has none."""
        return True


class PromptHandler(SequentialThreadingHandler):  # type: ignore[misc]
    """kazoo's threads, with less patience for one server.

    kazoo lets each attempt to connect take the whole session timeout. A server that is down without saying so, or
    that takes connections while it comes up and never answers them, would cost the session.
    """

    def __init__(self, connect_timeout_s: float) -> None:
        super().__init__()
        self.connect_timeout_s = connect_timeout_s

    def create_connection(self, *args: Any, **kwargs: Any) -> Any:
        kwargs["timeout"] = min(kwargs.get("timeout", math.inf), self.connect_timeout_s)
        return super().create_connection(*args, **kwargs)


class HeartbeatConnection(ConnectionHandler):  # type: ignore[misc]
    """kazoo's connection. Everything but `interrupt` runs in its thread."""

    def __init__(self, client: HeartbeatClient, retry: KazooRetry) -> None:
        super().__init__(client, retry, logger=client.logger)
        self._requests_sent_ns: dict[int, int] = {}
        self._pings_sent_ns: deque[int] = deque()

    def interrupt(self) -> None:
        """End the connection now, from any thread; kazoo then looks whether it shall stop."""
        connection = self._socket
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _submit(self, request: Any, timeout: float, xid: int | None = None) -> None:
        now_ns = time.monotonic_ns()
        if xid == PING_XID:
            self._pings_sent_ns.append(now_ns)
        elif xid is not None and xid > 0:
            self._requests_sent_ns[xid] = now_ns
        super()._submit(request, timeout, xid)

    def _invoke(self, timeout: float, request: Any, xid: int | None = None) -> Any:
        if not isinstance(request, Connect):
            return super()._invoke(timeout, request, xid)
        self._requests_sent_ns.clear()
        self._pings_sent_ns.clear()
        sent_ns = time.monotonic_ns()
        answer = super()._invoke(min(timeout, self.handler.connect_timeout_s), request, xid)
        agreed = answer[0]
        if agreed.time_out > 0:
            self.client.heartbeat = Heartbeat(
                agreed.session_id, sent_ns, agreed.time_out * 1_000_000
            )
        return answer

    def _read_header(self, timeout: float) -> Any:
        answer = super()._read_header(timeout)
        header = answer[0]
        sent_ns = None
        if header.xid == PING_XID:
            sent_ns = self._pings_sent_ns.popleft() if self._pings_sent_ns else None
        elif header.xid > 0:
            sent_ns = self._requests_sent_ns.pop(header.xid, None)
        last: Heartbeat = self.client.heartbeat
        if sent_ns is not None and sent_ns > last.sent_ns and header.err not in _NO_LIFE_SIGNS:
            self.client.heartbeat = last._replace(sent_ns=sent_ns)
        return answer

    def _read_watch_event(self, buffer: bytes, offset: int) -> None:
        event, _ = Watch.deserialize(buffer, offset)
        self.client.tree_changed(event.path)
        super()._read_watch_event(buffer, offset)


class HeartbeatClient(KazooClient):  # type: ignore[misc]
    """kazoo's client on a `HeartbeatConnection`, which reconnects until it is stopped.

    `heartbeat` is replaced as a whole, so any thread may read it; `tree_changed(path)` is called in kazoo's thread.
    """

    def __init__(self, hosts: str, timeout_s: float, tree_changed: Callable[[str], None]) -> None:
        self.heartbeat = NO_HEARTBEAT
        self.tree_changed = tree_changed
        handler = PromptHandler(max(_MIN_CONNECT_TIMEOUT_S, timeout_s * _CONNECT_SHARE))
        retry = KazooRetry(
            max_tries=-1,
            delay=_RETRY_S,
            max_delay=_MAX_RETRY_S,
            sleep_func=handler.sleep_func,
        )
        super().__init__(
            hosts=hosts,
            timeout=timeout_s,
            handler=handler,
            connection_retry=retry,
            logger=logging.getLogger("frieda.cluster.kazoo"),
        )
        self._connection = HeartbeatConnection(self, self._conn_retry.copy())

    def interrupt(self) -> None:
        """End the connection now; with `stop` under way, the session is left to expire."""
        self._connection.interrupt()

    def add_tree_watch(self, path: str) -> Any:
        """Ask for events of `path` and everything below it; kazoo's result, as of its other requests."""
        result = self.handler.async_result()
        self._call(AddWatch(path), result)
        return result


def require_fitting_kazoo() -> None:
    """Raise MissingDependencyError when this kazoo is made otherwise than the one this module knows."""
    unknown = [
        name
        for name, parameters in _SIGNATURES.items()
        if (found := getattr(ConnectionHandler, name, None)) is None
        or tuple(inspect.signature(found).parameters) != parameters
    ]
    if not hasattr(KazooClient, "_call"):
        unknown.append("_call")
    probe = HeartbeatClient("127.0.0.1:1", 10.0, lambda _path: None)
    unknown += [
        name for name in ("_conn_retry", "_connection", "_session_id") if not hasattr(probe, name)
    ]
    if unknown:
        version = getattr(kazoo, "__version__", "of unknown version")
        raise MissingDependencyError(
            f"kazoo {version} does not fit (its {', '.join(unknown)} is another): run pip install 'kazoo>=2.10,<2.12'"
        )
