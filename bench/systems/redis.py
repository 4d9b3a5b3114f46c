"""A redis-server of our own, for Redis Streams: append-only file, no snapshots, loopback TCP and a Unix socket."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from frieda.bench.systems.base import Durability
from frieda.bench.systems.processes import (
    ChildProcess,
    find_program,
    free_ports,
    require_program,
    socket_folder,
    version_line,
)
from frieda.errors import ConfigError

PROGRAM: Final = "redis-server"
START_TIMEOUT_S: Final = 60.0
SOCKET_FILE: Final = "redis.sock"
APPENDFSYNC: Final[Mapping[Durability, str]] = {"cache": "everysec", "disk": "always"}
_PROBE_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningRedis:
    """RunningSystem: one redis-server."""

    process: ChildProcess
    address: str
    """Over TCP: redis://127.0.0.1:port."""
    unix_socket: Path
    version: str
    settings: Mapping[str, object]

    @property
    def unix_address(self) -> str:
        """The same server over its Unix socket: unix:///path."""
        return f"unix://{self.unix_socket}"

    def cpu_seconds(self) -> float:
        """Processor time so far."""
        return self.process.cpu_seconds()

    def memory_bytes(self) -> int:
        """Resident memory, the whole of its data among it: Redis keeps streams in memory."""
        return self.process.memory_bytes()

    def require_alive(self) -> None:
        """Raise FriedaError, with the end of its log, when it has ended."""
        self.process.require_alive()


class RedisSystem:
    """Redis Streams with an append-only file: fsync every second ("cache") or before each answer ("disk")."""

    name = "redis"

    def missing(self) -> str | None:
        """None when redis-server is there, else how to get it."""
        if find_program(PROGRAM) is None:
            return f"{PROGRAM} is not installed: run 'make peers', or 'apt install {PROGRAM}'"
        return None

    @contextlib.contextmanager
    def running(
        self, folder: Path, durability: Durability, brokers: int = 1
    ) -> Iterator[RunningRedis]:
        """One server on `folder`. Raises FriedaError; ConfigError for more than one broker."""
        if brokers != 1:
            raise ConfigError(
                f"brokers = {brokers}: Redis Streams are measured on one server (its replication is asynchronous)"
            )
        program = require_program(PROGRAM, self.missing())
        settings = {
            "appendonly": "yes",
            "appendfsync": APPENDFSYNC[durability],
            "save": "",
        }
        (port,) = free_ports(1)
        folder = folder.absolute()
        with socket_folder(folder, SOCKET_FILE) as sockets:
            unix_socket = sockets / SOCKET_FILE
            placed = {
                "bind": "127.0.0.1",
                "port": port,
                "unixsocket": unix_socket,
                "unixsocketperm": "600",
                "dir": folder,
                "daemonize": "no",
            }
            command: list[str | Path] = [program]
            for name, value in (settings | placed).items():
                command += [f"--{name}", str(value)]
            with ChildProcess(PROGRAM, command, folder) as process:
                process.wait_until(lambda: _answers(unix_socket), START_TIMEOUT_S)
                yield RunningRedis(
                    process=process,
                    address=f"redis://127.0.0.1:{port}",
                    unix_socket=unix_socket,
                    version=_version(program),
                    settings=settings,
                )


def _answers(unix_socket: Path) -> bool:
    """Whether it serves; while it loads its data it answers with an error. Raises OSError when nobody listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_TIMEOUT_S)
        probe.connect(str(unix_socket))
        probe.sendall(b"PING\r\n")
        return probe.recv(64).startswith(b"+PONG")


def _version(program: Path) -> str:
    """From a line like "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=..."."""
    line = version_line(program, "--version")
    fields = dict(word.split("=", 1) for word in line.split() if "=" in word)
    return fields.get("v", line)
