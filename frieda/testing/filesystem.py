"""A file system in memory that loses power, fills up and fails on demand.

What was written and what is durable are kept apart, as POSIX promises them and no better: bytes are
durable after the file's sync, names after their folder's. `after_kill` gives the file system a process
finds that died; `after_power_loss` the one a machine finds, where each page written, each cut of a file and each name
made or removed since the last sync is there or not, as a seed decides.
"""

from __future__ import annotations

import errno
import os
import posixpath
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal

from frieda.storage.filesystem import Buffer

PAGE_SIZE_BYTES: Final = 4096

Operation = Literal[
    "open",
    "pwrite",
    "pread",
    "allocate",
    "truncate",
    "sync",
    "sync_directory",
    "rename",
    "unlink",
    "list",
]


class _Node:
    """The content of one file: as written, and as the disk has it.

    shortest: the least size that it had since its last sync.
    """

    __slots__ = ("data", "dirty_pages", "durable", "shortest")

    def __init__(self) -> None:
        self.data = bytearray()
        self.durable = bytearray()
        self.shortest = 0
        self.dirty_pages: set[int] = set()


@dataclass
class _Fault:
    operation: Operation
    number: int
    path_part: str
    skip: int
    times: int


class MemoryFile:
    """A file of a MemoryFileSystem."""

    def __init__(self, filesystem: MemoryFileSystem, path: str, node: _Node) -> None:
        self.path = path
        self._filesystem = filesystem
        self._node = node
        self._holders = 1
        filesystem.open_files += 1

    def retain(self) -> None:
        with self._filesystem.mutex:
            if self._holders == 0:
                raise ValueError(f"{self.path} is closed")
            self._holders += 1

    def release(self) -> None:
        with self._filesystem.mutex:
            self._holders -= 1
            if self._holders == 0:
                self._filesystem.open_files -= 1
            if self._holders < 0:
                raise ValueError(f"{self.path} was closed twice")

    def _use(self, operation: Operation) -> None:
        if self._holders == 0:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), self.path)
        self._filesystem.check(operation, self.path)

    def _resize(self, size_bytes: int) -> None:
        data = self._node.data
        grown = size_bytes - len(data)
        if grown > 0:
            self._filesystem.take_space(grown, self.path)
            data.extend(bytes(grown))
        else:
            del data[size_bytes:]
            self._node.shortest = min(self._node.shortest, size_bytes)
            self._filesystem.used_bytes += grown

    def pwrite(self, data: Buffer, position: int, /) -> int:
        self._use("pwrite")
        content = bytes(data)
        limit = self._filesystem.short_write_bytes
        if limit is not None:
            self._filesystem.short_write_bytes = None
            content = content[:limit]
        node = self._node
        end = position + len(content)
        if end > len(node.data):
            self._resize(end)
        node.data[position:end] = content
        if content:
            node.dirty_pages.update(
                range(position // PAGE_SIZE_BYTES, (end - 1) // PAGE_SIZE_BYTES + 1)
            )
        return len(content)

    def pread(self, size_bytes: int, position: int, /) -> bytes:
        self._use("pread")
        return bytes(self._node.data[position : position + size_bytes])

    def read_into(self, view: memoryview, position: int, *, wait: bool = True) -> int:
        self._use("pread")
        if not wait and self._filesystem.cold:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), self.path)
        part = self._node.data[position : position + len(view)]
        view[: len(part)] = part
        return len(part)

    def allocate(self, position: int, size_bytes: int) -> None:
        self._use("allocate")
        if position + size_bytes > len(self._node.data):
            self._resize(position + size_bytes)

    def truncate(self, size_bytes: int) -> None:
        self._use("truncate")
        self._resize(size_bytes)

    def sync(self) -> None:
        self._use("sync")
        self._filesystem.sync_count += 1
        self._node.durable = bytearray(self._node.data)
        self._node.shortest = len(self._node.data)
        self._node.dirty_pages.clear()

    def size(self) -> int:
        return len(self._node.data)


class MemoryLock:
    """A lock of a MemoryFileSystem."""

    def __init__(self, filesystem: MemoryFileSystem, path: str) -> None:
        self._filesystem = filesystem
        self._path = path

    def release(self) -> None:
        self._filesystem.locks.discard(self._path)


class MemoryFileSystem:
    """See the module. Also counts: `sync_count`, `open_files`, `used_bytes`.

    capacity_bytes: the size of the disk; writing beyond raises ENOSPC.
    cold: while True, reads with wait=False would block.
    short_write_bytes: the next write takes only so many bytes.
    """

    def __init__(self, capacity_bytes: int | None = None) -> None:
        self.capacity_bytes = capacity_bytes
        self.used_bytes = 0
        self.open_files = 0
        self.sync_count = 0
        self.cold = False
        self.short_write_bytes: int | None = None
        self.locks: set[str] = set()
        self.mutex = threading.RLock()
        self._files: dict[str, _Node] = {}
        self._durable_files: dict[str, _Node] = {}
        self._unlinked: set[str] = set()  # names that are still durable
        self._directories: set[str] = {"/"}
        self._faults: list[_Fault] = []

    def fail(
        self,
        operation: Operation,
        number: int,
        *,
        path_part: str = "",
        skip: int = 0,
        times: int = 1_000_000_000,
    ) -> None:
        """From now on `operation` on paths that hold `path_part` raises OSError(number), `times` times after `skip`."""
        self._faults.append(_Fault(operation, number, path_part, skip, times))

    def heal(self) -> None:
        """Forget all faults."""
        self._faults.clear()
        self.capacity_bytes = None

    @contextmanager
    def failing(self, operation: Operation, number: int, *, path_part: str = "") -> Iterator[None]:
        """`fail` for the length of a with block."""
        self.fail(operation, number, path_part=path_part)
        fault = self._faults[-1]
        try:
            yield
        finally:
            self._faults.remove(fault)

    def check(self, operation: Operation, path: str) -> None:
        """Raise the fault that is due for `operation` on `path`, if one is."""
        for fault in self._faults:
            if fault.operation != operation or fault.path_part not in path or fault.times == 0:
                continue
            if fault.skip:
                fault.skip -= 1
                continue
            fault.times -= 1
            raise OSError(fault.number, os.strerror(fault.number), path)

    def take_space(self, size_bytes: int, path: str) -> None:
        """Account for `size_bytes` more, or raise ENOSPC."""
        if self.capacity_bytes is not None and self.used_bytes + size_bytes > self.capacity_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        self.used_bytes += size_bytes

    def after_kill(self) -> MemoryFileSystem:
        """What a new process finds when this one was killed: all that was written, none of the locks."""
        other = MemoryFileSystem()
        other._directories = set(self._directories)
        for path, node in self._files.items():
            copy = _Node()
            copy.data = bytearray(node.data)
            copy.durable = bytearray(node.durable)
            copy.shortest = node.shortest
            copy.dirty_pages = set(node.dirty_pages)
            other._files[path] = copy
        for path, node in self._durable_files.items():
            same = self._files.get(path) is node
            other._durable_files[path] = other._files[path] if same else _copy_durable(node)
        other._unlinked = set(self._unlinked)
        other.used_bytes = sum(len(node.data) for node in other._files.values())
        return other

    def after_power_loss(self, seed: int | None = None) -> MemoryFileSystem:
        """What a machine finds after a power cut.

        seed None: nothing that was not synced is there. Else each name that was made or removed, each page that was
        written and each cut of a file since its last sync is there or not, as random.Random(seed) says.
        """
        lottery = random.Random(seed) if seed is not None else None
        names = dict(self._durable_files)
        if lottery is not None:
            for path in sorted(self._unlinked):
                if lottery.random() < 0.5:
                    del names[path]
            for path, node in sorted(self._files.items()):
                if lottery.random() < 0.5:
                    names[path] = node
        other = MemoryFileSystem()
        other._directories = set(self._directories)
        for path, node in names.items():
            copy = _copy_durable(node)
            if lottery is not None:
                _keep_some_pages(copy.data, node, lottery)
                copy.durable = bytearray(copy.data)
                copy.shortest = len(copy.data)
            other._files[path] = other._durable_files[path] = copy
        other.used_bytes = sum(len(node.data) for node in other._files.values())
        return other

    def peek(self, path: str) -> bytearray:
        """The bytes of a file, to look at or to damage in place."""
        return self._files[posixpath.normpath(path)].data

    def paths(self) -> list[str]:
        """Every file."""
        return sorted(self._files)

    def open(self, path: str, *, create: bool = False, write: bool = True) -> MemoryFile:
        self.check("open", path)
        with self.mutex:
            key = posixpath.normpath(path)
            node = self._files.get(key)
            if node is None:
                if not create:
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
                if posixpath.dirname(key) not in self._directories:
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
                node = self._files[key] = _Node()
            return MemoryFile(self, path, node)

    def size(self, path: str) -> int:
        node = self._files.get(posixpath.normpath(path))
        if node is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return len(node.data)

    def is_directory(self, path: str) -> bool:
        return posixpath.normpath(path) in self._directories

    def list_directory(self, path: str) -> list[str]:
        self.check("list", path)
        key = posixpath.normpath(path)
        if key not in self._directories:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        entries = [*self._files, *self._directories]
        return sorted(
            posixpath.basename(entry)
            for entry in entries
            if entry != "/" and posixpath.dirname(entry) == key
        )

    def make_directory(self, path: str) -> None:
        key = posixpath.normpath(path)
        while key not in self._directories:
            self._directories.add(key)
            key = posixpath.dirname(key)

    def remove_directory(self, path: str) -> None:
        if self.list_directory(path):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)
        self._directories.discard(posixpath.normpath(path))

    def sync_directory(self, path: str) -> None:
        self.check("sync_directory", path)
        key = posixpath.normpath(path)
        with self.mutex:
            for name in [p for p in self._durable_files if posixpath.dirname(p) == key]:
                del self._durable_files[name]
                self._unlinked.discard(name)
            for name, node in self._files.items():
                if posixpath.dirname(name) == key:
                    self._durable_files[name] = node

    def rename(self, source: str, target: str) -> None:
        self.check("rename", source)
        old, new = posixpath.normpath(source), posixpath.normpath(target)
        with self.mutex:
            if old in self._directories:
                # Renaming a folder is durable at once here: nothing tested depends on the difference.
                self._directories = {_moved(path, old, new) for path in self._directories}
                self._files = {_moved(p, old, new): n for p, n in self._files.items()}
                self._durable_files = {
                    _moved(p, old, new): n for p, n in self._durable_files.items()
                }
                self._unlinked = {_moved(path, old, new) for path in self._unlinked}
                return
            if old not in self._files:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), source)
            replaced = self._files.get(new)
            if replaced is not None:
                self.used_bytes -= len(replaced.data)
            self._files[new] = self._files.pop(old)
            self._unlinked.discard(new)

    def unlink(self, path: str) -> None:
        self.check("unlink", path)
        with self.mutex:
            key = posixpath.normpath(path)
            node = self._files.pop(key, None)
            if node is not None:
                self.used_bytes -= len(node.data)
                if key in self._durable_files:
                    self._unlinked.add(key)

    def lock(self, path: str, content: bytes) -> MemoryLock:
        if path in self.locks:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), path)
        file = self.open(path, create=True)
        try:
            file.truncate(0)
            file.pwrite(content, 0)
        finally:
            file.release()
        self.locks.add(path)
        return MemoryLock(self, path)

    def is_locked(self, path: str) -> bool:
        return path in self.locks


def _copy_durable(node: _Node) -> _Node:
    copy = _Node()
    copy.data = bytearray(node.durable)
    copy.durable = bytearray(node.durable)
    copy.shortest = len(node.durable)
    return copy


def _keep_some_pages(data: bytearray, node: _Node, lottery: random.Random) -> None:
    """Let some of what was done to `node` since its last sync reach `data`: a cut, an extension, pages."""
    if node.shortest < len(data) and lottery.random() < 0.5:
        del data[node.shortest :]
    if lottery.random() < 0.5 and len(node.data) > len(data):
        data.extend(bytes(len(node.data) - len(data)))
    for page in sorted(node.dirty_pages):
        start, end = page * PAGE_SIZE_BYTES, (page + 1) * PAGE_SIZE_BYTES
        if start < len(data) and lottery.random() < 0.5:
            kept = min(end, len(data), len(node.data)) - start
            if kept > 0:
                data[start : start + kept] = node.data[start : start + kept]


def _moved(path: str, old: str, new: str) -> str:
    return new + path[len(old) :] if path == old or path.startswith(old + "/") else path
