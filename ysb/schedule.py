"""When each event of a producer is due at a constant rate, PURE; the times are those of `bench.load.constant_arrivals`.

That gives the times one after the other; this also says how many are due by a moment, without counting, so that a
tick can send all of its events at once.
"""

from __future__ import annotations

from fractions import Fraction

from frieda.bench.load import NS_PER_S, ProducerShare


class Schedule:
    """The times of one producer's events, in ns from the start, for a share of a load that has a rate."""

    __slots__ = ("_offset", "_step", "_unit", "count")

    def __init__(self, share: ProducerShare) -> None:
        if share.rate is None:
            raise ValueError("without a rate there are no intended times")
        interval_ns = (Fraction(NS_PER_S) / Fraction(share.rate)).limit_denominator(10**6)
        self._step, self._unit = interval_ns.numerator, interval_ns.denominator
        self._offset = int(Fraction(share.phase).limit_denominator(10**6) * self._step)
        self.count = share.records

    def time_ns(self, number: int) -> int:
        """When event `number` (from 0) is due."""
        return (self._offset + number * self._step) // self._unit

    def due_by(self, time_ns: int) -> int:
        """How many events are due at `time_ns` or before."""
        # time_ns(n) <= t is the same as offset + n * step < (t + 1) * unit.
        room = (time_ns + 1) * self._unit - self._offset
        return 0 if room <= 0 else min(self.count, -(-room // self._step))
