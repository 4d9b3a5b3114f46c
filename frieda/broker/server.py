"""The broker process: listeners, sessions, signals, and an orderly end."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from frieda.broker.broker import Broker
from frieda.broker.garbage import QuietGarbageCollector
from frieda.broker.handlers.table import HANDLERS
from frieda.broker.listeners import Listeners, OpenTransport, told_to_clients
from frieda.broker.request import Handler
from frieda.broker.session import Session
from frieda.clock import Clock
from frieda.config import BrokerConfig
from frieda.storage.filesystem import FileSystem
from frieda.transports.base import Connection, Receiver, TransportRuntime

if TYPE_CHECKING:
    from frieda.errors import TransportError

logger = logging.getLogger(__name__)


class Server:
    """One broker and all that connects to it. `start`, then `stop`; or `run` for a whole life.

    Owns the runtime: `stop` closes its engine and its pool. `open_transport` finds the transport of a URL.
    """

    def __init__(
        self,
        config: BrokerConfig,
        *,
        runtime: TransportRuntime,
        open_transport: OpenTransport,
        filesystem: FileSystem,
        clock: Clock,
        handlers: Mapping[int, Handler] = HANDLERS,
    ) -> None:
        self.config = config
        self.runtime = runtime
        self.broker = Broker(
            config, filesystem=filesystem, clock=clock, pool=runtime.pool, engine=runtime.engine
        )
        self._listeners = Listeners(open_transport)
        self._handlers = handlers
        self._sessions: set[Session] = set()
        self._collector = QuietGarbageCollector()
        self._stopping: asyncio.Future[None] | None = None

    @property
    def urls(self) -> tuple[str, ...]:
        """Where it listens, with real ports."""
        return self._listeners.urls

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._sessions)

    async def start(self, *, quiet_garbage: bool = False) -> None:
        """Open the data folder, then listen. Raises StorageError or TransportError, leaving nothing open."""
        self.runtime.engine.start(asyncio.get_running_loop())
        try:
            await self.broker.open()
        except BaseException:
            self._close_runtime()
            raise
        try:
            await self._listeners.open(self.config.listen, self.runtime, self._accept)
        except BaseException:
            await self.stop()
            raise
        self.broker.listeners = told_to_clients(self.urls, self.config.advertise)
        if quiet_garbage:
            self._collector.start()

    async def stop(self) -> None:
        """Stop accepting, finish what is under way within shutdown_timeout_s, flush, close.

        Any number of times, also at once. A cancelled caller does not stop the stopping.
        """
        if self._stopping is None:
            self._stopping = asyncio.ensure_future(self._stop())
        await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        self._collector.stop()
        await self._listeners.close()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.config.shutdown_timeout_s
        sessions = tuple(self._sessions)
        if sessions:
            for session in sessions:
                session.stop_receiving()
            self.broker.refuse_parked()
            drains = [asyncio.ensure_future(session.drain()) for session in sessions]
            _, late = await asyncio.wait(drains, timeout=deadline - loop.time())
            for drain in late:
                drain.cancel()
            await asyncio.gather(*drains, return_exceptions=True)
            timeout_s = max(0.0, deadline - loop.time())
            await asyncio.gather(*(session.connection.close(timeout_s) for session in sessions))
        await self.broker.close()
        self._close_runtime()

    async def run(self, ready: Callable[[], None]) -> None:
        """Start, call `ready`, serve until SIGTERM or SIGINT, stop."""
        loop = asyncio.get_running_loop()
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        try:
            await self.start(quiet_garbage=True)
            ready()
            await stopping.wait()
            logger.info("stopping")
            await self.stop()
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def _close_runtime(self) -> None:
        self.runtime.engine.close()
        for leak in self.runtime.pool.close():
            logger.warning("a buffer was not returned: %s", leak)

    def _accept(self, scheme: str, connection: Connection) -> Receiver:
        if len(self._sessions) >= self.config.max_connections:
            self.broker.counters.connections_refused += 1
            connection.abort()
            return _Refused()
        self.broker.counters.connections_accepted += 1
        ended = partial(self._ended, scheme)
        session = Session(self.broker, connection, self._handlers, ended)
        self._sessions.add(session)
        self.broker.connections[scheme] += 1
        return session

    def _ended(self, scheme: str, session: Session) -> None:
        self._sessions.discard(session)
        self.broker.connections[scheme] -= 1


class _Refused:
    """The receiver of a connection that is one too many."""

    def message_received(self, message: memoryview, lease: object) -> None: ...

    def sending_paused(self) -> None: ...

    def sending_resumed(self) -> None: ...

    def connection_lost(self, error: TransportError | None) -> None: ...
