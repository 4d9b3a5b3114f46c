"""The connections of one client: who to ask, whom to reach, and trying again.

A Network belongs to one client object and one event loop. It keeps at most one connection to each address,
shares the wait for it among all who need it, keeps the metadata fresh, and reconnects when asked to.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from frieda.clients.dialer import Dialer
from frieda.clients.dialer import backoff_s as backoff_s  # noqa: PLC0414  (known to others from here)
from frieda.clients.health import ClientHealth
from frieda.clients.metadata import ClusterMetadata, TopicMetadata
from frieda.clients.router import Router
from frieda.clients.routes import check_transport
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
from frieda.transports.registry import known_schemes
from frieda.wire.messages import MetadataRequest

if TYPE_CHECKING:
    from frieda.clients.connection import BrokerConnection
    from frieda.config import ClientConfig
    from frieda.errors import TransportError


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
        self.reconnects = 0
        self._bootstrap = bootstrap_urls(config.bootstrap)
        check_transport(config.transport, known_schemes())
        self._allow_auto_create = allow_auto_create
        self._on_metadata = on_metadata
        self._on_lost = on_lost
        self._runtime: LoopRuntime | None = None
        self._dialer = Dialer(config, self.clock, self._bootstrap, self._connection_lost)
        self._dialer.on_complaint = self._complained
        self._router = Router(
            self._dialer,
            self.clock,
            config.transport,
            spawn=self.spawn,
            may_move=self._may_move,
            moved=self._moved,
        )
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
            self._dialer.start(self._runtime)
            self._router.start(self._runtime.schemes)
            self._arm_refresh()

    async def close(self, timeout_s: float = 5.0) -> None:
        """End every connection and every wait. May be repeated."""
        if self._closed:
            return
        self._closed = True
        if self._refresh_timer is not None:
            self._refresh_timer.cancel()
        tasks = list(self._background)
        if self._refreshing is not None:
            tasks.append(self._refreshing[1])
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._router.close()
        try:
            await self._dialer.close(timeout_s)
        finally:
            if self._runtime is not None:
                self._runtime.release()
                self._runtime = None

    @property
    def last_error(self) -> str:
        """What last went wrong with a connection or the metadata; empty when nothing has."""
        return self._dialer.last_error

    @last_error.setter
    def last_error(self, text: str) -> None:
        self._dialer.last_error = text

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
        living = self._dialer.living
        connected = tuple(each.url for each in living)
        status = "closed" if self._runtime is None else "ok" if connected else "connecting"
        return ClientHealth(
            status=status,
            connected=connected,
            last_error=self.last_error,
            in_flight_requests=sum(each.in_flight for each in living),
            buffered_bytes=buffered_bytes,
            reconnects=self.reconnects,
            polling=None if self._runtime is None else self._runtime.engine.statistics,
            transports=Counter(split_url(url)[0] for url in connected),
            fallbacks=self._router.fallbacks,
            fallback_reason=self._router.reason,
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
            place = self.metadata.place(topic, partition)
        except BrokerError:
            return None
        return self._router.chosen(place)

    async def connection_for(self, topic: str, partition: int) -> BrokerConnection:
        """A connection to the partition's leader by what the metadata says now.

        Raises BrokerError (no such partition, no leader) or a TransportError; tries each address once.
        """
        place = self.metadata.place(topic, partition)
        self._require_open()
        return await self._router.choose(place)

    async def any_connection(self) -> BrokerConnection:
        """A connection to any broker: an open one, else the first that can be made.

        Raises a TransportError when every known address failed once.
        """
        if living := self._dialer.living:
            return living[0]
        self._require_open()
        advertised = [url for broker in self.metadata.brokers for url in broker.listeners]
        known = [*self._bootstrap, *(url for url in advertised if self.runtime.speaks(url))]
        return await self._dialer.first_of(tuple(dict.fromkeys(known)))

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
        answer: BrokerError | None = None
        while True:
            left_s = max((deadline_ns - self.clock.monotonic_ns()) / 1e9, 0.001)
            try:
                await self.refresh((name,), timeout_s=left_s)
            except ConnectError:
                if answer is not None:  # what was answered before says more than that time is up
                    raise answer from None
                raise
            try:
                return self.metadata.require(name)
            except BrokerError as error:
                answer = error
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
        self._router.metadata_changed(self.metadata.places)
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

    def _may_move(self, base: BrokerConnection) -> bool:
        """Without sequence numbers a request that leaves later by another way could be stored first."""
        return getattr(self.config, "idempotence", True) or base.in_flight == 0

    def _moved(self, base: BrokerConnection) -> None:
        if self._on_lost is not None:
            base.abort()  # its user holds on to a connection until it is told that it ended
        elif self._on_metadata is not None:
            self._on_metadata()

    def _connection_lost(self, connection: BrokerConnection, error: TransportError | None) -> None:
        if self._closed:
            return
        self.reconnects += 1
        self._router.lost(connection)
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
