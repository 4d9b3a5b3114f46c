"""The event loop that Frieda's own processes run on: uvloop where it is installed, else asyncio's."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec

HAS_UVLOOP = find_spec("uvloop") is not None


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A new loop, for `asyncio.Runner(loop_factory=...)`."""
    if not HAS_UVLOOP:
        return asyncio.SelectorEventLoop()
    import uvloop  # noqa: PLC0415  (an optional package)

    return uvloop.new_event_loop()
