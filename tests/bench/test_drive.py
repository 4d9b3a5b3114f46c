"""The load generator against a real broker: what it says was acknowledged is in the log, and every fact is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from frieda.bench.drive import DriveSettings, ServerMeter, run_drive, transport_of
from frieda.bench.drive_worker import MEASURED, MEASURING, run_queue_wait_s
from frieda.bench.drivers.registry import usable_driver
from frieda.bench.histogram import LatencyHistogram
from frieda.bench.load import Load
from frieda.bench.report import Progress
from frieda.clients.admin import Admin
from frieda.errors import ConfigError, FriedaError, MissingDependencyError
from frieda.testing.brokers import BrokerProcess


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    folder: Path = tmp_path_factory.mktemp("drive") / "data"
    with BrokerProcess(folder, "--polling", "event") as process:
        yield process


class Server:
    """A RunningSystem that uses a second of processor time with each look, and may have ended."""

    address = version = ""
    settings: Mapping[str, object] = {}

    def __init__(self, ended: str | None = None) -> None:
        self.seconds = 0.0
        self.ended = ended

    def cpu_seconds(self) -> float:
        self.seconds += 1.0
        return self.seconds

    def memory_bytes(self) -> int:
        return 0

    def require_alive(self) -> None:
        if self.ended is not None:
            raise FriedaError(self.ended)


async def stored(url: str, topic: str) -> int:
    async with Admin(url, polling="event") as admin:
        return sum((await admin.end_offsets(topic)).values())


@pytest.mark.parametrize(
    ("topic", "load", "manner"),
    [
        ("closed", {"in_flight": 5}, "each"),
        ("open", {"rate": 4000.0, "in_flight": 500, "arrivals": "poisson"}, "each"),
        ("bursts", {"rate": 4000.0, "in_flight": 500, "arrivals": "burst", "keys": 9}, "each"),
        ("bulk", {"in_flight": 500}, "bulk"),
    ],
)
def test_every_record_is_counted_and_stored_and_every_fact_is_told(
    broker: BrokerProcess, topic: str, load: dict[str, Any], manner: Any
) -> None:
    settings = DriveSettings(
        driver="frieda",
        address=broker.url,
        topic=topic,
        partitions=2,
        load=Load(records=2000, warm_up_records=100, producers=3, processes=2, **load),
        polling="event",
        manner=manner,
        facts={"durability": "cache"},
    )
    run = run_drive(settings, case="a case", round_number=4, server=Server())
    assert (run.case, run.round, run.system, run.driver) == ("a case", 4, "frieda", "frieda")
    assert (run.records, run.errors, run.latency().count) == (2000, 0, 2000)
    assert asyncio.run(stored(broker.url, topic)) == 2100
    assert run.records_per_sec > 0
    assert run.mb_per_sec == pytest.approx(run.records_per_sec * 100 / 1024 / 1024, rel=1e-3)
    assert run.cpu_s["clients"] > 0
    assert run.cpu_s["server"] == 1.0
    assert run.settings["durability"] == "cache"
    assert run.settings["rate"] == load.get("rate")
    assert run.settings["mode"] == ("throughput" if manner == "bulk" else "latency")
    assert run.settings["loop"] == ("open" if "rate" in load else "closed")
    assert run.settings["seed"] == 1
    assert run.client_settings["polling"] == "event"
    assert run.hlog.startswith("#[Histogram log format version 1.2]")
    if "rate" in load:
        assert run.lateness_us is not None
        assert run.lateness_us["sends"] == 2000
        assert run.lateness_us["own_late_sends"] <= run.lateness_us["late_sends"]
        assert run.backlog is not None
        assert run.backlog["unsent"] == 0
        assert run.service_histogram is not None
        service = LatencyHistogram()
        service.merge(run.service_histogram)
        assert service.count == 2000
    else:
        assert run.valid
        assert (run.lateness_us, run.backlog, run.service_histogram) == (None, None, None)


def test_the_lines_of_a_file_are_the_records(broker: BrokerProcess, tmp_path: Path) -> None:
    file = tmp_path / "lines"
    file.write_text("one\nthree\n")
    load = Load(records=200, payload=str(file), in_flight=4)
    run = run_drive(
        DriveSettings(driver="frieda", address=broker.url, load=load, polling="event"), case="c"
    )
    assert (run.records, run.settings["record_size"]) == (200, 4)
    assert run.settings["payload"] == "lines"
    assert run.mb_per_sec == pytest.approx(run.records_per_sec * 4 / 1024 / 1024, rel=1e-3)


def test_a_rate_that_cannot_be_kept_is_given_up_and_the_run_says_so(broker: BrokerProcess) -> None:
    load = Load(records=10**7, rate=1e7, in_flight=100, max_behind_s=0.5)
    run = run_drive(
        DriveSettings(driver="frieda", address=broker.url, load=load, polling="event"), case="c"
    )
    assert not run.valid
    assert run.invalid_because is not None
    assert run.invalid_because.startswith("given up with")
    assert run.backlog is not None
    assert run.records + run.backlog["unsent"] == 10**7


def test_a_load_whose_server_has_ended_says_what_the_server_said(
    broker: BrokerProcess, tmp_path: Path
) -> None:
    with BrokerProcess(tmp_path / "data", "--polling", "event") as doomed:
        settings = DriveSettings(
            driver="frieda",
            address=doomed.url,
            load=Load(records=10**8, in_flight=10),
            delivery_timeout_s=2.0,
        )

        def kill(_: Progress) -> None:
            doomed.kill()

        with pytest.raises(FriedaError, match="the last words"):
            run_drive(settings, case="c", server=_EndsWith(doomed), on_progress=kill)


class _EndsWith(Server):
    def __init__(self, process: BrokerProcess) -> None:
        super().__init__()
        self._process = process

    def require_alive(self) -> None:
        if self._process.ended:
            raise FriedaError("the last words")


def test_the_servers_time_is_that_between_the_first_who_measures_and_the_last() -> None:
    meter = ServerMeter(Server(), processes=2)
    meter.phase(MEASURING)
    meter.phase(MEASURING)
    meter.phase(MEASURED)
    assert meter.used_s is None
    meter.phase(MEASURED)
    assert meter.used_s == 1.0
    without = ServerMeter(None, processes=1)
    without.phase(MEASURING)
    without.phase(MEASURED)
    assert without.used_s is None


def test_a_server_that_has_ended_stops_the_load_at_the_next_news() -> None:
    seen: list[Progress] = []
    look = ServerMeter(Server(ended="it is gone"), processes=1).watching(seen.append)
    with pytest.raises(FriedaError, match="it is gone"):
        look(Progress(records=1, size_bytes=1, elapsed_s=1.0, mean_ns=1.0, max_ns=1))
    assert not seen


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"manner": "odd"}, "manner = 'odd': must be one of each, bulk"),
        ({"manner": "bulk", "load": Load(records=1, rate=1.0)}, "give no rate with it"),
        ({"manner": "bulk", "load": Load(records=1, keys=3)}, "give no keys with it"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        DriveSettings(**{"driver": "frieda", "address": "a", "load": Load(records=1), **values})


def test_a_driver_whose_library_is_missing_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "frieda.bench.drivers.frieda.FriedaDriver.missing", lambda _: "install it so"
    )
    with pytest.raises(MissingDependencyError, match="install it so"):
        usable_driver("frieda")


def test_the_transport_is_the_scheme_of_an_address_of_friedas() -> None:
    assert transport_of("frieda", "shm:///a/b.sock") == "shm"
    assert transport_of("redis", "redis://h:1") == "tcp"
    assert transport_of("redis", "unix:///a/b.sock") == "unix"
    assert transport_of("confluent-kafka", "h:1,i:2") == "tcp"


def test_the_wait_for_a_processor_is_read_where_the_kernel_counts_it(tmp_path: Path) -> None:
    file = tmp_path / "schedstat"
    assert run_queue_wait_s(file) is None
    file.write_text("123 2500000000 7\n")
    assert run_queue_wait_s(file) == 2.5
    file.write_text("odd\n")
    assert run_queue_wait_s(file) is None
    before = run_queue_wait_s()
    time.sleep(0)
    assert before is None or before >= 0
