"""The connection that a client uses to each broker: the one it came by, or a better one that really leads there.

The base connection comes first, so that nothing fails that would not fail without a better one. A better address
gets a short deadline and counts only when the very process that answers at the base greets there. What fails is
counted, left alone for a while, and tried again in the background.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from frieda.clients.dialer import Tasks, shared
from frieda.clients.routes import AUTO, Route, Standpoint, plan_route
from frieda.errors import ConnectError, FriedaError
from frieda.host import host_identity
from frieda.transports.address import scheme_of

if TYPE_CHECKING:
    from frieda.clients.connection import BrokerConnection
    from frieda.clients.dialer import Dialer
    from frieda.clients.metadata import Place
    from frieda.clock import Clock

FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0
LASTING_S: Final = 10.0
"""A better connection that ends sooner counts as one that failed."""


@dataclass(slots=True)
class _Setback:
    """What an address has failed with, and until when it is left alone."""

    times: int
    until_ns: int
    hopeless: bool


class Router:
    """The connection in use to each broker. Owner: a Network, which calls `close`.

    `may_move(base)`: whether requests may go another way while some are under way by `base`. `moved(base)`:
    something better than `base` is in use from now on.
    """

    def __init__(
        self,
        dialer: Dialer,
        clock: Clock,
        transport: str,
        *,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        may_move: Callable[[BrokerConnection], bool],
        moved: Callable[[BrokerConnection], None],
    ) -> None:
        self.fallbacks = 0
        """How often a better address was not to be had, or was lost at once."""
        self.reason = ""
        """Why the last time; empty when never."""
        self._dialer = dialer
        self._now_ns = clock.monotonic_ns
        self._transport = transport
        self._spawn = spawn
        self._may_move = may_move
        self._moved = moved
        self._schemes: Collection[str] = ()
        self._came_by = frozenset(scheme_of(url) for url in dialer.bootstrap)
        self._choosing: Tasks = {}
        self._chosen: dict[object, BrokerConnection] = {}
        self._since_ns: dict[str, int] = {}
        self._setbacks: dict[str, _Setback] = {}
        self._timers: dict[object, asyncio.TimerHandle] = {}

    def start(self, schemes: Collection[str]) -> None:
        """This installation has transports for `schemes`."""
        self._schemes = schemes

    def chosen(self, place: Place) -> BrokerConnection | None:
        """The living connection to use, or None when one must be waited for (`choose`)."""
        connection = self._chosen.get(place.key)
        if connection is not None and connection.is_open:
            return connection
        route = self._route_to(place)
        if any(self._may_try(url) for url in route.better):
            return None
        for url in route.base:
            connection = self._dialer.open_at(url)
            if connection is not None:
                self._use(place, route, connection)
                return connection
        return None

    async def choose(self, place: Place) -> BrokerConnection:
        """`chosen`, connecting where need be. Raises what the base addresses fail with; a better one never
        fails anything."""
        connection = self.chosen(place)
        if connection is not None:
            return connection
        return await shared(self._choosing, place.key, lambda: self._choose(place))

    async def _choose(self, place: Place) -> BrokerConnection:
        route = self._route_to(place)
        if not route.base:
            raise ConnectError(_nothing_there(self._transport, place))
        base = await self._dialer.first_of(route.base)
        connection = await self._better(base, route.better) or base
        self._use(place, route, connection)
        return connection

    def lost(self, connection: BrokerConnection) -> None:
        """A connection has ended. One of the better ones that did not last is left alone for a while."""
        since_ns = self._since_ns.pop(connection.url, None)
        now_ns = self._now_ns()
        if since_ns is not None and now_ns - since_ns < LASTING_S * 1e9:
            self._note(connection.url, f"{connection.url}: the connection was lost")

    def metadata_changed(self, places: Sequence[Place]) -> None:
        """A broker may have told of addresses that it had not before."""
        for place in places:
            connection = self._chosen.get(place.key)
            if connection is not None and connection.is_open:
                route = self._route_to(place)
                if connection.url not in route.better and place.key not in self._timers:
                    self._try_later(place, route)

    async def close(self) -> None:
        """Try nothing more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._chosen.clear()
        tasks = list(self._choosing.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- inside -------------------------------------------------------------------------------------------

    def _route_to(self, place: Place) -> Route:
        near = self._dialer.near(place.broker_id)
        me = Standpoint(self._schemes, self._came_by, near, host_identity())
        return plan_route(self._transport, place, self._dialer.known_as.get(place.broker_id), me)

    async def _better(
        self, base: BrokerConnection, urls: tuple[str, ...]
    ) -> BrokerConnection | None:
        for url in urls:
            if not self._may_try(url):
                continue
            try:
                connection = await self._dialer.connected_as(url, base)
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001  TCP works: nothing that another transport does may end that
                hopeless = isinstance(error, FriedaError) and not error.retriable
                self._note(url, str(error) or type(error).__name__, hopeless=hopeless)
            else:
                self._since_ns[url] = self._now_ns()
                return connection
        return None

    def _use(self, place: Place, route: Route, connection: BrokerConnection) -> None:
        self._chosen[place.key] = connection
        if connection.url not in route.better:
            self._try_later(place, route)

    def _may_try(self, url: str) -> bool:
        setback = self._setbacks.get(url)
        return setback is None or (not setback.hopeless and self._now_ns() >= setback.until_ns)

    def _note(self, url: str, reason: str, *, hopeless: bool = False) -> None:
        self.fallbacks += 1
        self.reason = reason
        before = self._setbacks.get(url)
        times = 1 if before is None else before.times + 1
        pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(times - 1, 16))
        until_ns = self._now_ns() + int(pause_s * 1e9)
        self._setbacks[url] = _Setback(times, until_ns, hopeless)

    def _try_later(self, place: Place, route: Route) -> None:
        """Look again once an address that was left alone may be tried. No timer where there is nothing to try."""
        waits_ns = [
            setback.until_ns if (setback := self._setbacks.get(url)) is not None else 0
            for url in route.better
            if url not in self._setbacks or not self._setbacks[url].hopeless
        ]
        if waits_ns and place.key not in self._timers:
            wait_s = max(0.0, (min(waits_ns) - self._now_ns()) / 1e9)
            self._timers[place.key] = asyncio.get_running_loop().call_later(
                wait_s + 0.001, self._try_again, place
            )

    def _try_again(self, place: Place) -> None:
        self._timers.pop(place.key, None)
        base = self._chosen.get(place.key)
        if base is not None and base.is_open:
            self._spawn(self._move(place, base))

    async def _move(self, place: Place, base: BrokerConnection) -> None:
        route = self._route_to(place)
        if base.url in route.better:
            return
        if not self._may_move(base):
            self._timers[place.key] = asyncio.get_running_loop().call_later(
                FIRST_PAUSE_S, self._try_again, place
            )
            return
        connection = await self._better(base, route.better)
        if self._chosen.get(place.key) is not base or not base.is_open:
            return
        if connection is None:
            self._try_later(place, route)
        elif self._may_move(base):
            self._chosen[place.key] = connection
            self._moved(base)
        else:
            self._timers[place.key] = asyncio.get_running_loop().call_later(
                FIRST_PAUSE_S, self._try_again, place
            )


def _nothing_there(transport: str, place: Place) -> str:
    told = ", ".join(place.listeners) or "no address at all"
    if transport == AUTO:
        return f"the broker has no address that this client can speak to (it has {told})"
    return f"transport = {transport!r}: the broker does not listen there (it has {told})"
