"""What the connections of one event loop share, put together from settings: the same for brokers and clients."""

from __future__ import annotations

from collections.abc import Mapping

from frieda.config import UNLIMITED, BrokerConfig, ClientConfig
from frieda.errors import ConfigError
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


def check_largest_buffer(runtime: TransportRuntime) -> None:
    """Raises ConfigError when no buffer of the pool holds the largest message."""
    largest_bytes, wanted_bytes = runtime.pool.largest_bytes, runtime.limits.max_message_bytes
    if largest_bytes < wanted_bytes:
        raise ConfigError(
            f"the largest buffer of the pool has {largest_bytes} bytes, less than "
            f"max_message_bytes = {wanted_bytes}; add a buffer class of that size"
        )
