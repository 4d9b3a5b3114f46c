"""A broker process that is measured, and the load of a producer on it."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Final, Protocol

from frieda.bench.load import Load
from frieda.bench.producer import ProducerSettings, ensure_topic, run_producer
from frieda.bench.report import Result, latencies_us
from frieda.bench.rounds import Values

TOPIC: Final = "bench"


class BrokerUnderTest(Protocol):
    """A broker process: where it is, the processor time it has used, and the memory it has of its own."""

    @property
    def url(self) -> str: ...

    def cpu_seconds(self) -> float: ...

    def memory_bytes(self) -> int: ...

    def start_again(self, *, kill: bool) -> None:
        """End it, in order or as a crash, and start it on the same folder and address. Raises FriedaError."""
        ...

    def require_alive(self) -> None:
        """Raise FriedaError when it has ended."""
        ...


class StartBroker(Protocol):
    """Start a broker process on a throw-away folder; the end of the context stops it."""

    def __call__(
        self, polling: str, flush: str, transport: str = "tcp", *settings: str
    ) -> AbstractContextManager[BrokerUnderTest]:
        """`transport` is tcp or shm; `settings` are those of `frieda broker --set`."""
        ...


def produce_to(
    broker: BrokerUnderTest, load: Load, polling: str, *, partitions: int = 1, **settings: Any
) -> Result:
    """Run `load` with acks=1 and the other `settings` of a ProducerSettings. Raises FriedaError."""
    asyncio.run(ensure_topic(broker.url, TOPIC, partitions))
    described = ProducerSettings(load=load, topic=TOPIC, bootstrap=broker.url, polling=polling)
    return run_producer(replace(described, **settings), lambda _: broker.require_alive())


def values_of(result: Result) -> Values:
    """Latencies, rates and errors by name."""
    rates = {"records_per_sec": result.records_per_sec, "mb_per_sec": result.mb_per_sec}
    return {**latencies_us(result.latency), **rates, "errors": float(result.errors)}
