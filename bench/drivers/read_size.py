"""How many records to ask for at once, where a system bounds a read in records and not in bytes. PURE."""

from __future__ import annotations

from typing import Final

MAX_RECORDS: Final = 10_000
FIRST_RECORD_BYTES: Final = 64 * 1024
"""The size that a record is taken for, until some have been seen."""


class ReadSize:
    """About `max_bytes` worth of records, by the mean size of those that came last."""

    __slots__ = ("_max_bytes", "_record_bytes")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._record_bytes = FIRST_RECORD_BYTES

    def note(self, records: int, size_bytes: int) -> None:
        """So many came together, of so many bytes."""
        if records:
            self._record_bytes = max(1, size_bytes // records)

    @property
    def records(self) -> int:
        """At least 1, at most MAX_RECORDS."""
        return max(1, min(self._max_bytes // self._record_bytes, MAX_RECORDS))
