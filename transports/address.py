"""URLs of transports: `scheme://rest`, and `host:port` for those that have one.

PURE: nothing is looked up.
"""

from __future__ import annotations

from typing import NamedTuple

from frieda.errors import ConfigError

MAX_PORT = 65535


class HostPort(NamedTuple):
    """Where to connect or listen. `host` is a name or an address, an IPv6 one without its brackets."""

    host: str
    port: int


def split_url(url: str) -> tuple[str, str]:
    """The scheme (lower case) and the rest of `url`. Raises ConfigError, naming the url."""
    scheme, separator, rest = url.partition("://")
    if not separator or not scheme:
        raise ConfigError(
            f"{url!r} is not an address: write scheme://..., for example tcp://127.0.0.1:9500"
        )
    if not rest:
        raise ConfigError(f"{url!r} says no address after {scheme}://")
    return scheme.lower(), rest


def scheme_of(url: str) -> str:
    """The scheme (lower case) of what may not be a URL at all; empty when it has none."""
    scheme, separator, _ = url.partition("://")
    return scheme.lower() if separator else ""


def parse_host_port(url: str) -> HostPort:
    """The host and port of `scheme://host:port`. Raises ConfigError, naming the url and what is wrong."""
    scheme, rest = split_url(url)
    rest = rest.removesuffix("/")
    if bad := next((char for char in "/?#@ " if char in rest), None):
        raise ConfigError(f"{url!r}: {bad!r} has no place in {scheme}://host:port")
    if rest.startswith("["):
        host, bracket, after = rest[1:].partition("]")
        if not bracket:
            raise ConfigError(f"{url!r}: the bracket of the IPv6 address is not closed")
        colon, port = after[:1], after[1:]
    else:
        host, colon, port = rest.rpartition(":")
        if ":" in host:
            raise ConfigError(
                f"{url!r}: write an IPv6 address in brackets, {scheme}://[{host}]:{port}"
            )
    if colon != ":":
        raise ConfigError(f"{url!r} has no port: write {scheme}://host:port")
    if not host:
        raise ConfigError(
            f"{url!r} has no host: write {scheme}://host:port (0.0.0.0 for all interfaces)"
        )
    if not (port.isascii() and port.isdigit()) or int(port) > MAX_PORT:
        raise ConfigError(f"{url!r}: the port must be a number from 0 to {MAX_PORT}")
    return HostPort(host, int(port))


def join_host_port(scheme: str, host: str, port: int) -> str:
    """The URL of a host and port; brackets around an IPv6 address."""
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
