"""The addresses of one broker: each opened by its own transport, what clients are told of them, who is connected."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from frieda.errors import ConfigError
from frieda.transports.base import Connection, Listener, Receiver, Transport, TransportRuntime

OpenTransport = Callable[[str, TransportRuntime], Transport]
Accept = Callable[[str, Connection], Receiver]


class Listeners:
    """Owner: the server, which calls `open` once and `close` at the end."""

    def __init__(self, open_transport: OpenTransport) -> None:
        self._open_transport = open_transport
        self._transports: dict[str, Transport] = {}
        self._open: dict[int, Listener] = {}

    @property
    def urls(self) -> tuple[str, ...]:
        """Where it listens, with real ports, in the order asked for."""
        return tuple(self._open[place].url for place in sorted(self._open))

    async def open(self, urls: Iterable[str], runtime: TransportRuntime, accept: Accept) -> None:
        """Listen at each of `urls`; `accept(scheme, connection)` makes the receiver of a connection.

        Raises ConfigError, MissingDependencyError, AddressInUseError or TransportError, naming the url; what
        was opened before is then still open, for `close`.
        """
        wanted = list(enumerate(urls))
        if not wanted:
            raise ConfigError(
                "listen is empty: give an address to listen at, e.g. tcp://127.0.0.1:9500"
            )
        # TCP last: a client that finds the broker there goes on to the others, and shall find them open.
        for place, url in sorted(wanted, key=lambda item: scheme_of(item[1]) == "tcp"):
            scheme = scheme_of(url)
            if scheme not in self._transports:
                self._transports[scheme] = self._open_transport(url, runtime)
            transport = self._transports[scheme]
            self._open[place] = await transport.listen(url, partial(accept, scheme))

    async def close(self) -> None:
        """Accept no more, remove what lies in the file system. Connections live on. May be repeated."""
        while self._open:
            _, listener = self._open.popitem()
            await listener.close()


def scheme_of(url: str) -> str:
    """What stands before `://`, in lower case; empty when nothing does."""
    return url.partition("://")[0].lower() if "://" in url else ""


def told_to_clients(listening: Iterable[str], advertise: Iterable[str]) -> tuple[str, ...]:
    """The addresses that metadata gives: `advertise`, and what listens by a scheme that is not among them.

    What follows a question mark chooses a device of this broker and is of no use to a client.
    """
    advertised = tuple(advertise)
    spoken_for = {scheme_of(url) for url in advertised}
    rest = (url.partition("?")[0] for url in listening if scheme_of(url) not in spoken_for)
    return tuple(dict.fromkeys((*advertised, *rest)))
