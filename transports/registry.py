"""Transports by the scheme of a URL.

Those that come with Frieda are in a table, so that naming one costs no search and nothing installed beside
Frieda can replace it. Any other scheme is looked for in the entry points of group `frieda.transports`, whose
names are schemes and whose values are subclasses of `Transport`.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import Final

from frieda.config import nearest
from frieda.errors import ConfigError, MissingDependencyError
from frieda.transports.address import split_url
from frieda.transports.base import Transport, TransportRuntime

GROUP: Final = "frieda.transports"

BUILT_IN: Final[dict[str, str]] = {
    "tcp": "frieda.transports.tcp:TcpTransport",
    "shm": "frieda.transports.shm.transport:ShmTransport",
    "verbs": "frieda.transports.verbs.transport:VerbsTransport",
    "memory": "frieda.transports.memory:MemoryTransport",
}


def known_schemes() -> tuple[str, ...]:
    """Every scheme that can be used here, sorted."""
    return tuple(sorted({*BUILT_IN, *(each.name for each in entry_points(group=GROUP))}))


def transport_class(url: str) -> type[Transport]:
    """The transport that `url` asks for.

    Raises ConfigError for a malformed url or an unknown scheme, MissingDependencyError when the transport
    needs a package that is not installed.
    """
    scheme, _ = split_url(url)
    try:
        if scheme in BUILT_IN:
            module, _, name = BUILT_IN[scheme].partition(":")
            found = getattr(import_module(module), name)
        else:
            found = _load_entry_point(url, scheme)
    except ImportError as error:
        raise MissingDependencyError(
            f"{url!r}: the transport {scheme!r} cannot be loaded: {error}"
        ) from error
    if not (isinstance(found, type) and issubclass(found, Transport)):
        raise ConfigError(f"{url!r}: the entry point {scheme!r} of {GROUP} is not a Transport")
    return found


def open_transport(url: str, runtime: TransportRuntime) -> Transport:
    """A transport for `url` on `runtime`; keep it for as long as its connections live. Errors as above."""
    return transport_class(url)(runtime)


def _load_entry_point(url: str, scheme: str) -> object:
    for each in entry_points(group=GROUP):
        if each.name == scheme:
            return each.load()
    known = list(known_schemes())
    raise ConfigError(
        f"{url!r}: there is no transport {scheme!r}{nearest(scheme, known)} (known: {', '.join(known)})"
    )
