"""Waiting for a moment of the monotonic clock."""

from __future__ import annotations

import asyncio
import time


async def sleep_until(moment_ns: int) -> None:
    """Until then, never less: timers of an event loop tick in ms and may be early."""
    # The only thing that is waited for is the time.
    while (left_ns := moment_ns - time.monotonic_ns()) > 0:  # noqa: ASYNC110
        await asyncio.sleep(left_ns / 1e9)
