"""The high watermarks of a data folder's logs, in one file: what a replica knows of them when it starts.

The file is Kafka's `replication-offset-checkpoint`: a line `0` (the version), the number of entries, then one
line `topic partition offset` each. It may be older than the logs: a high watermark that is too low is harmless, since a
leader soon learns better. One that is too high is not, so it is to be saved at once when a log is cut below its high
watermark or deleted, and not only at an interval and at the end.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Final

from frieda.model import TopicPartition, illegal_topic_name
from frieda.storage.filesystem import FileSystem, read_file, replace_file

logger = logging.getLogger(__name__)

FILE_NAME: Final = "replication-offset-checkpoint"
_VERSION: Final = "0"
_MAX_BYTES: Final = 1 << 28


class HighWatermarksDamagedError(ValueError):
    """The bytes are not a whole file of high watermarks."""


class HighWatermarks:
    """Those of one data folder. Made by the folder; `save` may run in a thread, one at a time.

    saved: what the file held at start, or holds since the last `save`.
    """

    def __init__(self, filesystem: FileSystem, directory: str) -> None:
        """Read the file; one that is missing or (with a warning) damaged says nothing. Raises StorageError."""
        self._filesystem = filesystem
        self._path = os.path.join(directory, FILE_NAME)
        self.saved: dict[TopicPartition, int] = {}
        content = read_file(filesystem, self._path, _MAX_BYTES)
        if content is None:
            return
        try:
            self.saved = decode(content)
        except HighWatermarksDamagedError as error:
            logger.warning(
                "%s: %s; replicas begin with the lowest high watermark", self._path, error
            )

    def save(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Replace the file; durable when this returns. Asks the disk; raises StorageError, and the old one stays."""
        saved = dict(offsets)
        if saved != self.saved:
            replace_file(self._filesystem, self._path, encode(saved))
            self.saved = saved


def encode(offsets: Mapping[TopicPartition, int]) -> bytes:
    """The content of the file."""
    lines = [_VERSION, str(len(offsets))]
    lines += [f"{topic} {partition} {offset}" for (topic, partition), offset in offsets.items()]
    return ("\n".join(lines) + "\n").encode()


def decode(content: bytes) -> dict[TopicPartition, int]:
    """Read the file. Raises HighWatermarksDamagedError."""
    offsets: dict[TopicPartition, int] = {}
    try:
        lines = content.decode("ascii").splitlines()
        if lines[0] != _VERSION or int(lines[1]) != len(lines) - 2 or not content.endswith(b"\n"):
            raise HighWatermarksDamagedError("the file is cut short")
        for line in lines[2:]:
            topic, partition, offset = line.split(" ")
            place = TopicPartition(topic, int(partition))
            if (
                illegal_topic_name(topic)
                or place in offsets
                or min(int(partition), int(offset)) < 0
            ):
                raise HighWatermarksDamagedError(f"the line {line!r} cannot be right")
            offsets[place] = int(offset)
    except (ValueError, IndexError) as error:
        if isinstance(error, HighWatermarksDamagedError):
            raise
        raise HighWatermarksDamagedError(f"it is damaged: {error}") from None
    return offsets
