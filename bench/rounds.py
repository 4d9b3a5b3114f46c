"""Cases that take turns: what is compared is measured a moment apart, in rounds, and judged by its median.

In every round each case runs once, and each round begins with another one. A ratio is that of one round; what is
stated is its median over the rounds, beside the least and the greatest.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

Values = Mapping[str, float | None]
Item = TypeVar("Item")


class Case(NamedTuple):
    """One thing that is measured: its name, and a call that runs it once."""

    name: str
    measure: Callable[[], Values]


class Target(NamedTuple):
    """`value` of `case`, divided by that of `against` if there is one, and the bound it should keep."""

    title: str
    case: str
    value: str
    against: str | None
    bound: float
    at_most: bool = True
    unit: str = "times"


class Outcome(NamedTuple):
    """A target and what the rounds gave for it; `values` is empty when the samples could not carry it."""

    target: Target
    values: tuple[float, ...]

    @property
    def median(self) -> float | None:
        """The median over the rounds."""
        return statistics.median(self.values) if self.values else None

    @property
    def met(self) -> bool | None:
        """Whether the median keeps the bound; None when there is none."""
        median = self.median
        if median is None:
            return None
        return median <= self.target.bound if self.target.at_most else median >= self.target.bound


@dataclass(frozen=True, slots=True)
class SideBySide:
    """What was measured: for each case the values of each round, and what that says of each target."""

    outcomes: tuple[Outcome, ...]
    measurements: Mapping[str, Sequence[Values]] = field(default_factory=dict)


def run_side_by_side(
    cases: Sequence[Case],
    targets: Sequence[Target],
    rounds: int,
    on_measured: Callable[[int, str, Values], None] = lambda *_: None,
) -> SideBySide:
    """Measure every case once in each round, interleaved. Raises what a case raises."""
    measurements: dict[str, list[Values]] = {case.name: [] for case in cases}
    for number, case in interleaved(cases, rounds):
        values = case.measure()
        measurements[case.name].append(values)
        on_measured(number, case.name, values)
    return SideBySide(tuple(judge(target, measurements) for target in targets), measurements)


def interleaved(cases: Sequence[Item], rounds: int) -> Iterator[tuple[int, Item]]:
    """Every case once in each round (counted from 0), each round beginning with another one."""
    for number in range(rounds):
        first = number % len(cases)
        yield from ((number, case) for case in (*cases[first:], *cases[:first]))


def judge(target: Target, measurements: Mapping[str, Sequence[Values]]) -> Outcome:
    """What the rounds say of one target."""
    values: list[float] = []
    mine = measurements[target.case]
    theirs: Sequence[Values] = measurements[target.against] if target.against else mine
    for own, other in zip(mine, theirs, strict=True):
        value = own[target.value]
        if value is not None and target.against is not None:
            base = other[target.value]
            value = value / base if base else None
        if value is None:
            return Outcome(target, ())
        values.append(value)
    return Outcome(target, tuple(values))


def as_rows(outcomes: Sequence[Outcome]) -> list[dict[str, object]]:
    """The table: the target beside what was measured."""
    return [
        {
            "what": target.title,
            "target": f"{'<=' if target.at_most else '>='} {target.bound:g}",
            "median": outcome.median,
            "least": min(outcome.values, default=None),
            "greatest": max(outcome.values, default=None),
            "unit": target.unit,
            "met": {True: "yes", False: "NO", None: "too few samples"}[outcome.met],
        }
        for outcome in outcomes
        for target in (outcome.target,)
    ]
