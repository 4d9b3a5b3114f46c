"""The folder of one partition: its name, the file that ties it to a topic's id, and how it is removed.

`<topic>-<partition>/partition.metadata` is Kafka's file of that name: `version: 0`, `topic_id: <uuid>`. Removing
begins with a new name, so that a folder of the old name is a whole one, always; what stays behind when the
process dies in the middle is removed at the next start.
"""

from __future__ import annotations

import os
import uuid
from typing import Final

from frieda.errors import ErrorCode, StorageError
from frieda.model import illegal_topic_name
from frieda.storage.filesystem import FileSystem, read_file, replace_file, storage_error

METADATA_NAME: Final = "partition.metadata"
TOMBSTONE_SUFFIX: Final = ".deleted"
_MAX_METADATA_BYTES: Final = 4096


def partition_name(topic: str, partition: int) -> str:
    """The name of the folder."""
    return f"{topic}-{partition}"


def parse_partition_name(name: str) -> tuple[str, int] | None:
    """Topic and partition of a folder's name, or None when it is not one."""
    topic, dash, number = name.rpartition("-")
    if not dash or not number.isascii() or not number.isdigit() or str(int(number)) != number:
        return None
    return None if illegal_topic_name(topic) is not None else (topic, int(number))


def write_topic_id(filesystem: FileSystem, directory: str, topic_id: bytes) -> None:
    """Tie the folder to a topic. Raises StorageError."""
    text = f"version: 0\ntopic_id: {uuid.UUID(bytes=topic_id)}\n"
    replace_file(filesystem, os.path.join(directory, METADATA_NAME), text.encode())


def read_topic_id(filesystem: FileSystem, directory: str) -> bytes | None:
    """The id of the topic the folder belongs to; None when the file is missing or damaged. Raises StorageError."""
    data = read_file(filesystem, os.path.join(directory, METADATA_NAME), _MAX_METADATA_BYTES)
    for line in (data or b"").decode("ascii", "replace").splitlines():
        key, _, value = line.partition(": ")
        if key == "topic_id":
            try:
                return uuid.UUID(value).bytes
            except ValueError:
                return None
    return None


def remove_partition(filesystem: FileSystem, directory: str) -> None:
    """Remove the folder and all that is in it. Raises StorageError; the rest goes at the next start."""
    parent, name = os.path.split(directory)
    # Cut, since a name as long as may be leaves no room behind it (255 bytes, NAME_MAX).
    tombstone = os.path.join(parent, f"{name[:100]}.{uuid.uuid4().hex}{TOMBSTONE_SUFFIX}")
    try:
        filesystem.rename(directory, tombstone)
        filesystem.sync_directory(parent or ".")
    except OSError as error:
        raise storage_error(error, f"cannot delete {directory}") from error
    remove_tombstone(filesystem, tombstone)


def remove_tombstone(filesystem: FileSystem, directory: str) -> None:
    """Remove a folder of files. Raises StorageError."""
    try:
        for name in filesystem.list_directory(directory):
            filesystem.unlink(os.path.join(directory, name))
        filesystem.remove_directory(directory)
    except OSError as error:
        raise storage_error(error, f"cannot remove {directory}") from error


def check_topic_id(filesystem: FileSystem, directory: str, topic_id: bytes) -> None:
    """Write the topic's id where there is none. Raises StorageError when the folder belongs to another topic."""
    stored = read_topic_id(filesystem, directory)
    if stored is None:
        write_topic_id(filesystem, directory, topic_id)
    elif stored != topic_id:
        raise StorageError(
            ErrorCode.STORAGE_ERROR,
            f"{directory} belongs to topic id {uuid.UUID(bytes=stored)}, not to "
            f"{uuid.UUID(bytes=topic_id)}; move the folder away",
        )
