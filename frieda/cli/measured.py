"""Broker processes of our own as the benchmarks see them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from frieda.bench.under_test import BrokerUnderTest
from frieda.cli.own_broker import own_broker, require_alive, start_again
from frieda.testing.brokers import BrokerProcess


@dataclass(frozen=True, slots=True)
class _Broker:
    """What a benchmark knows of a broker process."""

    url: str
    process: BrokerProcess

    def cpu_seconds(self) -> float:
        """By the scheduler's own count in ns where the kernel keeps it, else in ticks of 10 ms."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        counts_ns = [int(task.read_text().split()[0]) for task in tasks]
        return sum(counts_ns) / 1e9 if any(counts_ns) else self.process.cpu_seconds()

    def memory_bytes(self) -> int:
        return self.process.memory_bytes()

    def start_again(self, *, kill: bool) -> None:
        start_again(self.process, kill=kill)

    def require_alive(self) -> None:
        require_alive(self.process)


@contextlib.contextmanager
def fresh_broker(
    polling: str, flush: str, transport: str = "tcp", *settings: str
) -> Iterator[BrokerUnderTest]:
    """A broker process of its own for one case. Raises FriedaError."""
    flags = [flag for setting in settings for flag in ("--set", setting)]
    with own_broker(polling, flush, *flags, transport=transport) as process:
        yield _Broker(process.url, process)
