"""Which runs may stand beside each other."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from frieda.bench.contests import Contest, Place, broker_share, contests, cores, series_of, spread
from frieda.bench.results import Results, Run
from frieda.errors import ConfigError

MakeRun = Callable[..., Run]
MakeResults = Callable[..., Results]


def only(found: list[Contest]) -> Contest:
    (contest,) = found
    return contest


def test_two_durability_classes_are_never_in_one_contest(
    make_run: MakeRun, make_results: MakeResults
) -> None:
    found = contests([make_results(make_run(), make_run("kafka", durability="disk"))])
    assert [contest.durability for contest in found] == ["cache", "disk"]
    assert [contest.series for contest in found] == [["Frieda tcp"], ["Kafka"]]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("acks", "all"),
        ("arrivals", "constant"),
        ("replication", 4),
        ("brokers", 4),
        ("loop", "closed"),
        ("mode", "throughput"),
        ("keys", 100),
    ],
)
def test_what_is_promised_and_what_is_sent_part_contests(
    make_run: MakeRun, make_results: MakeResults, name: str, value: object
) -> None:
    assert len(contests([make_results(make_run(), make_run("kafka", **{name: value}))])) == 2


def test_sizes_producers_rounds_and_systems_are_one_contest(
    make_run: MakeRun, make_results: MakeResults
) -> None:
    runs = [
        make_run(system, transport, producers=producers, record_size=size, round=round)
        for system, transport in (("frieda", "shm"), ("frieda", "tcp"), ("kafka", "tcp"))
        for producers in (2, 4)
        for size in (100, 1024)
        for round in (0, 1)
    ]
    contest = only(contests([make_results(*runs)]))
    assert contest.places == [Place(2, 100), Place(2, 1024), Place(4, 100), Place(4, 1024)]
    assert contest.series == ["Frieda shm", "Frieda tcp", "Kafka"]
    assert [run.round for run in contest.at(Place(2, 100), "Kafka")] == [0, 1]


def test_rates_that_differ_from_place_to_place_stay_together_and_at_one_place_they_part(
    make_run: MakeRun, make_results: MakeResults
) -> None:
    together = [make_run(producers=2, rate=500.0), make_run("kafka", producers=4, rate=900.0)]
    assert "500 to 900 records/s" in only(contests([make_results(*together)])).described()
    # Another system at the same place with another rate is not comparable.
    apart = [make_run(rate=500.0), make_run("kafka", rate=900.0)]
    assert [c.conditions["rate"] for c in contests([make_results(*apart)])] == [500.0, 900.0]


def test_a_setting_that_a_series_has_twice_parts_and_one_that_does_not_apply_joins_both(
    make_run: MakeRun, make_results: MakeResults
) -> None:
    runs = [
        make_run(polling="event", case="event"),
        make_run(polling="busy", case="busy"),
        make_run("kafka", polling=None),
    ]
    found = contests([make_results(*runs)])
    assert [contest.conditions["polling"] for contest in found] == ["event", "busy"]
    assert all(contest.series == ["Frieda tcp", "Kafka"] for contest in found)


def test_each_side_may_have_a_batching_of_its_own(
    make_run: MakeRun, make_results: MakeResults
) -> None:
    runs = [make_run(linger_ms=0.0), make_run("kafka", linger_ms=5.0)]
    assert only(contests([make_results(*runs)])).series == ["Frieda tcp", "Kafka"]


def test_the_same_place_of_two_files_is_not_pooled_and_different_places_are(
    make_run: MakeRun, make_results: MakeResults
) -> None:
    assert len(contests([make_results(make_run()), make_results(make_run())])) == 2
    other = make_results(make_run(producers=16))
    assert len(contests([make_results(make_run()), other])) == 1


def test_sweeps_of_the_model_and_the_roofline_are_no_contest(
    make_run: MakeRun, make_results: MakeResults
) -> None:
    sweep = make_results(make_run(), kind="model")
    assert contests([sweep, make_results(make_run(), kind="roofline")]) == []


@pytest.mark.parametrize(
    ("system", "transport", "driver", "name"),
    [
        ("frieda", "shm", "frieda", "Frieda shm"),
        ("kafka", "tcp", "confluent-kafka", "Kafka"),
        ("kafka", None, "aiokafka", "Kafka (aiokafka)"),
        ("redis", "unix", "redis", "Redis Streams (unix)"),
        ("nats", "tcp", "nats", "NATS JetStream"),
    ],
)
def test_a_series_is_named_after_the_system_and_how_it_is_loaded(
    make_run: MakeRun, system: str, transport: str | None, driver: str, name: str
) -> None:
    assert series_of(make_run(system, transport, driver=driver)) == name


def test_a_spread_is_median_least_and_greatest_and_nothing_when_a_round_cannot_say(
    make_run: MakeRun,
) -> None:
    runs = [make_run(round=number) for number in range(3)]
    values = {0: 5.0, 1: 1.0, 2: 3.0}
    found = spread(runs, lambda run: values[run.round])
    assert found is not None
    assert (found.median, found.least, found.greatest) == (3.0, 1.0, 5.0)
    assert spread(runs, lambda run: None if run.round == 1 else 1.0) is None


def test_an_invalid_run_is_no_valid_one(make_run: MakeRun, make_results: MakeResults) -> None:
    runs = [make_run(round=0), make_run(round=1, invalid_because="it was late")]
    contest = only(contests([make_results(*runs)]))
    assert len(contest.at(Place(8, 100), "Frieda tcp")) == 2
    assert [run.round for run in contest.valid_at(Place(8, 100), "Frieda tcp")] == [0]


def test_processor_time_that_was_not_measured_is_not_zero(make_run: MakeRun) -> None:
    assert cores(make_run(), "server") == pytest.approx(0.6)
    assert cores(make_run(), "redis") is None


def test_a_share_that_is_no_histogram_is_refused_with_its_name(make_run: MakeRun) -> None:
    assert broker_share([make_run()]) is None
    with pytest.raises(ConfigError, match="broker_share_histogram is damaged"):
        broker_share([make_run(extra={"broker_share_histogram": "HISTnonsense"})])


def test_a_setting_that_is_no_number_is_refused(
    make_run: MakeRun, make_results: MakeResults
) -> None:
    with pytest.raises(ConfigError, match="'many' where a number is needed"):
        contests([make_results(make_run(producers="many"))])
