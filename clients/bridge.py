"""Asynchronous clients for callers that are not: one background thread runs them, callers wait for it.

The thread and its event loop start with the first client and end with the last.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError, Future, wait
from typing import Final, Generic, Protocol, TypeVar

from frieda.errors import ClientClosedError
from frieda.event_loop import new_event_loop

Result = TypeVar("Result")

CANCEL_TIMEOUT_S: Final = 5.0
"""How long an interrupted caller waits for the end of what it started."""


class Startable(Protocol):
    """What every asynchronous client has."""

    async def start(self) -> None: ...


Client = TypeVar("Client", bound=Startable)


class _Background:
    """The thread and its loop, counted by the clients that use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def acquire(self) -> asyncio.AbstractEventLoop:
        """The running loop; started for the first user."""
        with self._lock:
            self._users += 1
            if self._loop is None:
                self._loop = new_event_loop()
                self._thread = threading.Thread(
                    target=_run, args=(self._loop,), name="frieda-sync", daemon=True
                )
                self._thread.start()
            return self._loop

    def release(self) -> None:
        """The last user ends the thread."""
        with self._lock:
            self._users -= 1
            if self._users:
                return
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()


_background = _Background()


class Bridge(Generic[Client]):
    """One asynchronous client, used on the background loop only. Owner: a synchronous client, who closes it."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    @property
    def started(self) -> bool:
        return self._loop is not None

    def start(self) -> None:
        """Start the client. When that fails nothing is left running."""
        if self._closed:
            raise ClientClosedError("this client was closed; make a new one")
        if self._loop is not None:
            return
        self._loop = _background.acquire()
        try:
            self.call(lambda client: client.start())
        except BaseException:
            self._end()
            raise

    def close(self, closing: Callable[[Client], Awaitable[None]]) -> None:
        """Close the client by `closing`. May be repeated."""
        if self._loop is None or self._closed:
            self._closed = True
            return
        try:
            self.call(closing)
        finally:
            self._end()

    def ask(self, method: Callable[[Client], Result]) -> Result:
        """The result of a method that does not wait, called on the loop."""

        async def asked(client: Client) -> Result:
            return method(client)

        return self.call(asked)

    def call(self, method: Callable[[Client], Awaitable[Result]]) -> Result:
        """The result of an asynchronous method.

        Whatever interrupts the wait here (Ctrl-C) cancels the method there and waits until it has ended, so
        that no two of them ever run at once. Raises ClientClosedError before `start` and after `close`.
        """
        loop = self._loop
        if self._closed or loop is None:
            raise ClientClosedError(
                "this client is closed"
                if self._closed
                else "this client is not started: use 'with', or start()"
            )
        if _runs_here(loop):
            raise ClientClosedError(
                "a synchronous client cannot be used in a callback of its own: it would wait for itself"
            )
        done: Future[Result] = Future()
        tasks: list[asyncio.Task[Result]] = []

        async def called() -> Result:
            return await method(self._client)

        def begin() -> None:
            task = loop.create_task(called())
            task.add_done_callback(lambda ended: _tell(done, ended))
            tasks.append(task)

        def cancel() -> None:
            tasks[0].cancel()

        loop.call_soon_threadsafe(begin)
        try:
            return done.result()
        except BaseException:
            if not done.done():
                loop.call_soon_threadsafe(cancel)
                wait({done}, timeout=CANCEL_TIMEOUT_S)
            raise

    def _end(self) -> None:
        self._closed = True
        self._loop = None
        _background.release()


def _tell(done: Future[Result], task: asyncio.Task[Result]) -> None:
    if task.cancelled():
        done.set_exception(CancelledError())
    elif (error := task.exception()) is not None:
        done.set_exception(error)
    else:
        done.set_result(task.result())


def _runs_here(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False
