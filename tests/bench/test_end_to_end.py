"""From produce to consume: every record comes to exactly one consumer, with its latency on one clock."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from frieda.bench import end_to_end
from frieda.bench.drive import DriveSettings
from frieda.bench.end_to_end import consumer_tasks, run_end_to_end
from frieda.bench.histogram import LatencyHistogram
from frieda.bench.load import Load
from frieda.errors import ConfigError, FriedaError
from frieda.testing.brokers import BrokerProcess


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    folder: Path = tmp_path_factory.mktemp("end-to-end") / "data"
    with BrokerProcess(folder, "--polling", "event") as process:
        yield process


def settings(broker: BrokerProcess, load: Load, **more: Any) -> DriveSettings:
    return DriveSettings(driver="frieda", address=broker.url, load=load, polling="event", **more)


@pytest.mark.parametrize(
    ("load", "more", "consumers"),
    [
        ({"in_flight": 3}, {}, 1),
        ({"rate": 3000.0, "in_flight": 500, "producers": 2}, {"partitions": 4}, 2),
        ({"in_flight": 500}, {"manner": "bulk"}, 1),
    ],
)
def test_every_record_comes_to_one_consumer_with_its_latency(
    broker: BrokerProcess, load: dict[str, Any], more: dict[str, Any], consumers: int
) -> None:
    whole = Load(records=1500, warm_up_records=100, **load)
    run = run_end_to_end(settings(broker, whole, **more), case="c", consumers=consumers)
    assert (run.records, run.errors, run.latency().count) == (1500, 0, 1500)
    assert run.settings["consumers"] == consumers
    assert set(run.client_settings) == {"producer", "consumer"}
    acknowledged = LatencyHistogram()
    acknowledged.merge(str(run.extra["acknowledged_histogram"]))
    assert acknowledged.count == 1500
    assert (run.service_histogram is not None) == ("rate" in load)
    assert run.elapsed_s > 0
    assert run.cpu_s["clients"] > 0


def test_records_too_small_for_their_times_are_refused(broker: BrokerProcess) -> None:
    small = settings(broker, Load(records=1, record_size_bytes=15))
    with pytest.raises(ConfigError, match="15 bytes has no room for its times: give at least 16"):
        run_end_to_end(small, case="c")


def test_more_consumers_than_partitions_are_refused(broker: BrokerProcess) -> None:
    with pytest.raises(ConfigError, match="consumers = 2: must be from 1 to the number of part"):
        run_end_to_end(settings(broker, Load(records=1)), case="c", consumers=2)


def test_the_consumers_share_the_partitions(broker: BrokerProcess) -> None:
    tasks = consumer_tasks(settings(broker, Load(records=1), partitions=5), 2)
    assert [task["options"]["partitions"] for task in tasks] == [(0, 1, 2), (3, 4)]


def test_records_that_never_come_are_not_waited_for_without_end(
    broker: BrokerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(end_to_end, "DRAIN_TIMEOUT_S", 0.5)
    # As if one more had been acknowledged than was sent.
    monkeypatch.setattr(end_to_end, "stored_records", lambda load, _: load.records + 1)
    with pytest.raises(FriedaError, match="101 records were acknowledged and 100 came"):
        run_end_to_end(settings(broker, Load(records=100)), case="c")


def test_a_load_that_fails_leaves_no_consumer_behind(broker: BrokerProcess) -> None:
    load = Load(records=10, record_size_bytes=100)
    refused = settings(broker, load, extra={"no_such_setting": 1})
    with pytest.raises(FriedaError):
        run_end_to_end(refused, case="c")
