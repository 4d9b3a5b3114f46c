"""How far the pipeline is behind the generator, and whether it falls behind more and more. PURE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

GROWTH_SHARE: Final = 0.005
"""Lag that grows by less than this share of the rate is not told from noise."""
LEAST_SAMPLES: Final = 8


class LagSample(NamedTuple):
    """At one moment: events that were due, those that were acknowledged to the generator, and those taken."""

    elapsed_s: float
    due: int
    acked: int
    taken: int

    @property
    def lag(self) -> int:
        """Events that were due and not yet taken by the pipeline, wherever they are held up."""
        return max(0, self.due - self.taken)


@dataclass(frozen=True, slots=True)
class LagTrend:
    """What the samples say. `growth_per_s` is None when there are too few to say."""

    mean: float
    largest: int
    growth_per_s: float | None
    grows: bool | None
    """None when there are too few samples to say."""


def trend(samples: Sequence[LagSample], rate: float, from_s: float, until_s: float) -> LagTrend:
    """Whether the lag grows in the measured part of the load, by a straight line through it.

    It grows when the line rises by more than GROWTH_SHARE of the rate and ends more than a tenth of a second's
    events above where it began.
    """
    settled = [sample for sample in samples if from_s <= sample.elapsed_s <= until_s]
    lags = [sample.lag for sample in settled]
    mean = sum(lags) / len(lags) if lags else 0.0
    largest = max(lags, default=0)
    if len(settled) < LEAST_SAMPLES:
        return LagTrend(mean, largest, None, None)
    middle_s = sum(each.elapsed_s for each in settled) / len(settled)
    middle = sum(each.lag for each in settled) / len(settled)
    spread = sum((each.elapsed_s - middle_s) ** 2 for each in settled)
    if spread == 0:
        return LagTrend(mean, largest, None, None)
    growth = sum((each.elapsed_s - middle_s) * (each.lag - middle) for each in settled) / spread
    risen = growth * (settled[-1].elapsed_s - settled[0].elapsed_s)
    return LagTrend(mean, largest, growth, growth > GROWTH_SHARE * rate and risen > rate / 10)
