"""Programs that a benchmark starts: where they are found, how they are run, watched and ended.

Each child has a process group of its own, so that Ctrl-C is ours alone, and in it a watcher that reads from a pipe
which only we hold: when we end, however that happens, the pipe closes and the watcher kills the group. (The
kernel's PR_SET_PDEATHSIG would need code between fork and exec, fires when the thread that forked ends, and does
not reach grandchildren.)
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from frieda.errors import FriedaError
from frieda.transports.shm.socket_file import MAX_PATH_BYTES

PEERS_VARIABLE: Final = "FRIEDA_PEERS"
LOG_TAIL_BYTES: Final = 4096
STOP_TIMEOUT_S: Final = 20.0
VERSION_TIMEOUT_S: Final = 30.0
_LOOK_S: Final = 0.02
_KILL_TIMEOUT_S: Final = 30.0
_WATCHER: Final = ("/bin/sh", "-c", "read _; kill -KILL 0")
_LIBC: Final = ctypes.CDLL(None)


def peers_folder() -> Path:
    """Where `make peers` puts what is not in the system: $FRIEDA_PEERS, else frieda/peers in the user's data folder."""
    given = os.environ.get(PEERS_VARIABLE)
    if given:
        return Path(given)
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "frieda" / "peers"


def find_program(name: str) -> Path | None:
    """The program of this name: on PATH, beside this Python, or in the peers' folder."""
    beside = Path(sys.executable).parent
    found = shutil.which(name) or shutil.which(name, path=f"{beside}:{peers_folder() / 'bin'}")
    return None if found is None else Path(found)


def require_program(name: str, missing: str | None) -> Path:
    """The program of this name, or FriedaError with the sentence `missing`."""
    found = find_program(name)
    if found is None or missing is not None:
        raise FriedaError(missing or f"{name} is not installed")
    return found


def version_line(*command: str | Path) -> str:
    """The first line that a program prints about its version. Raises FriedaError when it prints none."""
    try:
        done = subprocess.run(
            [*map(str, command)],
            capture_output=True,
            text=True,
            check=True,
            timeout=VERSION_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise FriedaError(f"{command[0]} does not tell its version: {error}") from None
    lines = (done.stdout or done.stderr).strip().splitlines()
    if not lines:
        raise FriedaError(f"{command[0]} does not tell its version")
    return lines[0]


def free_ports(count: int) -> tuple[int, ...]:
    """Different loopback TCP ports that nobody listens at in this moment; whoever binds first has them."""
    with contextlib.ExitStack() as stack:
        ports = []
        for _ in range(count):
            listener = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            listener.bind(("127.0.0.1", 0))
            ports.append(int(listener.getsockname()[1]))
        return tuple(ports)


def accepts_connections(port: int) -> bool:
    """Whether somebody listens at this loopback port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def socket_folder(folder: Path, file_name: str) -> Iterator[Path]:
    """`folder`, or a throw-away one under /tmp where its path is too long for the address of a Unix socket."""
    if len(os.fsencode(folder.absolute() / file_name)) <= MAX_PATH_BYTES:
        yield folder.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="frieda-", dir="/tmp") as short:
        yield Path(short)


def processor_seconds(pids: Iterable[int]) -> float:
    """User and system time of these processes so far, all their threads, in the kernel's own ns.

    A process that has ended counts as nothing (source: clock_getcpuclockid(3)).
    """
    total_ns = 0
    clock = ctypes.c_int()
    for pid in pids:
        if _LIBC.clock_getcpuclockid(pid, ctypes.byref(clock)) == 0:
            with contextlib.suppress(OSError):  # it ended in between
                total_ns += time.clock_gettime_ns(clock.value)
    return total_ns / 1e9


def resident_bytes(pids: Iterable[int]) -> int:
    """Resident memory of these processes, mapped files included; one that has ended has none."""
    pages = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class ChildProcess:
    """A program in a process group of its own, its output in `folder`/`name`.log. Use it with `with`.

    Leaving the context stops it in order (SIGTERM, then SIGKILL), by an exception at once; nothing of its group is
    left in either case. It stops too when this process ends, however that is. `environment` is all that it gets;
    None: ours. Entering raises FriedaError when it cannot be started.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        folder: Path,
        *,
        environment: Mapping[str, str] | None = None,
        stop_timeout_s: float = STOP_TIMEOUT_S,
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._command = [str(part) for part in command]
        self._folder = folder
        self._environment = environment
        self._stop_timeout_s = stop_timeout_s
        self._watcher: subprocess.Popen[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self.stop()
        finally:
            self.kill()

    @property
    def pid(self) -> int:
        """The number of the process. Raises FriedaError when it was not started."""
        return self._running().pid

    @property
    def pids(self) -> tuple[int, ...]:
        """The process and those that it has started; empty when they have ended."""
        if self._watcher is None:
            return ()
        watcher = self._watcher.pid
        return tuple(pid for pid in _group_members(watcher) if pid != watcher)

    @property
    def ended(self) -> bool:
        """It does not run: not started, stopped, or ended by itself."""
        return self._process is None or self._process.poll() is not None

    def wait_until(self, ready: Callable[[], bool], timeout_s: float) -> None:
        """Look until `ready` is true; False or OSError is "not yet".

        Raises FriedaError, with the end of the log, when the process ends before or `timeout_s` is over.
        """
        process = self._running()
        deadline_s = time.monotonic() + timeout_s
        while not _is_true(ready):
            if time.monotonic() > deadline_s:
                raise FriedaError(
                    f"{self.name} was not ready within {timeout_s:g} s; {self.log_tail()}"
                )
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_LOOK_S)
            self.require_alive()

    def wait(self, timeout_s: float) -> int:
        """Wait until it ends by itself; its exit code. Raises FriedaError, with the end of its log, when it is late."""
        try:
            return self._running().wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise FriedaError(
                f"{self.name} did not end within {timeout_s:g} s; {self.log_tail()}"
            ) from None

    def require_alive(self) -> None:
        """Raise FriedaError, with the end of its log, when it has ended."""
        if self.ended:
            code = None if self._process is None else self._process.returncode
            raise FriedaError(
                f"{self.name} does not run any more (exit code {code}); {self.log_tail()}"
            )

    def log_tail(self, size_bytes: int = LOG_TAIL_BYTES) -> str:
        """The end of what it wrote, as a half sentence for an error."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - size_bytes))
                text = log.read(size_bytes).decode(errors="replace").strip()
        except OSError as error:
            return f"its log cannot be read: {error.strerror}"
        return f"the end of its log:\n{text}" if text else "it wrote nothing"

    def cpu_seconds(self) -> float:
        """Processor time of all its processes that live."""
        return processor_seconds(self.pids)

    def memory_bytes(self) -> int:
        """Resident memory of all its processes."""
        return resident_bytes(self.pids)

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal (SIGSTOP, SIGCONT...). Raises FriedaError when it was not started."""
        self._running().send_signal(number)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for the whole group when it has not ended within the stop timeout."""
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(self._stop_timeout_s)
        self.kill()

    def kill(self) -> None:
        """SIGKILL for the whole group. May be repeated."""
        watcher, self._watcher = self._watcher, None
        if watcher is None:
            return
        # The watcher is not reaped yet, so the number of the group is still ours.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(watcher.pid, signal.SIGKILL)
        if watcher.stdin is not None:
            watcher.stdin.close()
        watcher.wait(_KILL_TIMEOUT_S)
        if self._process is not None:
            self._process.wait(_KILL_TIMEOUT_S)

    def _start(self) -> None:
        if self._process is not None:
            raise FriedaError(f"{self.name} was started already; make a new one")
        try:
            with self.log.open("ab") as log:
                # The watcher comes first: there is no moment at which the child is unwatched.
                self._watcher = subprocess.Popen(
                    _WATCHER, stdin=subprocess.PIPE, stdout=log, stderr=log, process_group=0
                )
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=self._folder,
                    env=None if self._environment is None else dict(self._environment),
                    process_group=self._watcher.pid,
                )
        except OSError as error:
            raise FriedaError(f"{self.name} cannot be started: {error}") from None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise FriedaError(f"{self.name} was not started")
        return self._process


def _is_true(ready: Callable[[], bool]) -> bool:
    try:
        return ready()
    except OSError:
        return False


def _group_members(group: int) -> list[int]:
    """The processes of a process group that have not ended."""
    members = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                # The command name, which may hold spaces, ends with the last closing bracket.
                stat = Path(f"/proc/{entry}/stat").read_text(errors="replace").rpartition(")")[2]
                state, _, pgrp = stat.split()[:3]
                if int(pgrp) == group and state not in "ZX":
                    members.append(int(entry))
    return members
