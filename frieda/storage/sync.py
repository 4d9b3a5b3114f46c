"""One round of making a log durable, in three steps: begin on the owner's thread, run in any, finish on the owner's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from frieda.errors import ErrorCode, StorageError
from frieda.storage.filesystem import File, FileSystem, storage_error

if TYPE_CHECKING:
    from frieda.storage.log import PartitionLog
    from frieda.storage.segment import Segment


class SyncJob:
    """Made by `PartitionLog.begin_sync`. Call `run` once in a worker thread, then `finish` on the owner's thread.

    An fsync error fails the log for good the moment it happens: what the kernel could not write it may have
    dropped, and a second fsync would say that all is well.
    """

    __slots__ = ("_cuts", "_directory", "_files", "_filesystem", "_log", "end_offset", "error")

    def __init__(
        self,
        log: PartitionLog,
        filesystem: FileSystem,
        segments: Sequence[Segment],
        directory: str | None,
    ) -> None:
        """`directory`: the folder, when names in it are new. Raises StorageError when a file cannot be opened."""
        self._log = log
        self._filesystem = filesystem
        self._files: list[File] = []
        self._directory = directory
        self.end_offset = log.log_end_offset
        self._cuts = log.cuts
        self.error: OSError | None = None
        try:
            for segment in segments:
                self._files.append(segment.retained_file())
        except OSError as error:
            self._release()
            raise storage_error(error, f"cannot open a segment in {log.directory}") from error

    def run(self) -> None:
        """Sync. Raises nothing: see `finish`."""
        try:
            for file in self._files:
                file.sync()
            if self._directory is not None:
                self._filesystem.sync_directory(self._directory)
        except OSError as error:
            self.error = error
            self._log.fail(error)
        finally:
            self._release()

    def _release(self) -> None:
        while self._files:
            self._files.pop().release()

    def finish(self) -> StorageError | None:
        """Note the result in the log; returns the error, if there was one."""
        if self.error is not None:
            return StorageError(
                ErrorCode.LOG_FAILED,
                f"an fsync in {self._log.directory} failed ({self.error.strerror or self.error})",
            )
        if self._cuts == self._log.cuts:  # else other records may lie below that offset by now
            self._log.synced_offset = max(self._log.synced_offset, self.end_offset)
        return None
