"""Memory that the device may reach: receive and send slots, the pool's classes, and the sources of READs.

    what               who may reach it                         registered
    slots              this side's device only                  when the queue pair is made
    pool classes       this side's device only                  once, when the provider starts
    sources            nobody, until a window opens a cell      at a connection's first large message
    a source's window  the peer of its queue pair, reading      bound at `take_source`, invalidated at `release`

A window is a memory window of type 2: valid on one queue pair, opened and closed by work requests of that queue pair's
own send queue, so that it is open before the SEND that announces it and no system call is made for a message. It
keeps its key, which opens nothing between `release` and the next `take`, and at no time serves another queue pair:
the most a stale announcement can reach is a later message to the same peer. A device without such windows gets its
sources registered one by one instead, each for as long as it lasts; that costs two system calls for each large
message, and keeps the same promise.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import resource
from bisect import bisect_right
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from frieda.errors import ConfigError, TransportError
from frieda.transports.verbs.binding import INSTEAD, Verbs, errno_of, reason_of


class Region:
    """Memory of our own, registered for `access`. Its owner closes it, after the queue pairs that use it."""

    __slots__ = ("address", "key", "memory", "registration", "view")

    def __init__(self, verbs: Verbs, domain: Any, size_bytes: int, access: int, what: str) -> None:
        self.memory = mmap.mmap(-1, size_bytes)
        self.view = memoryview(self.memory)
        self.address = address_of(self.view)
        try:
            self.registration = register(verbs, domain, self.address, size_bytes, access, what)
        except BaseException:
            self.view.release()
            self.memory.close()
            raise
        self.key: int = self.registration.lkey

    def cut(self, start: int, size_bytes: int, count: int) -> list[memoryview]:
        """`count` views of `size_bytes` each, from `start` on. They may outlive the region."""
        ends = range(start, start + size_bytes * count, size_bytes)
        return [self.view[cut : cut + size_bytes] for cut in ends]

    def close(self) -> None:
        """Take it from the device. The memory goes with the last view of it."""
        self.registration.close()
        self.view.release()
        with suppress(BufferError):  # somebody still looks at a slot
            self.memory.close()


class PoolRegions:
    """The classes of a buffer pool, registered once, so that a READ lands in a lease without further ado."""

    def __init__(self, verbs: Verbs, domain: Any, regions: Iterable[mmap.mmap]) -> None:
        self._verbs = verbs
        self._domain = domain
        found: list[tuple[int, int, Any]] = []
        self._registered = found
        try:
            for each in regions:
                with memoryview(each) as whole:
                    address, size = address_of(whole), whole.nbytes
                writable = verbs.constants.IBV_ACCESS_LOCAL_WRITE
                what = f"a buffer class of {size} bytes"
                registration = register(verbs, domain, address, size, writable, what)
                found.append((address, address + size, registration))
        except BaseException:
            self.close()
            raise
        found.sort(key=lambda each: each[0])
        self._starts = [start for start, _, _ in found]

    def key_of(self, address: int, size_bytes: int) -> int | None:
        """The local key of this range, None when it lies in no class (a pool that pools nothing)."""
        place = bisect_right(self._starts, address) - 1
        if place >= 0:
            _, end, registration = self._registered[place]
            if address + size_bytes <= end:
                key: int = registration.lkey
                return key
        return None

    def register_alone(self, address: int, size_bytes: int) -> Any:
        """A registration for one READ into memory that is in no class; the caller closes it."""
        access = self._verbs.constants.IBV_ACCESS_LOCAL_WRITE
        return register(self._verbs, self._domain, address, size_bytes, access, "a buffer")

    def close(self) -> None:
        """Take the classes from the device."""
        for _, _, registration in self._registered:
            registration.close()
        self._registered.clear()


def address_of(view: memoryview) -> int:
    """Where a writable view's memory is. The view stays free to be released."""
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


def register(
    verbs: Verbs, domain: Any, address: int, size_bytes: int, access: int, what: str
) -> Any:
    """Register memory. Raises ConfigError when the limit of locked memory is too low, else TransportError."""
    try:
        return verbs.MR(domain, size_bytes, access, address=address)
    except verbs.error as error:
        # The kernel counts what is pinned, and says either when it is too much.
        if errno_of(error) in (errno.ENOMEM, errno.EAGAIN, errno.EPERM):
            raise ConfigError(memory_sentence(size_bytes, what)) from error
        raise TransportError(f"the device cannot register {what}: {reason_of(error)}") from error


def memory_sentence(size_bytes: int, what: str) -> str:
    """Why memory could not be registered, and how to raise the limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    limit = "unlimited" if soft == resource.RLIM_INFINITY else f"{soft // 1024} KiB"
    return (
        f"RDMA cannot lock the memory of {what} ({size_bytes // 1024} KiB): the limit of this process is {limit} "
        "(ulimit -l); raise it with  ulimit -l unlimited , LimitMEMLOCK=infinity in a systemd unit, a memlock "
        f"line in /etc/security/limits.conf or --ulimit memlock=-1 of a container, or {INSTEAD}"
    )
