"""The bootstrap socket: it carries the handshake, and then its end is how a peer's death is noticed.

A link owns one connected stream socket, TCP or Unix, from the moment it is made until `close`. First both sides
exchange the messages of `bootstrap`, each within a deadline. Then `watch` leaves the socket open and silent for
the life of the connection: the kernel ends it when the peer's process dies, however that happens, so its end
is news within a turn of the loop, and any byte on it breaks the rules. (Over TCP a peer whose whole machine
is gone says nothing: keepalive, set by whoever made the socket, or the device's own retries notice that.)

    HANDSHAKE --watch--> WATCHED --the peer's end, or a byte--> `ended` is called once
    HANDSHAKE, WATCHED --close--> CLOSED (nothing is called any more)
"""

from __future__ import annotations

import array
import asyncio
import logging
import os
import socket
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Final, TypeVar

from frieda.errors import (
    BrokenError,
    ConnectError,
    FriedaError,
    RemoteProtocolError,
    TransportError,
)
from frieda.transports.rdma.bootstrap import (
    HEADER,
    Hello,
    Message,
    Ready,
    Refused,
    body_size,
    decode,
    encode,
)

STEP_TIMEOUT_S: Final = 5.0
"""How long one message of the handshake may take."""
MAX_HANDSHAKES: Final = 256
"""How many handshakes one listener has under way at once; more wait in the kernel's backlog."""
ACCEPTS_AT_ONCE: Final = 16
"""How many connections one turn of the loop accepts, so that a flood does not hold it."""
RETRY_ACCEPT_S: Final = 0.1
"""How long to wait when the process has no descriptor left."""

_Expected = TypeVar("_Expected", Hello, Ready)

_log = logging.getLogger(__name__)


class Link:
    """One bootstrap socket, non-blocking and connected, which it owns. `peer` is for people to read."""

    def __init__(
        self, sock: socket.socket, peer: str, *, step_timeout_s: float = STEP_TIMEOUT_S
    ) -> None:
        sock.setblocking(False)
        self.peer = peer
        self._sock = sock
        self._step_timeout_s = step_timeout_s
        self._loop = asyncio.get_running_loop()
        self._watched = False

    @property
    def closed(self) -> bool:
        """Was `close` called?"""
        return self._sock.fileno() < 0

    async def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send one message, with copies of these file descriptors (Unix sockets only).

        Raises BrokenError when the peer is gone or does not read within the step's time.
        """
        data = encode(message)
        ancillary = (
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
            if descriptors
            else []
        )
        sent = 0
        try:
            async with asyncio.timeout(self._step_timeout_s):
                while sent < len(data):
                    try:
                        sent += self._sock.sendmsg([data[sent:]], ancillary)
                        ancillary = []
                    except BlockingIOError:
                        await self._wait(self._loop.add_writer, self._loop.remove_writer)
        except TimeoutError:
            raise self._too_slow("did not read the handshake") from None
        except OSError as error:
            raise self._broken(error) from error

    async def receive(self, most_descriptors: int = 0) -> tuple[Message, tuple[int, ...]]:
        """The peer's next message and the file descriptors that came with it, which are the caller's to close.

        Raises ConnectError with the peer's sentence when it refused, RemoteProtocolError for nonsense (too
        many descriptors among it), BrokenError when the peer is gone or slower than the step's time.
        Cancellation and errors leave no descriptor open.
        """
        descriptors: list[int] = []
        try:
            async with asyncio.timeout(self._step_timeout_s):
                header = await self._receive_exactly(HEADER.size, most_descriptors, descriptors)
                size = body_size(header)
                message = decode(
                    header, await self._receive_exactly(size, most_descriptors, descriptors)
                )
            if isinstance(message, Refused):
                raise ConnectError(f"{self.peer} refused the connection: {message.why}")
        except BaseException as error:
            for each in descriptors:
                os.close(each)
            if isinstance(error, TimeoutError):
                raise self._too_slow("said nothing more") from None
            if isinstance(error, OSError):
                raise self._broken(error) from error
            raise
        return message, tuple(descriptors)

    async def expect(self, kind: type[_Expected]) -> _Expected:
        """As `receive`, where only a message of this kind may come, without descriptors."""
        message, _ = await self.receive()
        if not isinstance(message, kind):
            raise RemoteProtocolError(
                f"{self.peer} sent {type(message).__name__} where the handshake wants {kind.__name__}"
            )
        return message

    def watch(self, ended: Callable[[TransportError | None], None]) -> None:
        """The handshake is over: call `ended` once, on the loop, when the peer's side ends.

        With None for a plain end (it closed, or its process died), with an error when it was reset or the
        peer sent something. Not called after `close`.
        """
        self._watched = True
        self._loop.add_reader(self._sock.fileno(), self._look, ended)

    def close(self) -> None:
        """End the link; the peer sees that at once. May be repeated."""
        descriptor = self._sock.fileno()
        if descriptor >= 0:
            if self._watched:
                self._loop.remove_reader(descriptor)
            self._sock.close()

    def _look(self, ended: Callable[[TransportError | None], None]) -> None:
        error: TransportError | None = None
        try:
            if self._sock.recv(1):
                error = BrokenError(
                    f"{self.peer} sent a byte on the bootstrap socket after the handshake"
                )
        except BlockingIOError:
            return
        except OSError as cause:
            error = self._broken(cause)
        self._loop.remove_reader(self._sock.fileno())
        self._watched = False
        ended(error)

    async def _receive_exactly(self, size: int, most_descriptors: int, into: list[int]) -> bytes:
        room = socket.CMSG_SPACE(4 * most_descriptors) if most_descriptors else 0
        data = b""
        while len(data) < size:
            try:
                piece, ancillary, flags, _ = self._sock.recvmsg(
                    size - len(data), room, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                await self._wait(self._loop.add_reader, self._loop.remove_reader)
                continue
            for level, kind, content in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    found = array.array("i")
                    found.frombytes(content[: len(content) - len(content) % found.itemsize])
                    into.extend(found)
            if flags & socket.MSG_CTRUNC or len(into) > most_descriptors:
                raise RemoteProtocolError(
                    f"{self.peer} sent more than the {most_descriptors} file descriptors that belong here"
                )
            if not piece:
                raise BrokenError(
                    f"{self.peer} ended the connection in the middle of the handshake"
                )
            data += piece
        return data

    async def _wait(self, add: Callable[..., object], remove: Callable[[int], object]) -> None:
        descriptor = self._sock.fileno()
        ready: asyncio.Future[None] = self._loop.create_future()
        add(descriptor, _set_once, ready)
        try:
            await ready
        finally:
            remove(descriptor)

    def _too_slow(self, what: str) -> BrokenError:
        return BrokenError(f"{self.peer} {what} within {self._step_timeout_s:g} s")

    def _broken(self, error: OSError) -> BrokenError:
        return BrokenError(f"the bootstrap socket of {self.peer} failed: {error.strerror or error}")


class LinkListener:
    """Accepts links on listening sockets, which it owns, and runs `handshake` for each in a task of its own.

    `handshake(sock, address)` owns the accepted socket and is cancelled by `close`; what it raises ends that
    link only and is logged. Close is for the end of listening: links whose handshake is over live on.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        url: str,
        handshake: Callable[[socket.socket, object], Coroutine[object, object, None]],
    ) -> None:
        self._url = url
        self._handshake = handshake
        self._loop = asyncio.get_running_loop()
        self._sockets = list(sockets)
        self._tasks: set[asyncio.Task[None]] = set()
        self._fresh: set[socket.socket] = set()  # of tasks that have not begun, so still ours
        self._retry: asyncio.TimerHandle | None = None
        self._accepting = False
        for each in self._sockets:
            each.setblocking(False)
        self._resume()

    async def close(self) -> None:
        """Accept no more and end the handshakes under way. May be repeated."""
        self._pause()
        if self._retry is not None:
            self._retry.cancel()
        sockets, self._sockets = self._sockets, []
        for each in sockets:
            each.close()
        tasks = [each for each in self._tasks if each is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _resume(self) -> None:
        self._retry = None
        if not self._accepting and len(self._tasks) < MAX_HANDSHAKES:
            self._accepting = True
            for each in self._sockets:
                self._loop.add_reader(each.fileno(), self._accept, each)

    def _pause(self) -> None:
        if self._accepting:
            self._accepting = False
            for each in self._sockets:
                self._loop.remove_reader(each.fileno())

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(ACCEPTS_AT_ONCE):
            if not self._accepting:
                return
            try:
                sock, address = listening.accept()
            except (BlockingIOError, ConnectionAbortedError, InterruptedError):
                return
            except OSError as error:
                # Out of descriptors or memory: the connection stays in the backlog, so look again soon.
                _log.warning("%s: cannot accept a connection: %s", self._url, error)
                self._pause()
                self._retry = self._loop.call_later(RETRY_ACCEPT_S, self._resume)
                return
            task = self._loop.create_task(self._run(sock, address))
            self._tasks.add(task)
            self._fresh.add(sock)
            task.add_done_callback(partial(self._done, sock))
            if len(self._tasks) >= MAX_HANDSHAKES:
                self._pause()

    async def _run(self, sock: socket.socket, address: object) -> None:
        self._fresh.discard(sock)
        try:
            await self._handshake(sock, address)
        except (FriedaError, OSError) as error:
            _log.info("%s: a connection ended in its handshake: %s", self._url, error)
        except Exception as error:  # noqa: BLE001 - one bad connection must not end the listener
            self._loop.call_exception_handler(
                {"message": f"{self._url}: accepting a connection failed", "exception": error}
            )

    def _done(self, sock: socket.socket, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if sock in self._fresh:  # cancelled before its first step
            self._fresh.discard(sock)
            sock.close()
        if not self._accepting and self._retry is None and self._sockets:
            self._resume()


def _set_once(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
