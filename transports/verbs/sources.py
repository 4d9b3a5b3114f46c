"""The sources of one connection: memory in equal cells, each readable by the peer only while it is held.

There are as many cells as the peer may have READs in flight. Their memory is registered when the first is taken, so
that a connection without large messages pins none. A cell goes round:

    FREE --take: bind posted--> HELD --release: invalidation posted--> CLOSING --it completed--> FREE
"""

from __future__ import annotations

import logging
from typing import Any

from frieda.transports.rdma.provider import ChannelLimits, RemoteMemory
from frieda.transports.verbs.completion import BIND, INVALIDATE, KIND_SHIFT, VerbsProvider
from frieda.transports.verbs.memory import Region, register

_log = logging.getLogger(__name__)


class Sources:
    """The cells of one queue pair, whose owner calls `close_windows`, destroys the queue pair, and calls `close`."""

    def __init__(
        self, provider: VerbsProvider, pair: Any, owner: int, limits: ChannelLimits, windows: bool
    ) -> None:
        self._provider = provider
        self._verbs = provider.verbs
        self._pair = pair
        self._owner = owner
        self._with_windows = windows
        self._cell_bytes = limits.source_bytes // limits.max_reads
        self._count = limits.max_reads
        self._region: Region | None = None
        self._windows: list[Any] = []
        self._views: list[memoryview] = []
        self._free: list[int] = []
        self._held: dict[int, CellSource] = {}
        self._closed = False

    def take(self, size_bytes: int) -> CellSource | None:
        """A cell, or None when all are in use. Raises pyverbs' error, TransportError or ConfigError."""
        region = self._region or self._open()
        if not self._free:
            return None
        size = min(size_bytes, self._cell_bytes)
        cell = self._free.pop()
        start = cell * self._cell_bytes
        address = region.address + start
        registration: Any = None
        try:
            if self._with_windows:
                key = self._bind(region, cell, address, size)
            else:
                readable = self._verbs.constants.IBV_ACCESS_REMOTE_READ
                domain = self._provider.domain
                registration = register(
                    self._verbs, domain, address, size, readable, "a message to be read"
                )
                key = registration.rkey
        except BaseException:
            self._free.append(cell)
            raise
        view = self._views[cell][:size]
        source = CellSource(self, cell, view, RemoteMemory(address, key, size), registration)
        self._held[cell] = source
        return source

    def give_back(self, source: CellSource) -> None:
        """Close its window; the cell is free again once that is done."""
        if self._held.pop(source.cell, None) is None or self._closed:
            return
        if source.registration is not None:
            source.registration.close()
            self._free.append(source.cell)
            return
        pair = self._pair
        try:
            pair.wr_start()
            pair.wr_id = self._owner | (INVALIDATE << KIND_SHIFT) | source.cell
            pair.wr_flags = self._verbs.constants.IBV_SEND_SIGNALED
            pair.wr_local_inv(source.remote.key)
            pair.wr_complete()
        except self._verbs.error as error:
            # Only a queue pair in the error state refuses it; its close closes the window too.
            _log.debug("a window was not closed: %s", error)

    def completed(self, kind: int, cell: int) -> None:
        """A work request of a window is done."""
        if kind == INVALIDATE:
            self._free.append(cell)

    def close_windows(self) -> None:
        """What is open is closed; needs the queue pair."""
        self._closed = True
        for window in self._windows:
            window.close()
        self._windows.clear()
        for source in self._held.values():
            if source.registration is not None:
                source.registration.close()

    def close(self) -> None:
        """Give the memory back. What is still held stays memory, of no use to anybody."""
        self._held.clear()
        for view in self._views:
            view.release()
        self._views.clear()
        if self._region is not None:
            self._region.close()
            self._region = None

    def _open(self) -> Region:
        constants, domain = self._verbs.constants, self._provider.domain
        # Without windows each message is registered by itself, so this only takes the memory.
        access = constants.IBV_ACCESS_MW_BIND if self._with_windows else 0
        total = self._count * self._cell_bytes
        region = Region(self._verbs, domain, total, access, "the sources of a connection")
        try:
            if self._with_windows:
                for _ in range(self._count):
                    self._windows.append(self._verbs.MW(domain, constants.IBV_MW_TYPE_2))
        except BaseException:
            region.close()
            raise
        self._region = region
        self._views = region.cut(0, self._cell_bytes, self._count)
        self._free = list(range(self._count))
        return region

    def _bind(self, region: Region, cell: int, address: int, size: int) -> int:
        # Bound to the key it has: a new one would have to be written into the library's own record of the window
        # (ibv_mw.rkey), which pyverbs does not let us do, and the next bind would fail.
        key: int = self._windows[cell].rkey
        readable = self._verbs.constants.IBV_ACCESS_REMOTE_READ
        what = self._verbs.MWBindInfo(region.registration, address, size, readable)
        pair = self._pair
        pair.wr_start()
        pair.wr_id = self._owner | (BIND << KIND_SHIFT) | cell
        pair.wr_flags = 0
        pair.wr_bind_mw(self._windows[cell], key, what)
        pair.wr_complete()
        return key


class CellSource:
    """One message, or part of one, that the peer may READ. Keeps `provider.Source`."""

    __slots__ = ("_sources", "cell", "registration", "remote", "view")

    def __init__(
        self, sources: Sources, cell: int, view: memoryview, remote: RemoteMemory, registration: Any
    ) -> None:
        self._sources = sources
        self.cell = cell
        self.view = view
        self.remote = remote
        self.registration = registration

    def release(self) -> None:
        """The peer is done with it."""
        self.view.release()
        self._sources.give_back(self)
