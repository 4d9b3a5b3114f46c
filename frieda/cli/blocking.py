"""Calls that may block for as long as a person likes: reading a terminal, writing into a full pipe."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

Result = TypeVar("Result")


class BlockingThread:
    """One daemon thread that runs calls one after the other.

    Daemon, unlike an executor's threads, so that an interrupted command ends although its standard input does
    not. Owned by who made it, who calls `close`.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]] | None] = (
            SimpleQueue()
        )
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._work, name="frieda-blocking", daemon=True).start()

    async def run(self, call: Callable[[], Result]) -> Result:
        """The result of `call()`. Cancellation does not stop a call that has begun; its result is dropped."""
        future: asyncio.Future[Result] = self._loop.create_future()
        self._calls.put((call, future))
        return await future

    def close(self) -> None:
        """End the thread after the calls it has been given."""
        self._calls.put(None)

    def _work(self) -> None:
        while (item := self._calls.get()) is not None:
            call, future = item
            result, error = None, None
            try:
                result = call()
            except Exception as caught:  # noqa: BLE001  (raised again where the call was made)
                error = caught
            try:
                self._loop.call_soon_threadsafe(_finish, future, result, error)
            except RuntimeError:
                return  # the loop has ended, nobody waits any more


def write_all(descriptor: int, data: bytes | bytearray) -> None:
    """Write all of `data`. Raises OSError, BrokenPipeError among them."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _finish(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
