"""The small file of a partition that says how far its log is known to be sound. PURE but for read and write.

recovery_point   every segment that ends at or before this offset is synced, cut and indexed
log_start_offset the first offset that may be read
end_offset, end_position   present after a clean close: the log's end, and the bytes of its last segment
cut_base, cut_position     present while the log is being cut: the segment that is to be the last one, and the bytes
                 of it that stay. Whoever opens the log and finds this does the rest of the cut first.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass, fields
from typing import Final

from frieda.storage.filesystem import FileSystem, read_file, replace_file

CHECKPOINT_NAME: Final = "log-checkpoint"
_MAX_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """See the module. The ends are -1 where the log was not closed cleanly, the cut where none is under way."""

    recovery_point: int = 0
    log_start_offset: int = 0
    end_offset: int = -1
    end_position: int = -1
    cut_base: int = -1
    cut_position: int = -1

    def encode(self) -> bytes:
        """One line of JSON, one of checksum."""
        line = json.dumps(asdict(self)).encode()
        return b"%s\n%08x\n" % (line, zlib.crc32(line))

    @classmethod
    def decode(cls, data: bytes) -> Checkpoint | None:
        """What `encode` made, or None when it is damaged."""
        line, _, tail = data.partition(b"\n")
        if tail != b"%08x\n" % zlib.crc32(line):
            return None
        try:
            found = json.loads(line)
            # The last two are missing in a checkpoint of before there were cuts.
            numbers = [int(found.get(each.name, each.default)) for each in fields(cls)]
        except (ValueError, AttributeError, TypeError):
            return None
        return cls(*numbers)


def read_checkpoint(filesystem: FileSystem, directory: str) -> Checkpoint | None:
    """The checkpoint in a partition's folder; None when it is missing or damaged. Raises StorageError."""
    data = read_file(filesystem, f"{directory}/{CHECKPOINT_NAME}", _MAX_BYTES)
    return Checkpoint.decode(data) if data is not None else None


def write_checkpoint(filesystem: FileSystem, directory: str, checkpoint: Checkpoint) -> None:
    """Write it and sync it. Raises StorageError."""
    replace_file(filesystem, f"{directory}/{CHECKPOINT_NAME}", checkpoint.encode(), durable=True)
