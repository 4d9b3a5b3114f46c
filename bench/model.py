"""The published latency model, fitted to a sweep of record sizes and windows, PURE.

A sender that waits for each answer takes L + size / B: a fixed latency, and the time of the bytes at bandwidth B.
With W records under way each also waits for the others: L + size / B + O(W, R), the contention overhead, R being the
resources that the records of a window contend for. Here R is the work for a record and the way of its bytes:

    O(W, R) = (W - 1)^k * (o + size / C)

o is the overhead of one other record, C the bandwidth at which the others' bytes are got out of the way, and k how
the overhead grows with the window: 1 where records queue one behind the other, less where what waits leaves together.
The model is that of the published design: equations 1 to 5, for the average and for the tail (the 99th percentile).

All fits are least squares of the relative error, so that small records count as much as large ones, and no
coefficient is negative. Times are in ns, sizes in bytes.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from frieda.bench.contests import latency_ns, number, series_of
from frieda.bench.results import Run
from frieda.errors import ConfigError

STATISTICS: Final = {"mean": "average", "p99": "tail (p99)"}
MAX_EXPONENT: Final = 3.0
_INDISTINCT: Final = 1e-12
"""Of the determinant, relative: below it the rows are multiples of each other."""
_NO_TIME_NS: Final = 1e-9
"""For a byte: a million TB/s is no bandwidth, but rounding."""
_GRID_STEPS: Final = 60
_GOLDEN_STEPS: Final = 40
_GOLDEN: Final = (math.sqrt(5) - 1) / 2


class Sample(NamedTuple):
    """What was measured with one size and one window."""

    record_size_bytes: float
    window: int
    latency_ns: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Residuals:
    """The relative error of the fit, without sign: 0.1 is 10%."""

    samples: int
    median: float
    greatest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """The fitted model. A bandwidth is None where the size made no difference; `windowed` None: no window above 1."""

    fixed_ns: float
    """L."""
    bytes_per_s: float | None
    """B."""
    overhead_ns: float = 0.0
    """o."""
    contended_bytes_per_s: float | None = None
    """C."""
    exponent: float = 1.0
    """k."""
    sequential: Residuals
    windowed: Residuals | None = None

    def overhead(self, window: int, record_size_bytes: float) -> float:
        """O(W, R) in ns."""
        each_ns = self.overhead_ns + _transfer_ns(record_size_bytes, self.contended_bytes_per_s)
        return _growth(window, self.exponent) * each_ns

    def predict(self, record_size_bytes: float, window: int = 1) -> float:
        """The latency in ns."""
        alone_ns = self.fixed_ns + _transfer_ns(record_size_bytes, self.bytes_per_s)
        return alone_ns + self.overhead(window, record_size_bytes)


def fit(samples: Sequence[Sample]) -> Fit:
    """Fit L and B to the sequential samples, then o, C and k to those with a window.

    Raises ConfigError with fewer than two sizes of sequential samples, or a sample that is no latency.
    """
    for sample in samples:
        if not (sample.latency_ns > 0 and sample.record_size_bytes > 0 and sample.window >= 1):
            raise ConfigError(f"the model cannot be fitted to {sample}: all must be above 0")
    alone = [sample for sample in samples if sample.window == 1]
    sizes = {sample.record_size_bytes for sample in alone}
    if len(sizes) < 2:
        raise ConfigError(
            f"the model needs two sizes or more with a window of 1, and there {'is' if len(sizes) == 1 else 'are'} "
            f"{len(sizes)}: sweep over more sizes"
        )
    fixed_ns, byte_ns = least_squares(
        [Row(1.0, each.record_size_bytes, each.latency_ns, each.latency_ns) for each in alone]
    )
    first = Fit(
        fixed_ns=fixed_ns,
        bytes_per_s=_per_second(byte_ns),
        sequential=_residuals(alone, lambda s: fixed_ns + s.record_size_bytes * byte_ns),
    )
    windowed = [sample for sample in samples if sample.window > 1]
    return first if not windowed else _with_overhead(first, windowed)


def samples_of(runs: Iterable[Run], statistic: str) -> dict[str, list[Sample]]:
    """The samples of each series in the valid runs of a sweep; `statistic` is "mean" or a percentile."""
    found: dict[str, list[Sample]] = {}
    for run in runs:
        told = latency_ns(run, statistic)
        if run.valid and told is not None:
            sample = Sample(
                number(run.settings.get("record_size")),
                int(number(run.settings.get("in_flight"))),
                told,
            )
            found.setdefault(series_of(run), []).append(sample)
    return found


def medians(samples: Iterable[Sample]) -> list[Sample]:
    """One sample for each size and window: the median of the rounds."""
    grouped: dict[tuple[float, int], list[float]] = {}
    for sample in samples:
        key = (sample.record_size_bytes, sample.window)
        grouped.setdefault(key, []).append(sample.latency_ns)
    return [Sample(*key, statistics.median(values)) for key, values in sorted(grouped.items())]


class Row(NamedTuple):
    """One equation a x + b y = target, whose error is divided by `scale`."""

    a: float
    b: float
    target: float
    scale: float


def least_squares(rows: Sequence[Row]) -> tuple[float, float]:
    """x and y, neither negative, with the least sum of squared errors. Where a and b are not to be told apart, y is 0.

    a, b and scale are above 0.
    """
    scaled = [(row.a / row.scale, row.b / row.scale, row.target / row.scale) for row in rows]
    aa = math.fsum(a * a for a, _, _ in scaled)
    bb = math.fsum(b * b for _, b, _ in scaled)
    ab = math.fsum(a * b for a, b, _ in scaled)
    at = math.fsum(a * t for a, _, t in scaled)
    bt = math.fsum(b * t for _, b, t in scaled)
    determinant = aa * bb - ab * ab
    if determinant > _INDISTINCT * aa * bb:
        x, y = (at * bb - bt * ab) / determinant, (aa * bt - ab * at) / determinant
        if x >= 0 and y >= 0:
            return x, y
    # The least sum that is allowed lies on an edge: one of the two is 0.
    only_x, only_y = max(0.0, at / aa), max(0.0, bt / bb)
    error_of_x = math.fsum((a * only_x - t) ** 2 for a, _, t in scaled)
    error_of_y = math.fsum((b * only_y - t) ** 2 for _, b, t in scaled)
    return (only_x, 0.0) if error_of_x <= error_of_y else (0.0, only_y)


def _with_overhead(first: Fit, windowed: Sequence[Sample]) -> Fit:
    """Fit o and C for each exponent, and take the exponent with the least error."""

    def at(exponent: float) -> Fit:
        overhead_ns, byte_ns = _overhead(first, windowed, exponent)
        return replace(
            first,
            overhead_ns=overhead_ns,
            contended_bytes_per_s=_per_second(byte_ns),
            exponent=exponent,
        )

    def error(exponent: float) -> float:
        model = at(exponent)
        return math.fsum(
            (model.predict(sample.record_size_bytes, sample.window) / sample.latency_ns - 1) ** 2
            for sample in windowed
        )

    # With a single window every exponent fits as well as any other.
    exponent = 1.0 if len({sample.window for sample in windowed}) == 1 else _least(error)
    best = at(exponent)
    return replace(
        best, windowed=_residuals(windowed, lambda s: best.predict(s.record_size_bytes, s.window))
    )


def _overhead(first: Fit, windowed: Sequence[Sample], exponent: float) -> tuple[float, float]:
    """The best o and 1 / C for this exponent, the error being relative to the whole latency."""
    rows = []
    for sample in windowed:
        growth = _growth(sample.window, exponent)
        rest_ns = sample.latency_ns - first.predict(sample.record_size_bytes)
        rows.append(Row(growth, growth * sample.record_size_bytes, rest_ns, sample.latency_ns))
    return least_squares(rows)


def _least(error: Callable[[float], float]) -> float:
    """The exponent from 0 to 3 with the least error: the best of a grid, then golden sections around it."""
    step = MAX_EXPONENT / _GRID_STEPS
    best = min((number * step for number in range(_GRID_STEPS + 1)), key=error)
    low, high = max(0.0, best - step), min(MAX_EXPONENT, best + step)
    for _ in range(_GOLDEN_STEPS):
        first, second = high - (high - low) * _GOLDEN, low + (high - low) * _GOLDEN
        if error(first) <= error(second):
            high = second
        else:
            low = first
    return (low + high) / 2


def _growth(window: int, exponent: float) -> float:
    return 0.0 if window <= 1 else float((window - 1) ** exponent)


def _transfer_ns(size_bytes: float, bytes_per_s: float | None) -> float:
    return 0.0 if bytes_per_s is None else size_bytes / bytes_per_s * 1e9


def _per_second(byte_ns: float) -> float | None:
    return 1e9 / byte_ns if byte_ns > _NO_TIME_NS else None


def _residuals(samples: Sequence[Sample], predicted: Callable[[Sample], float]) -> Residuals:
    errors = [abs(predicted(sample) / sample.latency_ns - 1) for sample in samples]
    return Residuals(
        samples=len(errors), median=statistics.median(errors), greatest=max(errors, default=0.0)
    )
