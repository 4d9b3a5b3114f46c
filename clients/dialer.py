"""At most one connection to each address, shared by all who need it, and who was found there."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from frieda import __version__
from frieda.clients.connection import BrokerConnection
from frieda.clients.routes import host_of
from frieda.errors import ClientClosedError, ConnectError, FriedaError

if TYPE_CHECKING:
    from frieda.clients.runtime import LoopRuntime
    from frieda.clock import Clock
    from frieda.config import ClientConfig
    from frieda.errors import TransportError
    from frieda.wire.messages import HelloResponse

MAX_BACKOFF_S: Final = 1.0
BETTER_TIMEOUT_S: Final = 1.0
"""How long an attempt at an address that is not needed may hold up those who wait for a connection."""

Tasks = dict[Any, "asyncio.Task[BrokerConnection]"]


def backoff_s(first_s: float, attempt: int) -> float:
    """The pause before retry number `attempt` (from 0): doubles up to 1 s, with a jitter of a fifth."""
    pause_s = min(MAX_BACKOFF_S, first_s * 2.0 ** min(attempt, 16))
    return pause_s * random.uniform(0.8, 1.2)


class Dialer:
    """The connections of one client. Owner: its Network, which calls `start` and `close`.

    `on_lost` is called with each connection that was handed out and has ended, but not after `close`.
    """

    def __init__(
        self,
        config: ClientConfig,
        clock: Clock,
        bootstrap: tuple[str, ...],
        on_lost: Callable[[BrokerConnection, TransportError | None], None],
    ) -> None:
        self.bootstrap = bootstrap
        self.last_error = ""
        self.on_complaint: Callable[[], None] | None = None
        """What every connection gets as its own."""
        self.known_as: dict[int, str] = {}
        """By broker: the bootstrap address that it answers at now."""
        self._config = config
        self._clock = clock
        self._on_lost = on_lost
        self._runtime: LoopRuntime | None = None
        self._open: dict[str, BrokerConnection] = {}
        self._tasks: Tasks = {}
        self._failures: dict[str, int] = {}
        self._near: dict[int, str] = {}
        self._strangers: set[BrokerConnection] = set()
        self._closed = False

    def start(self, runtime: LoopRuntime) -> None:
        """Connections are made on `runtime` from now on."""
        self._runtime = runtime

    async def close(self, timeout_s: float) -> None:
        """End every connection and every attempt."""
        self._closed = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        connections = list(self._open.values())
        self._open.clear()
        await asyncio.gather(*(each.close(timeout_s) for each in connections))

    @property
    def living(self) -> tuple[BrokerConnection, ...]:
        """Every connection that is open."""
        return tuple(each for each in self._open.values() if each.is_open)

    def open_at(self, url: str) -> BrokerConnection | None:
        """The living connection to `url`."""
        connection = self._open.get(url)
        return connection if connection is not None and connection.is_open else None

    def near(self, broker_id: int) -> str:
        """The host that a broker was reached by, or else that of the first bootstrap address."""
        return self._near.get(broker_id) or host_of(self.bootstrap)

    async def first_of(self, urls: tuple[str, ...]) -> BrokerConnection:
        """A connection to the first of `urls` that answers. Raises what the first one failed with."""
        if not urls:
            raise ConnectError("the broker has no address that this client can speak to")
        errors: list[FriedaError] = []
        for url in urls:
            try:
                return await self._connected(url, None)
            except FriedaError as error:
                errors.append(error)
        raise errors[0]

    async def connected_as(self, url: str, base: BrokerConnection) -> BrokerConnection:
        """A connection to `url`, greeted by the process that answers at `base`, within BETTER_TIMEOUT_S.

        Raises ConnectError when somebody else answers, or another FriedaError.
        """
        connection = await self._connected(url, base.broker)
        if _is_another(connection.broker, base.broker):
            raise ConnectError(_someone_else(url))
        return connection

    async def _connected(self, url: str, expected: HelloResponse | None) -> BrokerConnection:
        connection = self.open_at(url)
        if connection is not None:
            return connection
        if self._runtime is None or self._closed:
            raise ClientClosedError("this client is closed")
        return await shared(self._tasks, url, lambda: self._connect(url, expected))

    async def _connect(self, url: str, expected: HelloResponse | None) -> BrokerConnection:
        """Connect to `url`; when a certain broker is expected there, be quick and take no other."""
        config, failures = self._config, self._failures.get(url, 0)
        timeout_s = config.connect_timeout_s
        if expected is not None:
            timeout_s = min(timeout_s, BETTER_TIMEOUT_S)
        elif failures:
            await asyncio.sleep(backoff_s(config.retry_backoff_s, failures - 1))
        try:
            connection = await self._greeted(url, timeout_s)
        except FriedaError as error:
            if expected is None:
                self._failures[url] = failures + 1
                self.last_error = str(error)
            raise
        if expected is not None and _is_another(connection.broker, expected):
            self._strangers.add(connection)
            connection.abort()
            raise ConnectError(_someone_else(url))
        connection.on_complaint = self.on_complaint
        self._failures.pop(url, None)
        self._open[url] = connection
        if url in self.bootstrap:
            broker_id = connection.broker.broker_id
            self.known_as[broker_id] = url
            self._near[broker_id] = host_of((url,))
        return connection

    async def _greeted(self, url: str, timeout_s: float) -> BrokerConnection:
        assert self._runtime is not None, "connections are made between start and close"
        config = self._config
        return await BrokerConnection.connect(
            self._runtime.transport_for(url),
            url,
            client_id=config.client_id,
            software=f"frieda-python/{__version__}",
            max_message_bytes=config.max_frame_bytes,
            clock=self._clock,
            request_timeout_s=config.request_timeout_s,
            connect_timeout_s=timeout_s,
            on_lost=self._connection_lost,
        )

    def _connection_lost(self, connection: BrokerConnection, error: TransportError | None) -> None:
        if connection in self._strangers:
            self._strangers.discard(connection)
            return
        url, broker_id = connection.url, connection.broker.broker_id
        if self._open.get(url) is connection:
            del self._open[url]
        if self.known_as.get(broker_id) == url:
            del self.known_as[broker_id]  # another broker may answer there next time
        if not self._closed:
            self.last_error = str(error or f"the broker at {url} ended the connection")
            self._on_lost(connection, error)


async def shared(
    tasks: Tasks, key: object, begin: Callable[[], Coroutine[Any, Any, BrokerConnection]]
) -> BrokerConnection:
    """Wait for the task of `key`, begun by whoever is first: the others share its connection or its error."""
    task = tasks.get(key)
    if task is None:
        task = tasks[key] = asyncio.get_running_loop().create_task(begin())
        task.add_done_callback(lambda ended: _forget(tasks, key, ended))
    try:
        # Shielded: the others wait on when one of them is cancelled.
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if task.cancelled():
            raise ClientClosedError("the client was closed") from None
        raise


def _forget(tasks: Tasks, key: object, ended: asyncio.Task[BrokerConnection]) -> None:
    tasks.pop(key, None)
    if not ended.cancelled():
        ended.exception()  # whoever still waits has it


def _is_another(answering: HelloResponse, expected: HelloResponse) -> bool:
    """Whether two greetings are not from one and the same process, as far as they tell."""
    mine, theirs = (
        (each.cluster_id, each.broker_id, each.instance) for each in (answering, expected)
    )
    return mine != theirs or not answering.instance


def _someone_else(url: str) -> str:
    return f"{url}: somebody else than the broker we came for answers there"
