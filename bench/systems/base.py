"""What a benchmark needs of a system that it compares: to have it started on a folder, and stopped.

Two classes of durability, which are never compared with each other: "cache" acknowledges from the page cache,
"disk" after fsync. Each system says in `settings` which of its own settings that is.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, Protocol, get_args

Durability = Literal["cache", "disk"]
DURABILITIES: tuple[Durability, ...] = get_args(Durability)


class RunningSystem(Protocol):
    """A system that was started, all its processes together."""

    @property
    def address(self) -> str:
        """What a driver takes: host:port (several with commas), redis://..., nats://..., tcp://..., shm://..."""
        ...

    @property
    def version(self) -> str: ...

    @property
    def settings(self) -> Mapping[str, object]:
        """Every setting that it was started with and that shapes its figures."""
        ...

    def cpu_seconds(self) -> float:
        """Processor time that its processes have used, user and system."""
        ...

    def memory_bytes(self) -> int:
        """Resident memory of its processes."""
        ...

    def require_alive(self) -> None:
        """Raise FriedaError, with the end of its log, when a process of it has ended."""
        ...


class System(Protocol):
    """A system that can be started here."""

    @property
    def name(self) -> str:
        """ "frieda", "kafka", "redis" or "nats"."""
        ...

    def missing(self) -> str | None:
        """None when it can be started here, else a sentence that says how to get it."""
        ...

    def running(
        self, folder: Path, durability: Durability, brokers: int = 1
    ) -> AbstractContextManager[RunningSystem]:
        """Start it on an empty `folder`, on free loopback ports, ready when entered; the end stops it.

        Nothing of it outlives the context, whatever ends it. Raises FriedaError when it cannot be started within
        its deadline, with the end of its log; ConfigError for more brokers than it can be.
        """
        ...
