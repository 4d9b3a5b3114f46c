"""The whole benchmark: a real broker, a real Redis, processes; counts must be those of the generated events."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from frieda.bench.results import Results, read_results, write_results
from frieda.errors import ConfigError, FriedaError, TransportError
from frieda.testing.brokers import BrokerProcess
from frieda.ysb.benchmark import run_ysb
from frieda.ysb.comparison import changes, rows
from frieda.ysb.events import Skew
from frieda.ysb.outcome import YsbOutcome, YsbProgress
from frieda.ysb.result import as_run, failures, progress_line, summary_lines, window_latency
from frieda.ysb.settings import YsbSettings


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    folder: Path = tmp_path_factory.mktemp("ysb") / "data"
    with BrokerProcess(folder, "--polling", "event") as process:
        yield process
        code, errors = process.stop()
        assert (code, errors) == (0, "")


def settings_of(address: str, redis_url: str, **changed: Any) -> YsbSettings:
    values: dict[str, Any] = {
        "address": address,
        "redis_url": redis_url,
        "rate": 4000.0,
        "duration_s": 2.0,
        "warm_up_s": 0.0,
        "producers": 3,
        "processes": 1,
        "partitions": 3,
        "window_ms": 500,
        "sink_ms": 50.0,
        "polling": "event",
    }
    return YsbSettings(**values | changed)


def assert_exact(outcome: YsbOutcome, events: int = 8000) -> None:
    assert outcome.check.exact, outcome.check.sentence()
    assert failures(outcome) == []
    assert (outcome.generated["acked"], outcome.generated["errors"]) == (events, 0)
    assert (outcome.counted["events"], outcome.left_behind) == (events, 0)
    assert outcome.counted["malformed"] == outcome.counted["unjoined"] == 0
    assert outcome.check.views == outcome.counted["views"] > events / 4


@pytest.mark.parametrize(("partitions", "workers"), [(1, 1), (5, 2)])
def test_counts_are_exact_over_partitions_and_workers(
    broker: BrokerProcess, redis_url: str, partitions: int, workers: int
) -> None:
    news: list[YsbProgress] = []
    settings = settings_of(broker.url, redis_url, partitions=partitions, workers=workers)
    outcome = run_ysb(settings, news.append)
    assert_exact(outcome)
    # Four whole windows of a hundred campaigns, a few of which may be without a view.
    assert 390 <= len(outcome.latencies_ns) <= 400
    assert set(outcome.latencies_ns) == {
        (each.campaign, each.window_ms) for each in outcome.updates
    }
    assert outcome.start_ms % 500 == 0
    assert {window for _, window in outcome.latencies_ns} == {
        outcome.start_ms + number * 500 for number in range(4)
    }
    slowest_ms = (outcome.write_times.max_ns or 0) / 1e6 + 1  # three digits are kept of it
    for each in outcome.updates:
        # The original's own time is that of the same write: taken before it, in whole ms, on the same clock.
        written_ns = outcome.latencies_ns[each.campaign, each.window_ms]
        written_ms = written_ns / 1e6 + each.window_ms + 500
        assert each.time_updated_ms <= written_ms <= each.time_updated_ms + 1 + slowest_ms
    assert outcome.broker_share.count > 0
    assert news
    assert all(each.lag >= 0 for each in news)


def test_counts_are_exact_when_workers_are_killed_at_several_moments(
    broker: BrokerProcess, redis_url: str
) -> None:
    settings = settings_of(
        broker.url, redis_url, workers=2, kills=4, sink_ms=5.0, duration_s=4.0, seed=5
    )
    outcome = run_ysb(settings)
    assert outcome.kills == 4
    assert_exact(outcome, events=16_000)
    run = as_run(outcome, case="killed", system="frieda", durability="cache")
    assert not run.valid
    assert "killed 4 times" in str(run.invalid_because)


def test_late_events_are_counted_or_dropped_and_none_is_lost(
    broker: BrokerProcess, redis_url: str
) -> None:
    settings = settings_of(
        broker.url,
        redis_url,
        partitions=2,
        workers=2,
        kills=1,
        allowed_lateness_ms=3000,
        skew=Skew(late_every=40, late_ms=10_000),
    )
    outcome = run_ysb(settings)
    assert_exact(outcome)
    assert outcome.counted["late"] > 0
    assert outcome.counted["dropped"] == outcome.check.dropped > 0


def test_over_shared_memory_the_same(
    redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("s")
    with BrokerProcess(folder / "data", listen=f"shm://{folder}/broker.sock") as broker:
        assert_exact(run_ysb(settings_of(broker.url, redis_url)))


def test_at_a_small_rate_the_lag_does_not_grow(broker: BrokerProcess, redis_url: str) -> None:
    outcome = run_ysb(settings_of(broker.url, redis_url, rate=1000.0, duration_s=8.0))
    assert_exact(outcome)
    assert outcome.lag.grows is False
    lines = "\n".join(summary_lines(outcome))
    assert "it does not grow: 1000/s hold" in lines
    assert "counts exact" in lines


def test_what_is_sent_to_warm_up_is_checked_and_not_measured(
    broker: BrokerProcess, redis_url: str
) -> None:
    settings = settings_of(broker.url, redis_url, warm_up_s=1.0, duration_s=1.0)
    outcome = run_ysb(settings)
    assert_exact(outcome)
    assert {window for _, window in outcome.latencies_ns} == {
        outcome.start_ms + 1000,
        outcome.start_ms + 1500,
    }
    assert {each.window_ms for each in outcome.updates} == {
        outcome.start_ms + number * 500 for number in range(4)
    }
    run = as_run(outcome, case="warm", system="frieda", durability="cache")
    assert run.records == 4000
    assert run.elapsed_s < outcome.settings.total_s + 60
    assert outcome.generated["ticks"] <= 3 * 1002


def test_a_result_can_be_written_read_and_compared(
    broker: BrokerProcess, redis_url: str, tmp_path: Path
) -> None:
    outcome = run_ysb(settings_of(broker.url, redis_url, rate=2000.0, duration_s=1.0))
    assert_exact(outcome, events=2000)
    ours = as_run(outcome, case="frieda tcp", system="frieda", durability="cache", transport="tcp")
    other = as_run(outcome, case="kafka", system="kafka", durability="cache")
    write_results(
        tmp_path, Results(kind="ysb", command="frieda ysb", environment={}, runs=[ours, other])
    )
    read = read_results(tmp_path)
    assert read.kind == "ysb"
    assert [run.case for run in read.runs] == ["frieda tcp", "kafka"]
    run = read.runs[0]
    assert run.latency().count == window_latency(outcome).count == len(outcome.latencies_ns)
    assert run.records == 2000
    assert run.extra["exact"] is True
    assert run.settings["sink_ms"] == 50.0
    table = rows(read.runs)
    assert [(row["system"], row["latency"]) for row in table] == [
        (name, latency)
        for name in ("frieda tcp", "kafka")
        for latency in ("window", "broker and clients")
    ]
    assert all(row["counts"] == "exact" for row in table)
    changed = changes(read.runs)
    assert [row["change in %"] for row in changed] == ["frieda tcp / kafka"] * 2
    assert changed[0]["mean"] == 0


def test_a_redis_that_holds_campaigns_is_refused_before_anything_is_sent(
    broker: BrokerProcess, redis_url: str
) -> None:
    settings = settings_of(broker.url, redis_url, rate=500.0, duration_s=0.2)
    assert_exact(run_ysb(settings), events=100)
    with pytest.raises(ConfigError, match="holds campaigns already"):
        run_ysb(settings)


def test_a_broker_that_is_not_there_is_named(redis_url: str) -> None:
    with pytest.raises(TransportError, match=r"127\.0\.0\.1:1"):
        run_ysb(settings_of("tcp://127.0.0.1:1", redis_url))


def test_a_broker_that_dies_in_the_middle_ends_the_run(redis_url: str, tmp_path: Path) -> None:
    with BrokerProcess(tmp_path / "data", "--polling", "event") as broker:
        settings = settings_of(broker.url, redis_url, duration_s=30.0, delivery_timeout_s=2.0)

        def die(_: YsbProgress) -> None:
            broker.kill()

        def require_alive() -> None:
            if broker.ended:
                raise FriedaError("the broker has died")

        with pytest.raises(FriedaError, match=r"died|acknowledged|connect"):
            run_ysb(settings, die, require_alive)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"workers": 4}, "workers = 4: must not exceed partitions = 3"),
        ({"sink_ms": 0.5}, "sink_ms = 0.5: must be from 1 to 60000"),
        ({"processes": 4}, "processes = 4: must not exceed producers = 3"),
        ({"window_ms": 0}, "window_ms = 0"),
        ({"rate": 0.0}, "rate"),
        ({"kills": -1}, "kills = -1"),
    ],
)
def test_a_setting_out_of_range_is_named(changed: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        settings_of("tcp://127.0.0.1:9500", "unix:///x", **changed)


def test_a_progress_line_tells_rate_lag_and_window_latency() -> None:
    progress = YsbProgress(
        elapsed_s=3.0, sent_per_s=119_999.6, taken_per_s=120_000.2, lag=42, behind_ms=3.5,
        window_latency_ms=512.25, kills=1,
    )  # fmt: skip
    assert progress_line(progress) == (
        "   3.0 s:    120000 events/s sent,    120000 taken, lag 42 (4 ms), window latency 512.2 ms, 1 kills"
    )
