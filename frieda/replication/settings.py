"""The settings of replication that its state machines need."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicationSettings:
    """Of one partition. Times in ms, sizes in bytes."""

    min_insync_replicas: int = 1
    """acks=all is refused while fewer are in sync."""
    replica_lag_ms: int = 10_000
    """A follower that has not been caught up for this long leaves the ISR."""
    answer_timeout_ms: int = 2_000
    """A follower that owes an answer for this long is asked anew, in a new stream."""
    heartbeat_ms: int = 500
    """News that no append carried is sent after this long."""
    window_bytes: int = 8 * 1024 * 1024
    """Sent to one follower and not answered; one batch may always go."""
    window_batches: int = 256
    read_bytes: int = 1024 * 1024
    """A follower that is behind gets so much at a time."""
    max_pending: int = 10_000
    """Produces that wait for their acknowledgement."""
    request_timeout_ms: int = 30_000
    """How long a produce may wait for it."""
    max_parked: int = 64
    """Appends that a follower keeps because an earlier one is on its way still."""
    max_parked_bytes: int = 8 * 1024 * 1024
