"""Latencies in nanoseconds in an HdrHistogram: 1 ns to 1 h, three significant digits, 0.6 us a call.

Nothing is printed that the sample cannot carry: a percentile p needs 20 / (1 - p) samples, so that at
least twenty of them lie beyond it (20,000 for p99.9).
Formats: HdrHistogram's percentile distribution (.hgrm) and interval log 1.2 (.hlog), which the
plotters of hdrhistogram.org read; the encoded form is its V2 compressed base64 (HISTFAAA...).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from hdrh.histogram import HdrHistogram

HIGHEST_NS: Final = 3600 * 1_000_000_000
SIGNIFICANT_DIGITS: Final = 3
SAMPLES_BEYOND: Final = 20
MAX_ENCODED_CHARACTERS: Final = 1024 * 1024
"""The largest encoded histogram that `merge` takes: four times what one of this range can need."""

MAX_WINDOWS: Final = 1000


def samples_needed(percent: float) -> int:
    """How many samples a percentile (0 to below 100) needs: 20 / (1 - p)."""
    if not 0.0 <= percent < 100.0:
        raise ValueError(f"percent = {percent}: must be at least 0 and below 100")
    # Rounded first: 20 / (1 - 0.999) in binary is a little off 20,000.
    return math.ceil(round(SAMPLES_BEYOND * 100.0 / (100.0 - percent), 6))


class CurvePoint(NamedTuple):
    """One point of the percentile curve: so many per cent of the samples took at most this long."""

    percent: float
    value_ns: int


class _Level(NamedTuple):
    percent: float
    value_ns: int
    count_up_to: int


class LatencyHistogram:
    """Counts of latencies. Not for use by several threads."""

    __slots__ = ("_hdr", "_sum_ns")

    def __init__(self) -> None:
        self._hdr = HdrHistogram(1, HIGHEST_NS, SIGNIFICANT_DIGITS)
        self._sum_ns = 0

    def record(self, value_ns: int, count: int = 1) -> None:
        """Count `count` samples of `value_ns`. Above an hour it counts as an hour.

        Raises ValueError for a negative value.
        """
        if not self._hdr.record_value(value_ns, count):
            if value_ns < 0:
                raise ValueError(f"a latency of {value_ns} ns: must not be negative")
            value_ns = HIGHEST_NS
            self._hdr.record_value(value_ns, count)
        self._sum_ns += value_ns * count

    @property
    def count(self) -> int:
        """How many samples there are."""
        return int(self._hdr.get_total_count())

    @property
    def max_ns(self) -> int | None:
        """The largest sample (to three digits), or None without samples."""
        return int(self._hdr.get_max_value()) if self.count else None

    @property
    def mean_ns(self) -> float | None:
        """The mean, or None without samples."""
        return self._sum_ns / self.count if self.count else None

    def percentile(self, percent: float) -> int | None:
        """The value in ns that `percent` of the samples do not exceed.

        None when there are too few samples to say (see `samples_needed`).
        """
        if self.count < samples_needed(percent):
            return None
        return int(self._hdr.get_value_at_percentile(percent))

    def curve(self, ticks_per_half_distance: int = 5) -> list[CurvePoint]:
        """The percentile curve as far as the samples carry it; ever finer steps towards 100%."""
        if self.count < SAMPLES_BEYOND:
            return []
        end = 100.0 * (1 - SAMPLES_BEYOND / self.count)
        points = [
            CurvePoint(level.percent, level.value_ns)
            for level in self._levels(ticks_per_half_distance)
            if level.percent < end
        ]
        return [*points, CurvePoint(end, int(self._hdr.get_value_at_percentile(end)))]

    def corrected(self, expected_interval_ns: int) -> LatencyHistogram:
        """A copy corrected for coordinated omission of a closed loop that meant to send so often.

        For each sample longer than the interval, the samples that were never taken during it are
        added (Java HdrHistogram: copyCorrectedForCoordinatedOmission).
        """
        if expected_interval_ns < 1:
            raise ValueError(f"expected_interval_ns = {expected_interval_ns}: must be at least 1")
        copy = LatencyHistogram()
        for value, count in _recorded(self._hdr):
            copy.record(value, count)
            omitted = range(
                value - expected_interval_ns, expected_interval_ns - 1, -expected_interval_ns
            )
            for missing in omitted:
                copy.record(missing, count)
        return copy

    def encode(self) -> str:
        """These counts in HdrHistogram's V2 compressed base64 form: some hundred bytes."""
        return str(self._hdr.encode().decode("ascii"))

    def merge(self, encoded: str) -> None:
        """Add the counts of an encoded histogram. Raises ValueError when it is not one of ours."""
        if len(encoded) > MAX_ENCODED_CHARACTERS:
            raise ValueError(f"an encoded histogram of {len(encoded)} characters is too large")
        try:
            other = HdrHistogram.decode(encoded.encode("ascii"))
        except Exception as error:
            raise ValueError(f"not an encoded histogram: {error}") from error
        if other.highest_trackable_value != HIGHEST_NS:
            raise ValueError("the encoded histogram has another range")
        if other.get_total_count():
            self._hdr.add(other)
            self._sum_ns += (
                sum(
                    count * (int(other.get_lowest_equivalent_value(highest)) + highest + 1)
                    for highest, count in _recorded(other)
                )
                // 2
            )

    def hgrm(self) -> str:
        """The percentile distribution, in microseconds, as HdrHistogram's plotters read it."""
        heading = f"{'Value':>12} {'Percentile':>14} {'TotalCount':>10} {'1/(1-Percentile)':>14}"
        lines = [heading, ""]
        for level in self._levels(ticks_per_half_distance=5):
            share = level.percent / 100
            line = f"{level.value_ns / 1000:12.3f} {share:2.12f} {level.count_up_to:10d}"
            lines.append(line + (f" {1 / (1 - share):14.2f}" if share < 1 else ""))
        mean, deviation = self._hdr.get_mean_value() / 1000, self._hdr.get_stddev() / 1000
        largest = (self.max_ns or 0) / 1000
        lines += [
            f"#[Mean    = {mean:12.3f}, StdDeviation   = {deviation:12.3f}]",
            f"#[Max     = {largest:12.3f}, TotalCount     = {self.count:12d}]",
            f"#[Buckets = {self._hdr.bucket_count:12d}, "
            f"SubBuckets     = {self._hdr.sub_bucket_count:12d}]",
        ]
        return "\n".join(lines) + "\n"

    def _levels(self, ticks_per_half_distance: int) -> Iterator[_Level]:
        """The percentile levels of Java's PercentileIterator, ever closer together, and 100%.

        hdrh's own iterator leaves out the rounding that makes them meet 50%, 75%, 87.5%...
        """
        percent, count_up_to = 0.0, 0
        for value_ns, count in _recorded(self._hdr):
            count_up_to += count
            while 100.0 * count_up_to / self.count >= percent:
                yield _Level(percent, value_ns, count_up_to)
                if count_up_to == self.count:
                    yield _Level(100.0, value_ns, count_up_to)
                    return
                halvings = math.floor(math.log2(100.0 / (100.0 - percent))) + 1
                percent += 100.0 / (ticks_per_half_distance * 2**halvings)

    def write_hgrm(self, path: Path) -> None:
        """Write `hgrm()` to a file. Raises OSError."""
        path.write_text(self.hgrm(), encoding="ascii")


def _recorded(hdr: HdrHistogram) -> Iterator[tuple[int, int]]:
    """(highest equivalent value, count) of each place that holds any, in ascending order.

    hdrh's own iterator works out the value of every empty place too, which takes twenty times as long.
    """
    for index, count in enumerate(hdr.encoder.payload.counts[: hdr.counts_len]):
        if count:
            yield int(hdr.get_highest_equivalent_value(hdr.get_value_from_index(index))), int(count)


class Window(NamedTuple):
    """What was recorded from `start_ns` to `end_ns` (of the monotonic clock)."""

    start_ns: int
    end_ns: int
    histogram: LatencyHistogram


class WindowedRecorder:
    """Records into one histogram for each reporting window: one histogram call for each sample.

    Nothing is merged or encoded while the load runs: a window that is over is put aside as it is.
    After MAX_WINDOWS the last one takes the rest.
    """

    __slots__ = ("_current", "_start_ns", "_windows", "record")

    def __init__(self, start_ns: int) -> None:
        self._windows: list[Window] = []
        self._begin(start_ns)

    def _begin(self, start_ns: int) -> None:
        self._start_ns = start_ns
        self._current = LatencyHistogram()
        self.record = self._current.record

    def turn(self, now_ns: int) -> Window:
        """End the current window, begin the next, and return the ended one."""
        window = Window(self._start_ns, now_ns, self._current)
        if len(self._windows) < MAX_WINDOWS:
            self._windows.append(window)
            self._begin(now_ns)
        return window

    def windows(self, now_ns: int) -> list[Window]:
        """All windows, the current one ended at `now_ns` among them if it holds anything."""
        last = [Window(self._start_ns, now_ns, self._current)] if self._current.count else []
        return [*self._windows, *last]


def merged(histograms: Iterator[LatencyHistogram] | Sequence[LatencyHistogram]) -> LatencyHistogram:
    """One histogram with the counts of all."""
    total = LatencyHistogram()
    for histogram in histograms:
        total.merge(histogram.encode())
    return total


def hlog(start_time_s: float, windows: Sequence[Window]) -> str:
    """An interval log: a line for each window, times in seconds from the start, max in ms.

    `start_time_s` is the wall-clock time (seconds since the epoch) at which the first began.
    """
    when = datetime.fromtimestamp(start_time_s, UTC).isoformat(timespec="milliseconds")
    lines = [
        "#[Histogram log format version 1.2]",
        f"#[StartTime: {start_time_s:.3f} (seconds since epoch), {when}]",
        f"#[BaseTime: {start_time_s:.3f} (seconds since epoch)]",
        '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"',
    ]
    origin_ns = windows[0].start_ns if windows else 0
    for window in windows:
        begin_s = (window.start_ns - origin_ns) / 1e9
        length_s = (window.end_ns - window.start_ns) / 1e9
        largest_ms = (window.histogram.max_ns or 0) / 1e6
        lines.append(f"{begin_s:.3f},{length_s:.3f},{largest_ms:.3f},{window.histogram.encode()}")
    return "\n".join(lines) + "\n"
