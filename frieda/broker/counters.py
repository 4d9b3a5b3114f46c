"""What the broker counts of itself; `frieda health` shows it."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(slots=True)
class Counters:
    """Since the start of the process. Plain integers, added to on the event loop only."""

    connections_accepted: int = 0
    connections_refused: int = 0
    broken_connections: int = 0
    protocol_errors: int = 0
    faults: int = 0
    produced_batches: int = 0
    produced_bytes: int = 0
    refused_produces: int = 0
    fetches: int = 0
    fetched_bytes: int = 0
    cold_reads: int = 0
    buffer_waits: int = 0

    def as_facts(self) -> dict[str, int]:
        return asdict(self)
