"""A file through a topic and back: in pieces over several partitions, and whole as one record."""

from __future__ import annotations

import asyncio
import os
import sys
import sysconfig
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Final

from frieda.clients.admin import Admin
from frieda.clients.consumer import Consumer
from frieda.clients.producer import Producer
from frieda.config import KIB, MIB
from frieda.errors import FriedaError
from frieda.event_loop import new_event_loop
from frieda.model import Record

PIECE_BYTES: Final = 64 * KIB
PARTITIONS: Final = 3
MAX_FILE_BYTES: Final = 15 * MIB
"""What surely fits into one record under the default settings."""
DEADLINE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """What was sent and what came back, by which records."""

    sent: bytes
    received: bytes
    records: int
    partitions: int
    sending_s: float
    reading_s: float

    @property
    def same(self) -> bool:
        """Byte for byte."""
        return self.sent == self.received

    @property
    def digests(self) -> tuple[str, str]:
        """SHA-256 of what was sent and of what came back."""
        return sha256(self.sent).hexdigest(), sha256(self.received).hexdigest()


def a_real_file() -> Path:
    """The largest of this Python's own files that one record can hold: its program, its library or a module."""
    modules = Path(os.__file__).parent
    found = [Path(sys.executable).resolve(), *modules.glob("*.py"), *modules.glob("lib-dynload/*")]
    library, folder = (sysconfig.get_config_var(name) for name in ("LDLIBRARY", "LIBDIR"))
    if library and folder:
        found.append(Path(folder) / library)
    sizes = {path: path.stat().st_size for path in found if path.is_file()}
    fitting = {path: size for path, size in sizes.items() if size <= MAX_FILE_BYTES}
    return max(fitting, key=lambda path: fitting[path])


def send_and_read_back(url: str, content: bytes) -> tuple[RoundTrip, RoundTrip]:
    """`content` in pieces and whole, each through a topic of its own of the broker at `url`.

    Raises FriedaError, also when it is not back within DEADLINE_S.
    """
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(_both_ways(url, content))


async def _both_ways(url: str, content: bytes) -> tuple[RoundTrip, RoundTrip]:
    try:
        async with asyncio.timeout(DEADLINE_S):
            async with Admin(url) as admin:
                await admin.create_topic("pieces", partitions=PARTITIONS)
                await admin.create_topic("whole", partitions=1)
            # A piece says by its key where in the file it belongs; keys spread over the partitions.
            pieces = [
                (b"%d" % start, content[start : start + PIECE_BYTES])
                for start in range(0, len(content), PIECE_BYTES)
            ]
            in_pieces = await _through(url, "pieces", content, pieces)
            whole = await _through(url, "whole", content, [(b"0", content)])
            return in_pieces, whole
    except TimeoutError:
        raise FriedaError(f"the file was not back within {DEADLINE_S:g} s") from None


async def _through(
    url: str, topic: str, content: bytes, items: Sequence[tuple[bytes, bytes]]
) -> RoundTrip:
    began = time.monotonic()
    async with Producer(url, acks="all") as producer:
        results = await producer.send_batch(topic, items)
    for result in results:
        if isinstance(result, FriedaError):
            raise result
    sent = time.monotonic()
    records: list[Record] = []
    async with Consumer(url, topic, start="earliest") as consumer:
        held = sum((await consumer.end_offsets()).values())
        while len(records) < held:
            found = await consumer.getmany(timeout_ms=1000)
            records += chain.from_iterable(found.values())
    return RoundTrip(
        sent=content,
        received=_put_together(records),
        records=len(records),
        partitions=len({record.partition for record in records}),
        sending_s=sent - began,
        reading_s=time.monotonic() - sent,
    )


def _put_together(records: Iterable[Record]) -> bytes:
    """The values in the order that their keys say."""
    in_order = sorted(records, key=lambda record: int(record.key or b"0"))
    return b"".join(record.value or b"" for record in in_order)
