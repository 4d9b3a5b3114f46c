"""The keyword arguments of the clients: typed for the checker, checked and named for people at run time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, Literal, TypedDict, TypeVar

from frieda.config import ClientConfig, Compression, Ordering, PollingMode, StartAt, nearest
from frieda.errors import ConfigError

Config = TypeVar("Config", bound=ClientConfig)


class ClientSettings(TypedDict, total=False):
    """What every client takes; the meanings are in `frieda.config.ClientConfig`."""

    transport: str
    client_id: str
    polling: PollingMode
    polling_window_us: int
    request_timeout_s: float
    connect_timeout_s: float
    retry_backoff_s: float
    metadata_max_age_s: float
    max_frame_bytes: int
    buffers_pooled: bool
    rdma_slot_bytes: int
    rdma_window: int
    rdma_source_bytes: int
    rdma_eager_bytes: int
    send_hold_ms: float


class ProducerSettings(ClientSettings, total=False):
    """What a Producer takes; the meanings are in `frieda.config.ProducerConfig`."""

    acks: int | Literal["all"]
    idempotence: bool
    linger_ms: float
    batch_bytes: int
    buffer_bytes: int
    max_in_flight: int
    delivery_timeout_s: float
    compression: Compression
    ordering: Ordering


class ConsumerSettings(ClientSettings, total=False):
    """What a Consumer takes; the meanings are in `frieda.config.ConsumerConfig`."""

    group: str | None
    start: StartAt
    min_bytes: int
    max_bytes: int
    max_wait_ms: int
    prefetch_bytes: int
    auto_commit_interval_s: float
    check_crcs: bool
    isolation: Literal["read_uncommitted"]


def make_config(
    config_type: type[Config], bootstrap: str | Iterable[str], settings: Mapping[str, Any]
) -> Config:
    """The settings object. Raises ConfigError: unknown (naming the nearest), wrong type, out of range."""
    known = {spec.name: spec for spec in fields(config_type)}
    values: dict[str, Any] = {}
    for name, value in settings.items():
        spec = known.get(name)
        if spec is None:
            raise ConfigError(
                f"{config_type.__name__.removesuffix('Config')} has no setting {name!r}"
                f"{nearest(name, list(known))}"
            )
        values[name] = _checked(name, str(spec.type), value)
    urls = bootstrap if isinstance(bootstrap, str) else ",".join(bootstrap)
    return config_type(bootstrap=urls, **values)


def _checked(name: str, wanted: str, value: Any) -> Any:
    if name == "acks" and value == "all":
        return -1
    kind = type(value)
    match wanted:
        case "bool":
            fits = kind is bool
        case "int":
            fits = isinstance(value, int) and kind is not bool
        case "float":
            fits = isinstance(value, int | float) and kind is not bool
        case "str":
            fits = isinstance(value, str)
        case _:
            fits = value is None or isinstance(value, str)
    if not fits:
        raise ConfigError(f"{name} = {value!r}: must be {wanted}, not {kind.__name__}")
    return value
