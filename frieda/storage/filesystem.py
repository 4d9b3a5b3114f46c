"""The file system seam: the few calls the log makes, and the real ones behind them.

`frieda.testing.filesystem` has the one that loses power and fills up on demand. Both raise OSError;
`storage_error` turns that into the typed error that reaches a client, in one place.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from contextlib import suppress
from typing import Final, Protocol

from frieda.errors import ErrorCode, StorageError

Buffer = bytes | bytearray | memoryview

_DISK_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_NO_SUCH_CALL: Final = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
_TEMPORARY_SUFFIX: Final = ".tmp"


class File(Protocol):
    """An open file, counted: it is opened with one holder, and the last `release` closes it.

    That is what makes deleting a segment safe while a thread still reads from it.
    """

    path: str

    def retain(self) -> None:
        """One more holder. Any thread."""
        ...

    def release(self) -> None:
        """One holder less. Any thread."""
        ...

    def pwrite(self, data: Buffer, position: int, /) -> int:
        """Write at `position`; returns how many bytes were taken, which may be fewer than asked."""
        ...

    def pread(self, size_bytes: int, position: int, /) -> bytes:
        """Up to `size_bytes` bytes from `position`; fewer only at the end of the file."""
        ...

    def read_into(self, view: memoryview, position: int, *, wait: bool = True) -> int:
        """Fill `view` from `position`; returns how many bytes are there (fewer only at the end of the file).

        With wait=False raises BlockingIOError when the disk would have to be asked.
        """
        ...

    def allocate(self, position: int, size_bytes: int) -> None:
        """Make the file reach to `position + size_bytes`, with zeros and with disk space behind them."""
        ...

    def truncate(self, size_bytes: int) -> None:
        """Cut the file, or extend it with zeros."""
        ...

    def sync(self) -> None:
        """Return when what was written is on the disk (fdatasync). Never call it again after it failed."""
        ...

    def size(self) -> int:
        """The file's size in bytes."""
        ...


class Lock(Protocol):
    """A lock file that is held."""

    def release(self) -> None:
        """Let it go."""
        ...


class FileSystem(Protocol):
    """What the log needs of a file system. Paths are absolute or relative to the working folder."""

    def open(self, path: str, *, create: bool = False, write: bool = True) -> File: ...

    def size(self, path: str) -> int:
        """Size of a file; FileNotFoundError when there is none."""
        ...

    def is_directory(self, path: str) -> bool: ...

    def list_directory(self, path: str) -> list[str]:
        """The names in a folder, sorted."""
        ...

    def make_directory(self, path: str) -> None:
        """Make it and its parents; fine when it exists."""
        ...

    def remove_directory(self, path: str) -> None:
        """Remove an empty folder."""
        ...

    def sync_directory(self, path: str) -> None:
        """Return when the names in this folder are on the disk."""
        ...

    def rename(self, source: str, target: str) -> None:
        """Give a file or folder another name; a file of that name is replaced, in one step."""
        ...

    def unlink(self, path: str) -> None:
        """Remove a file; fine when it is gone already."""
        ...

    def lock(self, path: str, content: bytes) -> Lock:
        """Take an exclusive lock file and write `content` to it; BlockingIOError when another has it."""
        ...

    def is_locked(self, path: str) -> bool:
        """Does anybody hold this lock file? Changes nothing; FileNotFoundError when there is none."""
        ...


def storage_error(error: OSError, what: str) -> StorageError:
    """The typed error for an OSError: DISK_FULL or STORAGE_ERROR. `what` says what was done, and to which file."""
    reason = error.strerror or str(error)
    if isinstance(error.filename, str) and error.filename not in what:
        reason = f"{error.filename}: {reason}"
    if error.errno in _DISK_FULL:
        return StorageError(ErrorCode.DISK_FULL, f"{what}: {reason}; free some space and try again")
    return StorageError(ErrorCode.STORAGE_ERROR, f"{what}: {reason}")


def read_file(filesystem: FileSystem, path: str, max_bytes: int) -> bytes | None:
    """All of a small file, or None when there is none. Raises StorageError, also when it is larger than `max_bytes`."""
    try:
        file = filesystem.open(path, write=False)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error(error, f"cannot open {path}") from error
    try:
        size_bytes = file.size()
        if size_bytes > max_bytes:
            raise StorageError(
                ErrorCode.STORAGE_ERROR,
                f"{path} has {size_bytes} bytes; at most {max_bytes} are expected",
            )
        return file.pread(size_bytes, 0)
    except OSError as error:
        raise storage_error(error, f"cannot read {path}") from error
    finally:
        file.release()


def replace_file(filesystem: FileSystem, path: str, data: Buffer, *, durable: bool = True) -> None:
    """Write a small file so that it is there whole or not at all. Raises StorageError; the old one then stays.

    `durable`: return only when it is on the disk.
    """
    temporary = path + _TEMPORARY_SUFFIX
    try:
        file = filesystem.open(temporary, create=True)
        try:
            file.truncate(0)
            write_all(file, memoryview(data), 0)
            if durable:
                file.sync()
        finally:
            file.release()
        filesystem.rename(temporary, path)
        if durable:
            filesystem.sync_directory(os.path.dirname(path) or ".")
    except OSError as error:
        with suppress(
            OSError
        ):  # the error that matters is the first one; start-up removes what stays behind
            filesystem.unlink(temporary)
        raise storage_error(error, f"cannot write {path}") from error


def write_all(file: File, data: memoryview, position: int) -> None:
    """Write every byte of `data`, however many calls it takes. Raises OSError with part of it written."""
    written = file.pwrite(data, position)
    while written < len(data):
        taken = file.pwrite(data[written:], position + written)
        if taken <= 0:
            raise OSError(errno.EIO, "the disk takes no more bytes", file.path)
        written += taken


class RealFile:
    """A file of the operating system."""

    __slots__ = ("_descriptor", "_holders", "_lock", "path")

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._holders = 1
        self._lock = threading.Lock()

    def retain(self) -> None:
        with self._lock:
            if self._holders == 0:
                raise ValueError(f"{self.path} is closed")
            self._holders += 1

    def release(self) -> None:
        with self._lock:
            self._holders -= 1
            if self._holders:
                return
            descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)

    def pwrite(self, data: Buffer, position: int, /) -> int:
        return os.pwrite(self._descriptor, data, position)

    def pread(self, size_bytes: int, position: int, /) -> bytes:
        data = os.pread(self._descriptor, size_bytes, position)
        while len(data) < size_bytes:
            more = os.pread(self._descriptor, size_bytes - len(data), position + len(data))
            if not more:
                break
            data += more
        return data

    def read_into(self, view: memoryview, position: int, *, wait: bool = True) -> int:
        done = 0
        flags = 0 if wait else os.RWF_NOWAIT
        while done < len(view):
            try:
                count = os.preadv(self._descriptor, [view[done:]], position + done, flags)
            except OSError as error:
                # Some file systems can't say whether they would wait; their reads then just happen.
                if flags == 0 or error.errno not in _NO_SUCH_CALL:
                    raise
                flags = 0
                continue
            if count == 0:
                break
            done += count
        return done

    def allocate(self, position: int, size_bytes: int) -> None:
        os.posix_fallocate(self._descriptor, position, size_bytes)

    def truncate(self, size_bytes: int) -> None:
        os.ftruncate(self._descriptor, size_bytes)

    def sync(self) -> None:
        os.fdatasync(self._descriptor)

    def size(self) -> int:
        return os.fstat(self._descriptor).st_size


class RealLock:
    """A lock file held by flock: the kernel lets it go when the process ends, however it ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class RealFileSystem:
    """The file system of the machine."""

    def open(self, path: str, *, create: bool = False, write: bool = True) -> RealFile:
        flags = (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC
        return RealFile(path, os.open(path, flags | (os.O_CREAT if create else 0), 0o644))

    def size(self, path: str) -> int:
        return os.stat(path).st_size

    def is_directory(self, path: str) -> bool:
        return os.path.isdir(path)

    def list_directory(self, path: str) -> list[str]:
        return sorted(os.listdir(path))

    def make_directory(self, path: str) -> None:
        os.makedirs(path, exist_ok=True)

    def remove_directory(self, path: str) -> None:
        os.rmdir(path)

    def sync_directory(self, path: str) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, source: str, target: str) -> None:
        os.replace(source, target)

    def unlink(self, path: str) -> None:
        try:
            os.unlink(path)
        except FileNotFoundError:
            return

    def lock(self, path: str, content: bytes) -> RealLock:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, content, 0)
        except BaseException:
            os.close(descriptor)
            raise
        return RealLock(descriptor)

    def is_locked(self, path: str) -> bool:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False
