"""The connections of one client: who to ask, whom to reach, and trying again.

A Network belongs to one client object and one event loop. It keeps at most one connection to each address,
shares the wait for it among all who need it, keeps the metadata fresh, and reconnects when asked to.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from frieda import __version__
from frieda.clients.connection import BrokerConnection
from frieda.clients.metadata import ClusterMetadata, TopicMetadata
from frieda.clients.runtime import LoopRuntime
from frieda.clock import Clock, SystemClock
from frieda.errors import (
    BrokerError,
    ClientClosedError,
    ConfigError,
    ConnectError,
    FriedaError,
    TransportError,
)
from frieda.transports.address import split_url
from frieda.wire.messages import MetadataRequest

if TYPE_CHECKING:
    from frieda.config import ClientConfig
    from frieda.transports.polling import PollingStatistics

MAX_BACKOFF_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class ClientHealth:
    """How a client is, at one moment."""

    status: str
    """ok, connecting (no broker is connected) or closed."""
    connected: tuple[str, ...]
    """The addresses with a living connection."""
    last_error: str
    """What last went wrong with a connection or the metadata; empty when nothing has."""
    in_flight_requests: int
    buffered_bytes: int
    """Records that wait to be acknowledged (producer) or consumed (consumer)."""
    reconnects: int
    """Connections that were lost since the start."""
    polling: PollingStatistics | None
    """What the polling engine has done; None when closed."""


def backoff_s(first_s: float, attempt: int) -> float:
    """The pause before retry number `attempt` (from 0): doubles up to 1 s, with a jitter of a fifth."""
    pause_s = min(MAX_BACKOFF_S, first_s * 2.0 ** min(attempt, 16))
    return pause_s * random.uniform(0.8, 1.2)


def bootstrap_urls(bootstrap: str | Iterable[str]) -> tuple[str, ...]:
    """Addresses from a list or a comma-separated text. Raises ConfigError when there are none."""
    given = bootstrap.split(",") if isinstance(bootstrap, str) else bootstrap
    urls = tuple(url.strip() for url in given if url.strip())
    if not urls:
        raise ConfigError(
            "bootstrap is empty: give the address of a broker, e.g. tcp://127.0.0.1:9500"
        )
    for url in urls:
        split_url(url)
    return urls


class Network:
    """Connections, metadata and retries of one client. `start` and `close` are its owner's to call.

    `on_metadata` is called after each change of the metadata, `on_lost` when a connection has ended.
    """

    def __init__(
        self,
        config: ClientConfig,
        *,
        clock: Clock | None = None,
        allow_auto_create: bool = True,
        on_metadata: Callable[[], None] | None = None,
        on_lost: Callable[[BrokerConnection], None] | None = None,
    ) -> None:
        self.config = config
        self.clock = clock or SystemClock()
        self.metadata = ClusterMetadata()
        self.last_error = ""
        self.reconnects = 0
        self._bootstrap = bootstrap_urls(config.bootstrap)
        self._allow_auto_create = allow_auto_create
        self._on_metadata = on_metadata
        self._on_lost = on_lost
        self._runtime: LoopRuntime | None = None
        self._open: dict[str, BrokerConnection] = {}
        self._connecting: dict[str, asyncio.Task[BrokerConnection]] = {}
        self._failures: dict[str, int] = {}
        self._known_as: dict[int, str] = {}
        self._topics: set[str] = set()
        self._refreshing: tuple[frozenset[str], asyncio.Task[None]] | None = None
        self._refresh_timer: asyncio.TimerHandle | None = None
        self._background: set[asyncio.Task[Any]] = set()
        self._closed = False

    # --- life ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Take the engine and the buffers of the running loop. No connection is made yet."""
        if self._runtime is None and not self._closed:
            self._runtime = LoopRuntime.acquire(self.config)
            self._arm_refresh()

    async def close(self, timeout_s: float = 5.0) -> None:
        """End every connection and every wait. May be repeated."""
        if self._closed:
            return
        self._closed = True
        if self._refresh_timer is not None:
            self._refresh_timer.cancel()
        tasks: list[asyncio.Task[Any]] = [*self._connecting.values(), *self._background]
        if self._refreshing is not None:
            tasks.append(self._refreshing[1])
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        connections = list(self._open.values())
        self._open.clear()
        try:
            await asyncio.gather(*(each.close(timeout_s) for each in connections))
        finally:
            if self._runtime is not None:
                self._runtime.release()
                self._runtime = None

    @property
    def runtime(self) -> LoopRuntime:
        """The engine and the buffer pool. Raises ClientClosedError before `start` and after `close`."""
        if self._runtime is None:
            raise ClientClosedError(
                "this client is closed"
                if self._closed
                else "this client is not started: use 'async with'"
            )
        return self._runtime

    def health(self, buffered_bytes: int = 0) -> ClientHealth:
        """How the connections are."""
        connected = tuple(url for url, each in self._open.items() if each.is_open)
        status = "closed" if self._runtime is None else "ok" if connected else "connecting"
        return ClientHealth(
            status=status,
            connected=connected,
            last_error=self.last_error,
            in_flight_requests=sum(each.in_flight for each in self._open.values()),
            buffered_bytes=buffered_bytes,
            reconnects=self.reconnects,
            polling=None if self._runtime is None else self._runtime.engine.statistics,
        )

    def spawn(self, coroutine: Any) -> asyncio.Task[Any]:
        """Run a coroutine that `close` cancels and whose failure becomes `last_error`."""
        task: asyncio.Task[Any] = asyncio.get_running_loop().create_task(coroutine)
        self._background.add(task)
        task.add_done_callback(self._spawned_ended)
        return task

    # --- connections --------------------------------------------------------------------------------------

    def open_connection_for(self, topic: str, partition: int) -> BrokerConnection | None:
        """The living connection to the partition's leader, or None when one must be waited for."""
        try:
            broker_id, addresses = self.metadata.addresses(topic, partition)
        except BrokerError:
            return None
        for url in self._candidates(broker_id, addresses):
            connection = self._open.get(url)
            if connection is not None and connection.is_open:
                return connection
        return None

    async def connection_for(self, topic: str, partition: int) -> BrokerConnection:
        """A connection to the partition's leader by what the metadata says now.

        Raises BrokerError (no such partition, no leader) or a TransportError; tries each address once.
        """
        broker_id, addresses = self.metadata.addresses(topic, partition)
        candidates = self._candidates(broker_id, addresses)
        for url in candidates:
            connection = self._open.get(url)
            if connection is not None and connection.is_open:
                return connection
        return await self._first_of(candidates)

    async def any_connection(self) -> BrokerConnection:
        """A connection to any broker: an open one, else the first that can be made.

        Raises a TransportError when every known address failed once.
        """
        for connection in self._open.values():
            if connection.is_open:
                return connection
        advertised = [url for broker in self.metadata.brokers for url in broker.listeners]
        known = [*self._bootstrap, *(url for url in advertised if self._speaks(url))]
        return await self._first_of(tuple(dict.fromkeys(known)))

    async def reach(self, timeout_s: float) -> None:
        """Wait until some broker is connected, trying again and again. Raises the last error after `timeout_s`."""
        await self.call_any(None, timeout_s)

    async def call_any(self, request: Any, timeout_s: float | None = None) -> Any:
        """Ask any broker, again and again while that can help, until `timeout_s` (default: request_timeout_s).

        None asks nothing: a connection is enough.
        Raises the last BrokerError or TransportError.
        """
        timeout_s = self.config.request_timeout_s if timeout_s is None else timeout_s
        deadline_ns = self.clock.monotonic_ns() + int(timeout_s * 1e9)
        attempt = 0
        while True:
            left_s = (deadline_ns - self.clock.monotonic_ns()) / 1e9
            try:
                async with asyncio.timeout(max(left_s, 0.001)):
                    connection = await self.any_connection()
                    if request is None:
                        return None
                    return await connection.call(request, max(left_s, 0.001))
            except TimeoutError:
                raise ConnectError(
                    f"no broker of {', '.join(self._bootstrap)} answered within {timeout_s:g} s"
                    + (f"; last: {self.last_error}" if self.last_error else "")
                ) from None
            except FriedaError as error:
                left_s = (deadline_ns - self.clock.monotonic_ns()) / 1e9
                pause_s = backoff_s(self.config.retry_backoff_s, attempt)
                if not error.retriable or left_s <= pause_s:
                    raise
                self.last_error = str(error)
                attempt += 1
                await asyncio.sleep(pause_s)

    # --- metadata -----------------------------------------------------------------------------------------

    async def topic(self, name: str, timeout_s: float | None = None) -> TopicMetadata:
        """A topic's metadata, asked for again until the topic is there.

        Raises the BrokerError that stands in the way once `timeout_s` (default: request_timeout_s) has passed.
        """
        timeout_s = self.config.request_timeout_s if timeout_s is None else timeout_s
        known = self.metadata.topic(name)
        if known is not None:
            return known
        deadline_ns = self.clock.monotonic_ns() + int(timeout_s * 1e9)
        attempt = 0
        while True:
            left_s = max((deadline_ns - self.clock.monotonic_ns()) / 1e9, 0.001)
            await self.refresh((name,), timeout_s=left_s)
            try:
                return self.metadata.require(name)
            except BrokerError as error:
                pause_s = backoff_s(self.config.retry_backoff_s, attempt)
                left_s = (deadline_ns - self.clock.monotonic_ns()) / 1e9
                if not error.retriable or left_s <= pause_s:
                    self._topics.discard(name)
                    raise
            attempt += 1
            await asyncio.sleep(pause_s)

    async def refresh(self, topics: Iterable[str] = (), timeout_s: float | None = None) -> None:
        """Ask for the metadata of `topics` and of every topic in use. Callers at the same time share one request.

        Raises the last BrokerError or TransportError.
        """
        wanted = frozenset(topics)
        self._topics |= wanted
        while True:
            self._require_open()
            if self._refreshing is None:
                asked = frozenset(self._topics)
                task = asyncio.get_running_loop().create_task(self._refresh(asked))
                task.add_done_callback(self._refresh_ended)
                self._refreshing = (asked, task)
            asked, task = self._refreshing
            try:
                async with asyncio.timeout(timeout_s):
                    await asyncio.shield(task)
            except TimeoutError:
                raise ConnectError(
                    f"no metadata from {', '.join(self._bootstrap)} within {timeout_s:g} s"
                    + (f"; last: {self.last_error}" if self.last_error else "")
                ) from None
            except asyncio.CancelledError:
                if task.cancelled():
                    raise ClientClosedError("the client was closed") from None
                raise
            if wanted <= asked:
                return

    def refresh_soon(self, topics: Iterable[str] = ()) -> None:
        """Refresh in the background, at once; whoever wants to know looks at `on_metadata`."""
        if not self._closed:
            self._topics.update(topics)
            self.spawn(self.refresh(topics))

    async def _refresh(self, asked: frozenset[str]) -> None:
        request = MetadataRequest(tuple(sorted(asked)), self._allow_auto_create)
        self.metadata.update(await self.call_any(request), asked)
        if self._on_metadata is not None:
            self._on_metadata()

    def _refresh_ended(self, task: asyncio.Task[None]) -> None:
        self._refreshing = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self.last_error = str(error)

    def _arm_refresh(self) -> None:
        self._refresh_timer = asyncio.get_running_loop().call_later(
            self.config.metadata_max_age_s, self._refresh_by_age
        )

    def _refresh_by_age(self) -> None:
        if not self._closed:
            if self._topics:
                self.refresh_soon()
            self._arm_refresh()

    # --- inside -------------------------------------------------------------------------------------------

    def _require_open(self) -> None:
        _ = self.runtime

    def _speaks(self, url: str) -> bool:
        return self.runtime.speaks(url)

    def _candidates(self, broker_id: int, addresses: tuple[str, ...]) -> tuple[str, ...]:
        """Where to reach a broker: first as it was reached before, then by the scheme we came by, then the rest."""
        came_by = {split_url(url)[0] for url in self._bootstrap}
        spoken = [url for url in addresses if self._speaks(url)]
        spoken.sort(key=lambda url: split_url(url)[0] not in came_by)
        known_as = self._known_as.get(broker_id)
        return tuple(dict.fromkeys([known_as, *spoken] if known_as is not None else spoken))

    async def _first_of(self, urls: tuple[str, ...]) -> BrokerConnection:
        if not urls:
            raise ConnectError("the broker has no address that this client can speak to")
        errors: list[FriedaError] = []
        for url in urls:
            try:
                return await self._connected(url)
            except FriedaError as error:
                errors.append(error)
        raise errors[0]

    async def _connected(self, url: str) -> BrokerConnection:
        connection = self._open.get(url)
        if connection is not None and connection.is_open:
            return connection
        self._require_open()
        task = self._connecting.get(url)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._connect(url))
            self._connecting[url] = task
            task.add_done_callback(lambda ended: self._connect_ended(url, ended))
        try:
            # Shielded: others wait for the same connection when one of them is cancelled.
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise ClientClosedError("the client was closed") from None
            raise

    async def _connect(self, url: str) -> BrokerConnection:
        failures = self._failures.get(url, 0)
        if failures:
            await asyncio.sleep(backoff_s(self.config.retry_backoff_s, failures - 1))
        config = self.config
        connection = await BrokerConnection.connect(
            self.runtime.transport_for(url),
            url,
            client_id=config.client_id,
            software=f"frieda-python/{__version__}",
            max_message_bytes=config.max_frame_bytes,
            clock=self.clock,
            request_timeout_s=config.request_timeout_s,
            connect_timeout_s=config.connect_timeout_s,
            on_lost=self._connection_lost,
        )
        connection.on_complaint = self._complained
        self._failures.pop(url, None)
        self._open[url] = connection
        if url in self._bootstrap:
            self._known_as[connection.broker.broker_id] = url
        return connection

    def _connect_ended(self, url: str, task: asyncio.Task[BrokerConnection]) -> None:
        self._connecting.pop(url, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failures[url] = self._failures.get(url, 0) + 1
            self.last_error = str(error)

    def _connection_lost(self, connection: BrokerConnection, error: TransportError | None) -> None:
        if self._open.get(connection.url) is connection:
            del self._open[connection.url]
        if self._known_as.get(connection.broker.broker_id) == connection.url:
            # Another broker may answer there next time.
            del self._known_as[connection.broker.broker_id]
        if self._closed:
            return
        self.reconnects += 1
        self.last_error = str(error or f"the broker at {connection.url} ended the connection")
        if self._on_lost is not None:
            self._on_lost(connection)

    def _complained(self) -> None:
        """A produce that wanted no answer was refused: most likely our metadata is out of date."""
        if self._refreshing is None:
            self.refresh_soon()

    def _spawned_ended(self, task: asyncio.Task[Any]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            if not isinstance(error, FriedaError):
                asyncio.get_running_loop().call_exception_handler(
                    {
                        "message": "a client's background task failed",
                        "exception": error,
                        "task": task,
                    }
                )
            self.last_error = str(error)
