"""What the storage tests share: a log in memory, and what is read back from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from frieda.clock import ManualClock
from frieda.config import TopicConfig
from frieda.storage.log import PartitionLog
from frieda.testing.batches import make_batch
from frieda.testing.filesystem import MemoryFileSystem, Operation
from frieda.wire.batch import check_batch, decode_batch, iterate_batches, patch

DIRECTORY = "/data/t-0"


@pytest.fixture
def filesystem() -> MemoryFileSystem:
    return MemoryFileSystem()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def open_log(clock: ManualClock) -> Callable[..., PartitionLog]:
    """open_log(filesystem, clean=False, **topic settings)"""

    def opened(
        filesystem: MemoryFileSystem,
        *,
        clean: bool = False,
        background: Any = None,
        **settings: Any,
    ) -> PartitionLog:
        return PartitionLog.open(
            filesystem,
            DIRECTORY,
            TopicConfig(**settings),
            clock,
            clean=clean,
            background=background,
        )

    return opened


@pytest.fixture
def append() -> Callable[..., int]:
    """append(log, value or values, **batch fields) -> base offset"""

    def appended(log: PartitionLog, values: bytes | list[bytes], *args: Any, **fields: Any) -> int:
        batch = make_batch([values] if isinstance(values, bytes) else values, *args, **fields)
        return log.append(batch, check_batch(batch), 0)

    return appended


@pytest.fixture
def leaders_batch() -> Callable[..., memoryview]:
    """leaders_batch(value or values, base_offset, leader_epoch, **batch fields): as a leader stored it, read-only"""

    def made(
        values: bytes | list[bytes], base_offset: int, leader_epoch: int, **fields: Any
    ) -> memoryview:
        batch = make_batch([values] if isinstance(values, bytes) else values, **fields)
        patch(batch, base_offset, leader_epoch)
        return batch.toreadonly()

    return made


@pytest.fixture
def moments() -> Callable[..., list[MemoryFileSystem]]:
    """moments(filesystem, work): what a kill would leave before each thing that `work` does to the disk, and after"""

    def taken(filesystem: MemoryFileSystem, work: Callable[[], object]) -> list[MemoryFileSystem]:
        found = []
        check = filesystem.check

        def looked_at(operation: Operation, path: str) -> None:
            if operation not in ("pread", "list", "open"):
                found.append(filesystem.after_kill())
            check(operation, path)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(filesystem, "check", looked_at)
            work()
        return [*found, filesystem.after_kill()]

    return taken


@pytest.fixture
def read_all() -> Callable[..., list[tuple[int, bytes | None]]]:
    """read_all(log, offset=log start, max_bytes=...) -> [(offset, value)] up to the log's end"""

    def read(
        log: PartitionLog, offset: int | None = None, max_bytes: int = 1 << 20
    ) -> list[tuple[int, bytes | None]]:
        at = log.log_start_offset if offset is None else offset
        found = []
        while at < log.log_end_offset:
            plan = log.plan_read(at, max_bytes)
            view = memoryview(bytearray(plan.size_bytes))
            size_bytes = plan.read_into(view)
            if size_bytes == 0 < plan.size_bytes:  # the first batch is larger than was known
                continue
            for position, header in iterate_batches(view[:size_bytes]):
                batch = view[position : position + header.size_bytes]
                found += [(r.offset, r.value) for r in decode_batch(batch, "t", 0, at)]
            assert plan.next_offset > at
            at = plan.next_offset
        return found

    return read
