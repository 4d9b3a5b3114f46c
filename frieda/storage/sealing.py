"""Bringing a log's files into the state that the next opening may trust: sync first, derived files, checkpoint last."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from frieda.storage.checkpoint import Checkpoint, write_checkpoint
from frieda.storage.filesystem import FileSystem
from frieda.storage.recovery import Recovered, save_epochs, save_snapshot
from frieda.storage.segment import Segment


class Sealer:
    """Writes what derives from a log. recovery_point: every segment that ends there or before is sound.

    saved_epochs: the leader epochs that are on the disk; empty: not known.
    sync_failed is called (in whatever thread) with the OSError of an fsync: the log must take no more writes.
    """

    def __init__(
        self,
        filesystem: FileSystem,
        directory: str,
        sync_failed: Callable[[OSError], None],
    ) -> None:
        self.recovery_point = 0
        self.saved_epochs = b""
        self._filesystem = filesystem
        self._directory = directory
        self._sync_failed = sync_failed

    def found(self, found: Recovered) -> None:
        """Begin with what opening found."""
        self.recovery_point = found.checkpoint.recovery_point
        self.saved_epochs = found.epochs.encode() if found.clean else b""

    def seal(self, closed: Segment, log_start_offset: int, snapshot: bytes, epochs: bytes) -> None:
        """The slow part of a roll, for the segment that is not written to any more. Raises OSError, StorageError."""
        if closed.deleted:
            return
        next_base = closed.next_offset
        try:
            closed.cut()
            self._sync([closed])
        finally:
            closed.drop_file()
        closed.save_indexes()
        save_snapshot(self._filesystem, self._directory, next_base, snapshot)
        self.save_epochs(epochs)
        self.save(max(self.recovery_point, next_base), log_start_offset)

    def save_epochs(self, epochs: bytes) -> None:
        """Write the leader epochs, if they are new. Raises StorageError.

        On the disk before the checkpoint: recovery does not look for epochs in what that calls sound.
        """
        if epochs != self.saved_epochs:
            save_epochs(self._filesystem, self._directory, epochs)
            self.saved_epochs = epochs

    def save(self, recovery_point: int, log_start_offset: int) -> None:
        """Write the checkpoint of a log that is open. Raises StorageError."""
        write_checkpoint(
            self._filesystem, self._directory, Checkpoint(recovery_point, log_start_offset)
        )
        self.recovery_point = recovery_point

    def announce_cut(self, log_start_offset: int, base_offset: int, position: int) -> Checkpoint:
        """Write that the log is being cut: see Checkpoint. `save` says that it is done. Raises StorageError."""
        self.recovery_point = min(self.recovery_point, base_offset)
        cut = Checkpoint(
            self.recovery_point, log_start_offset, cut_base=base_offset, cut_position=position
        )
        write_checkpoint(self._filesystem, self._directory, cut)
        return cut

    def save_closed(
        self, unsynced: Sequence[Segment], log_start_offset: int, snapshot: bytes, epochs: bytes
    ) -> None:
        """All that a clean close writes; the last of `unsynced` is the active segment. Raises OSError, StorageError."""
        active = unsynced[-1]
        active.cut()
        self._sync(unsynced)
        active.save_indexes()
        end_offset = active.next_offset
        save_snapshot(self._filesystem, self._directory, end_offset, snapshot)
        self.save_epochs(epochs)
        checkpoint = Checkpoint(
            self.recovery_point, log_start_offset, end_offset, active.end_position
        )
        write_checkpoint(self._filesystem, self._directory, checkpoint)

    def _sync(self, segments: Sequence[Segment]) -> None:
        try:
            for segment in segments:
                segment.file().sync()
            self._filesystem.sync_directory(self._directory)
        except OSError as error:
            self._sync_failed(error)
            raise
