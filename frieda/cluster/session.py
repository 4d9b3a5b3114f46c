"""A session with ZooKeeper on the event loop: requests with deadlines, its state, its heartbeats, tree watches.

kazoo does the protocol in a thread of its own; everything here is called on the loop, and calls back on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from frieda.cluster.address import EnsembleAddress
from frieda.errors import (
    ConfigError,
    ConflictError,
    CoordinationError,
    LocalProtocolError,
    MissingDependencyError,
)

if TYPE_CHECKING:
    from frieda.cluster.heartbeats import Heartbeat, HeartbeatClient

logger = logging.getLogger(__name__)

MAX_REQUEST_BYTES: Final = 900_000
"""ZooKeeper takes no more than 1 MiB - 1 (its jute.maxbuffer), headers included."""
_WINDOW: Final = 100
"""Requests in kazoo's hands at once. It wakes its thread by a byte for each through a blocking pipe that holds about
270: with more of them the event loop would stand still while the thread reconnects."""
_OPERATION_BYTES: Final = 64
_CLOSE_TIMEOUT_S: Final = 5.0
_GIVE_UP_S: Final = 20.0


class SessionState(Enum):
    """SUSPENDED: not connected; the session may live on. LOST: it has ended, its ephemeral nodes are gone."""

    CONNECTED = "CONNECTED"
    SUSPENDED = "SUSPENDED"
    LOST = "LOST"


class Node(NamedTuple):
    """A node's content. `owner`: the session of an ephemeral one, else 0."""

    data: bytes
    version: int
    owner: int = 0


@dataclass(frozen=True, slots=True)
class Create:
    """Make a node; its parent must be there."""

    path: str
    data: bytes = b""
    ephemeral: bool = False


@dataclass(frozen=True, slots=True)
class Write:
    """Replace a node's content if it has this version; -1: whatever it has."""

    path: str
    data: bytes
    version: int


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove a node without children if it has this version; -1: whatever it has."""

    path: str
    version: int = -1


@dataclass(frozen=True, slots=True)
class Check:
    """Change nothing, and let nothing change unless the node has this version."""

    path: str
    version: int


Operation = Create | Write | Delete | Check


class ZooKeeperSession:
    """Owned by who opens it. Paths begin with '/' and mean what lies below the root of the address.

    Every request raises CoordinationError when there is no connection, or no answer within `request_timeout_s`
    (a change may then have been made all the same), and ConflictError when nothing was done since a node is there,
    is not there or has another version. A cancelled request may have been done.
    `work_started`, `work_finished`: told on the loop of each request, for a loop that spins rather than sleeps.
    """

    def __init__(
        self,
        address: EnsembleAddress,
        *,
        session_timeout_s: float = 6.0,
        request_timeout_s: float = 10.0,
        work_started: Callable[[], None] = lambda: None,
        work_finished: Callable[[], None] = lambda: None,
    ) -> None:
        self.address = address
        self._session_timeout_s = session_timeout_s
        self._request_timeout_s = request_timeout_s
        self._work_started = work_started
        self._work_finished = work_finished
        self._client: HeartbeatClient | None = None
        self._loop: asyncio.AbstractEventLoop
        self._window = asyncio.Semaphore(_WINDOW)
        self._connected = asyncio.Event()
        self._state = SessionState.LOST
        self._state_listeners: list[Callable[[SessionState], None]] = []
        self._tree_listener: Callable[[str], None] | None = None
        self._events: deque[str] = deque()
        self._events_announced = False

    # --- life -------------------------------------------------------------------------------------------

    async def open(self, timeout_s: float = 15.0) -> None:
        """Connect, and make the root. Raises CoordinationError, MissingDependencyError."""
        try:
            from frieda.cluster.heartbeats import (  # noqa: PLC0415  (an optional package)
                HeartbeatClient,
                require_fitting_kazoo,
            )
        except ImportError as error:
            raise MissingDependencyError(
                f"a cluster needs kazoo ({error}): run pip install 'frieda[cluster]'"
            ) from None
        require_fitting_kazoo()
        self._loop = asyncio.get_running_loop()
        self._client = client = HeartbeatClient(
            self.address.host_list, self._session_timeout_s, self._tree_changed
        )
        client.add_listener(self._state_changed)
        client.start_async()
        try:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._connected.wait()
            except TimeoutError:
                raise CoordinationError(
                    f"no ZooKeeper answered at {self.address} within {timeout_s:g} s; is it running?"
                ) from None
            await self._make_root()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """End the session, so that its ephemeral nodes vanish now; without a connection they do at its timeout."""
        client, self._client = self._client, None
        if client is None:
            return
        ended = asyncio.Event()

        def stop() -> None:
            try:
                client.stop()
                client.close()
            except Exception as error:  # noqa: BLE001  (kazoo raises bare ones; it is over either way)
                logger.warning(
                    "ZooKeeper at %s: the session did not end in order: %s", self.address, error
                )
            finally:
                self._loop.call_soon_threadsafe(ended.set)

        thread = threading.Thread(target=stop, name="frieda-zookeeper-close", daemon=True)
        thread.start()
        if client.connected:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                    await ended.wait()
        deadline_s = self._loop.time() + _GIVE_UP_S
        while not ended.is_set() and self._loop.time() < deadline_s:
            client.interrupt()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await ended.wait()
        if ended.is_set():
            thread.join()

    # --- state ------------------------------------------------------------------------------------------

    @property
    def state(self) -> SessionState:
        return self._state

    @property
    def heartbeat(self) -> Heartbeat:
        """The last answered message. What it promises ends at `sent_ns + timeout_ns` of the monotonic clock."""
        return self._open_client().heartbeat

    @property
    def session_id(self) -> int:
        """Of the session as it is now; another after it was lost."""
        return self.heartbeat.session_id

    def on_state(self, listener: Callable[[SessionState], None]) -> None:
        """Have changes of the state told, in order. What holds already is not told."""
        self._state_listeners.append(listener)

    async def wait_connected(self, timeout_s: float) -> None:
        """Until there is a connection. Raises CoordinationError."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._connected.wait()
        except TimeoutError:
            raise CoordinationError(
                f"no connection to ZooKeeper at {self.address} within {timeout_s:g} s"
            ) from None

    # --- requests ---------------------------------------------------------------------------------------

    async def get(self, path: str) -> Node | None:
        """A node, or None when there is none."""
        found = await self._ask(f"read {path}", lambda c: c.get_async(self._full(path)), None)
        return None if found is None else Node(found[0], found[1].version, found[1].ephemeralOwner)

    async def get_all(self, paths: Iterable[str]) -> list[Node | None]:
        """Many nodes, pipelined."""
        return list(await asyncio.gather(*(self.get(path) for path in paths)))

    async def children(self, path: str) -> list[str]:
        """The names of a node's children; none when there is no such node."""
        found = await self._ask(
            f"list {path}", lambda c: c.get_children_async(self._full(path)), ()
        )
        return sorted(found)

    async def create(self, path: str, data: bytes = b"", *, ephemeral: bool = False) -> None:
        await self.multi([Create(path, data, ephemeral)])

    async def write(self, path: str, data: bytes, version: int) -> int:
        """Compare and set; the new version."""
        return (await self.multi([Write(path, data, version)]))[0]

    async def delete(self, path: str, version: int = -1) -> None:
        await self.multi([Delete(path, version)])

    async def multi(self, operations: Sequence[Operation]) -> list[int]:
        """All of these or none. For each the node's version afterwards (0 for what has none).

        Raises LocalProtocolError when they are more than ZooKeeper takes at once; ConflictError, whose `position`
        says which did not fit.
        """
        size_bytes = 0
        for operation in operations:
            data = getattr(operation, "data", b"")
            size_bytes += len(operation.path) + len(self.address.root) + len(data)
            size_bytes += _OPERATION_BYTES
        if size_bytes > MAX_REQUEST_BYTES:
            raise LocalProtocolError(
                f"{len(operations)} changes of {size_bytes} bytes are more than the {MAX_REQUEST_BYTES} bytes "
                "that ZooKeeper takes at once"
            )
        what = f"change {operations[0].path}" + (
            f" and {len(operations) - 1} more" if len(operations) > 1 else ""
        )
        results = await self._ask(what, lambda c: self._transaction(c, operations).commit_async())
        self._raise_first_failure(operations, results)
        return [getattr(result, "version", 0) for result in results]

    async def watch_tree(self, listener: Callable[[str], None]) -> None:
        """Have the path of every node told that is made, changed or deleted from now on.

        It holds until the connection ends: ask again when CONNECTED, and read everything after that, since what
        happened in between is not told. Raises ConfigError for a ZooKeeper before 3.6.
        """
        self._tree_listener = listener
        await self._ask("watch everything", lambda c: c.add_tree_watch(self.address.root))

    async def sync(self) -> None:
        """Let this server catch up with its leader: what was done anywhere before is read after."""
        await self._ask("catch up", lambda c: c.sync_async(self.address.root))

    # --- the seam to kazoo's threads --------------------------------------------------------------------

    async def _ask(
        self, what: str, start: Callable[[HeartbeatClient], Any], missing: Any = ...
    ) -> Any:
        """Start a request of kazoo's and wait for its result; `missing` is the answer when there is no such node."""
        from kazoo.exceptions import (  # noqa: PLC0415  (an optional package)
            KazooException,
            NoNodeError,
        )

        try:
            async with asyncio.timeout(self._request_timeout_s):
                await self._window.acquire()
                answer = self._loop.create_future()
                self._start(start, answer)
                return await answer
        except TimeoutError:
            raise CoordinationError(
                f"ZooKeeper at {self.address} did not {what} within {self._request_timeout_s:g} s"
            ) from None
        except NoNodeError as error:
            if missing is not ...:
                return missing
            raise self._translated(what, error) from None
        except KazooException as error:
            raise self._translated(what, error) from None

    def _start(self, start: Callable[[HeartbeatClient], Any], answer: asyncio.Future[Any]) -> None:
        """Hand a request to kazoo. The window is given back when kazoo is done with it, waited for or not."""
        try:
            client = self._open_client()
            if not client.connected:
                raise CoordinationError(f"there is no connection to ZooKeeper at {self.address}")
            result = start(client)
        except BaseException:
            self._window.release()
            raise
        self._work_started()

        def finish() -> None:
            self._work_finished()
            self._window.release()
            if answer.done():
                return
            if result.exception is None:
                answer.set_result(result.value)
            else:
                answer.set_exception(result.exception)

        def done(_result: Any) -> None:
            # The loop may be closed already when the requests of an abandoned session fail.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(finish)

        result.rawlink(done)

    def _translated(self, what: str, error: Exception) -> Exception:
        from kazoo import exceptions as kazoo_errors  # noqa: PLC0415  (an optional package)

        conflicts = {
            kazoo_errors.NoNodeError: "there is no such node",
            kazoo_errors.NodeExistsError: "it is there already",
            kazoo_errors.BadVersionError: "it has changed",
            kazoo_errors.NotEmptyError: "it has children",
        }
        for kind, sentence in conflicts.items():
            if isinstance(error, kind):
                return ConflictError(f"ZooKeeper at {self.address} did not {what}: {sentence}")
        if isinstance(error, kazoo_errors.UnimplementedError):
            return ConfigError(
                f"ZooKeeper at {self.address} cannot {what}: version 3.6 or later is needed"
            )
        reason = str(error) or type(error).__name__
        return CoordinationError(f"ZooKeeper at {self.address} did not {what}: {reason}")

    def _raise_first_failure(self, operations: Sequence[Operation], results: Sequence[Any]) -> None:
        from kazoo import exceptions as kazoo_errors  # noqa: PLC0415  (an optional package)

        collateral = (kazoo_errors.RolledBackError, kazoo_errors.RuntimeInconsistency)
        failures = [(at, error) for at, error in enumerate(results) if isinstance(error, Exception)]
        for at, error in failures:
            if not isinstance(error, collateral):
                translated = self._translated(f"change {operations[at].path}", error)
                if isinstance(translated, ConflictError):
                    translated.position = at
                raise translated
        if failures:
            raise self._translated(f"change {operations[0].path}", failures[0][1])

    def _transaction(self, client: HeartbeatClient, operations: Sequence[Operation]) -> Any:
        transaction = client.transaction()
        for operation in operations:
            path = self._full(operation.path)
            match operation:
                case Create(data=data, ephemeral=ephemeral):
                    transaction.create(path, data, ephemeral=ephemeral)
                case Write(data=data, version=version):
                    transaction.set_data(path, data, version)
                case Delete(version=version):
                    transaction.delete(path, version)
                case Check(version=version):
                    transaction.check(path, version)
        return transaction

    async def _make_root(self) -> None:
        path = ""
        for step in self.address.root.strip("/").split("/"):
            path += "/" + step
            here = path
            with contextlib.suppress(ConflictError):
                await self._ask(f"make {here}", lambda c, here=here: c.create_async(here))  # type: ignore[misc]

    def _full(self, path: str) -> str:
        return self.address.root if path == "/" else self.address.root + path

    def _open_client(self) -> HeartbeatClient:
        if self._client is None:
            raise CoordinationError(f"the session with ZooKeeper at {self.address} is not open")
        return self._client

    def _state_changed(self, state: Any) -> None:
        """Called in kazoo's thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._note_state, SessionState(str(state)))

    def _note_state(self, state: SessionState) -> None:
        if state is self._state:
            return
        self._state = state
        if state is SessionState.CONNECTED:
            self._connected.set()
        else:
            self._connected.clear()
        for listener in self._state_listeners:
            listener(state)

    def _tree_changed(self, path: str) -> None:
        """Called in kazoo's thread, in the order of ZooKeeper's own events. One wake-up for many of them."""
        self._events.append(path)
        if not self._events_announced:
            self._events_announced = True
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._tell_events)

    def _tell_events(self) -> None:
        # First the mark, then the events: one that comes meanwhile is told now or announced again.
        self._events_announced = False
        root = self.address.root
        while self._events:
            path = self._events.popleft()
            if self._tree_listener is not None and path.startswith(root + "/"):
                self._tree_listener(path[len(root) :])
