"""Group commit: one fsync of a log at a time, shared by all that wait when it starts.

Flush policy batch: `request` for every batch; its `done` is called once the batch is on the disk.
Flush policy interval: `sync_soon` after every append; an fsync follows within the interval.
Everything here runs on the event loop, but for `SyncJob.run`, which a few threads of its own do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from frieda.errors import BrokerError, ErrorCode, StorageError

if TYPE_CHECKING:
    from frieda.storage.log import PartitionLog
    from frieda.storage.sync import SyncJob

Done = Callable[[BaseException | None], None]

THREADS: Final = 4
MAX_WAITING: Final = 100_000


class _Round:
    """What is known of one log: who waits, whether a sync is under way, who wants to know when it ends."""

    __slots__ = ("ended", "running", "waiting", "wanted")

    def __init__(self) -> None:
        self.waiting: list[
            tuple[int, int, Done]
        ] = []  # end offset, the log's count of cuts, whom to tell
        self.running = False
        self.wanted = False
        self.ended: list[asyncio.Future[None]] = []


class Flusher:
    """See the module. work_started and work_finished are called on the loop around every fsync.

    fsyncs: how many there were.  waiting: batches that wait now; beyond `max_waiting` requests are refused.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        work_started: Callable[[], None],
        work_finished: Callable[[], None],
        interval_s: float = 1.0,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self.fsyncs = 0
        self.waiting = 0
        self.interval_s = interval_s
        self._loop = loop
        self._work_started = work_started
        self._work_finished = work_finished
        self._max_waiting = max_waiting
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="frieda-fsync")
        self._rounds: dict[PartitionLog, _Round] = {}
        self._dirty: set[PartitionLog] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def request(self, log: PartitionLog, end_offset: int, done: Done) -> None:
        """Call `done` once all below `end_offset` is on the disk, with None, or with the StorageError that prevents it.

        `done` is never called from within. Raises BrokerError: BUSY when too many wait, BROKER_STOPPING after close,
        and StorageError(LOG_FAILED) for a log that has failed.
        """
        self.require_room()
        state = self._rounds.get(log) or _Round()
        if not state.running:
            self._start(log, state)
        state.waiting.append((end_offset, log.cuts, done))
        self.waiting += 1

    def require_room(self) -> None:
        """Raise what `request` would: to be asked before the append, since afterwards the batch is stored."""
        if self._closed:
            raise BrokerError(ErrorCode.BROKER_STOPPING, "the broker is shutting down")
        if self.waiting >= self._max_waiting:
            raise BrokerError(
                ErrorCode.BUSY, f"{self.waiting} batches wait for the disk already; try again"
            )

    def sync_soon(self, log: PartitionLog) -> None:
        """Sync this log within the interval. Cheap when it is noted already."""
        if log in self._dirty or self._closed:
            return
        self._dirty.add(log)
        if self._timer is None:
            self._timer = self._loop.call_later(self.interval_s, self._interval_over)

    async def forget(self, log: PartitionLog) -> None:
        """Return when nothing of this log is under way any more; it will be closed or deleted."""
        self._dirty.discard(log)
        state = self._rounds.get(log)
        while state is not None and state.running:
            ended = self._loop.create_future()
            state.ended.append(ended)
            await ended
        self._rounds.pop(log, None)

    async def close(self) -> None:
        """Take no more requests, finish what is under way, end the threads. Any number of times."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._dirty.clear()
        for log in tuple(self._rounds):
            await self.forget(log)
        self._threads.shutdown()

    def _interval_over(self) -> None:
        self._timer = None
        dirty, self._dirty = self._dirty, set()
        for log in dirty:
            if log.failed or log.synced_offset >= log.log_end_offset:
                continue
            state = self._rounds.get(log) or _Round()
            if state.running:
                state.wanted = True
            else:
                try:
                    self._start(log, state)
                except StorageError:
                    # Nobody waits for this one. The log says so itself (`failure`), and the next append tries again.
                    continue

    def _start(self, log: PartitionLog, state: _Round) -> None:
        job = log.begin_sync()
        self._rounds[log] = state
        state.running, state.wanted = True, False
        self.fsyncs += 1
        self._work_started()
        future = self._threads.submit(job.run)
        future.add_done_callback(lambda ran: self._report(log, state, job, ran))

    def _report(self, log: PartitionLog, state: _Round, job: SyncJob, ran: Future[None]) -> None:
        self._loop.call_soon_threadsafe(self._ended, log, state, job, ran)

    def _ended(self, log: PartitionLog, state: _Round, job: SyncJob, ran: Future[None]) -> None:
        self._work_finished()
        state.running = False
        unexpected = ran.exception()
        error: BaseException | None = unexpected or job.finish()
        cuts, synced_offset = log.cuts, log.synced_offset
        covered = [e for e in state.waiting if error or e[1] != cuts or e[0] <= synced_offset]
        late = [e for e in state.waiting if e[1] == cuts and e[0] > synced_offset]
        state.waiting = [] if error else late
        self.waiting -= len(covered)
        if state.waiting or state.wanted:
            try:
                self._start(log, state)
            except StorageError as refused:
                late, state.waiting = state.waiting, []
                self.waiting -= len(late)
                for _, _, done in late:
                    done(refused)
        if not state.running:
            self._rounds.pop(log, None)
            for ended in state.ended:
                if not ended.done():
                    ended.set_result(None)
            state.ended.clear()
        # Last, since a `done` may come back with the next request.
        for _, asked_at_cut, done in covered:
            done(error if error or asked_at_cut == cuts else _cut_off(log))


def _cut_off(log: PartitionLog) -> BrokerError:
    return BrokerError(
        ErrorCode.NOT_LEADER_OR_FOLLOWER,
        f"the log in {log.directory} was cut before the batch was on the disk: another broker leads by now",
    )
