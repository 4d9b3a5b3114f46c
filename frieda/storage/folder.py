"""The data folder of a broker: one broker at a time, one format, and whether it was closed cleanly.

.lock            held while a broker runs; holds its process id
meta.json        format version, broker id and an id of the folder
.clean-shutdown  there only between a clean close and the next opening
.last-boot       the boot of the machine under which it was last open
replication-offset-checkpoint   the high watermarks of replicated logs
<topic>-<partition>/   the logs
"""

from __future__ import annotations

import errno
import json
import os
import uuid
from collections.abc import Callable, Collection
from typing import Final

from frieda.clock import Clock
from frieda.config import BrokerConfig, TopicConfig
from frieda.errors import ErrorCode, StorageError
from frieda.host import host_identity
from frieda.model import TopicPartition
from frieda.storage.filesystem import FileSystem, Lock, read_file, replace_file, storage_error
from frieda.storage.high_watermarks import HighWatermarks
from frieda.storage.last_boot import note_caught_up, note_opening
from frieda.storage.log import PartitionLog
from frieda.storage.partition_folder import (
    TOMBSTONE_SUFFIX,
    check_topic_id,
    parse_partition_name,
    partition_name,
    read_topic_id,
    remove_partition,
    remove_tombstone,
)

FORMAT_VERSION: Final = 1
LOCK_NAME: Final = ".lock"
META_NAME: Final = "meta.json"
CLEAN_NAME: Final = ".clean-shutdown"
_MAX_META_BYTES: Final = 65536


class DataFolder:
    """A locked data folder. Made by `open`; close it once all its logs are closed.

    path, broker_id, folder_id (a UUID as text).  was_clean: the last broker closed it cleanly, so logs need no scan.
    is_new: it was made, or was empty. machine_went_down: the machine did while a broker used the folder, so that logs
    may lack what was not synced; stays True, also over restarts, until `caught_up`.
    high_watermarks: those that were saved.
    """

    def __init__(
        self,
        filesystem: FileSystem,
        path: str,
        lock: Lock,
        broker_id: int,
        folder_id: str,
        boot_id: str,
    ) -> None:
        self.path = path
        self.broker_id = broker_id
        self.folder_id = folder_id
        self.was_clean = False
        self.is_new = False
        self.machine_went_down = False
        self.high_watermarks = HighWatermarks(filesystem, path)
        self._boot_id = boot_id
        self._filesystem = filesystem
        self._lock: Lock | None = lock

    @classmethod
    def open(
        cls, filesystem: FileSystem, path: str, broker_id: int, *, boot_id: str | None = None
    ) -> DataFolder:
        """Lock the folder, made when missing. Asks the disk. boot_id: of this machine, when it is not to be asked.

        Raises StorageError: in use (names the folder and the process), not a folder, not readable or writable, of
        another format version, of another broker. Nothing stays locked then.
        """
        path = os.path.abspath(path)
        lock = _lock(filesystem, path)
        try:
            is_new = META_NAME not in filesystem.list_directory(path)
            folder_id = _read_or_begin_meta(filesystem, path, broker_id)
            boot = host_identity() if boot_id is None else boot_id
            folder = cls(filesystem, path, lock, broker_id, folder_id, boot)
            folder.is_new = is_new
            marker = os.path.join(path, CLEAN_NAME)
            folder.was_clean = read_file(filesystem, marker, _MAX_META_BYTES) is not None
            # Before the marker goes: it vouches for the logs until this does.
            nothing_unsynced = folder.was_clean or not folder.partitions()
            folder.machine_went_down = note_opening(
                filesystem, path, boot, nothing_unsynced=nothing_unsynced
            )
            if folder.was_clean:
                filesystem.unlink(marker)
                filesystem.sync_directory(path)
        except OSError as error:
            lock.release()
            raise storage_error(error, f"cannot open the data folder {path}") from error
        except BaseException:
            lock.release()
            raise
        return folder

    def open_log(
        self,
        topic: str,
        partition: int,
        topic_id: bytes,
        config: TopicConfig,
        clock: Clock,
        broker_config: BrokerConfig,
        background: Callable[[Callable[[], None]], object] | None = None,
        *,
        replicated: bool = False,
    ) -> PartitionLog:
        """Open or make the log of a partition. Asks the disk; may run in several threads at once.

        replicated: other brokers have replicas, so its high watermark is the last that was saved, or else its start.
        Raises StorageError, also when the folder of that name belongs to a topic of another id.
        """
        directory = self.directory_of(topic, partition)
        try:
            self._filesystem.make_directory(directory)
        except OSError as error:
            raise storage_error(error, f"cannot make {directory}") from error
        check_topic_id(self._filesystem, directory, topic_id)
        saved = self.high_watermarks.saved.get(TopicPartition(topic, partition), 0)
        return PartitionLog.open(
            self._filesystem,
            directory,
            config,
            clock,
            clean=self.was_clean,
            high_watermark=saved if replicated else None,
            max_producers=broker_config.max_producers,
            background=background,
            check_crc_on_read=broker_config.check_crc_on_fetch,
        )

    def directory_of(self, topic: str, partition: int) -> str:
        """Where the log of a partition lies."""
        return os.path.join(self.path, partition_name(topic, partition))

    def partitions(self) -> list[tuple[str, int]]:
        """Topic and partition of every log there is. Raises StorageError."""
        return sorted(filter(None, map(parse_partition_name, self._names())))

    def remove_leftovers(self, deleted_topic_ids: Collection[bytes]) -> list[str]:
        """Remove what unfinished deletions left: tombstones, and partitions of these topics, which were deleted.

        Anything else is left alone. Returns the names. Raises StorageError.
        """
        removed = []
        for name in self._names():
            directory = os.path.join(self.path, name)
            if name.endswith(TOMBSTONE_SUFFIX):
                remove_tombstone(self._filesystem, directory)
                removed.append(name)
            elif parse_partition_name(name) is not None:
                topic_id = read_topic_id(self._filesystem, directory)
                if topic_id in deleted_topic_ids:
                    remove_partition(self._filesystem, directory)
                    removed.append(name)
        return removed

    def caught_up(self) -> None:
        """Every log has again what the going down of the machine may have cost it. Durable; asks the disk.

        Raises StorageError; the folder then still counts as before.
        """
        note_caught_up(self._filesystem, self.path, self._boot_id)
        self.machine_went_down = False

    def close(self, *, clean: bool) -> None:
        """Unlock. `clean`: every log was closed without an error, so the next opening may trust them.

        Any number of times. Raises StorageError when the marker can't be written; the folder is unlocked then too.
        """
        lock, self._lock = self._lock, None
        if lock is None:
            return
        try:
            if clean:
                replace_file(self._filesystem, os.path.join(self.path, CLEAN_NAME), b"clean\n")
        finally:
            lock.release()

    def _names(self) -> list[str]:
        try:
            return [
                name
                for name in self._filesystem.list_directory(self.path)
                if self._filesystem.is_directory(os.path.join(self.path, name))
            ]
        except OSError as error:
            raise storage_error(error, f"cannot list {self.path}") from error


def lock_owner(filesystem: FileSystem, path: str) -> str:
    """The process id in the lock file of a folder, as text; "unknown" when there is none to read."""
    try:
        content = read_file(filesystem, os.path.join(path, LOCK_NAME), _MAX_META_BYTES)
    except StorageError:
        content = None
    return (content or b"").decode("ascii", "replace").strip() or "unknown"


def _lock(filesystem: FileSystem, path: str) -> Lock:
    try:
        filesystem.make_directory(path)
        return filesystem.lock(os.path.join(path, LOCK_NAME), b"%d\n" % os.getpid())
    except BlockingIOError:
        raise StorageError(
            ErrorCode.STORAGE_ERROR,
            f"the data folder {path} is in use by another broker (process "
            f"{lock_owner(filesystem, path)}); stop that one or use another folder",
        ) from None
    except (FileExistsError, NotADirectoryError):
        raise StorageError(
            ErrorCode.STORAGE_ERROR,
            f"the data folder {path} cannot be used: it, or a part of its path, is a file",
        ) from None
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise StorageError(
                ErrorCode.STORAGE_ERROR,
                f"the data folder {path} cannot be used: {error.strerror}; "
                "the broker must be able to read and write it",
            ) from error
        raise storage_error(error, f"cannot lock the data folder {path}") from error


def _read_or_begin_meta(filesystem: FileSystem, path: str, broker_id: int) -> str:
    """Check `meta.json`, or write it to a new folder; returns the folder's id."""
    meta_path = os.path.join(path, META_NAME)
    content = read_file(filesystem, meta_path, _MAX_META_BYTES)
    if content is None:
        folder_id = str(uuid.uuid4())
        meta = {"format": FORMAT_VERSION, "broker_id": broker_id, "folder_id": folder_id}
        replace_file(filesystem, meta_path, json.dumps(meta, indent=1).encode() + b"\n")
        return folder_id
    try:
        meta = json.loads(content)
        version, owner, folder_id = int(meta["format"]), int(meta["broker_id"]), meta["folder_id"]
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(
            ErrorCode.STORAGE_ERROR, f"{meta_path} is damaged ({error}); restore it from a copy"
        ) from None
    if version != FORMAT_VERSION:
        raise StorageError(
            ErrorCode.STORAGE_ERROR,
            f"{meta_path} says format version {version}; this broker reads {FORMAT_VERSION}",
        )
    if owner != broker_id:
        raise StorageError(
            ErrorCode.STORAGE_ERROR,
            f"the data folder {path} belongs to broker {owner}, not to {broker_id}; "
            "set broker_id, or use another folder",
        )
    return str(folder_id)
