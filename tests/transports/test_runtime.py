"""Settings of brokers and clients as their connections get them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from frieda.config import KIB, BrokerConfig, ClientConfig
from frieda.errors import ConfigError
from frieda.transports.base import RdmaSettings, TransportRuntime
from frieda.transports.polling import PollingEngine
from frieda.transports.runtime import check_largest_buffer, runtime_of


def made_of(config: BrokerConfig | ClientConfig) -> TransportRuntime:
    return runtime_of(config, PollingEngine("event"), {4 * KIB: 2, 64 * KIB: 1}, 1 << 30)


@pytest.mark.parametrize("config_type", [BrokerConfig, ClientConfig])
def test_by_default_nothing_is_held_the_threshold_adapts_and_buffers_are_pooled(
    config_type: type[BrokerConfig | ClientConfig],
) -> None:
    config = config_type()
    runtime = made_of(config)
    assert runtime.rdma == RdmaSettings()
    assert runtime.send_hold_s == 0.0
    assert runtime.pool.pooled is True
    assert runtime.limits.max_message_bytes == config.max_frame_bytes
    runtime.pool.close()


@pytest.mark.parametrize("config_type", [BrokerConfig, ClientConfig])
def test_every_setting_of_the_data_path_arrives(
    config_type: type[BrokerConfig | ClientConfig],
) -> None:
    runtime = made_of(
        config_type(
            rdma_slot_bytes=8 * KIB,
            rdma_window=64,
            rdma_source_bytes=128 * KIB,
            rdma_eager_bytes=2 * KIB,
            send_hold_ms=2.0,
            buffers_pooled=False,
        )
    )
    assert runtime.rdma == RdmaSettings(
        slot_bytes=8 * KIB, window=64, source_bytes=128 * KIB, eager_bytes=2 * KIB
    )
    assert runtime.send_hold_s == 0.002
    assert runtime.pool.pooled is False
    runtime.pool.close()


def test_a_pool_without_a_buffer_for_the_largest_message_is_refused() -> None:
    runtime = made_of(ClientConfig())
    with pytest.raises(ConfigError, match="the largest buffer of the pool has 65536 bytes"):
        check_largest_buffer(runtime)
    fitting = replace(runtime.limits, max_message_bytes=64 * KIB)
    check_largest_buffer(replace(runtime, limits=fitting))
    runtime.pool.close()
