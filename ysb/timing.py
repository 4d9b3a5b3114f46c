"""Waiting for a moment of the monotonic clock, and the processor time that is used from a moment on."""

from __future__ import annotations

import asyncio
import time
from typing import Self


async def sleep_until(moment_ns: int) -> None:
    """Until then, never less: timers of an event loop tick in ms and may be early."""
    # The only thing that is waited for is the time.
    while (left_ns := moment_ns - time.monotonic_ns()) > 0:  # noqa: ASYNC110
        await asyncio.sleep(left_ns / 1e9)


class ProcessorTime:
    """What this process uses from `from_ns` on, in seconds. To be used as a context, on the event loop."""

    def __init__(self, from_ns: int) -> None:
        self._from_ns = from_ns
        self._before_s = 0.0
        self._waiting: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        self._waiting = asyncio.ensure_future(self._begin())
        return self

    def __exit__(self, *_: object) -> None:
        if self._waiting is not None:
            self._waiting.cancel()

    async def _begin(self) -> None:
        await sleep_until(self._from_ns)
        self._before_s = time.process_time()

    @property
    def used_s(self) -> float:
        """So far; 0 before `from_ns`."""
        return time.process_time() - self._before_s if self._before_s else 0.0
