"""Where a broker is put together from its parts: the one place that knows them all."""

from __future__ import annotations

from typing import cast

from frieda.broker.server import Server
from frieda.clock import Clock, SystemClock
from frieda.config import MIB, BrokerConfig, PollingMode
from frieda.storage.filesystem import FileSystem, RealFileSystem
from frieda.transports.base import TransportLimits, TransportRuntime
from frieda.transports.buffers import BufferPool
from frieda.transports.polling import PollingEngine
from frieda.transports.registry import open_transport


def make_server(
    config: BrokerConfig, *, filesystem: FileSystem | None = None, clock: Clock | None = None
) -> Server:
    """A server with its own pool and polling engine, not started."""
    limits = TransportLimits(
        max_message_bytes=config.max_frame_bytes,
        hard_limit_bytes=max(64 * MIB, 4 * config.max_frame_bytes),
    )
    engine = PollingEngine(cast(PollingMode, config.polling), config.polling_window_us)
    return Server(
        config,
        runtime=TransportRuntime(pool=BufferPool(config.buffers), engine=engine, limits=limits),
        open_transport=open_transport,
        filesystem=filesystem or RealFileSystem(),
        clock=clock or SystemClock(),
    )
