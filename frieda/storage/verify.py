"""Reading a log offline, and saying what of it is sound: a data folder, one partition's folder, or one file.

Nothing is changed. In a folder that a running broker holds, the end of the last segment may be half written
while it is read, so that end is not called damage.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from frieda.errors import BrokerError, ErrorCode, FriedaError, StorageError
from frieda.storage.filesystem import File, FileSystem, read_file, storage_error
from frieda.storage.folder import LOCK_NAME, lock_owner
from frieda.storage.index import IndexDamagedError, OffsetIndex, TimeIndex
from frieda.storage.partition_folder import parse_partition_name
from frieda.storage.scan import Damage, Found, Window, walk
from frieda.storage.segment import (
    INDEX_SUFFIX,
    LOG_SUFFIX,
    MAX_RELATIVE_OFFSET,
    TIME_INDEX_SUFFIX,
)
from frieda.wire.batch import check_records

_MAX_INDEX_BYTES = 1 << 30


@dataclass(slots=True)
class SegmentReport:
    """What one segment file holds. `problems` are sentences; sound is a segment without any.

    zero_bytes: the preallocated tail. damages: stretches that are no batch. end_offset: behind the last sound record.
    """

    path: str
    base_offset: int
    end_offset: int
    size_bytes: int = 0
    batches: int = 0
    records: int = 0
    zero_bytes: int = 0
    damages: list[Damage] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        return not self.problems


@dataclass(frozen=True, slots=True)
class LogFile:
    """A segment file to read. `last`: the newest of its partition. `in_use`: a broker may be writing to it."""

    path: str
    base_offset: int
    last: bool
    in_use: bool


def find_log_files(filesystem: FileSystem, path: str) -> list[LogFile]:
    """The segment files below `path`, partition by partition, oldest first.

    Raises StorageError when there is nothing to read there.
    """
    path = os.path.abspath(path)
    try:
        if not filesystem.is_directory(path):
            filesystem.size(path)
            folder, name = os.path.split(path)
            offset = _base_offset(name)
            if offset < 0:
                raise StorageError(
                    ErrorCode.STORAGE_ERROR,
                    f"{path} is not a segment file; one is named by 20 digits and {LOG_SUFFIX}",
                )
            newest = max(_segment_offsets(filesystem, folder))
            return [
                LogFile(
                    path, offset, offset == newest, _in_use(filesystem, os.path.dirname(folder))
                )
            ]
        files = _in_folder(filesystem, path, _in_use(filesystem, os.path.dirname(path)))
        in_use = _in_use(filesystem, path)
        partitions = [
            name for name in filesystem.list_directory(path) if parse_partition_name(name)
        ]
        for name in sorted(partitions, key=lambda n: parse_partition_name(n) or ("", 0)):
            files += _in_folder(filesystem, os.path.join(path, name), in_use)
    except OSError as error:
        raise storage_error(error, f"cannot read {path}") from error
    if not files and not partitions and not _is_data_folder(filesystem, path):
        raise StorageError(
            ErrorCode.STORAGE_ERROR,
            f"{path} holds no log; give a data folder, a partition's folder or a {LOG_SUFFIX} file",
        )
    return files


def broker_that_holds(filesystem: FileSystem, path: str) -> str | None:
    """The process id of a running broker that holds this data folder (or the one around it), or None."""
    path = os.path.abspath(path)
    for folder in (path, os.path.dirname(path), os.path.dirname(os.path.dirname(path))):
        if _in_use(filesystem, folder):
            return lock_owner(filesystem, folder)
    return None


def read_batches(filesystem: FileSystem, log_file: LogFile) -> Iterator[Found | Damage]:
    """Every batch of a file, with its bytes, and every stretch that is none. Raises StorageError."""
    try:
        file = filesystem.open(log_file.path, write=False)
        try:
            window = Window(file, file.size())
            for event in walk(window, 0, log_file.base_offset, check_crc=True):
                if isinstance(event, Damage) and event.torn and log_file.in_use and log_file.last:
                    return
                yield event
        finally:
            file.release()
    except OSError as error:
        raise storage_error(error, f"cannot read {log_file.path}") from error


def verify_segment(filesystem: FileSystem, log_file: LogFile) -> SegmentReport:
    """Walk every batch and every record of one file, and hold its indexes against it. Raises StorageError."""
    report = SegmentReport(log_file.path, log_file.base_offset, log_file.base_offset)
    last_offsets: dict[int, int] = {}
    end_position = 0
    newest_ms = -1
    for event in read_batches(filesystem, log_file):
        if isinstance(event, Damage):
            report.damages.append(event)
            report.problems.append(_describe(event))
            end_position = event.position + event.size_bytes
            if not event.torn:
                report.end_offset = event.next_offset
            continue
        header = event.header
        report.batches += 1
        report.records += header.record_count
        report.end_offset = header.next_offset
        end_position = event.position + header.size_bytes
        last_offsets[event.position] = header.last_offset
        newest_ms = max(newest_ms, header.max_timestamp_ms)
        problem = _lie(event)
        if problem:
            report.problems.append(problem)
    report.size_bytes = end_position
    report.zero_bytes = _size(filesystem, log_file.path) - end_position
    if report.zero_bytes and not log_file.last:
        report.problems.append(f"{report.zero_bytes} zero bytes lie behind the last batch")
    if not (log_file.last and log_file.in_use):
        report.problems += _check_indexes(
            filesystem, log_file, last_offsets, newest_ms, end_position
        )
    return report


def verify_folder(filesystem: FileSystem, path: str) -> Iterator[SegmentReport]:
    """A report for each segment file below `path`. Raises StorageError.

    Also notes where one segment of a partition does not go on where the one before it ends.
    """
    before: tuple[str, SegmentReport] | None = None
    for log_file in find_log_files(filesystem, path):
        report = verify_segment(filesystem, log_file)
        folder = os.path.dirname(log_file.path)
        if before is not None and before[0] == folder:
            ended = before[1].end_offset
            if ended != report.base_offset and not any(d.torn for d in before[1].damages):
                report.problems.append(
                    f"the segment before ends at offset {ended}, this one begins at {report.base_offset}"
                )
        before = folder, report
        yield report


def _describe(damage: Damage) -> str:
    where = f"bytes {damage.position} to {damage.position + damage.size_bytes}"
    if damage.torn:
        return f"{where} (from offset {damage.first_offset}) are no batch and none follows: {damage.reason}"
    return (
        f"{where} (offsets {damage.first_offset} to {damage.next_offset - 1}) are damaged: "
        f"{damage.reason}; offset {damage.next_offset} is the next that can be read"
    )


def _lie(event: Found) -> str:
    """What the header of a batch says that its records don't bear out, in a sentence, or nothing."""
    header = event.header
    if header.is_control:
        return ""
    try:
        check_records(event.batch, header)
    except BrokerError as error:
        return f"the batch at byte {event.position}: {error.detail}"
    except FriedaError as error:
        return f"the batch at byte {event.position} cannot be checked: {error}"
    return ""


def _check_indexes(
    filesystem: FileSystem,
    log_file: LogFile,
    last_offsets: dict[int, int],
    newest_ms: int,
    end_position: int,
) -> list[str]:
    """What is wrong with the indexes, if they are there (a missing one is built when it is needed)."""
    problems = []
    stem = log_file.path.removesuffix(LOG_SUFFIX)
    data = read_file(filesystem, stem + INDEX_SUFFIX, _MAX_INDEX_BYTES)
    if data is not None:
        try:
            index = OffsetIndex.decode(data, end_position, MAX_RELATIVE_OFFSET + 1)
        except IndexDamagedError as error:
            problems.append(str(error))
        else:
            wrong = [
                position
                for relative, position in index.entries()
                if last_offsets.get(position) != log_file.base_offset + relative
            ]
            if wrong:
                problems.append(
                    f"{len(wrong)} entries of the offset index point at no batch of theirs, "
                    f"the first at byte {wrong[0]}"
                )
    data = read_file(filesystem, stem + TIME_INDEX_SUFFIX, _MAX_INDEX_BYTES)
    if data is not None:
        try:
            newest = TimeIndex.decode(data, MAX_RELATIVE_OFFSET + 1).last()[0]
        except IndexDamagedError as error:
            problems.append(str(error))
        else:
            if newest > newest_ms:
                problems.append(
                    f"the time index ends at timestamp {newest}, the newest record has {newest_ms}"
                )
    return problems


def _in_folder(filesystem: FileSystem, folder: str, in_use: bool) -> list[LogFile]:
    offsets = _segment_offsets(filesystem, folder)
    return [
        LogFile(
            os.path.join(folder, f"{offset:020d}{LOG_SUFFIX}"),
            offset,
            offset == offsets[-1],
            in_use,
        )
        for offset in offsets
    ]


def _segment_offsets(filesystem: FileSystem, folder: str) -> list[int]:
    return [o for o in map(_base_offset, filesystem.list_directory(folder)) if o >= 0]


def _base_offset(name: str) -> int:
    digits = name.removesuffix(LOG_SUFFIX)
    usable = name != digits and len(digits) == 20 and digits.isascii() and digits.isdigit()
    return int(digits) if usable else -1


def _is_data_folder(filesystem: FileSystem, path: str) -> bool:
    return LOCK_NAME in filesystem.list_directory(path)


def _in_use(filesystem: FileSystem, folder: str) -> bool:
    """Does a process hold the lock of this data folder?"""
    try:
        return filesystem.is_locked(os.path.join(folder, LOCK_NAME))
    except OSError:
        # Not allowed to look, or there is no lock file: nothing speaks for a broker.
        return False


def _size(filesystem: FileSystem, path: str) -> int:
    file: File = filesystem.open(path, write=False)
    try:
        return file.size()
    finally:
        file.release()
