"""A roofline of the broker: operations per byte of memory traffic against operations per second.

Operations are instructions retired by the broker's processes, memory traffic is their last-level cache misses times
the size of a cache line, both by the processor's own counters. The two roofs are measured on the same machine: the
memory bandwidth of one core that copies, and the most instructions a second that one core retired in a loop without
memory traffic (source of the form: Williams, Waterman, Patterson, "Roofline", 2009). Without counters there is
nothing to draw, and a file of results says why.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple, Protocol

from frieda.bench.drive import DriveSettings, run_drive
from frieda.bench.load import Load
from frieda.bench.perf_stat import count_command, counting, supported
from frieda.bench.results import Run
from frieda.bench.systems.base import Durability, RunningSystem
from frieda.errors import FriedaError, MissingDependencyError

CACHE_LINE_BYTES: Final = 64
OPERATIONS: Final = "instructions"
TRAFFIC: Final = (("LLC-load-misses", "LLC-store-misses"), ("LLC-load-misses",), ("cache-misses",))
"""What counts as memory traffic: the first of these that the machine has."""
NO_COUNTERS: Final = (
    "this machine has no hardware counters that perf can read ({missing} not supported), so there is no roofline: "
    "virtual machines rarely pass them on; run it on bare metal"
)
_COPY_BYTES: Final = 128 * 1024 * 1024
_COPIES: Final = 5
_BUSY_LOOP: Final = "import hashlib; hashlib.pbkdf2_hmac('sha256', b'password', b'salt', 2_000_000)"


class CountableSystem(RunningSystem, Protocol):
    """A running system whose processes are known."""

    @property
    def pids(self) -> tuple[int, ...]:
        """All of them."""
        ...


class Startable(Protocol):
    """A system that can be started here, and whose processes are known then."""

    def running(
        self, folder: Path, durability: Durability, brokers: int = 1
    ) -> AbstractContextManager[CountableSystem]:
        """As `System.running`."""
        ...


class Counters(NamedTuple):
    """The events that are counted."""

    operations: str
    traffic: tuple[str, ...]

    @property
    def events(self) -> tuple[str, ...]:
        """All of them."""
        return (self.operations, *self.traffic)


@dataclass(frozen=True, slots=True, kw_only=True)
class Roofs:
    """What one core of this machine can do at most."""

    instructions_per_s: float
    bytes_per_s: float


def find_counters() -> Counters:
    """The counters of this machine. Raises MissingDependencyError with one sentence where it has none."""
    try:
        has = supported([OPERATIONS, *dict.fromkeys(event for group in TRAFFIC for event in group)])
    except FriedaError as error:
        raise MissingDependencyError(f"there is no roofline: {error}") from None
    traffic = next((group for group in TRAFFIC if all(has[event] for event in group)), None)
    if not has[OPERATIONS] or traffic is None:
        missing = " and ".join(event for event, there in has.items() if not there)
        raise MissingDependencyError(NO_COUNTERS.format(missing=missing))
    return Counters(OPERATIONS, traffic)


def measure_roofs(counters: Counters) -> Roofs:
    """Measure both roofs, which takes some seconds and 256 MiB. Raises FriedaError."""
    counted = count_command([counters.operations], [sys.executable, "-c", _BUSY_LOOP])
    source, target = bytearray(_COPY_BYTES), bytearray(_COPY_BYTES)
    fastest_s = min(_copy_s(source, target) for _ in range(_COPIES))
    # A copy reads one line and writes one.
    return Roofs(
        instructions_per_s=counted[counters.operations] / counted["seconds"],
        bytes_per_s=2 * _COPY_BYTES / fastest_s,
    )


def measure_roofline(
    label: str,
    driver: str,
    system: Startable,
    counters: Counters,
    load: Load,
    polling: str = "adaptive",
    durability: Durability = "cache",
) -> Run:
    """Run the load on the system, started afresh, and count its processes in the measured part. Raises FriedaError."""
    with TemporaryDirectory(prefix="frieda-roofline-") as name:
        folder = Path(name)
        data = folder / "data"
        data.mkdir()
        with system.running(data, durability) as server:
            watched = _Watched(server)
            settings = DriveSettings(
                driver=driver,
                address=server.address,
                load=load,
                polling=polling,
                facts={"durability": durability, "brokers": 1, "contender": label},
            )
            with counting(server.pids, counters.events, folder) as counted:
                run = run_drive(
                    settings,
                    case=f"{label}, {load.producers} producers",
                    server=watched,
                )
            sums = counted.between(*watched.measured_part())
            server_settings = {"version": server.version, **server.settings}
    traffic_bytes = CACHE_LINE_BYTES * sum(sums[event] for event in counters.traffic)
    return replace(
        run,
        server_settings=server_settings,
        extra={
            "counted_s": round(sums["seconds"], 3),
            "instructions": sums[counters.operations],
            "traffic_bytes": traffic_bytes,
            "events": list(counters.events),
        },
    )


class _Watched:
    """A running system that notes when its processor time is asked for: at both ends of the measured part."""

    def __init__(self, system: CountableSystem) -> None:
        self._system = system
        self._asked_s: list[float] = []

    @property
    def address(self) -> str:
        return self._system.address

    @property
    def version(self) -> str:
        return self._system.version

    @property
    def settings(self) -> Mapping[str, object]:
        return self._system.settings

    def cpu_seconds(self) -> float:
        self._asked_s.append(time.monotonic())
        return self._system.cpu_seconds()

    def memory_bytes(self) -> int:
        return self._system.memory_bytes()

    def require_alive(self) -> None:
        self._system.require_alive()

    def measured_part(self) -> tuple[float, float]:
        """Its begin and its end. Raises FriedaError when the load did not tell."""
        if len(self._asked_s) < 2:
            raise FriedaError("the load did not tell when its measured part began and ended")
        return self._asked_s[0], self._asked_s[-1]


def _copy_s(source: bytearray, target: bytearray) -> float:
    began_s = time.perf_counter()
    target[:] = source
    return time.perf_counter() - began_s
