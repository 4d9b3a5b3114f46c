"""Which of a broker's addresses are worth trying, and in which order. PURE.

Reached by TCP, a broker may have something better: shared memory on the same kernel, verbs where both sides have
it. `frieda.clients.router` does the trying.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from frieda.errors import ConfigError
from frieda.transports.address import join_host_port, parse_host_port, scheme_of

if TYPE_CHECKING:
    from frieda.clients.metadata import Place

AUTO: Final = "auto"
_ANY_HOST: Final = ("0.0.0.0", "::")


class Route(NamedTuple):
    """Addresses of one broker, each group in the order to try."""

    base: tuple[str, ...]
    better: tuple[str, ...]


class Standpoint(NamedTuple):
    """What a client knows of itself when it plans."""

    schemes: Collection[str]
    """The transports that this installation has."""
    came_by: Collection[str]
    """The schemes of the bootstrap addresses."""
    near: str
    """The host that the broker was reached by."""
    identity: str
    """Of the running kernel; empty when it is not known."""


def check_transport(transport: str, schemes: Sequence[str]) -> None:
    """Raise ConfigError for a transport that is neither "auto" nor a scheme that is known."""
    if transport != AUTO and transport not in schemes:
        known = ", ".join((AUTO, *schemes))
        raise ConfigError(f"transport = {transport!r}: must be one of {known}")


def plan_route(transport: str, place: Place, known_as: str | None, me: Standpoint) -> Route:
    """What to try for the broker (or the endpoints) at `place`, which was reached before at `known_as`."""
    told = [_reachable(url, me.near) for url in place.listeners]
    told.sort(key=lambda url: scheme_of(url) not in me.came_by)
    every = tuple(dict.fromkeys((known_as, *told) if known_as is not None else told))
    spoken = tuple(url for url in every if scheme_of(url) in me.schemes)
    if transport != AUTO:
        return Route(tuple(url for url in spoken if scheme_of(url) == transport), ())
    if not spoken or scheme_of(spoken[0]) != "tcp":
        return Route(spoken, ())  # another scheme than TCP was somebody's choice
    near_enough = me.identity != "" and me.identity == place.host
    shm = [url for url in spoken if scheme_of(url) == "shm" and near_enough]
    verbs = [url for url in spoken if scheme_of(url) == "verbs"]
    better = (*shm, *verbs)
    return Route(tuple(url for url in spoken if scheme_of(url) not in ("shm", "verbs")), better)


def _reachable(url: str, near: str) -> str:
    """A listener on all interfaces is at the host that the broker was reached by."""
    if scheme_of(url) not in ("tcp", "verbs"):
        return url
    try:
        host, port = parse_host_port(url)
    except ConfigError:
        return url  # whoever connects to it says what is wrong
    return join_host_port(scheme_of(url), near, port) if host in _ANY_HOST else url


def host_of(urls: Sequence[str]) -> str:
    """The host of the first of `urls` that names one; the loopback address when all are paths."""
    for url in urls:
        if scheme_of(url) in ("tcp", "verbs"):
            try:
                return parse_host_port(url.partition("?")[0]).host
            except ConfigError:
                continue  # whoever connects to it says what is wrong
    return "127.0.0.1"
