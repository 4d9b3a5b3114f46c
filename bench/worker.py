"""One process of a benchmark: `python -m frieda.bench.worker MODULE:FUNCTION`, told what to do in JSON.

Its lines of JSON: the task comes first on standard input; it says {"type": "ready"}; a start time
comes; it says {"type": "progress"} as it goes and {"type": "result"} or {"type": "error"} at the
end. When its standard input ends it stops, so that it never outlives who started it.
`frieda.bench.fleet` is the other side.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from importlib import import_module
from typing import Any, Final

from frieda.errors import FriedaError
from frieda.event_loop import new_event_loop

MAX_LINE_BYTES: Final = 64 * 1024 * 1024

Entry = Callable[[dict[str, Any], "Channel"], Awaitable[dict[str, Any]]]


class Channel:
    """What a worker's function has to talk with whoever started it."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._start_ns: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._later: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    async def ready(self, facts: Mapping[str, Any] | None = None) -> int:
        """Say that all is set up, and wait for the time (monotonic, in ns) to begin at."""
        self.say("ready", facts=dict(facts or {}))
        return await self._start_ns

    async def heard(self) -> dict[str, Any]:
        """Wait for what is said after the start: the one word by which a worker that would go on is told to end."""
        return await asyncio.shield(self._later)

    def progress(self, facts: Mapping[str, Any]) -> None:
        """Tell what one reporting window held."""
        self.say("progress", facts=dict(facts))

    def say(self, kind: str, **values: Any) -> None:
        """Write one line."""
        line = json.dumps({"type": kind, **values}).encode() + b"\n"
        while line:
            line = line[os.write(1, line) :]

    async def listen(self) -> None:
        """Take what the other side says until it says no more."""
        while line := await self._reader.readline():
            message = json.loads(line)
            if not self._start_ns.done():
                self._start_ns.set_result(int(message["start_ns"]))
            elif not self._later.done():
                self._later.set_result(message)


def find_entry(name: str) -> Entry:
    """The function that `module:function` names."""
    module, _, function = name.partition(":")
    entry: Entry = getattr(import_module(module), function)
    return entry


async def run(entry: Entry) -> int:
    """Run one worker to its end and return its exit code."""
    reader = asyncio.StreamReader(limit=MAX_LINE_BYTES)
    loop = asyncio.get_running_loop()
    pipe, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(os.dup(0), "rb")
    )
    task = json.loads(await reader.readline() or b"null")
    if task is None:
        return 0
    channel = Channel(reader)
    # The collector would stop the world in the middle of the load; nothing here makes cycles.
    gc.collect()
    gc.freeze()
    gc.disable()
    working = asyncio.ensure_future(entry(task, channel))
    listening = asyncio.ensure_future(channel.listen())
    try:
        await asyncio.wait({working, listening}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            return 0
        channel.say("result", facts=working.result())
    except (FriedaError, OSError) as error:
        channel.say("error", message=str(error) or type(error).__name__)
        return 1
    finally:
        for part in (working, listening):
            part.cancel()
        with contextlib.suppress(asyncio.CancelledError, FriedaError, OSError):
            await asyncio.gather(working, listening)
        pipe.close()
    return 0


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        code = runner.run(run(find_entry(sys.argv[1])))
    sys.exit(code)
