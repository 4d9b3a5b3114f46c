"""Keeps a `View` like ZooKeeper's tree: one recursive watch, and each node that it names is read again.

Events name nodes and carry no content. So the paths gather in a set, and one task reads what has gathered, all at
once, until nothing is left: a node that changes ten times meanwhile is read once or twice. What an event announced
is read after it, so the picture is never older than the last event. A watch ends with its connection; after each
reconnection everything is read again and compared.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from frieda.cluster import nodes
from frieda.cluster.nodes import NodeDamagedError
from frieda.cluster.session import Node, SessionState, ZooKeeperSession
from frieda.cluster.store import ChangeListener
from frieda.cluster.view import View
from frieda.errors import CoordinationError

logger = logging.getLogger(__name__)

_BATCH: Final = 1000
_RETRY_S: Final = 0.2
_FAULT_PAUSE_S: Final = 5.0


class TreeFollower:
    """Owned by the store. `before_reading` runs after each (re)connection, before everything is read."""

    def __init__(
        self,
        session: ZooKeeperSession,
        view: View,
        before_reading: Callable[[], Awaitable[None]],
        after_reading: Callable[[], None],
    ) -> None:
        self.view = view
        self._session = session
        self._before_reading = before_reading
        self._after_reading = after_reading
        self._listeners: list[ChangeListener] = []
        self._dirty: dict[str, None] = {}  # a set that keeps its order
        self._unread = True
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def on_change(self, listener: ChangeListener) -> None:
        """Have each change told, in order; `view.state` is the new one by then."""
        self._listeners.append(listener)

    async def start(self) -> None:
        """Read everything, and keep up from now on. Raises CoordinationError, NodeDamagedError among them."""
        self._session.on_state(self._state_changed)
        await self._read_everything(strict=True)
        self._idle.set()
        self._task = asyncio.get_running_loop().create_task(self._follow())

    async def close(self) -> None:
        """Stop following; nothing is told any more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def read_again(self) -> None:
        """Ask for everything to be read once more, `before_reading` first."""
        self._unread = True
        self._idle.clear()
        self._wake.set()

    async def catch_up(self, timeout_s: float) -> None:
        """Until everything that was announced so far has been read and told. Raises CoordinationError.

        What a request has changed is announced before its answer comes, so after this it is seen.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            raise CoordinationError(
                f"the picture of the cluster was not up to date within {timeout_s:g} s; "
                "is ZooKeeper reachable?"
            ) from None

    def _state_changed(self, state: SessionState) -> None:
        if state is SessionState.CONNECTED:
            self.read_again()
        else:
            # Until the next connection nothing that is known here is sure to be the latest.
            self._unread = True
            self._idle.clear()

    def _note_event(self, path: str) -> None:
        if View.concerns(path):
            self._dirty[path] = None
            self._idle.clear()
            self._wake.set()

    async def _follow(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._session.state is not SessionState.CONNECTED:
                continue  # the connection wakes us again
            try:
                if self._unread:
                    await self._read_everything(strict=False)
                while self._dirty:
                    await self._read_some()
                self._idle.set()
            except CoordinationError as error:
                logger.warning("the picture of the cluster is out of date for now: %s", error)
                self._unread = True
                # Without a connection its return wakes us; with one, trying again may help.
                await asyncio.sleep(_RETRY_S)
                self._wake.set()
            except Exception:
                logger.exception("the picture of the cluster is out of date for now")
                self._unread = True
                await asyncio.sleep(_FAULT_PAUSE_S)
                self._wake.set()

    async def _read_everything(self, *, strict: bool) -> None:
        self._unread = False
        self._dirty.clear()
        try:
            await self._session.watch_tree(self._note_event)
            await self._before_reading()
            known = set(self.view.paths())
            paths = await self._list()
            contents = await self._session.get_all(paths)
        except BaseException:
            self._unread = True
            raise
        self._apply(zip(paths, contents, strict=True), strict=strict)
        self._apply(((path, None) for path in known.difference(paths)), strict=strict)
        self._tell()
        self._after_reading()

    async def _list(self) -> list[str]:
        session = self._session
        paths = [nodes.CONTROLLER, nodes.CONTROLLER_EPOCH, nodes.PREFERRED_LEADERS]
        for folder in (nodes.BROKERS, nodes.TOPICS):
            paths += [f"{folder}/{name}" for name in await session.children(folder)]
        topics = [f"{nodes.PARTITIONS}/{name}" for name in await session.children(nodes.PARTITIONS)]
        found = await asyncio.gather(*(session.children(topic) for topic in topics))
        for topic, indexes in zip(topics, found, strict=True):
            paths += [f"{topic}/{index}" for index in indexes]
        return paths

    async def _read_some(self) -> None:
        paths = list(self._dirty)[:_BATCH]
        for path in paths:
            del self._dirty[path]
        try:
            contents = await self._session.get_all(paths)
        except BaseException:
            self._unread = True
            raise
        self._apply(zip(paths, contents, strict=True), strict=False)
        self._tell()

    def _apply(self, read: Iterable[tuple[str, Node | None]], *, strict: bool) -> None:
        for path, node in read:
            try:
                if node is None:
                    self.view.apply(path, None)
                else:
                    self.view.apply(path, node.data, node.version)
            except NodeDamagedError as error:
                if strict:
                    raise
                # What was known before is the best there is; a topic must not seem to be deleted.
                logger.error("%s; what it held before is kept for now", error)

    def _tell(self) -> None:
        change = self.view.commit()
        if change is None:
            return
        for listener in self._listeners:
            try:
                listener(change)
            except Exception:
                # One listener's fault must not leave the others, and this broker's lease, with an old picture.
                logger.exception("a change of the cluster could not be dealt with: %s", change)
