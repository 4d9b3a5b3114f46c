"""What the connections of one event loop share, put together from settings: the same for brokers and clients."""

from __future__ import annotations

from collections.abc import Mapping

from frieda.config import UNLIMITED, BrokerConfig, ClientConfig
from frieda.transports.base import RdmaSettings, TransportLimits, TransportRuntime
from frieda.transports.buffers import BufferPool
from frieda.transports.polling import PollingEngine


def runtime_of(
    config: BrokerConfig | ClientConfig,
    engine: PollingEngine,
    buffers: Mapping[int, int],
    hard_limit_bytes: int,
) -> TransportRuntime:
    """A runtime with a pool of its own of `buffers` (size in bytes -> how many). Raises ConfigError."""
    eager_bytes = config.rdma_eager_bytes
    return TransportRuntime(
        pool=BufferPool(buffers, pooled=config.buffers_pooled),
        engine=engine,
        limits=TransportLimits(
            max_message_bytes=config.max_frame_bytes, hard_limit_bytes=hard_limit_bytes
        ),
        rdma=RdmaSettings(
            slot_bytes=config.rdma_slot_bytes,
            window=config.rdma_window,
            source_bytes=config.rdma_source_bytes,
            eager_bytes=None if eager_bytes == UNLIMITED else eager_bytes,
        ),
        send_hold_s=config.send_hold_ms / 1000,
    )
