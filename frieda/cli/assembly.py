"""Where a broker is put together from its parts: the one place that knows them all."""

from __future__ import annotations

from typing import cast

from frieda.broker.server import Server
from frieda.clock import Clock, SystemClock
from frieda.config import MIB, BrokerConfig, PollingMode
from frieda.storage.filesystem import FileSystem, RealFileSystem
from frieda.transports.polling import PollingEngine
from frieda.transports.registry import open_transport
from frieda.transports.runtime import runtime_of


def make_server(
    config: BrokerConfig, *, filesystem: FileSystem | None = None, clock: Clock | None = None
) -> Server:
    """A server with its own pool and polling engine, not started."""
    hard_limit_bytes = max(64 * MIB, 4 * config.max_frame_bytes)
    engine = PollingEngine(cast(PollingMode, config.polling), config.polling_window_us)
    return Server(
        config,
        runtime=runtime_of(config, engine, config.buffers, hard_limit_bytes),
        open_transport=open_transport,
        filesystem=filesystem or RealFileSystem(),
        clock=clock or SystemClock(),
    )
