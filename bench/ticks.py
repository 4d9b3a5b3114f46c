"""Where the ticks of an axis lie and what they are called, PURE: durations, sizes, rates, shares of the samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

Unit = Literal["ns", "bytes", "MB/s", "records/s", "cores", "instructions/s", "instructions/byte"]
MAX_TICKS: Final = 8
_STEPS: Final = tuple(factor * 10.0**power for power in range(-9, 16) for factor in (1, 2, 5))


def round_ticks(values: Sequence[float]) -> list[float]:
    """Round values (1, 2, 5 times a power of ten) from below the least to above the greatest, at most eight or so.

    Values that are not positive do not count; without any there are no ticks.
    """
    positive = [value for value in values if value > 0]
    if not positive:
        return []
    low, high = min(positive), max(positive)
    first = max((step for step in _STEPS if step <= low * (1 + 1e-9)), default=_STEPS[0])
    last = min(
        (step for step in _STEPS if step >= high * (1 - 1e-9) and step > first),
        default=_STEPS[-1],
    )
    ticks = [step for step in _STEPS if first <= step <= last]
    if len(ticks) <= MAX_TICKS:
        return ticks
    return [tick for tick in ticks if _is_power_of_ten(tick) or tick in (first, last)]


def linear_ticks(values: Sequence[float]) -> list[float]:
    """Four to six round values from nothing to above the greatest."""
    high = max((value for value in values if value > 0), default=1.0)
    step = min(each for each in _STEPS if high / each <= 5)
    return [step * number for number in range(math.ceil(high / step - 1e-9) + 1)]


def duration(value_ns: float) -> str:
    """Nanoseconds in the unit that reads best."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if value_ns >= size * 0.9999:
            return f"{value_ns / size:.4g} {unit}"
    return f"{value_ns:.4g} ns"


def size(size_bytes: float) -> str:
    """Bytes in the unit that reads best: 100 B, 1 KiB, 1 MiB."""
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size_bytes >= scale:
            return f"{size_bytes / scale:.4g} {unit}"
    return f"{size_bytes:.4g} B"


def count(value: float) -> str:
    """A number with k, M or G."""
    for unit, scale in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= scale * 0.9999:
            return f"{value / scale:.4g} {unit}"
    return f"{value:.4g}"


def plain(value: float) -> str:
    """A number with four digits at least, thousands apart."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


LABELS: Final[Mapping[Unit, Callable[[float], str]]] = {
    "ns": duration,
    "bytes": size,
    "MB/s": plain,
    "records/s": count,
    "cores": plain,
    "instructions/s": count,
    "instructions/byte": count,
}
AS_GIVEN: Final = frozenset({"bytes"})
"""Units whose ticks are the values themselves: sizes are powers of two."""
FROM_ZERO: Final = frozenset({"cores"})
"""Units whose axis is linear and begins at nothing; all others are logarithmic."""


def beyond(percent: float) -> float:
    """Where a percentile lies on the axis of HdrHistogram's plotter: 1 / (1 - p)."""
    return 1 / (1 - percent / 100)


def decades(percents: Sequence[float]) -> float:
    """How many powers of ten that axis spans; at least one, and a little more than the curves."""
    return max(1.0, max((math.log10(beyond(each)) for each in percents), default=1.0) + 0.05)


def percent_label(decade: int) -> str:
    """0%, 90%, 99%, 99.9%..."""
    nines = "9" * decade
    return ["0%", "90%", "99%"][decade] if decade < 3 else f"{nines[:2]}.{nines[2:]}%"


def _is_power_of_ten(value: float) -> bool:
    return math.isclose(math.log10(value) % 1, 0, abs_tol=1e-9) or math.isclose(
        math.log10(value) % 1, 1, abs_tol=1e-9
    )
