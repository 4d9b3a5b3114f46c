"""The plan of a comparison: names that stay, loads that are the same on every side, mistakes that are named."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frieda.bench.plan import (
    MOST_BYTES_UNDER_WAY,
    Batching,
    Contender,
    Method,
    Plan,
    Point,
    case_name,
    drive_settings,
    size_name,
)
from frieda.errors import ConfigError

OURS = Contender(label="frieda tcp", driver="frieda", address="tcp://h:1")
THEIRS = Contender(label="kafka", driver="confluent-kafka", address="h:1")


def test_the_name_of_a_point_says_what_is_not_as_usual() -> None:
    assert Point().name == "1 producer, 100 B"
    point = Point(
        producers=16, record_size_bytes=16384, acks=-1, brokers=4, replication=4, rate_share=0.5
    )
    assert point.name == "16 producers, 16 KiB, acks=all, 4 brokers, replication 4, 50% load"
    assert (
        case_name(OURS, Point(acks=0, rate=2e4)) == "frieda tcp, 1 producer, 100 B, acks=0, 20000/s"
    )
    assert [size_name(size) for size in (1000, 1024, 1536, 2**20)] == [
        *("1000 B", "1 KiB", "1536 B", "1 MiB"),
    ]


def test_the_length_of_a_run_is_given_in_records_or_in_seconds_of_its_rate() -> None:
    method = Method(records=1000, duration_s=3.0)
    assert method.load(Point(producers=2), 500.0).records == 1500
    assert method.load(Point(producers=2), None).records == 1000
    assert method.load(Point(producers=7), 0.5).records == 7


def test_as_fast_as_it_goes_a_run_writes_no_more_than_a_disk_can_be_asked_for() -> None:
    large = Point(producers=8, record_size_bytes=1024 * 1024)
    assert Method(kind="throughput").load(large, None).records == 2048
    assert Method(kind="throughput").load(Point(), None).records == 100_000
    assert Method().load(large, None).records == 100_000


def test_the_warm_up_is_as_long_as_the_load_within_a_bound() -> None:
    point = Point()
    assert Method(records=300).load(point, None).warm_up_records == 300
    assert Method(records=10**6).load(point, None).warm_up_records == 20_000
    assert Method(records=300, warm_up_records=7).load(point, None).warm_up_records == 7


@given(
    producers=st.integers(1, 64),
    size=st.integers(1, 2**20),
    kind=st.sampled_from(["latency", "throughput", "end-to-end"]),
    open_loop=st.booleans(),
)
def test_what_may_be_under_way_is_bounded_in_bytes(
    producers: int, size: int, kind: Any, open_loop: bool
) -> None:
    point = Point(producers=producers, record_size_bytes=size)
    in_flight = Method(kind=kind).in_flight_at(point, open_loop=open_loop)
    assert in_flight <= 2 or in_flight * size * producers <= MOST_BYTES_UNDER_WAY
    assert Method(kind=kind, in_flight=9).in_flight_at(point, open_loop=open_loop) == 9


def test_a_closed_loop_has_one_record_under_way_unless_it_is_told_otherwise() -> None:
    method = Method()
    assert method.in_flight_at(Point(), open_loop=False) == 1
    assert method.in_flight_at(Point(), open_loop=True) == 1000
    assert Method(kind="throughput").in_flight_at(Point(), open_loop=False) == 20_000


def test_every_side_gets_the_same_load() -> None:
    point = Point(producers=4, rate=100.0)
    plan = Plan(contenders=(OURS, THEIRS), points=(point,), method=Method(processes=2))
    ours, theirs = (
        drive_settings(plan, each, point, "a", 100.0, Batching()) for each in plan.contenders
    )
    assert ours.load == theirs.load
    assert ours.load.processes == 2
    assert (ours.linger_ms, theirs.linger_ms) == (0.0, 0.0)
    told = ("contender", "durability")
    assert [ours.facts[name] for name in told] == ["frieda tcp", "cache"]
    assert ours.facts["point"] == theirs.facts["point"] == point.name


def plan(**values: Any) -> Plan:
    return Plan(**{"contenders": (OURS, THEIRS), "points": (Point(),), **values})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Point(rate=1.0, rate_share=0.5), "a rate or a share of a rate, not both"),
        (lambda: Point(rate_share=0.0), r"rate_share = 0\.0: must be above 0"),
        (lambda: Point(acks=2), "acks = 2: must be 0, 1 or -1"),
        (lambda: Point(brokers=0), "brokers = 0: must be from 1"),
        (lambda: Point(brokers=2, replication=3), "replication = 3: needs as many brokers"),
        (lambda: Method(kind="speed"), "kind = 'speed': must be one of latency"),  # type: ignore[arg-type]
        (lambda: Method(duration_s=0.0), r"duration_s = 0\.0: must be from"),
        (
            lambda: Contender(label="a", driver="b"),
            "a: give either a system to start or an address",
        ),
        (lambda: plan(contenders=()), "no system is left"),
        (lambda: plan(contenders=(OURS, OURS)), "a system is named twice"),
        (lambda: plan(points=()), "no point is given"),
        (lambda: plan(rounds=0), "rounds = 0: must be from 1"),
        (lambda: plan(durability="ram"), "durability = 'ram': must be one of cache, disk"),
        (
            lambda: plan(points=(Point(rate_share=0.5),), reference="nats"),
            "the rate of 'nats' is asked for, which is not measured: name one of frieda tcp, kafka",
        ),
        (
            lambda: plan(points=(Point(rate=5.0),), method=Method(kind="throughput")),
            "throughput is measured without a rate",
        ),
        (lambda: plan(points=(Point(producers=0),)), "producers = 0"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_started(
    make: Any, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        make()
