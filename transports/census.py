"""How many Frieda processes of this user want to spin on this host, and on how many cores.

A small file in /dev/shm holds a slot for each event loop: when it was last active (monotonic clock, which all
processes of a host share) and on which cores it may run. A slot is claimed by a lock on its byte range that
belongs to the open file (fcntl(2), F_OFD_SETLK), so the kernel frees it however the process ends, and two loops
of one process have two. Slots are read and written with pread and pwrite and not mapped, so that a truncated
file cannot kill anyone with SIGBUS.

Nothing here ever fails: without the file (no /dev/shm, a read-only one, a file that is not ours) only this
process is counted, and `available` says so.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from contextlib import suppress
from pathlib import Path
from typing import Final

SLOTS: Final = 256
FRESH_NS: Final = 200_000_000
"""A process that was active within this counts."""

_SLOT: Final = struct.Struct("=qQ")  # last active (monotonic ns), mask of cores (folded to 64 bits)
_FLOCK: Final = struct.Struct("hhqqi4x")  # struct flock of 64-bit Linux
_MASK_BITS: Final = 64


def usable_cores() -> int:
    """The cores this process may use: its affinity, bounded by the CPU quota of its cgroup."""
    cores = len(os.sched_getaffinity(0))
    quota = _cgroup_quota()
    return cores if quota is None else max(1, min(cores, int(quota)))


def core_mask() -> int:
    """The cores this process may run on as bits, folded to 64."""
    mask = 0
    for core in os.sched_getaffinity(0):
        mask |= 1 << (core % _MASK_BITS)
    return mask


class Census:
    """This loop's slot in the census file. Owner: its polling engine, which closes it."""

    def __init__(self, folder: str = "/dev/shm") -> None:
        self.path = Path(folder) / f"frieda-census-{os.geteuid()}"
        self.cores = usable_cores()
        self.why_unavailable = ""
        """Empty when the census works, else one sentence."""
        self._mask = core_mask()
        self._slot = -1
        self._fd = -1
        try:
            self._open()
        except OSError as error:
            self._give_up(f"{self.path}: {error.strerror or error}")

    @property
    def available(self) -> bool:
        """Are other processes counted?"""
        return self._fd >= 0

    def heartbeat(self, now_ns: int) -> None:
        """This loop is active, spinning or not."""
        self._put(now_ns)

    def active(self, now_ns: int) -> int:
        """The active loops that share a core with this one, this one included."""
        if self._fd < 0:
            return 1
        try:
            data = os.pread(self._fd, SLOTS * _SLOT.size, 0)
        except OSError as error:
            self._give_up(f"{self.path}: {error.strerror or error}")
            return 1
        count = 1
        whole = len(data) - len(data) % _SLOT.size
        for slot, (seen_ns, mask) in enumerate(_SLOT.iter_unpack(data[:whole])):
            if slot != self._slot and 0 <= now_ns - seen_ns < FRESH_NS and mask & self._mask:
                count += 1
        return count

    def close(self) -> None:
        """Leave the census. May be repeated."""
        if self._fd >= 0:
            self._put(0)
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        self._fd = os.open(self.path, flags, 0o600)
        status = os.fstat(self._fd)
        if (
            not stat.S_ISREG(status.st_mode)
            or status.st_uid != os.geteuid()
            or status.st_nlink != 1
        ):
            self._give_up(f"{self.path} is not a plain file of this user")
        elif status.st_mode & 0o077:
            self._give_up(f"{self.path} can be used by others")
        elif not self._claim():
            self._give_up(f"all {SLOTS} slots of {self.path} are taken")

    def _claim(self) -> bool:
        for slot in range(SLOTS):
            lock = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, slot * _SLOT.size, _SLOT.size, 0)
            try:
                fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, lock)
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.EACCES):
                    continue
                raise
            self._slot = slot
            return True
        return False

    def _put(self, now_ns: int) -> None:
        if self._fd >= 0:
            try:
                os.pwrite(self._fd, _SLOT.pack(now_ns, self._mask), self._slot * _SLOT.size)
            except OSError as error:
                self._give_up(f"{self.path}: {error.strerror or error}")

    def _give_up(self, why: str) -> None:
        self.why_unavailable = why
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _cgroup_quota() -> float | None:
    """The cores that the CPU quota of this process' cgroup allows, or None (cgroups v2, then v1)."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    quotas: list[float] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        folder = "" if path == "/" else path
        with suppress(OSError, ValueError):
            if not controllers:
                quota, period = Path(f"/sys/fs/cgroup{folder}/cpu.max").read_text().split()
            elif "cpu" in controllers.split(","):
                base = Path(f"/sys/fs/cgroup/cpu{folder}")
                quota = (base / "cpu.cfs_quota_us").read_text()
                period = (base / "cpu.cfs_period_us").read_text()
            else:
                continue
            if quota != "max" and int(quota) > 0:
                quotas.append(int(quota) / int(period))
    return min(quotas) if quotas else None
