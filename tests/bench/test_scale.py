"""Many partitions and connections, a large log, an idle broker: each measurement in small, and what can go wrong."""

from __future__ import annotations

import asyncio
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from frieda.bench.rounds import Values
from frieda.bench.scale import (
    MemoryWatch,
    Sizes,
    idle_connections,
    open_files,
    require_open_files,
)
from frieda.bench.side_by_side import Plan
from frieda.cli.main import run
from frieda.cli.measured import fresh_broker
from frieda.clients.admin import Admin
from frieda.errors import FriedaError
from frieda.testing.brokers import BrokerProcess

SMALL = Sizes(partitions=20, connections=30, written_mib=32, idle_s=0.5)


@pytest.fixture
def measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Values]:
    """Run one case of the part in small; nothing but its result may be left."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def run_case(name: str) -> Values:
        cases, _ = Plan(fresh_broker, 2000, SMALL).part("scale")
        (case,) = (case for case in cases if case.name == name)
        values = case.measure()
        assert list(tmp_path.iterdir()) == []
        return values

    return run_case


def test_a_producer_is_measured_alone_and_among_bystanders(
    measure: Callable[[str], Values],
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    for name in ("alone", "among bystanders"):
        values = measure(name)
        assert values["errors"] == 0
        assert (values["p50"] or 0) > 0
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == limits


def test_a_log_is_written_read_and_opened_again_after_a_stop_and_a_kill(
    measure: Callable[[str], Values],
) -> None:
    values = measure("large log")
    assert values["scanned_after_stop"] == 0
    assert values["scanned_segments"] == 1
    # Opening has its clock running, and the part that is scanned takes a while: 33 MiB, at some GB/s.
    assert (values["opening_after_kill_ms"] or 0) > 0
    # The interpreter alone has more than 10 MB, and nothing may grow with what is stored.
    assert 10 < (values["memory_mb"] or 0) < 150


def test_the_processor_time_of_an_idle_broker_is_measured(
    measure: Callable[[str], Values],
) -> None:
    percent = measure("idle")["cpu_percent"]
    assert percent is not None
    assert 0 <= percent < 50, "a broker that spins would use all of a core"


def test_the_connections_are_greeted_and_stay(tmp_path: Path) -> None:
    async def counted(url: str) -> int:
        async with Admin(url, polling="event") as admin:
            return (await admin.broker_health()).facts["connections_accepted"]

    with BrokerProcess(tmp_path, "--polling", "event") as broker:
        with idle_connections(broker.url, 25):
            assert asyncio.run(counted(broker.url)) == 26
        assert broker.stop() == (0, "")


@pytest.fixture
def deaf() -> Iterator[socket.socket]:
    """A listener that ends every connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def end_each() -> None:
            while True:
                sock, _ = listener.accept()
                with sock:
                    if sock.recv(65536) == b"":
                        return

        ending = threading.Thread(target=end_each)
        ending.start()
        yield listener
        with socket.create_connection(listener.getsockname()) as last:
            last.shutdown(socket.SHUT_WR)
            ending.join(10)


def test_a_connection_that_is_ended_instead_of_greeted_is_an_error(deaf: socket.socket) -> None:
    url = f"tcp://127.0.0.1:{deaf.getsockname()[1]}"
    with (
        pytest.raises(FriedaError, match=f"2 connections to {url} were not to be had: the broker"),
        idle_connections(url, 2),
    ):
        pytest.fail("there is no such connection")


def test_a_broker_that_is_not_there_is_an_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        with (
            pytest.raises(FriedaError, match=f"1 connections to {url} .*refused"),
            idle_connections(url, 1),
        ):
            pytest.fail("there is no such connection")


def test_more_open_files_are_allowed_for_as_long_as_they_are_needed() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, limits[1]))
    try:
        with open_files(600):
            assert resource.getrlimit(resource.RLIMIT_NOFILE) == (600, limits[1])
        with open_files(100):
            assert resource.getrlimit(resource.RLIMIT_NOFILE) == (512, limits[1])
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (512, limits[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_hard_limit_that_is_too_low_is_told_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 3000))
    require_open_files(3000)
    with pytest.raises(FriedaError, match="need 3001 open files, and the hard limit here is 3000"):
        require_open_files(3001)
    assert run(["bench", "side-by-side", "--latency", "--scale"]) == 1
    told = capfd.readouterr()
    assert "round" not in told.out
    assert "leave --scale out" in told.err
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, resource.RLIM_INFINITY))
    require_open_files(10**9)


class Memory:
    """What a process would say of its memory, in turn; tells when all was asked for."""

    def __init__(self, *values: int) -> None:
        self.asked = threading.Event()
        self._values = list(values)

    def __call__(self) -> int:
        if len(self._values) == 1:
            self.asked.set()
            return self._values[0]
        return self._values.pop(0)


def test_the_most_memory_of_all_looks_counts() -> None:
    memory = Memory(10, 30, 20)
    with MemoryWatch(memory) as watch:
        assert memory.asked.wait(30)
    assert watch.most_bytes == 30


def test_memory_is_looked_at_once_more_at_the_end() -> None:
    sizes = [10]
    with MemoryWatch(lambda: sizes[-1]) as watch:
        sizes.append(70)
    assert watch.most_bytes == 70


def gone() -> int:
    raise FileNotFoundError(2, "no such process")


def test_memory_that_cannot_be_read_is_an_error_unless_there_is_another() -> None:
    with pytest.raises(FriedaError, match="memory cannot be read"), MemoryWatch(gone):
        pass
    with pytest.raises(ValueError, match="the first"), MemoryWatch(gone):
        raise ValueError("the first")


def test_sizes_are_told_as_people_say_them() -> None:
    assert Sizes().written == "1 GiB"
    assert SMALL.written == "32 MiB"
