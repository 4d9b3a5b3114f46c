"""Counters of processes by `perf stat`: which this machine has, what they counted, and when.

Its output with -x, has for each counter a line of fields: with -I the time in seconds since its start, then the
value, its unit, the event, how long it was counted in ns, and for what share of the time (source: perf-stat(1), "CSV
FORMAT"). A value is "<not supported>" where there is no such counter, "<not counted>" where it was never scheduled.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from frieda.bench.systems.processes import find_program
from frieda.errors import ConfigError, FriedaError

PERF: Final = "perf"
INTERVAL_MS: Final = 100
PROBE_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 10.0
NOT_SUPPORTED: Final = "<not supported>"
_NO_VALUE: Final = (NOT_SUPPORTED, "<not counted>")
MAX_OUTPUT_BYTES: Final = 64 * 1024 * 1024
HOW_TO_GET_IT: Final = (
    "perf is not installed: apt-get install linux-perf (Ubuntu: linux-tools-generic)"
)


class Reading(NamedTuple):
    """What one counter counted, in one interval or in all. `value` None: it did not count."""

    event: str
    value: float | None
    supported: bool = True
    """False: this machine has no such counter. Where it has, and did not count, the processes did not run."""
    at_s: float | None = None
    """The end of the interval, since perf began."""
    share: float = 1.0
    """For what part of the time it was really counted; the value is scaled up already."""


def parse(text: str, *, intervals: bool = False) -> list[Reading]:
    """The readings in what `perf stat -x,` wrote, comments left out. Raises ConfigError for another form."""
    readings = []
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        fields = line.split(",")
        try:
            at_s = float(fields.pop(0)) if intervals else None
            value, _, event, _, percent = fields[:5]
            if not event.strip():
                raise ValueError("no event")
            readings.append(
                Reading(
                    event=event.strip(),
                    value=None if value.strip() in _NO_VALUE else float(value),
                    supported=value.strip() != NOT_SUPPORTED,
                    at_s=at_s,
                    share=float(percent) / 100 if percent.strip() else 1.0,
                )
            )
        except ValueError:
            raise ConfigError(
                f"{line!r} is no line of 'perf stat -x,': value, unit, event, time, per cent"
            ) from None
    return readings


def supported(events: Sequence[str]) -> dict[str, bool]:
    """Which of these events this machine can count. Raises FriedaError without perf, or when it fails."""
    # Each by itself: an event whose name this kernel does not know fails the whole command.
    return {event: _is_supported(event) for event in events}


def require_perf() -> str:
    """The path of perf. Raises FriedaError with what to install."""
    found = find_program(PERF)
    if found is None:
        raise FriedaError(HOW_TO_GET_IT)
    return str(found)


def _is_supported(event: str) -> bool:
    command = [require_perf(), "stat", "-x,", "-e", event, "--", "true"]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=PROBE_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
            env=_environment(),
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise FriedaError(f"perf cannot be run: {error}") from None
    if done.returncode != 0:
        return False
    return any(reading.value is not None for reading in parse(done.stderr))


class Counting:
    """What was counted, interval by interval, once the context has ended. Times are of the monotonic clock."""

    def __init__(self) -> None:
        self.began_s = time.monotonic()
        self.readings: list[Reading] = []

    def between(self, begin_s: float, end_s: float) -> dict[str, float]:
        """The sum of each event over the intervals that lie wholly between, and under "seconds" their length.

        Raises FriedaError when no interval does, or when one of the counters did not count while another did.
        """
        ends = sorted({r.at_s for r in self.readings if r.at_s is not None})
        begins = [0.0, *ends[:-1]]
        inside = {
            end: end - begin
            for begin, end in zip(begins, ends, strict=False)
            if self.began_s + begin >= begin_s and self.began_s + end <= end_s
        }
        if not inside:
            raise FriedaError(
                f"perf counted in no interval of {INTERVAL_MS} ms of the measured part: give more records"
            )
        sums = {"seconds": sum(inside.values())}
        asleep = set(inside) - {r.at_s for r in self.readings if r.value is not None}
        for reading in self.readings:
            if reading.at_s not in inside:
                continue
            if reading.value is None and not (reading.supported and reading.at_s in asleep):
                raise FriedaError(f"perf could not count {reading.event} all the time")
            sums[reading.event] = sums.get(reading.event, 0.0) + (reading.value or 0.0)
        return sums


@contextlib.contextmanager
def counting(pids: Sequence[int], events: Sequence[str], folder: Path) -> Iterator[Counting]:
    """Count these events of these processes, all their threads, while the context lasts.

    perf writes into a file in `folder`. Raises FriedaError when it cannot count.
    """
    output = folder / "perf.csv"
    command = [require_perf(), "stat", "-x,", "-I", str(INTERVAL_MS), "-e", ",".join(events)]
    command += ["-o", str(output), "-p", ",".join(map(str, pids))]
    counted = Counting()
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=_environment(),
            process_group=0,  # Ctrl-C is for us
        )
    except OSError as error:
        raise FriedaError(f"perf cannot be run: {error}") from None
    try:
        yield counted
    finally:
        # It ends by itself with the processes; SIGINT makes it write the last interval.
        process.send_signal(signal.SIGINT)
        try:
            _, errors = process.communicate(timeout=STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            _, errors = process.communicate()
    if not output.exists() or output.stat().st_size > MAX_OUTPUT_BYTES:
        told = errors.decode(errors="replace").strip() or "it wrote nothing that can be read"
        raise FriedaError(f"perf did not count: {told}")
    counted.readings = parse(output.read_text(encoding="utf-8"), intervals=True)


def count_command(events: Sequence[str], command: Sequence[str]) -> dict[str, float]:
    """What a command counted from its start to its end, and under "seconds" how long that was. Raises FriedaError."""
    began_s = time.monotonic()
    try:
        done = subprocess.run(
            [require_perf(), "stat", "-x,", "-e", ",".join(events), "--", *command],
            capture_output=True,
            text=True,
            check=True,
            timeout=PROBE_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
            env=_environment(),
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise FriedaError(f"perf cannot count {command[0]}: {error}") from None
    seconds = time.monotonic() - began_s
    values = {reading.event: reading.value for reading in parse(done.stderr)}
    if any(value is None for value in values.values()):
        raise FriedaError(f"perf could not count {', '.join(events)} all the time")
    return {
        "seconds": seconds,
        **{name: value for name, value in values.items() if value is not None},
    }


def _environment() -> dict[str, str]:
    """Ours, with the C locale: a decimal comma would be one comma too many."""
    return {**os.environ, "LC_ALL": "C"}
