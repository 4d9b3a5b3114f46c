"""Frieda's broker as one of the systems that are compared: a process of its own on a given folder."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import frieda
from frieda.bench.systems.base import Durability
from frieda.bench.systems.processes import ChildProcess, socket_folder
from frieda.errors import ConfigError

START_TIMEOUT_S: Final = 120.0
STOP_TIMEOUT_S: Final = 60.0
SOCKET_FILE: Final = "broker.sock"
FLUSH: Final[Mapping[Durability, str]] = {"cache": "never", "disk": "batch"}
_READY: Final = re.compile(r"is ready at (\S+) \(")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningFrieda:
    """RunningSystem: one broker process."""

    process: ChildProcess
    address: str
    version: str
    settings: Mapping[str, object]

    @property
    def pids(self) -> tuple[int, ...]:
        """Its processes."""
        return self.process.pids

    def cpu_seconds(self) -> float:
        """Processor time so far."""
        return self.process.cpu_seconds()

    def memory_bytes(self) -> int:
        """Resident memory."""
        return self.process.memory_bytes()

    def require_alive(self) -> None:
        """Raise FriedaError, with the end of its log, when it has ended."""
        self.process.require_alive()


class FriedaSystem:
    """A broker of Frieda's over one transport, tcp or shm: flush=never ("cache") or flush=batch ("disk").

    `settings` are more of the broker's, as NAME=VALUE. Raises ConfigError for another transport.
    """

    name = "frieda"

    def __init__(
        self, transport: str = "tcp", polling: str = "adaptive", settings: Sequence[str] = ()
    ) -> None:
        if transport not in ("tcp", "shm"):
            raise ConfigError(
                f"transport {transport!r}: a broker is started over tcp or shm; give others by address"
            )
        self._transport = transport
        self._polling = polling
        self._settings = tuple(settings)

    def missing(self) -> str | None:
        """It is always there."""
        return None

    @contextlib.contextmanager
    def running(
        self, folder: Path, durability: Durability, brokers: int = 1
    ) -> Iterator[RunningFrieda]:
        """One broker on `folder`. Raises FriedaError; ConfigError for more than one broker."""
        if brokers != 1:
            raise ConfigError(f"brokers = {brokers}: Frieda does not replicate yet; use one")
        folder = folder.absolute()
        flags = {"--polling": self._polling, "--flush": FLUSH[durability]}
        with socket_folder(folder, SOCKET_FILE) as sockets:
            listen = (
                "tcp://127.0.0.1:0"
                if self._transport == "tcp"
                else f"shm://{sockets}/{SOCKET_FILE}"
            )
            command = [sys.executable, "-P", "-m", "frieda", "broker", "--data", f"{folder}/data"]
            command += ["--listen", listen, "--log-level", "warning"]
            for flag, value in flags.items():
                command += [flag, value]
            for setting in self._settings:
                command += ["--set", setting]
            process = ChildProcess(
                "frieda-broker",
                command,
                folder,
                environment=_environment(),
                stop_timeout_s=STOP_TIMEOUT_S,
            )
            with process:
                process.wait_until(lambda: _ready_at(process.log) is not None, START_TIMEOUT_S)
                yield RunningFrieda(
                    process=process,
                    address=_ready_at(process.log) or listen,
                    version=frieda.__version__,
                    settings={
                        "transport": self._transport,
                        **{flag.strip("-"): value for flag, value in flags.items()},
                        **dict(setting.split("=", 1) for setting in self._settings),
                    },
                )


def _ready_at(log: Path) -> str | None:
    """Where the broker says that it listens; None while it has not said so."""
    found = _READY.search(log.read_text(encoding="utf-8", errors="replace"))
    return None if found is None else found.group(1)


def _environment() -> dict[str, str]:
    """Ours without settings of a broker, and with the folder that `frieda` was imported from."""
    home = str(Path(frieda.__file__).resolve().parent.parent)
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("FRIEDA_")}
    if "site-packages" in Path(home).parts:
        return inherited
    paths = filter(None, [home, os.environ.get("PYTHONPATH")])
    return {**inherited, "PYTHONPATH": os.pathsep.join(paths)}
