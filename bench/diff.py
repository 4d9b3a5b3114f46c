"""What got slower or faster between two files of results, PURE, with a test that respects the spread.

The rounds of a case are its samples: two rounds of one machine differ, so a difference counts only when it is larger
than what the rounds differ by among themselves. The test is Wilcoxon's rank-sum test (Mann-Whitney), two-sided and
exact, ties sharing their mean rank: the share of all ways to deal the ranks out to the two files in which the rank sum
lies at least as far from its middle. It assumes nothing of how the values are distributed. With fewer than four rounds
on each side (3 and 3: p is at least 0.1) it can tell nothing at 5%, and says so.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from frieda.bench.comparison import LATENCIES, THROUGHPUT, values_by_round
from frieda.bench.results import Results, Run
from frieda.errors import ConfigError

Verdict = Literal["slower", "faster", "alike", "cannot tell"]

LEAST_PERCENT: Final = 5.0
ALPHA: Final = 0.05
MAX_ROUNDS: Final = 200
_MAY_DIFFER: Final = frozenset({"rate", "started"})
"""Settings that may differ between two files that ask for the same: the rate follows from what was sustained."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One value of one case in both files, medians over the rounds; latencies in microseconds."""

    case: str
    metric: str
    before: float | None
    after: float | None
    percent: float | None
    """Of the medians: negative is less."""
    p_value: float | None
    verdict: Verdict
    why: str = ""
    """Why it cannot be told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """All of them, and what is not comparable, as sentences."""

    differences: tuple[Difference, ...]
    notes: tuple[str, ...]

    @property
    def slower(self) -> bool:
        """Whether anything got slower."""
        return any(each.verdict == "slower" for each in self.differences)


def compare_files(
    before: Results, after: Results, *, least_percent: float = LEAST_PERCENT, alpha: float = ALPHA
) -> Differences:
    """Every case that is in both. A difference of less than `least_percent` is not worth telling.

    Raises ConfigError for a bound out of range, or two files without a case in common.
    """
    if not 0.0 <= least_percent <= 1000.0:
        raise ConfigError(f"least = {least_percent}: must be from 0 to 1000 percent")
    if not 0.0 < alpha < 1.0:
        raise ConfigError(f"alpha = {alpha}: must be between 0 and 1")
    old, new = before.cases(), after.cases()
    common = [case for case in old if case in new]
    if not common:
        raise ConfigError("the two files have no case in common, so there is nothing to compare")
    differences = [
        difference
        for case in common
        for difference in _differences(case, old[case], new[case], least_percent, alpha)
    ]
    return Differences(differences=tuple(differences), notes=tuple(_notes(before, after, old, new)))


def _differences(
    case: str, old: Sequence[Run], new: Sequence[Run], least_percent: float, alpha: float
) -> Iterator[Difference]:
    for metric in _metrics([*old, *new]):
        yield judge(
            case,
            metric,
            list(values_by_round(old, metric).values()),
            list(values_by_round(new, metric).values()),
            least_percent=least_percent,
            alpha=alpha,
        )


def judge(
    case: str,
    metric: str,
    before: Sequence[float],
    after: Sequence[float],
    *,
    least_percent: float = LEAST_PERCENT,
    alpha: float = ALPHA,
) -> Difference:
    """What the rounds of one value say. Of `records_per_sec` more is faster, of a latency less."""
    old = statistics.median(before) if before else None
    new = statistics.median(after) if after else None
    percent = p_value = None
    verdict: Verdict = "cannot tell"
    why = ""
    if old is None or new is None:
        why = "no valid round has it"
    else:
        percent = (new / old - 1) * 100 if old else None
        p_value = rank_sum_p(before, after)
        least_p = least_possible_p(len(before), len(after))
        if least_p > alpha:
            why = (
                f"too few rounds: {len(before)} and {len(after)} cannot reach p = {alpha:g} "
                f"(at best {least_p:.2g})"
            )
        elif p_value > alpha or percent is None or abs(percent) < least_percent:
            verdict = "alike"
        else:
            verdict = "slower" if (new > old) == (metric != THROUGHPUT) else "faster"
    return Difference(
        case=case,
        metric=metric,
        before=old,
        after=new,
        percent=percent,
        p_value=p_value,
        verdict=verdict,
        why=why,
    )


def rank_sum_p(first: Sequence[float], second: Sequence[float]) -> float:
    """The exact two-sided p-value of Wilcoxon's rank-sum test. Raises ValueError without values.

    Source: the permutation distribution of the sum of (mid-)ranks, counted by adding one rank after another.
    """
    if not first or not second:
        raise ValueError("both samples need at least one value")
    values = [*first, *second]
    if len(values) > 2 * MAX_ROUNDS:
        raise ConfigError(f"{len(values)} rounds: at most {2 * MAX_ROUNDS} can be compared")
    doubled = _doubled_ranks(values)
    size = len(first)
    # ways[k][s]: in how many ways k of the ranks so far add up to s.
    ways: list[Counter[int]] = [Counter({0: 1}), *(Counter() for _ in range(size))]
    for rank in doubled:
        for taken in range(size, 0, -1):
            for total, count in ways[taken - 1].items():
                ways[taken][total + rank] += count
    middle = size * sum(doubled)  # times len(values), to stay in whole numbers
    distance = abs(sum(doubled[:size]) * len(values) - middle)
    extreme = sum(
        count
        for total, count in ways[size].items()
        if abs(total * len(values) - middle) >= distance
    )
    return extreme / math.comb(len(values), size)


def least_possible_p(first: int, second: int) -> float:
    """The smallest p-value that so many rounds can give: all of one side beyond all of the other."""
    return min(1.0, 2 / math.comb(first + second, first))


def _doubled_ranks(values: Sequence[float]) -> list[int]:
    """Twice the rank of each value, from 1; equal ones share the mean of theirs."""
    ordered = sorted(values)
    first: dict[float, int] = {}
    last: dict[float, int] = {}
    for rank, value in enumerate(ordered, start=1):
        first.setdefault(value, rank)
        last[value] = rank
    return [first[value] + last[value] for value in values]


def _metrics(runs: Sequence[Run]) -> tuple[str, ...]:
    """A rate that was asked for says nothing; one that was reached does."""
    if any(run.settings.get("mode") == "throughput" for run in runs):
        return (THROUGHPUT,)
    open_loop = any(run.settings.get("loop") == "open" for run in runs)
    return LATENCIES if open_loop else (*LATENCIES, THROUGHPUT)


def _notes(
    before: Results,
    after: Results,
    old: Mapping[str, Sequence[Run]],
    new: Mapping[str, Sequence[Run]],
) -> Iterator[str]:
    for name, mine, others in (("first", old, new), ("second", new, old)):
        for case in mine:
            if case not in others:
                yield f"only the {name} file has {case}"
    for name in ("cpu", "cores", "kernel", "python"):
        if before.environment.get(name) != after.environment.get(name):
            yield (
                f"they ran on different machines or versions: {name} was "
                f"{before.environment.get(name)}, is {after.environment.get(name)}"
            )
    for case in old:
        if case in new:
            yield from _changed_settings(case, old[case][0].settings, new[case][0].settings)
            invalid = sum(not run.valid for run in (*old[case], *new[case]))
            if invalid:
                yield f"{case}: {invalid} invalid runs are left out"


def _changed_settings(
    case: str, old: Mapping[str, object], new: Mapping[str, object]
) -> Iterator[str]:
    for key in sorted(old.keys() | new.keys()):
        if key not in _MAY_DIFFER and old.get(key) != new.get(key):
            yield f"{case}: {key} was {old.get(key)!r}, is {new.get(key)!r}"
    earlier, later = old.get("rate"), new.get("rate")
    if isinstance(earlier, int | float) and isinstance(later, int | float) and earlier > 0:
        change = (later / earlier - 1) * 100
        if abs(change) >= LEAST_PERCENT:
            yield f"{case}: its rate was {earlier:,.0f} records/s, is {later:,.0f} ({change:+.0f}%)"
