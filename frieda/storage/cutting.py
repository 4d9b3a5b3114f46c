"""Cutting the end off a log, or beginning it anew elsewhere, in steps of which the slow ones may run in a thread.

    find_place   any thread: where the batch begins that holds the offset; changes nothing
    begin_cut    owner's thread (PartitionLog): in memory the log ends there from now on; it takes no writes
    run          any thread: the same on the disk
    finish       owner's thread: it takes writes again

On the disk it happens whole or not at all, wherever a kill or a power cut falls: first the checkpoint says which
segment will be the last and how much of it stays, and only then anything is removed. Whoever opens the log and
finds that does the rest. It is synced before the first append that follows, since otherwise a power cut could leave
new batches in front of old ones that they replaced.

A cut costs what it removes and a few fsyncs, not what stays: indexes and producers are cut as they lie in
memory. Only where a producer's memory does not reach back far enough is the last segment read again.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from frieda.errors import ErrorCode, StorageError
from frieda.storage.filesystem import FileSystem, storage_error
from frieda.storage.producer_state import ProducerState
from frieda.storage.recovery import (
    carry_out_cut,
    remove_epochs,
    remove_snapshots_after,
    restore_producers,
)
from frieda.storage.scan import Damage
from frieda.storage.sealing import Sealer
from frieda.storage.segment import Segment

if TYPE_CHECKING:
    from frieda.storage.log import PartitionLog

_base_offset = attrgetter("base_offset")
_NO_SNAPSHOT: Final = -1


@dataclass(frozen=True, slots=True)
class Place:
    """Where a log can be cut: `source` is the segment that the cut goes through, `kept` what stays of it.

    source None: nothing stays of the whole log, and `kept` is where it begins anew.
    """

    source: Segment | None
    kept: Segment

    @property
    def offset(self) -> int:
        """The end of the log after the cut: not above the offset that was asked for."""
        return self.kept.next_offset


def find_place(segments: Sequence[Segment], offset: int) -> Place:
    """The place at which the batch begins that holds `offset`; that of the damage, where that hides it.

    Any thread; asks the disk. Raises StorageError.
    """
    source = segments[max(bisect_right(segments, offset, key=_base_offset) - 1, 0)]
    try:
        file = source.retained_file()
        try:
            found = source.locate(file, offset, wait=True)
        finally:
            file.release()
        if isinstance(found, Damage):
            found = found.position, found.first_offset
        return Place(source, source.up_to(*found))
    except OSError as error:
        raise storage_error(error, f"cannot read {source.path}") from error


class Cut:
    """A cut that was begun. `run` it, then `finish` it; a log that is closed meanwhile does both.

    below_high_watermark: records that readers may have seen are gone; then the saved high watermark is to be written
    again before anything is appended (`HighWatermarks.save`).
    """

    def __init__(
        self,
        log: PartitionLog,
        filesystem: FileSystem,
        sealer: Sealer,
        segments: tuple[Segment, ...],
        *,
        anew: bool,
        below_high_watermark: bool,
        producers_known: bool,
    ) -> None:
        """The log is in its new state, but for its producers where these are not known.

        segments: those that stay. anew: nothing of what there was does.
        """
        self.offset = segments[-1].next_offset
        self.below_high_watermark = below_high_watermark
        self._log = log
        self._filesystem = filesystem
        self._sealer = sealer
        self._segments = segments
        self._anew = anew
        self._producers_known = producers_known
        self._log_start_offset = log.log_start_offset
        self._epochs = log.epochs.encode()
        self._error: StorageError | None = None
        self._done = False
        self._one_at_a_time = threading.Lock()

    def run(self) -> None:
        """Cut the files. Raises nothing: see `finish`. May be called again after an error, and from two threads."""
        with self._one_at_a_time:
            if self._done:
                return
            try:
                self._cut_files()
            except StorageError as error:
                self._error = error
            except OSError as error:
                self._error = storage_error(error, f"cannot cut the log in {self._log.directory}")
            else:
                self._error = None
                self._done = True

    def finish(self) -> int:
        """Let the log be written to again; returns the offset at which it ends.

        Raises StorageError when `run` failed (or never ran): the log still takes no writes then.
        """
        if not self._done:
            raise self._error or StorageError(
                ErrorCode.BUSY, f"the log in {self._log.directory} is still to be cut on the disk"
            )
        self._log.cut_finished(self)
        return self.offset

    def complete(self) -> int:
        """`run` and `finish`."""
        self.run()
        return self.finish()

    def give_up(self) -> None:
        """Wait for a `run` that is under way, and let none begin: the log is deleted."""
        with self._one_at_a_time:
            self._done = True

    def _cut_files(self) -> None:
        log, filesystem, directory = self._log, self._filesystem, self._log.directory
        if log.failed:
            raise StorageError(ErrorCode.LOG_FAILED, log.failure)
        log.wait_for_slow_work("cannot cut the log")
        last = self._segments[-1]
        if self._anew:
            # Durable before the announcement: recovery must not find anything that derives from the old log.
            remove_snapshots_after(filesystem, directory, _NO_SNAPSHOT)
            remove_epochs(filesystem, directory)
            self._sealer.saved_epochs = b""
            filesystem.sync_directory(directory)
        cut = self._sealer.announce_cut(self._log_start_offset, last.base_offset, last.end_position)
        try:
            carry_out_cut(filesystem, directory, cut)
        except OSError as error:
            # An fsync may have been among it, and that is never tried again. The next start does the rest.
            log.fail(error, "a cut")
            raise
        last.allocated = last.end_position
        remove_snapshots_after(filesystem, directory, self.offset)
        if not self._producers_known:
            restored = ProducerState(log.producers.max_producers, log.producers.now_ms)
            restore_producers(filesystem, directory, self._segments, restored, self.offset)
            log.producers.take_over(restored)
        self._sealer.save_epochs(self._epochs)
        self._sealer.save(self._sealer.recovery_point, self._log_start_offset)
