"""Whether the machine went down while a data folder was in use, which may have cost its logs their unsynced ends.

A process that is killed loses nothing: what it wrote is with the kernel. So an unclean stop within one boot of
the machine is harmless, and across two it is not. `.last-boot` holds the boot id under which the folder was last
open, and whether a loss is still to be made good: that stays so over any number of restarts, clean ones too, until
the owner says that the replicas have caught up.
"""

from __future__ import annotations

import json
import os
from typing import Final

from frieda.storage.filesystem import FileSystem, read_file, replace_file

FILE_NAME: Final = ".last-boot"
_MAX_BYTES: Final = 4096


def note_opening(
    filesystem: FileSystem, directory: str, boot_id: str, *, nothing_unsynced: bool
) -> bool:
    """Note that the folder is open under `boot_id`; may the end of a log be missing? Durable; asks the disk.

    nothing_unsynced: it was closed cleanly, or holds no logs. boot_id: empty where the machine has none; it then
    counts as another each time, as does a file that is missing or damaged. Raises StorageError.
    """
    before, missing = _read(filesystem, directory)
    same_boot = boot_id != "" and boot_id == before
    missing = missing or not (nothing_unsynced or same_boot)
    _write(filesystem, directory, boot_id, missing)
    return missing


def note_caught_up(filesystem: FileSystem, directory: str, boot_id: str) -> None:
    """Note that what was lost is there again. Durable; asks the disk; raises StorageError."""
    _write(filesystem, directory, boot_id, False)


def _read(filesystem: FileSystem, directory: str) -> tuple[str, bool]:
    content = read_file(filesystem, os.path.join(directory, FILE_NAME), _MAX_BYTES)
    try:
        found = json.loads(content or b"{}")
        return str(found["boot_id"]), bool(found["tail_missing"])
    except (ValueError, KeyError, TypeError):
        return "", False


def _write(filesystem: FileSystem, directory: str, boot_id: str, missing: bool) -> None:
    if (boot_id, missing) == _read(filesystem, directory):
        return
    content = json.dumps({"boot_id": boot_id, "tail_missing": missing}).encode() + b"\n"
    replace_file(filesystem, os.path.join(directory, FILE_NAME), content)
