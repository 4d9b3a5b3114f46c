"""What got slower: only what differs by more than the rounds do among themselves, and by enough to matter."""

from __future__ import annotations

import random
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frieda.bench.diff import compare_files, judge, least_possible_p, rank_sum_p
from frieda.bench.histogram import LatencyHistogram
from frieda.bench.results import Results, Run
from frieda.errors import ConfigError

VALUES = st.lists(
    st.sampled_from([1.0, 2.0, 2.5, 3.0, 7.0]) | st.floats(0, 100), min_size=1, max_size=5
)


def mean_rank(value: float, values: list[float]) -> float:
    """1 + how many are less, and half of the others that are equal."""
    return 1 + sum(v < value for v in values) + (values.count(value) - 1) / 2


def by_dealing_out(first: list[float], second: list[float]) -> float:
    """The p-value by definition: every way to choose the first sample's places is looked at."""
    values = first + second
    ranks = [mean_rank(value, values) for value in values]
    middle = len(first) * (len(values) + 1) / 2
    distance = abs(sum(ranks[: len(first)]) - middle)
    sums = [
        sum(ranks[n] for n in places) for places in combinations(range(len(values)), len(first))
    ]
    return sum(abs(total - middle) >= distance for total in sums) / len(sums)


@given(first=VALUES, second=VALUES)
def test_the_p_value_is_that_of_dealing_the_ranks_out_in_every_way(
    first: list[float], second: list[float]
) -> None:
    assert rank_sum_p(first, second) == pytest.approx(by_dealing_out(first, second))
    assert rank_sum_p(first, second) == pytest.approx(rank_sum_p(second, first))
    if len(set(first + second)) == len(first + second):
        assert rank_sum_p(first, second) >= least_possible_p(len(first), len(second)) - 1e-12


@pytest.mark.parametrize(
    ("first", "second", "p_value"),
    [
        # Tables of the exact distribution, e.g. Hollander and Wolfe, Nonparametric Statistical Methods, A.6.
        ([1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0], 2 / 70),
        ([1.0, 2.0, 3.0], [4.0, 5.0, 6.0], 2 / 20),
        ([1.0, 2.0, 3.0, 5.0], [4.0, 6.0, 7.0, 8.0], 4 / 70),
        ([3.0, 3.0], [3.0, 3.0], 1.0),
    ],
)
def test_known_p_values(first: list[float], second: list[float], p_value: float) -> None:
    assert rank_sum_p(first, second) == pytest.approx(p_value)


def test_chance_alone_is_told_about_as_often_as_alpha_says() -> None:
    generator = random.Random(11)
    told = sum(
        rank_sum_p(
            [generator.lognormvariate(0, 1) for _ in range(6)],
            [generator.lognormvariate(0, 1) for _ in range(6)],
        )
        <= 0.05
        for _ in range(2000)
    )
    assert 0.02 < told / 2000 < 0.06


def test_many_rounds_are_counted_in_reasonable_time_and_too_many_refused() -> None:
    first, second = [float(n) for n in range(40)], [n + 0.5 for n in range(40)]
    assert 0.8 < rank_sum_p(first, second) <= 1.0
    with pytest.raises(ConfigError, match="402 rounds: at most 400"):
        rank_sum_p([1.0] * 201, [1.0] * 201)
    with pytest.raises(ValueError, match="at least one value"):
        rank_sum_p([], [1.0])


QUIET = [100.0, 101.0, 102.0, 103.0, 104.0]


def verdict(before: list[float], after: list[float], metric: str = "p99", **more: Any) -> str:
    return judge("c", metric, before, after, **more).verdict


def test_a_difference_beyond_the_spread_is_told_in_its_direction() -> None:
    twice = [value * 2 for value in QUIET]
    assert verdict(QUIET, twice) == "slower"
    assert verdict(twice, QUIET) == "faster"
    assert verdict(QUIET, twice, "records_per_sec") == "faster"
    assert verdict(twice, QUIET, "records_per_sec") == "slower"


def test_a_difference_within_the_spread_is_not_told() -> None:
    assert (
        verdict([100.0, 200.0, 150.0, 400.0, 90.0], [300.0, 120.0, 210.0, 160.0, 450.0]) == "alike"
    )


def test_a_certain_but_small_difference_is_not_worth_telling() -> None:
    slightly = [value + 4.0 for value in [101.0, 102.0, 103.0, 104.0, 105.0]]
    assert verdict(QUIET, slightly) == "alike"
    assert verdict(QUIET, slightly, least_percent=1.0) == "slower"


def test_too_few_rounds_tell_nothing_however_large_the_difference() -> None:
    found = judge("c", "p50", QUIET[:3], [1e6, 1e6 + 1, 1e6 + 2])
    assert found.verdict == "cannot tell"
    assert "too few rounds: 3 and 3 cannot reach p = 0.05 (at best 0.1)" in found.why
    assert verdict(QUIET[:4], [1e6, 1e6 + 1, 1e6 + 2, 1e6 + 3]) == "slower"


def test_a_value_that_no_round_has_cannot_be_told() -> None:
    found = judge("c", "p99.9", [], QUIET)
    assert (found.verdict, found.why, found.percent) == (
        "cannot tell",
        "no valid round has it",
        None,
    )


def run(case: str, number: int, p50: float | None, **more: Any) -> Run:
    settings = {"loop": "open", "mode": "latency", "acks": 1} | more.pop("settings", {})
    values: dict[str, Any] = {
        "case": case,
        "round": number,
        "system": "frieda",
        "driver": "frieda",
        "settings": settings,
        "records": 1,
        "elapsed_s": 1.0,
        "records_per_sec": 50.0 + number,
        "latency_us": {"p50": p50, "p99": None, "p99.9": None},
        "histogram": LatencyHistogram().encode(),
    }
    return Run(**values | more)


def file(*runs: Run, **environment: object) -> Results:
    return Results(kind="compare", command="c", environment=environment, runs=runs)


def rounds(case: str, values: list[float], **more: Any) -> list[Run]:
    return [run(case, number, value, **more) for number, value in enumerate(values)]


def test_the_cases_of_both_files_are_compared_and_what_is_in_one_only_is_named() -> None:
    twice = [value * 2 for value in QUIET]
    before = file(*rounds("a", QUIET), *rounds("b", QUIET), *rounds("old", QUIET))
    after = file(*rounds("b", twice), *rounds("a", QUIET), *rounds("new", QUIET))
    found = compare_files(before, after)
    told = {(each.case, each.metric): each.verdict for each in found.differences}
    assert told["a", "p50"] == "alike"
    assert told["b", "p50"] == "slower"
    assert told["b", "p99"] == "cannot tell"
    assert found.slower
    assert found.notes == ("only the first file has old", "only the second file has new")
    assert not compare_files(before, before).slower


def test_invalid_runs_count_in_nothing_and_are_told() -> None:
    odd = [run("a", 9, 1e9, invalid_because="late")]
    found = compare_files(file(*rounds("a", QUIET), *odd), file(*rounds("a", QUIET)))
    assert {each.verdict for each in found.differences} == {"alike", "cannot tell"}
    assert found.notes == ("a: 1 invalid runs are left out",)


def test_what_is_compared_depends_on_what_was_measured() -> None:
    def metrics(**settings: object) -> list[str]:
        of = file(*rounds("a", QUIET, settings=settings))
        return [each.metric for each in compare_files(of, of).differences]

    assert metrics(loop="open") == ["p50", "p99", "p99.9"]
    assert metrics(loop="closed") == ["p50", "p99", "p99.9", "records_per_sec"]
    assert metrics(mode="throughput", loop="closed") == ["records_per_sec"]


def test_other_settings_and_machines_are_told_but_a_rate_only_when_it_moved() -> None:
    before = file(*rounds("a", QUIET, settings={"acks": 1, "rate": 100.0}), cores=2)
    same = file(*rounds("a", QUIET, settings={"acks": 1, "rate": 103.0}), cores=2)
    assert compare_files(before, same).notes == ()
    other = file(*rounds("a", QUIET, settings={"acks": "all", "rate": 150.0}), cores=4)
    assert compare_files(before, other).notes == (
        "they ran on different machines or versions: cores was 2, is 4",
        "a: acks was 1, is 'all'",
        "a: its rate was 100 records/s, is 150 (+50%)",
    )


def test_bounds_out_of_range_and_files_without_a_common_case_are_refused() -> None:
    of = file(*rounds("a", QUIET))
    with pytest.raises(ConfigError, match="least = -1: must be from 0"):
        compare_files(of, of, least_percent=-1)
    with pytest.raises(ConfigError, match=r"alpha = 1\.0: must be between 0 and 1"):
        compare_files(of, of, alpha=1.0)
    with pytest.raises(ConfigError, match="no case in common"):
        compare_files(of, file(*rounds("b", QUIET)))
