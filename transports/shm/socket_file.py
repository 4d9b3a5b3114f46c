"""The Unix socket that an shm broker listens at: its path, its mode, who may be on it, and what a dead one leaves.

    shm:///run/frieda/broker.sock

The socket has mode 0600 from its first moment: on Linux the mode of the socket's own inode, which fchmod sets
before bind, is what bind makes the file with (net/unix/af_unix.c, unix_bind_bsd), so no umask is touched. A file
that a dead broker left is replaced; whether it is dead is found by connecting to it. While one broker looks and
replaces, a lock on the folder (flock, which leaves no file) holds others off.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import socket
import stat
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final, NamedTuple

from frieda.errors import AddressInUseError, ConfigError, ConnectError, TransportError
from frieda.transports.address import split_url

MAX_PATH_BYTES: Final = 107
"""sun_path of struct sockaddr_un holds 108 bytes, the last of them 0."""
MODE: Final = 0o600
LOCK_TIMEOUT_S: Final = 5.0
LOCK_RETRY_S: Final = 0.01
CONNECT_RETRY_S: Final = 0.005
"""How long to wait when the backlog of the broker is full."""


class Credentials(NamedTuple):
    """Who the kernel says is on the other side."""

    pid: int
    uid: int
    gid: int


def path_of(url: str) -> str:
    """The path of `shm:///path`. Raises ConfigError, naming the url and what is wrong."""
    scheme, path = split_url(url)
    if not path.startswith("/"):
        raise ConfigError(f"{url!r}: the path must be absolute: write {scheme}:///{path}")
    if path.endswith("/") or "\0" in path:
        raise ConfigError(f"{url!r} names no file: write {scheme}:///folder/name.sock")
    try:
        size = len(os.fsencode(path))
    except UnicodeEncodeError as error:
        raise ConfigError(f"{url!r} is no file name here: {error.reason}") from None
    if size > MAX_PATH_BYTES:
        raise ConfigError(
            f"{url!r}: the path has {size} bytes and a Unix socket's can have {MAX_PATH_BYTES}; use a shorter one"
        )
    return path


async def connect(url: str) -> socket.socket:
    """A connected socket. Raises ConnectError, naming the url; retries while the backlog is full."""
    path = path_of(url)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        while True:
            try:
                sock.connect(path)
                return sock
            except BlockingIOError:
                await asyncio.sleep(CONNECT_RETRY_S)
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError):
            raise ConnectError(f"{url}: cannot connect: {_why(error, path)}") from error
        raise


class SocketFile:
    """A listening socket and the file it is reached by. Owner: the listener, which calls `close`."""

    def __init__(self, path: str, sock: socket.socket) -> None:
        self.sock = sock
        self._path = path
        self._identity = _identity(path)

    @classmethod
    async def listen(cls, url: str, backlog: int) -> SocketFile:
        """Listen at `url`. Raises AddressInUseError or TransportError, naming the url."""
        path = path_of(url)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            async with _folder_lock(url, os.path.dirname(path)):
                _remove_dead(url, path)
                os.fchmod(sock.fileno(), MODE)
                sock.bind(path)
                sock.listen(backlog)
                return cls(path, sock)
        except BaseException as error:
            sock.close()
            if isinstance(error, OSError):
                raise TransportError(f"{url}: cannot listen: {error.strerror or error}") from error
            raise

    def remove(self) -> None:
        """Remove the file while the socket still listens, so that nobody takes it for a dead one. May be repeated."""
        with suppress(FileNotFoundError):
            if _identity(self._path) == self._identity:
                os.unlink(self._path)


def peer_credentials(sock: socket.socket) -> Credentials:
    """Who connected, or who listens. Raises ConnectError when that is neither this process's user nor root."""
    found = Credentials(
        *struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    )
    if found.uid not in (0, os.geteuid()):
        raise ConnectError(
            f"process {found.pid} on the other side belongs to user {found.uid}, not to user {os.geteuid()} "
            "as this one does: shm connects processes of one user; use tcp between users"
        )
    return found


def _identity(path: str) -> tuple[int, int, int]:
    """Which file lies at `path`. Its number alone does not say: a new file may get that of a removed one."""
    status = os.lstat(path)
    return status.st_dev, status.st_ino, status.st_mtime_ns


def _remove_dead(url: str, path: str) -> None:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise TransportError(
            f"{url}: cannot listen: {path} exists and is no socket; remove it or use another path"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except FileNotFoundError:
            return
        except BlockingIOError:
            pass  # somebody listens there, with a full backlog
        except OSError as error:
            raise TransportError(
                f"{url}: cannot listen: {path} exists and does not say whether it is in use: {error.strerror}"
            ) from error
    raise AddressInUseError(f"{url}: another process listens at this address")


@asynccontextmanager
async def _folder_lock(url: str, folder: str) -> AsyncIterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for _ in range(int(LOCK_TIMEOUT_S / LOCK_RETRY_S)):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(LOCK_RETRY_S)
        else:
            raise TransportError(
                f"{url}: cannot listen: another process holds a lock on {folder} for {LOCK_TIMEOUT_S:g} s; "
                "use a folder of Frieda's own"
            )
        yield
    finally:
        os.close(descriptor)


def _why(error: OSError, path: str) -> str:
    if error.errno == errno.ECONNREFUSED:
        with suppress(OSError):
            if not stat.S_ISSOCK(os.stat(path).st_mode):
                return f"{path} is no socket"
        return "no broker listens at this socket any more"
    if error.errno == errno.ENOENT:
        return f"there is no socket {path}; is the broker running, and does it listen with shm?"
    return error.strerror or str(error)
