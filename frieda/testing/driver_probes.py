"""What a driver told and what it read, for the clauses that every driver must keep."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from frieda.bench.drivers.base import ConsumerDriver, Taken
from frieda.testing.conversation import eventually

GUARD_S: Final = 120.0
"""Ends a test that hangs; no test waits for it."""


class Told:
    """What a producer told: a `done` for each record, or one for many."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int, object]] = []
        self.threads: set[int] = set()
        self.by_record: Counter[int] = Counter()

    def done(self, count: int, ended_ns: int, error: object) -> None:
        """For several records."""
        self.threads.add(threading.get_ident())
        self.calls.append((count, ended_ns, error))

    def done_for(self, number: int) -> Any:
        """For one record alone."""

        def done(count: int, ended_ns: int, error: object) -> None:
            self.by_record[number] += count
            self.done(count, ended_ns, error)

        return done

    @property
    def count(self) -> int:
        """Of how many records."""
        return sum(count for count, _, _ in self.calls)

    @property
    def errors(self) -> list[object]:
        """Those that were told, once for each call."""
        return [error for _, _, error in self.calls if error is not None]

    async def all_of(self, count: int) -> None:
        """Wait until so many records were told of."""
        await eventually(lambda: self.count >= count, f"{count} records told of", GUARD_S)


async def take(consumer: ConsumerDriver, max_records: int = 10_000) -> Sequence[Taken]:
    """What has come, which must be something."""
    began_s = time.monotonic()
    while time.monotonic() - began_s < GUARD_S:
        taken = await consumer.take(1.0, max_records)
        if taken:
            return taken
    raise AssertionError("nothing came")


async def read(consumer: ConsumerDriver, count: int) -> dict[int, list[bytes]]:
    """The next `count` records and no more, by partition."""
    found: dict[int, list[bytes]] = {}
    total = 0
    while total < count:
        for taken in await take(consumer):
            assert taken.values
            found.setdefault(taken.partition, []).extend(taken.values)
            total += len(taken.values)
    assert total == count
    return found


def open_sockets() -> int:
    """How many sockets this process has."""
    count = 0
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            count += os.readlink(f"/proc/self/fd/{entry}").startswith("socket:")
    return count
