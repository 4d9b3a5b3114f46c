"""What the clients on one event loop share: a polling engine drives the loop, so there is one for each mode.

Buffers and transports belong to each client alone, so that one that reads slowly starves no other.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast
from weakref import WeakKeyDictionary

from frieda.config import KIB, MIB, PollingMode
from frieda.transports.address import split_url
from frieda.transports.base import Transport
from frieda.transports.polling import PollingEngine
from frieda.transports.registry import known_schemes, open_transport
from frieda.transports.runtime import runtime_of

if TYPE_CHECKING:
    from frieda.config import ClientConfig

_BUFFER_CLASSES: Final = {
    4 * KIB: 32,
    16 * KIB: 32,
    64 * KIB: 16,
    256 * KIB: 16,
    MIB: 16,
    4 * MIB: 4,
}
"""Sizes and counts of a client's receive buffers; address space, touched only as far as used."""


class _SharedEngine:
    """An engine and how many clients use it."""

    __slots__ = ("engine", "users")

    def __init__(self, engine: PollingEngine) -> None:
        self.engine = engine
        self.users = 0


_engines: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, int], _SharedEngine]] = (
    WeakKeyDictionary()
)


def running_engine() -> PollingEngine | None:
    """The engine that drives the running loop for the clients on it, if there is exactly one."""
    engines = _engines.get(asyncio.get_running_loop(), {})
    return next(iter(engines.values())).engine if len(engines) == 1 else None


class LoopRuntime:
    """A share of the loop's engine, and a pool and transports of its own. Owner: a Network, which releases it."""

    def __init__(self, config: ClientConfig, shared: _SharedEngine) -> None:
        self._shared: _SharedEngine | None = shared
        shared.users += 1
        classes = dict(_BUFFER_CLASSES)
        classes[max(config.max_frame_bytes, 5 * MIB)] = 1
        self.engine = shared.engine
        hard_limit_bytes = max(64 * MIB, 2 * config.max_frame_bytes + MIB)
        self._runtime = runtime_of(config, self.engine, classes, hard_limit_bytes)
        self.pool = self._runtime.pool
        self._transports: dict[str, Transport] = {}
        self.schemes = frozenset(known_schemes())
        """The transports of this installation."""

    @classmethod
    def acquire(cls, config: ClientConfig) -> LoopRuntime:
        """A share of the running loop's engine, which is started when this is the first."""
        loop = asyncio.get_running_loop()
        engines = _engines.setdefault(loop, {})
        key = (config.polling, config.polling_window_us)
        shared = engines.get(key)
        if shared is None:
            engine = PollingEngine(cast(PollingMode, config.polling), config.polling_window_us)
            engine.start(loop)
            shared = engines[key] = _SharedEngine(engine)
        return cls(config, shared)

    def transport_for(self, url: str) -> Transport:
        """The transport of the url's scheme. Raises ConfigError for a scheme that nobody knows."""
        scheme, _ = split_url(url)
        transport = self._transports.get(scheme)
        if transport is None:
            transport = self._transports[scheme] = open_transport(url, self._runtime)
        return transport

    def speaks(self, url: str) -> bool:
        """Whether this installation has a transport for the url."""
        return split_url(url)[0] in self.schemes

    def release(self) -> None:
        """Give everything back; the last user of an engine stops it. May be repeated."""
        shared, self._shared = self._shared, None
        if shared is None:
            return
        self._transports.clear()
        self.pool.close()
        shared.users -= 1
        if shared.users == 0:
            shared.engine.close()
            for engines in list(_engines.values()):
                for key, each in list(engines.items()):
                    if each is shared:
                        del engines[key]
