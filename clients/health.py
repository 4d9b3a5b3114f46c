"""What a client says of its own connections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from frieda.transports.polling import PollingStatistics


@dataclass(frozen=True, slots=True)
class ClientHealth:
    """How a client is, at one moment."""

    status: str
    """ok, connecting (no broker is connected) or closed."""
    connected: tuple[str, ...]
    """The addresses with a living connection."""
    last_error: str
    """What last went wrong with a connection or the metadata; empty when nothing has."""
    in_flight_requests: int
    buffered_bytes: int
    """Records that wait to be acknowledged (producer) or consumed (consumer)."""
    reconnects: int
    """Connections that were lost since the start."""
    polling: PollingStatistics | None
    """What the polling engine has done; None when closed."""
    transports: Mapping[str, int] = field(default_factory=dict)
    """Living connections by the scheme of their transport."""
    fallbacks: int = 0
    """With transport="auto": how often a better address than TCP's was not to be had, or did not last."""
    fallback_reason: str = ""
    """Why the last time; empty when never."""
