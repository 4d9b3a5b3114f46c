"""The event loop that Frieda's own processes run on: uvloop where it is installed, else asyncio's."""

from __future__ import annotations

import asyncio

try:
    import uvloop
except ImportError:
    uvloop = None


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A new loop, for `asyncio.Runner(loop_factory=...)`."""
    if uvloop is None:
        return asyncio.SelectorEventLoop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def loop_name() -> str:
    """Which one it is, with its version, for people."""
    return "asyncio" if uvloop is None else f"uvloop {uvloop.__version__}"
