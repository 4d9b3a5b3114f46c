"""Cyclic garbage collection, kept off the hot path.

A full collection walks every container of the process and stops the loop for milliseconds. What exists at the
start is frozen out of it; after that the young generations are collected by a timer, when little can be in them,
instead of in the middle of a request.
"""

from __future__ import annotations

import asyncio
import gc

INTERVAL_S = 1.0
_FULL_EVERY = 600


class QuietGarbageCollector:
    """Between `start` and `stop` the interpreter collects only when this timer fires."""

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None
        self._rounds = 0

    def start(self) -> None:
        """Collect, freeze what is left, and take over."""
        gc.collect()
        gc.freeze()
        gc.disable()
        self._arm()

    def stop(self) -> None:
        """Give the collection back to the interpreter."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            gc.enable()
            gc.unfreeze()

    def _arm(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(INTERVAL_S, self._collect)

    def _collect(self) -> None:
        self._rounds += 1
        # Survivors of a second rarely die in the next one: the older generation is looked at every ten minutes.
        gc.collect(2 if self._rounds % _FULL_EVERY == 0 else 0)
        self._arm()
