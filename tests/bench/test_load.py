"""The load: shares add up, schedules keep their rate, lateness is told."""

from __future__ import annotations

from collections import Counter
from itertools import islice, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frieda.bench.load import (
    ZIPF_EXPONENT,
    KeyDistribution,
    Lateness,
    Load,
    burst_arrivals,
    constant_arrivals,
    default_warm_up,
    drawn_keys,
    poisson_arrivals,
    shares,
    split,
)
from frieda.errors import ConfigError


@given(total=st.integers(0, 10**9), parts=st.integers(1, 300))
def test_a_split_adds_up_and_is_even(total: int, parts: int) -> None:
    sizes = split(total, parts)
    assert len(sizes) == parts
    assert sum(sizes) == total
    assert max(sizes) - min(sizes) <= 1


@given(data=st.data())
def test_shares_add_up_to_the_load(data: st.DataObject) -> None:
    producers = data.draw(st.integers(1, 60))
    load = Load(
        records=data.draw(st.integers(producers, 10_000)),
        producers=producers,
        processes=data.draw(st.integers(1, producers)),
        rate=data.draw(st.floats(1, 1e6)),
        warm_up_records=data.draw(st.integers(0, 1000)),
    )
    processes = shares(load)
    flat = [share for process in processes for share in process]
    assert len(processes) == load.processes
    assert all(processes)
    assert [share.index for share in flat] == list(range(producers))
    assert sum(share.records for share in flat) == load.records
    assert sum(share.warm_up_records for share in flat) == load.warm_up_records
    assert sum(share.rate or 0 for share in flat) == pytest.approx(load.rate)
    assert len({share.seed for share in flat}) == producers


def test_producers_do_not_send_in_step() -> None:
    load = Load(records=400, producers=4, processes=2, rate=4000.0)
    flat = [share for process in shares(load) for share in process]
    assert [next(share.intended_times_ns()) for share in flat] == [0, 250_000, 500_000, 750_000]


@given(rate=st.floats(0.01, 1e7), count=st.integers(2, 300), phase=st.floats(0, 0.999))
def test_constant_arrivals_are_evenly_spaced_and_do_not_drift(
    rate: float, count: int, phase: float
) -> None:
    times = list(constant_arrivals(rate, count, phase))
    assert len(times) == count
    gaps = [after - before for before, after in pairwise(times)]
    assert max(gaps) - min(gaps) <= 1
    assert times[-1] - times[0] == pytest.approx((count - 1) * 1e9 / rate, rel=1e-6, abs=2)


def test_a_million_constant_arrivals_end_on_the_dot() -> None:
    *_, last = constant_arrivals(30_000.0, 900_001)
    assert last == 30 * 1_000_000_000


def test_poisson_arrivals_come_again_from_the_same_seed() -> None:
    assert list(poisson_arrivals(100.0, 50, 7)) == list(poisson_arrivals(100.0, 50, 7))
    assert list(poisson_arrivals(100.0, 50, 7)) != list(poisson_arrivals(100.0, 50, 8))


def test_poisson_arrivals_keep_their_rate_and_their_gaps_vary_as_they_should() -> None:
    times = list(poisson_arrivals(1000.0, 50_000, 3))
    gaps = [after - before for before, after in pairwise(times)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert mean == pytest.approx(1e6, rel=0.02)
    assert deviation / mean == pytest.approx(1.0, rel=0.03)
    assert times == sorted(times)


def test_a_closed_loop_has_no_schedule() -> None:
    [[share]] = shares(Load(records=10))
    with pytest.raises(ValueError, match="no intended send times"):
        share.intended_times_ns()


def test_the_schedule_covers_the_warm_up_too() -> None:
    [[share]] = shares(Load(records=10, warm_up_records=5, rate=10.0, arrivals="poisson"))
    assert len(list(share.intended_times_ns())) == 15


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"records": 0}, "records = 0: must be from 1"),
        ({"records": 10, "processes": 2}, "processes = 2: must not exceed producers = 1"),
        ({"records": 1, "producers": 2}, "at least one for each producer"),
        ({"records": 1, "rate": 0.0}, "rate = 0.0: must be from"),
        ({"records": 1, "rate": float("nan")}, "rate = nan: must be from"),
        ({"records": 1, "record_size_bytes": 0}, "record_size_bytes = 0"),
        ({"records": 1, "in_flight": 0}, "in_flight = 0"),
        ({"records": 1, "arrivals": "odd"}, "arrivals = 'odd': must be one of constant, poisson"),
        ({"records": 1, "keys": 0}, "keys = 0: must be from 1"),
        ({"records": 1, "key_distribution": "odd"}, "key_distribution = 'odd'"),
        ({"records": 1, "payload_form": "odd"}, "payload_form = 'odd'"),
        ({"records": 1, "burst_records": 0}, "burst_records = 0"),
        ({"records": 1, "max_behind_s": 0.0}, "max_behind_s = 0.0"),
    ],
)
def test_a_load_out_of_range_is_refused_by_name(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Load(**values)


def test_the_warm_up_is_a_tenth_and_bounded() -> None:
    assert (default_warm_up(9), default_warm_up(1000), default_warm_up(10**9)) == (0, 100, 20_000)


def test_lateness_counts_what_left_late_and_adds_up_over_processes() -> None:
    first, second = Lateness(), Lateness()
    for late_ns in (0, 1_000_000, 2_000_000):
        first.note(late_ns)
    second.note(4_000_000)
    first.add(second.summary())
    summary = first.summary()
    assert (summary.sends, summary.late_sends) == (4, 2)
    assert (summary.mean_us, summary.max_us) == (1750.0, 4000.0)


def test_a_record_that_leaves_too_early_is_a_fault_of_the_generator() -> None:
    with pytest.raises(ValueError, match="5 ns before its intended time"):
        Lateness().note(-5)


@given(
    rate=st.floats(1, 1e6),
    count=st.integers(1, 500),
    burst_records=st.integers(1, 120),
    phase=st.floats(0, 0.999),
)
def test_bursts_leave_at_one_moment_and_keep_the_mean_rate(
    rate: float, count: int, burst_records: int, phase: float
) -> None:
    times = list(burst_arrivals(rate, count, burst_records, phase))
    assert len(times) == count
    bursts = [times[first : first + burst_records] for first in range(0, count, burst_records)]
    assert all(len(set(burst)) == 1 for burst in bursts)
    moments = [burst[0] for burst in bursts]
    assert moments == list(constant_arrivals(rate / burst_records, len(bursts), phase))


def test_a_share_sends_its_bursts_by_the_settings_of_the_load() -> None:
    load = Load(records=12, rate=1000.0, arrivals="burst", burst_records=4)
    [[share]] = shares(load)
    assert list(share.intended_times_ns()) == [0] * 4 + [4_000_000] * 4 + [8_000_000] * 4


@pytest.mark.parametrize("distribution", ["uniform", "zipf"])
def test_keys_come_again_from_the_same_seed_and_none_is_out_of_range(
    distribution: KeyDistribution,
) -> None:
    draw = [list(islice(drawn_keys(10, distribution, seed), 20_000)) for seed in (3, 3, 4)]
    assert draw[0] == draw[1] != draw[2]
    assert set(draw[0]) == set(range(10))


def test_zipf_keys_have_the_weights_they_should_and_uniform_ones_the_same() -> None:
    keys = 50
    zipf = Counter(islice(drawn_keys(keys, "zipf", 5), 200_000))
    weights = [(rank + 1) ** -ZIPF_EXPONENT for rank in range(keys)]
    for rank in (0, 1, 9, 49):
        assert zipf[rank] / 200_000 == pytest.approx(weights[rank] / sum(weights), rel=0.1)
    uniform = Counter(islice(drawn_keys(keys, "uniform", 5), 200_000))
    assert max(uniform.values()) < 1.2 * min(uniform.values())
