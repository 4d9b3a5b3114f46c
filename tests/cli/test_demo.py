"""`frieda demo`: it compares real bytes, and whatever ends it, nothing of it stays but the picture."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from frieda.bench.histogram import LatencyHistogram
from frieda.bench.report import Result
from frieda.cli import demo as demo_module
from frieda.cli import round_trip
from frieda.cli.exit_codes import ExitCode
from frieda.cli.main import run
from frieda.cli.round_trip import MAX_FILE_BYTES, PIECE_BYTES, RoundTrip, a_real_file
from frieda.errors import FriedaError
from frieda.testing.brokers import BrokerProcess, running_server

TIMEOUT_S = 120.0


class RunningDemo:
    """The demo as a process whose temporary files, and whose children, can be told from all others."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.temporary = folder / "temporary"
        self.output = folder / "output"
        self.temporary.mkdir()
        self.output.mkdir()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "frieda", "demo", "--output", str(self.output), *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(self.temporary), "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
        self.text = ""

    def read_until(self, wanted: str) -> None:
        """Read its output until `wanted` has come."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + TIMEOUT_S
        while wanted not in self.text:
            ready, _, _ = select.select([self.process.stdout], [], [], deadline - time.monotonic())
            assert ready, f"{wanted!r} did not come; the output so far:\n{self.text}"
            chunk = os.read(self.process.stdout.fileno(), 65536)
            assert chunk, f"the demo ended before {wanted!r}:\n{self.text}"
            self.text += chunk.decode()

    def finish(self) -> int:
        """Read the rest and return the exit code."""
        rest, _ = self.process.communicate(timeout=TIMEOUT_S)
        self.text += rest.decode()
        return self.process.returncode

    def children(self) -> dict[int, str]:
        """The command lines of the processes that inherited its environment, itself left out."""
        mark = f"TMPDIR={self.temporary}\0".encode()
        found: dict[int, str] = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal() or int(entry.name) == self.process.pid:
                continue
            try:
                if mark in (entry / "environ").read_bytes() + b"\0":
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    if command:  # a zombie has none
                        found[int(entry.name)] = command
            except OSError:
                continue
        return found

    def child(self, part: str) -> int:
        """The child whose command line holds `part`, once there is one."""
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            for pid, command in self.children().items():
                if part in command:
                    return pid
        raise AssertionError(f"no child with {part!r} among {self.children()}")

    def nothing_is_left(self) -> bool:
        """No temporary file and no process."""
        return not list(self.temporary.iterdir()) and not self.children()


@pytest.fixture
def start() -> Iterator[Callable[..., RunningDemo]]:
    started: list[RunningDemo] = []
    # Not pytest's folder, whose name is so long that the path of a Unix socket in it would be too long.
    with tempfile.TemporaryDirectory(prefix="frieda-") as folder:

        def start_demo(*flags: str) -> RunningDemo:
            started.append(RunningDemo(Path(folder), *flags))
            return started[-1]

        yield start_demo
        for each in started:
            for pid in each.children():
                os.kill(pid, signal.SIGKILL)
            each.process.kill()
            each.process.communicate()


def test_a_quick_demo_compares_measures_draws_and_tidies(start: Callable[..., RunningDemo]) -> None:
    demo = start("--quick")
    assert demo.finish() == 0, demo.text
    assert demo.text.count("the same, byte for byte") == 2
    assert demo.text.count("20000 records sent, ") == 4
    assert "● Frieda over TCP" in demo.text
    assert "Frieda over shared memory" in demo.text.rpartition("● Frieda over TCP")[2]
    assert "transport=shm" in demo.text
    (picture,) = demo.output.iterdir()
    assert picture.name == "frieda-demo.png"
    assert picture.read_bytes().startswith(b"\x89PNG\r\n")
    assert demo.nothing_is_left()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing_behind(
    start: Callable[..., RunningDemo], number: signal.Signals
) -> None:
    demo = start()
    demo.read_until("Frieda over TCP")
    demo.child("frieda.bench.producer:send")
    demo.process.send_signal(number)
    assert demo.finish() == ExitCode.INTERRUPTED
    assert demo.nothing_is_left()
    assert not list(demo.output.iterdir())


def test_ctrl_c_at_a_terminal_reaches_the_broker_too_and_leaves_nothing(
    start: Callable[..., RunningDemo],
) -> None:
    demo = start()
    demo.read_until("Frieda over TCP")
    demo.child("frieda.bench.producer:send")
    os.killpg(demo.process.pid, signal.SIGINT)
    assert demo.finish() == ExitCode.INTERRUPTED
    assert demo.nothing_is_left()


@pytest.mark.parametrize(
    ("victim", "sentence"),
    [
        ("frieda.bench.producer:send", "a benchmark process ended before its result"),
        ("broker --data", "the broker process ended in the middle of the work"),
    ],
)
def test_a_killed_child_is_one_sentence_and_leaves_nothing_behind(
    start: Callable[..., RunningDemo], victim: str, sentence: str
) -> None:
    demo = start()
    demo.read_until("Frieda over TCP")
    demo.child("frieda.bench.producer:send")
    os.kill(demo.child(victim), signal.SIGKILL)
    assert demo.finish() == ExitCode.FAILURE
    assert demo.text.splitlines()[-1].startswith(f"frieda: {sentence}")
    assert demo.nothing_is_left()


@pytest.mark.parametrize(
    "size", [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 11 * PIECE_BYTES, MAX_FILE_BYTES]
)
async def test_any_content_comes_back_in_pieces_and_whole(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    async with running_server(tmp_path / "data") as server:
        in_pieces, whole = await round_trip._both_ways(server.urls[0], content)
    assert in_pieces.received == whole.received == content
    assert in_pieces.same
    assert in_pieces.records == -(-size // PIECE_BYTES)
    assert whole.records == 1
    assert len(set(whole.digests)) == 1


def test_bytes_that_differ_fail_the_demo(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def damaged(url: str, content: bytes) -> tuple[RoundTrip, RoundTrip]:
        good = RoundTrip(content, content, 1, 1, 0.1, 0.1)
        return good, RoundTrip(content, b"X" + content[1:], 1, 1, 0.1, 0.1)

    monkeypatch.setattr(demo_module, "send_and_read_back", damaged)
    assert run(["demo", "--quick"]) == ExitCode.FAILURE
    out = capsys.readouterr().out
    assert out.count("the same, byte for byte") == 1
    assert out.rstrip().endswith("DIFFERENT: this is a fault, please report it")


def test_a_file_that_no_record_can_hold_is_refused_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    assert run(["demo", "--file", str(large)]) == ExitCode.USAGE
    assert f"the demo sends files of at most {MAX_FILE_BYTES}" in capsys.readouterr().err


def test_this_python_has_a_file_to_send() -> None:
    file = a_real_file()
    assert 100_000 < file.stat().st_size <= MAX_FILE_BYTES


def test_without_matplotlib_the_curve_is_text_and_a_sentence_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    histogram = LatencyHistogram()
    histogram.record(50_000, 1000)
    result = Result(
        name="echo",
        records=1000,
        errors=0,
        size_bytes=1,
        elapsed_s=1.0,
        latency=histogram,
        settings={},
        environment={"cores": 2, "cpu": "a processor", "python": "CPython 3.11"},
    )
    demo_module._show_curve({"ours": result}, tmp_path / "frieda-demo.png")
    out = capsys.readouterr().out
    assert "● ours" in out
    assert "not drawn: drawing a figure needs matplotlib: pip install 'frieda[plots]'" in out
    assert not list(tmp_path.iterdir())


def test_a_broker_that_cannot_start_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from frieda.cli.own_broker import own_broker  # noqa: PLC0415

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with (
        pytest.raises(FriedaError, match=r"the broker did not start.*did you mean 'flush'"),
        own_broker("event", "never", "--set", "flash=batch"),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_a_broker_of_ours_that_was_killed_is_told_of_at_the_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from frieda.cli.own_broker import own_broker  # noqa: PLC0415

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(FriedaError, match="ended in the middle"), own_broker("event") as broker:
        kill(broker)
    assert broker.ended
    assert not list(tmp_path.iterdir())


def test_a_broker_on_shared_memory_starts_where_temporary_paths_are_too_long_for_a_socket(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from frieda.cli.own_broker import own_broker  # noqa: PLC0415

    long = tmp_path / ("long" * 30)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    with own_broker("event", transport="shm") as broker:
        socket = Path(broker.url.removeprefix("shm://"))
        assert socket.is_socket()
        assert list(long.iterdir())
    assert not socket.parent.exists()
    assert not list(long.iterdir())


def kill(broker: BrokerProcess) -> None:
    """SIGKILL from outside; returns when it has ended."""
    pidfd = os.pidfd_open(broker.pid)
    os.kill(broker.pid, signal.SIGKILL)
    assert select.select([pidfd], [], [], TIMEOUT_S)[0]
    os.close(pidfd)
