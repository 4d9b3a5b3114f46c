"""Brokers for tests: one inside the test's own event loop, and one as a process that can be killed."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, Final

from frieda.broker.server import Server
from frieda.cli.assembly import make_server
from frieda.clock import Clock
from frieda.config import BrokerConfig
from frieda.storage.filesystem import FileSystem

START_TIMEOUT_S: Final = 120.0
_END_TIMEOUT_S: Final = 60.0
_READY = re.compile(rb"is ready at (\S+(?:, \S+)*) \(")


@contextlib.asynccontextmanager
async def running_server(
    data: Path | str,
    *,
    filesystem: FileSystem | None = None,
    clock: Clock | None = None,
    limits: Mapping[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[Server]:
    """A broker on the running loop, at a free port unless `listen` is given; stopped in order at the end.

    `limits`: fields of TransportLimits that shall differ.
    """
    values: dict[str, Any] = {"listen": ("tcp://127.0.0.1:0",), "polling": "event"} | settings
    config = BrokerConfig(data=str(data), **values)
    server = make_server(config, filesystem=filesystem, clock=clock)
    if limits:
        changed = replace(server.runtime.limits, **limits)
        server.runtime = replace(server.runtime, limits=changed)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


class BrokerProcess:
    """`frieda broker` as a child process. Use it as a context manager: the end kills what is left."""

    def __init__(
        self, data: Path | str, *flags: str, listen: str | tuple[str, ...] = "tcp://127.0.0.1:0"
    ) -> None:
        self.data = str(data)
        self._flags = flags
        self._listen = (listen,) if isinstance(listen, str) else listen
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[str] | None = None
        self.urls: tuple[str, ...] = ()
        """Where it listens."""

    @property
    def url(self) -> str:
        """The first of its addresses; empty before the first start."""
        return self.urls[0] if self.urls else ""

    def __enter__(self) -> BrokerProcess:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def ended(self) -> bool:
        """It does not run: never started, stopped, killed from outside, or ended by itself."""
        return self._process is None or self._process.poll() is not None

    def start(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Start it and wait until it is ready. The second start listens at the addresses of the first.

        Raises RuntimeError, with what the broker wrote to standard error, when it ends or is not ready within
        `timeout_s`; it is killed then.
        """
        command = [sys.executable, "-m", "frieda", "broker", "--data", self.data]
        for url in self.urls or self._listen:
            command += ["--listen", url]
        command += ["--log-level", "warning", *self._flags]
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith("FRIEDA_")
        }
        # A file, not a pipe: nobody reads it while the broker runs, and a full pipe would stop the broker.
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed in _ended)
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self._errors, env=environment
        )
        try:
            line, in_time = self._first_line(timeout_s)
        except BaseException:
            self.kill()
            raise
        ready = _READY.search(line)
        if ready is None:
            # Without output it is about to end; late, it is not.
            code, errors = self._given_up(_END_TIMEOUT_S if in_time else 0.0)
            problem = "did not start" if in_time else f"was not ready within {timeout_s:g} s"
            raise RuntimeError(f"the broker {problem} (exit code {code}): {line.decode()}{errors}")
        self.urls = tuple(ready.group(1).decode().split(", "))

    def kill(self) -> None:
        """SIGKILL, as a crash. Nothing happens when it is not running."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._ended()

    def stop(self, timeout_s: float = 120.0) -> tuple[int, str]:
        """SIGTERM; its exit code and what it wrote to standard error."""
        process = self._running()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=timeout_s)
        return process.returncode, self._ended()

    def pause(self) -> None:
        """SIGSTOP: alive, and silent."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._running().send_signal(signal.SIGCONT)

    def memory_bytes(self) -> int:
        """RssAnon + RssShmem: its own memory, without the page cache of its files."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return sum(
            int(line.split()[1]) * 1024
            for line in status.splitlines()
            if line.startswith(("RssAnon", "RssShmem"))
        )

    def cpu_seconds(self) -> float:
        """User and system time so far, by the scheduler's own count where there is one, else in ticks of the clock."""
        tasks = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        counts_ns = [int(task.read_text().split()[0]) for task in tasks]
        if any(counts_ns):
            return sum(counts_ns) / 1e9
        # The command name, which may hold spaces, ends with the last closing bracket.
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _first_line(self, timeout_s: float) -> tuple[bytes, bool]:
        """The first line of standard output, and whether it, or the end of the output, came in time."""
        output = self._running().stdout
        assert output is not None
        waiting = select.poll()
        waiting.register(output, select.POLLIN)
        line = b""
        deadline_s = time.monotonic() + timeout_s
        while b"\n" not in line:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                return line, False
            if waiting.poll(left_s * 1000):
                # One system call each time: a buffered read would wait for the rest of the line.
                some = os.read(output.fileno(), 4096)
                if not some:
                    break
                line += some
        return line, True

    def _given_up(self, grace_s: float) -> tuple[int, str]:
        """End a process that is of no use, by force after `grace_s`; its exit code and what it wrote to stderr."""
        process = self._running()
        try:
            process.communicate(timeout=grace_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        return process.returncode, self._ended()

    def _ended(self) -> str:
        """What the process that has ended wrote to standard error."""
        self._process = None
        errors, self._errors = self._errors, None
        if errors is None:
            return ""
        with errors:
            errors.seek(0)
            return errors.read()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the broker process is not running")
        return self._process
