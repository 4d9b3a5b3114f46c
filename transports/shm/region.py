"""The memory of one connection: a memfd that the broker makes and seals, and the client checks before it maps it.

The seals are what makes shared memory safe to touch: without F_SEAL_SHRINK a peer could cut the file, and the
next access here would be a SIGBUS. Nothing has a name in a file system: when both processes are gone, so is
the memory, however they ended.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import stat
from contextlib import suppress
from typing import Final

from frieda.errors import RemoteProtocolError, TransportError

SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_MFD_NOEXEC_SEAL: Final = 8  # from Linux 6.3; where vm.memfd_noexec is 2 nothing else is allowed


def create_region(size_bytes: int) -> tuple[mmap.mmap, int]:
    """Zeroed shared memory of exactly this size, sealed: its mapping and its descriptor, the caller's to close.

    Pages cost memory once they are touched. Raises TransportError when there are no descriptors or no memory.
    """
    descriptor = -1
    try:
        descriptor = _memfd()
        os.ftruncate(descriptor, size_bytes)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SEALS)
        return mmap.mmap(descriptor, size_bytes), descriptor
    except OSError as error:
        if descriptor >= 0:
            os.close(descriptor)
        raise TransportError(
            f"cannot make {size_bytes} bytes of shared memory for a connection: {error.strerror}"
        ) from error


def open_region(descriptor: int, size_bytes: int) -> mmap.mmap:
    """Map what the broker sent. The descriptor stays the caller's.

    Raises RemoteProtocolError when it is no sealed memory of this size, TransportError when it can't be mapped.
    """
    try:
        status = os.fstat(descriptor)
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    except OSError as error:
        raise RemoteProtocolError(
            f"the broker sent a descriptor that is no shared memory: {error.strerror}"
        ) from error
    if not stat.S_ISREG(status.st_mode) or seals & SEALS != SEALS:
        raise RemoteProtocolError(
            f"the broker sent shared memory that can still change its size (its seals are {seals:#x})"
        )
    if status.st_size != size_bytes:
        raise RemoteProtocolError(
            f"the broker sent {status.st_size} bytes of shared memory; the agreed limits make {size_bytes}"
        )
    try:
        return mmap.mmap(descriptor, size_bytes)
    except OSError as error:
        raise TransportError(
            f"cannot map {size_bytes} bytes of shared memory: {error.strerror}"
        ) from error


def make_bell() -> int:
    """An eventfd that never blocks. Raises TransportError when there is no descriptor left."""
    try:
        return os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    except OSError as error:
        raise TransportError(f"cannot make an eventfd: {error.strerror}") from error


def check_bell(descriptor: int) -> None:
    """Is this an eventfd, and not something that would block or that bytes must not go to?

    Raises RemoteProtocolError. Both sides share its flags, so a peer of the same user could still make it
    block; such a peer could stop this process just as well.
    """
    name = os.readlink(f"/proc/self/fd/{descriptor}")
    if name != "anon_inode:[eventfd]":
        raise RemoteProtocolError(f"the broker sent {name!r} where an eventfd belongs")
    os.set_blocking(descriptor, False)


def _memfd() -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    with suppress(OSError):
        return os.memfd_create("frieda-shm", flags | _MFD_NOEXEC_SEAL)
    return os.memfd_create("frieda-shm", flags)
