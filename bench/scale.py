"""What a broker costs when there is much of everything: partitions, connections, data, and nothing to do.

Each function here does one thing to a broker process that was just started and gives the figures by name.
`frieda.bench.side_by_side` says which cases they make and what they should reach.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import urlsplit

from frieda.bench.consumer import ConsumerSettings, run_consumer
from frieda.bench.load import Load
from frieda.bench.producer import ProducerSettings, ensure_topic, run_producer
from frieda.clients.admin import Admin
from frieda.clients.producer import Producer
from frieda.errors import FriedaError
from frieda.protocol.client import ClientProtocol
from frieda.transports.framing import SIZE_BYTES, announced_size, pack_size

if TYPE_CHECKING:
    from frieda.bench.rounds import Values
    from frieda.bench.under_test import BrokerUnderTest

MB: Final = 1_000_000
RECORD_BYTES: Final = 1024
IN_BULK: Final = 20_000
SAMPLE_S: Final = 0.1
AFTER_REOPENING: Final = 1000
"""Records that are written between the second start and the kill, so that there is something to look for."""
BEFORE_IDLING: Final = 1000
SETTLING_S: Final = 1.0
"""The end of what was done before: windows that close, one collection of garbage."""

_OTHER_TOPIC: Final = "bystanders"
_OTHER_FILES: Final = 500
_ANSWER_TIMEOUT_S: Final = 10.0
_MAX_GREETING_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much there is of everything."""

    partitions: int = 1000
    connections: int = 1000
    written_mib: int = 1024
    idle_s: float = 5.0

    @property
    def open_files(self) -> int:
        """What broker and benchmark may each need: a connection is one file, an open log at most two."""
        return self.connections + 2 * self.partitions + _OTHER_FILES

    @property
    def written(self) -> str:
        """How much is written, for people."""
        whole = self.written_mib % 1024 == 0
        return f"{self.written_mib // 1024} GiB" if whole else f"{self.written_mib} MiB"


def require_open_files(count: int) -> None:
    """Raise FriedaError when no process that we start could have so many files open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise FriedaError(
            f"so many partitions and connections need {count} open files, and the hard limit here is {hard}: "
            f"raise it (ulimit -Hn {count}, or LimitNOFILE), or leave --scale out"
        )


@contextlib.contextmanager
def open_files(count: int) -> Iterator[None]:
    """Let this process, and those that it starts meanwhile, have `count` files open. Raises FriedaError."""
    require_open_files(count)
    limits = soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@contextlib.contextmanager
def bystanders(url: str, sizes: Sizes) -> Iterator[None]:
    """Partitions with one record each, and connections that were greeted and then say nothing. Raises FriedaError."""
    asyncio.run(_write_to_each(url, sizes.partitions))
    with idle_connections(url, sizes.connections):
        yield


async def _write_to_each(url: str, partitions: int) -> None:
    await ensure_topic(url, _OTHER_TOPIC, partitions)
    async with Producer(url, polling="event") as producer:
        for partition in range(partitions):
            await producer.send(_OTHER_TOPIC, b"here", partition=partition)


@contextlib.contextmanager
def idle_connections(url: str, count: int) -> Iterator[None]:
    """So many native connections over TCP that have said Hello and heard the answer; nothing reads them further."""
    address = urlsplit(url)
    with contextlib.ExitStack() as opened:
        try:
            for _ in range(count):
                sock = socket.create_connection(
                    (address.hostname or "", address.port or 0), _ANSWER_TIMEOUT_S
                )
                _greet(opened.enter_context(sock))
        except OSError as error:
            raise FriedaError(f"{count} connections to {url} were not to be had: {error}") from None
        yield


def _greet(sock: socket.socket) -> None:
    protocol = ClientProtocol(
        client_id="bystander",
        software="frieda-bench",
        max_message_bytes=_MAX_GREETING_BYTES,
    )
    hello = protocol.greet().head
    sock.sendall(pack_size(len(hello)) + hello)
    size = announced_size(memoryview(_read(sock, SIZE_BYTES)), 0, _MAX_GREETING_BYTES)
    answer = protocol.receive(memoryview(_read(sock, size)))
    if answer is not None and answer.error is not None:
        raise answer.error


def _read(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        some = sock.recv(size - len(data))
        if not some:
            raise ConnectionResetError("the broker ended it")
        data += some
    return data


def write_read_reopen(broker: BrokerUnderTest, topic: str, sizes: Sizes) -> Values:
    """Write, read back, stop, start, write a little more, kill, start.

    Gives the most memory that the broker had while it was written to and read from, and what it says of its two
    starts. Its topic has one partition. The page cache holds what was just written; a machine that was switched on
    just now is slower.
    """
    records = sizes.written_mib * 1024 * 1024 // RECORD_BYTES
    asyncio.run(ensure_topic(broker.url, topic, 1))
    with MemoryWatch(broker.memory_bytes) as memory:
        _write(broker, topic, records)
        read = run_consumer(
            ConsumerSettings(topic=topic, bootstrap=broker.url, records=records),
            lambda _: broker.require_alive(),
        )
    if read.size_bytes != records * RECORD_BYTES:
        raise FriedaError(
            f"{records * RECORD_BYTES} bytes were written and {read.size_bytes} were read back"
        )
    broker.start_again(kill=False)
    stopped = asyncio.run(_facts(broker.url))
    _write(broker, topic, AFTER_REOPENING)
    broker.start_again(kill=True)
    killed = asyncio.run(_facts(broker.url))
    return {
        "memory_mb": memory.most_bytes / MB,
        "opening_ms": float(stopped["opening_ms"]),
        "scanned_after_stop": float(stopped["scanned_segments"]),
        "opening_after_kill_ms": float(killed["opening_ms"]),
        "scanned_segments": float(killed["scanned_segments"]),
    }


def _write(broker: BrokerUnderTest, topic: str, records: int) -> None:
    load = Load(records=records, record_size_bytes=RECORD_BYTES, in_flight=IN_BULK)
    settings = ProducerSettings(load=load, topic=topic, bootstrap=broker.url, acks=1)
    result = run_producer(settings, lambda _: broker.require_alive())
    if result.errors:
        raise FriedaError(f"{result.errors} of {records} records were refused")


async def _facts(url: str) -> dict[str, int]:
    async with Admin(url, polling="event") as admin:
        return dict((await admin.broker_health()).facts)


class MemoryWatch:
    """Looks at a process's memory ten times a second, in a thread, for as long as the context lasts."""

    def __init__(self, memory_bytes: Callable[[], int]) -> None:
        self.most_bytes = 0
        self._memory_bytes = memory_bytes
        self._error: OSError | RuntimeError | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Raises FriedaError when the memory could not be read, unless the block raised already."""
        self._over.set()
        self._thread.join()
        if self._error is not None and error is None:
            raise FriedaError(f"the broker's memory cannot be read: {self._error}")

    def _watch(self) -> None:
        try:
            while True:
                over = self._over.is_set()
                self.most_bytes = max(self.most_bytes, self._memory_bytes())
                if over:
                    return
                self._over.wait(SAMPLE_S)
        except (OSError, RuntimeError) as error:
            self._error = error


def idle(broker: BrokerUnderTest, topic: str, sizes: Sizes) -> Values:
    """The share of a core that the broker uses while a client that has worked before stays connected."""
    return {"cpu_percent": asyncio.run(_idle_percent(broker, topic, sizes.idle_s))}


async def _idle_percent(broker: BrokerUnderTest, topic: str, idle_s: float) -> float:
    await ensure_topic(broker.url, topic, 1)
    async with Producer(broker.url, polling="event", acks=1) as producer:
        for _ in range(BEFORE_IDLING):
            await producer.send(topic, b"x" * 100)
        await asyncio.sleep(SETTLING_S)
        before_s, began_s = broker.cpu_seconds(), time.monotonic()
        await asyncio.sleep(idle_s)
        used_s = broker.cpu_seconds() - before_s
        return used_s / (time.monotonic() - began_s) * 100
