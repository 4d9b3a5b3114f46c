"""One round of making a log durable, in three steps: begin on the owner's thread, run in any, finish on the owner's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frieda.errors import ErrorCode, StorageError
from frieda.storage.filesystem import File, FileSystem

if TYPE_CHECKING:
    from frieda.storage.log import PartitionLog


class SyncJob:
    """Made by `PartitionLog.begin_sync`. Call `run` once in a worker thread, then `finish` on the owner's thread.

    An fsync error fails the log for good the moment it happens: what the kernel could not write it may have
    dropped, and a second fsync would say that all is well.
    """

    __slots__ = ("_directory", "_files", "_filesystem", "_log", "end_offset", "error")

    def __init__(
        self,
        log: PartitionLog,
        filesystem: FileSystem,
        files: list[File],
        directory: str | None,
        end_offset: int,
    ) -> None:
        self._log = log
        self._filesystem = filesystem
        self._files = files
        self._directory = directory
        self.end_offset = end_offset
        self.error: OSError | None = None

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
            for file in self._files:
                file.release()

    def finish(self) -> StorageError | None:
        """Note the result in the log; returns the error, if there was one."""
        if self.error is not None:
            return StorageError(
                ErrorCode.LOG_FAILED,
                f"an fsync in {self._log.directory} failed ({self.error.strerror or self.error})",
            )
        self._log.synced_offset = max(self._log.synced_offset, self.end_offset)
        return None
