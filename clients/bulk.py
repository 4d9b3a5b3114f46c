"""The results of a bulk send, gathered stretch by stretch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from frieda.errors import FriedaError
from frieda.model import RecordMetadata

OnDone = Callable[[int, int, "FriedaError | None"], None]


class BulkResults:
    """Fills the list of results of `Producer.send_batch`. Made on the event loop."""

    def __init__(self, topic: str, results: list[RecordMetadata | FriedaError]) -> None:
        self._topic = topic
        self._results = results
        self._unfinished = 0
        self._done: asyncio.Future[None] | None = None

    def expect(self, first: int, count: int, timestamp_ms: int) -> Callable[[int, int], OnDone]:
        """For `count` values, the first of which is result `first`: what makes the callback of each stretch."""
        self._unfinished += count

        def on_done_for(index: int, partition: int) -> OnDone:
            position = first + index

            def on_done(done: int, base_offset: int, error: FriedaError | None) -> None:
                nonlocal position
                for number in range(done):
                    if error is not None:
                        self._results[position] = error
                    else:
                        offset = base_offset + number if base_offset >= 0 else -1
                        self._results[position] = RecordMetadata(
                            self._topic, partition, offset, timestamp_ms
                        )
                    position += 1
                self._unfinished -= done
                if self._unfinished == 0 and self._done is not None:
                    self._done.set_result(None)
                    self._done = None

            return on_done

        return on_done_for

    async def finished(self) -> None:
        """Wait until every value that was expected has its result."""
        if self._unfinished:
            self._done = asyncio.get_running_loop().create_future()
            await self._done
