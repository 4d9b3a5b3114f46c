"""The pool that messages are received into: size classes made once, leased and given back in O(1).

Each class is one anonymous memory map cut into equal buffers, so a page costs memory only once it is used,
and a network card can register a class as one region. A lease that finds its own class empty takes a buffer
of the next larger one. When all are out, the answer is None or a wait: memory is never allocated beyond the
classes, which is what turns a flood into backpressure.

A pool belongs to one event loop; nothing here is safe to call from another thread.
"""

from __future__ import annotations

import asyncio
import logging
import mmap
import traceback
from bisect import bisect_left
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from frieda.errors import BufferExhaustedError, ConfigError, LocalProtocolError

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassStatistics:
    """The counters of one size class since the pool was made."""

    size_bytes: int
    buffers: int
    in_use: int
    high_water: int
    """The most buffers that were ever out at once."""
    hits: int
    """Leases of this size that a buffer of this class served."""
    misses: int
    """Leases of this size that a larger class had to serve."""
    exhausted: int
    """Leases of this size that found nothing free."""
    waits: int
    """Of those, the ones that waited for a buffer."""


class Lease:
    """A buffer on loan, counted: it goes back to the pool when `release` was called once more than `retain`.

    `view` is a writable memoryview of exactly the size that was asked for. It is invalidated at the last
    release, so that a use after that is a ValueError and not a damaged message of someone else.
    """

    __slots__ = ("_block", "_class", "_count", "_pool", "origin", "view")

    def __init__(
        self, pool: BufferPool, size_class: _SizeClass, block: memoryview, size: int
    ) -> None:
        self.view = block[:size]
        self.origin: str | None = None
        self._pool = pool
        self._class = size_class
        self._block = block
        self._count = 1

    def retain(self) -> None:
        """One more holder. Raises LocalProtocolError when it was given back already."""
        if self._count <= 0:
            raise LocalProtocolError("a buffer lease was retained after its last release")
        self._count += 1

    def release(self) -> None:
        """One holder less; the last one gives the buffer back.

        Raises LocalProtocolError when nobody holds it, or when its view is still exported to something
        that could write into the next message (the buffer then stays out, and the leak report names it).
        """
        count = self._count - 1
        if count > 0:
            self._count = count
            return
        if count < 0:
            raise LocalProtocolError("a buffer lease was released more often than it was held")
        try:
            self.view.release()
        except BufferError:
            raise LocalProtocolError(
                "a buffer lease was released while its view is in use"
            ) from None
        self._count = 0
        self._pool._take_back(self)

    def __repr__(self) -> str:
        state = f"{self.view.nbytes} bytes, held {self._count} times" if self._count else "released"
        return f"<Lease {state}>"


class BufferWaiter:
    """A place in the queue for a buffer. `cancel` gives it up and may be called at any time."""

    __slots__ = ("_pool", "callback", "first_class", "size_bytes")

    def __init__(
        self, pool: BufferPool, size_bytes: int, first_class: int, callback: Callable[[Lease], None]
    ) -> None:
        self._pool = pool
        self.size_bytes = size_bytes
        self.first_class = first_class
        self.callback = callback

    def cancel(self) -> None:
        """Wait no longer; the callback will not be called."""
        self._pool._waiters.pop(self, None)


class _SizeClass:
    """One class: its memory and its free list."""

    __slots__ = (
        "count",
        "exhausted",
        "free",
        "high_water",
        "hits",
        "index",
        "misses",
        "region",
        "size_bytes",
        "waits",
    )

    def __init__(self, index: int, size_bytes: int, count: int, pooled: bool) -> None:
        self.index = index
        self.size_bytes = size_bytes
        self.count = count
        self.hits = self.misses = self.waits = self.exhausted = self.high_water = 0
        self.region: mmap.mmap | None = None
        if pooled:
            self.region = mmap.mmap(-1, size_bytes * count)
            with memoryview(self.region) as whole:
                cuts = range(0, size_bytes * count, size_bytes)
                self.free = [whole[cut : cut + size_bytes] for cut in reversed(cuts)]
        else:
            self.free = [_NO_BLOCK] * count


_NO_BLOCK = memoryview(b"")  # stands for a buffer that is only made when leased (pooled=False)


class BufferPool:
    """Buffers by size class (size in bytes -> how many).

    `pooled=False` makes a fresh bytearray for every lease, within the same bounds: the switch that shows what
    pooling is worth. `trace=True` remembers where each lease was taken, for the leak report.
    """

    def __init__(
        self, classes: Mapping[int, int], *, pooled: bool = True, trace: bool = False
    ) -> None:
        if not classes or min(classes) < 1 or min(classes.values()) < 1:
            raise ConfigError(f"buffers = {dict(classes)}: sizes and counts must be at least 1")
        self.pooled = pooled
        self.overflows = 0
        """How often bytes that had been read found no buffer and were kept outside the pool."""
        self.arriving_bytes = 0
        """In the buffers of messages that have begun and are not whole: who stalls in one keeps its buffer."""
        self.late_messages = 0
        """How many of these were given up because they took too long."""
        self._trace = trace
        self._sizes = sorted(classes)
        self._classes = [
            _SizeClass(index, size, classes[size], pooled) for index, size in enumerate(self._sizes)
        ]
        self._out: set[Lease] = set()
        self._waiters: dict[BufferWaiter, None] = {}
        self._when_closed: list[Callable[[], None]] = []
        self._closed = False

    @property
    def largest_bytes(self) -> int:
        """The largest lease that can ever be had."""
        return self._sizes[-1]

    @property
    def in_use(self) -> int:
        """How many leases are out."""
        return len(self._out)

    @property
    def statistics(self) -> tuple[ClassStatistics, ...]:
        """The counters of every class, smallest first."""
        return tuple(
            ClassStatistics(
                size_bytes=each.size_bytes,
                buffers=each.count,
                in_use=each.count - len(each.free),
                high_water=each.high_water,
                hits=each.hits,
                misses=each.misses,
                exhausted=each.exhausted,
                waits=each.waits,
            )
            for each in self._classes
        )

    @property
    def regions(self) -> tuple[mmap.mmap, ...]:
        """The memory of every class, for a device to register; empty when the pool pools nothing or is closed."""
        return tuple(each.region for each in self._classes if each.region is not None)

    def lease(self, size_bytes: int) -> Lease | None:
        """A buffer of exactly `size_bytes`, or None when none that fits is free.

        Raises LocalProtocolError when no class could ever hold that size.
        """
        index = bisect_left(self._sizes, size_bytes)
        self._check(index, size_bytes)
        own = self._classes[index]
        if own.free:
            own.hits += 1
            return self._lend(own, size_bytes)
        for larger in self._classes[index + 1 :]:
            if larger.free:
                own.misses += 1
                return self._lend(larger, size_bytes)
        own.exhausted += 1
        return None

    async def lease_wait(self, size_bytes: int, timeout_s: float) -> Lease:
        """A buffer of exactly `size_bytes`, waiting in turn for one to come free.

        Raises BufferExhaustedError after `timeout_s`. Cancellation leaves nothing leased and no place taken.
        """
        lease = self.lease(size_bytes)
        if lease is not None:
            return lease
        granted: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        waiter = self._wait(size_bytes, granted.set_result)
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(granted)
        except BaseException as error:
            waiter.cancel()
            if granted.done():
                granted.result().release()
            if isinstance(error, TimeoutError):
                raise BufferExhaustedError(
                    f"no buffer of {size_bytes} bytes came free within {timeout_s:g} s; "
                    "raise the number of buffers of that size"
                ) from None
            raise

    def when_free(self, size_bytes: int, callback: Callable[[Lease], None]) -> BufferWaiter:
        """Call `callback` with a lease of `size_bytes` once one is free: first come, first served.

        To be called after `lease` gave None. The callback runs inside somebody else's `release`, so it must
        be short and must not raise. The lease is its own.
        """
        return self._wait(size_bytes, callback)

    def keep(self, message: memoryview, lease: Lease | None) -> Lease | None:
        """Make a received message last: its own lease retained, or a copy of it, or None when exhausted.

        `message` is the whole message as it was delivered; it is what `view` of the answer holds.
        """
        if lease is not None:
            if message.nbytes != lease.view.nbytes:
                raise LocalProtocolError("keep() takes the whole message, not a part of it")
            lease.retain()
            return lease
        kept = self.lease(message.nbytes)
        if kept is not None:
            kept.view[:] = message
        return kept

    def leaks(self) -> tuple[str, ...]:
        """A sentence for each lease that is out (with where it was taken, when tracing)."""
        return tuple(
            f"{lease!r} was never given back"
            + (f"; taken at:\n{lease.origin}" if lease.origin else "")
            for lease in self._out
        )

    def when_closed(self, callback: Callable[[], None]) -> None:
        """Call `callback` when this pool is closed, before its memory goes: for a device that registered it."""
        self._when_closed.append(callback)

    def close(self) -> tuple[str, ...]:
        """Give the memory back and return the leak report, which is also logged. May be repeated.

        A buffer that is still out stays valid for its holder; its memory goes when the holder drops it.
        """
        if self._closed:
            return ()
        self._closed = True
        callbacks, self._when_closed = self._when_closed, []
        for callback in callbacks:
            callback()
        self._waiters.clear()
        leaks = self.leaks()
        for leak in leaks:
            _log.warning("buffer pool closed: %s", leak)
        for each in self._classes:
            for block in each.free:
                if block is not _NO_BLOCK:
                    block.release()
            each.free.clear()
            if each.region is not None:
                with suppress(BufferError):  # somebody still has a view; the memory goes with it
                    each.region.close()
            each.region = None
        return leaks

    def _check(self, index: int, size_bytes: int) -> None:
        if size_bytes < 1 or index == len(self._sizes):
            raise LocalProtocolError(
                f"a buffer of {size_bytes} bytes was asked for; the pool has sizes from 1 to {self._sizes[-1]}"
            )

    def _lend(self, size_class: _SizeClass, size_bytes: int) -> Lease:
        free = size_class.free
        block = free.pop()
        if not self.pooled:
            block = memoryview(bytearray(size_bytes))
        used = size_class.count - len(free)
        size_class.high_water = max(size_class.high_water, used)
        lease = Lease(self, size_class, block, size_bytes)
        if self._trace:
            lease.origin = "".join(traceback.format_stack(limit=12)[:-2])
        self._out.add(lease)
        return lease

    def _wait(self, size_bytes: int, callback: Callable[[Lease], None]) -> BufferWaiter:
        index = bisect_left(self._sizes, size_bytes)
        self._check(index, size_bytes)
        self._classes[index].waits += 1
        waiter = BufferWaiter(self, size_bytes, index, callback)
        self._waiters[waiter] = None
        return waiter

    def _take_back(self, lease: Lease) -> None:
        self._out.remove(lease)
        if self._closed:
            return
        size_class = lease._class
        size_class.free.append(lease._block if self.pooled else _NO_BLOCK)
        if self._waiters:
            self._serve(size_class)

    def _serve(self, size_class: _SizeClass) -> None:
        """Hand the buffer that came free to the first in the queue whom it fits.

        Nobody overtakes: while someone waits, no buffer that fits them lies in a free list.
        """
        for waiter in self._waiters:
            if waiter.first_class <= size_class.index:
                del self._waiters[waiter]
                waiter.callback(self._lend(size_class, waiter.size_bytes))
                return
