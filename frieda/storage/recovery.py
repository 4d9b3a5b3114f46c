"""Opening a partition's folder: what may be trusted, what must be scanned, and what a torn write left behind.

After a clean close nothing is scanned: the last segment is walked from its last index entry. Otherwise the
segments behind the checkpoint's recovery point are read whole with their checksums, which is the last one
unless the process died just after it began a new one. A torn tail (no sound batch behind it, here or in a
later segment) is cut. Damage in the middle is kept and reported. A cut that was under way is carried out first.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from frieda.storage.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from frieda.storage.filesystem import FileSystem, read_file, replace_file
from frieda.storage.leader_epochs import EpochsDamagedError, LeaderEpochs
from frieda.storage.producer_state import ProducerState, SnapshotDamagedError
from frieda.storage.scan import Damage, Found, Window, walk
from frieda.storage.segment import INDEX_SUFFIX, LOG_SUFFIX, TIME_INDEX_SUFFIX, Segment, file_name
from frieda.wire.batch import BatchHeader

SNAPSHOT_SUFFIX: Final = ".snapshot"
EPOCHS_NAME: Final = "leader-epoch-checkpoint"
KEPT_SNAPSHOTS: Final = 2

_OFFSET_DIGITS: Final = 20
_MAX_SNAPSHOT_BYTES: Final = 1 << 30
_MAX_EPOCHS_BYTES: Final = 1 << 26


@dataclass(slots=True)
class Recovered:
    """What was found in the folder. `segments` has at least one; the last is the one to append to."""

    segments: list[Segment]
    checkpoint: Checkpoint
    producers: ProducerState
    epochs: LeaderEpochs
    clean: bool = False
    damages: list[tuple[Segment, Damage]] = field(default_factory=list)
    scanned_segments: int = 0
    cut_bytes: int = 0


def recover(
    filesystem: FileSystem,
    directory: str,
    index_interval_bytes: int,
    producers: ProducerState,
    *,
    clean: bool,
) -> Recovered:
    """Open the folder (made when missing). `clean`: the data folder was closed cleanly.

    Raises OSError, StorageError.
    """
    filesystem.make_directory(directory)
    saved = read_checkpoint(filesystem, directory)
    checkpoint = saved or Checkpoint()
    cut_short = checkpoint.cut_base >= 0
    if cut_short:
        carry_out_cut(filesystem, directory, checkpoint)
    names = filesystem.list_directory(directory)
    bases = [offset for offset, suffix in map(_offset_of, names) if suffix == LOG_SUFFIX]
    while len(bases) > 1 and bases[1] <= checkpoint.log_start_offset:
        filesystem.unlink(os.path.join(directory, file_name(bases.pop(0)) + LOG_SUFFIX))
    _remove_leftovers(filesystem, directory, names, set(bases))
    empty = not bases
    if empty:
        bases = [max(checkpoint.log_start_offset, checkpoint.end_offset, checkpoint.recovery_point)]
    segments = [Segment(filesystem, directory, base, index_interval_bytes) for base in bases]
    if empty:
        segments[0].start_empty()
    found = Recovered(segments, checkpoint, producers, LeaderEpochs())
    stored_epochs = _read_epochs(filesystem, directory)
    found.epochs = stored_epochs or LeaderEpochs()
    found.clean = clean and saved is not None and not cut_short and _resume(filesystem, found)
    if found.clean:
        restore_producers(filesystem, directory, segments, producers, segments[-1].next_offset)
    else:
        _scan(filesystem, directory, found)
    if stored_epochs is None:
        found.epochs = LeaderEpochs()
        for segment in segments:
            visit_headers(
                segment,
                segment.base_offset,
                lambda h: found.epochs.note(h.leader_epoch, h.base_offset),
            )
    known = len(found.epochs)
    found.epochs.cut_end(segments[-1].next_offset)
    if known != len(found.epochs) or cut_short:
        # Now, since what is appended next would fit in with neither the old file nor what recovery makes of it.
        save_epochs(filesystem, directory, found.epochs.encode())
    if cut_short or found.checkpoint.recovery_point != checkpoint.recovery_point:
        write_checkpoint(filesystem, directory, found.checkpoint)
    for segment in segments:
        segment.drop_file()
    return found


def visit_headers(segment: Segment, from_offset: int, visit: Callable[[BatchHeader], None]) -> None:
    """Call `visit` with every header of the segment from `from_offset` on. Raises OSError."""
    file = segment.retained_file()
    try:
        window = Window(file, segment.end_position)
        for event in walk(window, 0, segment.base_offset, check_crc=True):
            if isinstance(event, Found) and event.header.base_offset >= from_offset:
                visit(event.header)
    finally:
        file.release()


def save_snapshot(filesystem: FileSystem, directory: str, offset: int, snapshot: bytes) -> None:
    """Write a producer snapshot made at `offset`, and remove all but the newest few. Raises OSError."""
    replace_file(filesystem, _snapshot_path(directory, offset), snapshot, durable=False)
    for old in _snapshot_offsets(filesystem, directory)[:-KEPT_SNAPSHOTS]:
        filesystem.unlink(_snapshot_path(directory, old))


def remove_snapshots_after(filesystem: FileSystem, directory: str, offset: int) -> None:
    """Remove snapshots of a part of the log that is no more. Raises OSError."""
    for made_at in _snapshot_offsets(filesystem, directory):
        if made_at > offset:
            filesystem.unlink(_snapshot_path(directory, made_at))


def save_epochs(filesystem: FileSystem, directory: str, epochs: bytes) -> None:
    """Write the leader epoch checkpoint and sync it. Raises StorageError."""
    replace_file(filesystem, os.path.join(directory, EPOCHS_NAME), epochs)


def remove_epochs(filesystem: FileSystem, directory: str) -> None:
    """Remove the leader epoch checkpoint: it is made again from the log. Raises OSError."""
    filesystem.unlink(os.path.join(directory, EPOCHS_NAME))


def restore_producers(
    filesystem: FileSystem,
    directory: str,
    segments: Sequence[Segment],
    producers: ProducerState,
    offset: int,
) -> None:
    """Make `producers` what it was before `offset`: the newest sound snapshot, then the headers behind it."""
    producers.clear()
    start = 0
    for made_at in reversed(_snapshot_offsets(filesystem, directory)):
        if made_at > offset:
            continue
        data = read_file(filesystem, _snapshot_path(directory, made_at), _MAX_SNAPSHOT_BYTES)
        try:
            producers.restore(data or b"", made_at)
        except SnapshotDamagedError:
            continue
        start = made_at
        break
    for segment in segments:
        if segment.next_offset > start and segment.base_offset < offset:
            visit_headers(segment, start, lambda h: _replay(producers, h, offset))


def carry_out_cut(filesystem: FileSystem, directory: str, cut: Checkpoint) -> None:
    """Bring the segment files to what a checkpoint says of a cut, and sync. Any number of times. Raises OSError."""
    anew = cut.cut_base <= cut.log_start_offset  # then nothing that lies before can be read
    for name in filesystem.list_directory(directory):
        offset, suffix = _offset_of(name)
        if suffix not in (LOG_SUFFIX, INDEX_SUFFIX, TIME_INDEX_SUFFIX):
            continue
        gone = offset > cut.cut_base or (offset < cut.cut_base and anew)
        if gone or (offset == cut.cut_base and suffix != LOG_SUFFIX):
            filesystem.unlink(os.path.join(directory, name))
    last = os.path.join(directory, file_name(cut.cut_base) + LOG_SUFFIX)
    file = filesystem.open(last, create=True)
    try:
        if file.size() > cut.cut_position:
            file.truncate(cut.cut_position)
        file.sync()
    finally:
        file.release()
    filesystem.sync_directory(directory)


def _replay(producers: ProducerState, header: BatchHeader, end: int) -> None:
    if header.base_offset < end:
        producers.update(header, header.base_offset)


def _resume(filesystem: FileSystem, found: Recovered) -> bool:
    """Take the folder as it was closed; False when its last segment is not what the checkpoint says."""
    *closed, active = found.segments
    size_bytes = filesystem.size(active.path)
    if size_bytes != found.checkpoint.end_position or not active.resume(size_bytes):
        return False
    if active.next_offset != found.checkpoint.end_offset:
        return False
    active.allocated = size_bytes
    for segment, after in zip(closed, found.segments[1:], strict=True):
        segment.adopt(filesystem.size(segment.path), after.base_offset)
    return True


def _scan(filesystem: FileSystem, directory: str, found: Recovered) -> None:
    segments = found.segments
    recovery_point = found.checkpoint.recovery_point
    sound = 0
    while sound + 1 < len(segments) and segments[sound + 1].base_offset <= recovery_point:
        segment = segments[sound]
        segment.adopt(filesystem.size(segment.path), segments[sound + 1].base_offset)
        sound += 1
    restore_producers(
        filesystem, directory, segments[:sound], found.producers, segments[sound].base_offset
    )

    def visit(header: BatchHeader) -> None:
        found.producers.update(header, header.base_offset)
        found.epochs.note(header.leader_epoch, header.base_offset)

    last_snapshot = b""
    for segment in segments[sound:]:
        if segment is segments[-1]:
            last_snapshot = found.producers.encode(segment.base_offset)
        size_bytes = filesystem.size(segment.path)
        segment.unlink_indexes()
        for damage in segment.rebuild(size_bytes, visit=visit):
            found.damages.append((segment, damage))
        segment.allocated = size_bytes
        found.scanned_segments += 1
    _drop_empty_ends(found)
    _close_scanned(found, sound)
    active = segments[-1]
    found.cut_bytes += sum(d.size_bytes for s, d in found.damages if s is active and d.torn)
    found.damages = [(s, d) for s, d in found.damages if not (s is active and d.torn)]
    if active.allocated != active.end_position:
        active.cut()
    remove_snapshots_after(filesystem, directory, active.next_offset)
    if len(segments) - 1 > sound:
        save_snapshot(filesystem, directory, active.base_offset, last_snapshot)
        save_epochs(filesystem, directory, found.epochs.encode())
    start = max(found.checkpoint.log_start_offset, segments[0].base_offset)
    found.checkpoint = Checkpoint(active.base_offset, min(start, active.next_offset))


def _drop_empty_ends(found: Recovered) -> None:
    """Behind a torn tail only empty segments: the torn one is the last, then."""
    segments = found.segments
    while len(segments) > 1 and segments[-1].next_offset == segments[-1].base_offset:
        before = segments[-2]
        if before.next_offset == segments[-1].base_offset:
            return
        lost = segments.pop()
        found.cut_bytes += sum(d.size_bytes for s, d in found.damages if s is lost)
        found.damages = [(s, d) for s, d in found.damages if s is not lost]
        lost.unlink()


def _close_scanned(found: Recovered, sound: int) -> None:
    """Bring the scanned segments that are not written to any more into the state a roll leaves them in."""
    pairs = list(zip(found.segments, found.segments[1:], strict=False))
    for segment, after in pairs[sound:]:
        torn = [d for s, d in found.damages if s is segment and d.torn]
        file = segment.file()
        if torn:
            # Sound batches follow in the next segment, so this lies in the middle: keep every byte.
            segment.end_position = segment.allocated
            kept = Damage(
                torn[0].position,
                torn[0].size_bytes,
                torn[0].first_offset,
                after.base_offset,
                torn[0].reason,
            )
            found.damages = [(s, kept if d is torn[0] else d) for s, d in found.damages]
        else:
            if segment.next_offset != after.base_offset:
                gap = Damage(
                    segment.end_position,
                    0,
                    segment.next_offset,
                    after.base_offset,
                    "the segment ends before the next one begins",
                )
                found.damages.append((segment, gap))
            segment.cut()
        segment.next_offset = after.base_offset
        file.sync()
        segment.save_indexes()


def _read_epochs(filesystem: FileSystem, directory: str) -> LeaderEpochs | None:
    data = read_file(filesystem, os.path.join(directory, EPOCHS_NAME), _MAX_EPOCHS_BYTES)
    if data is None:
        return None
    try:
        return LeaderEpochs.decode(data)
    except EpochsDamagedError:
        return None


def _offset_of(name: str) -> tuple[int, str]:
    """The offset and suffix in a file's name; (-1, '') when it is of another kind."""
    digits, dot, suffix = name.partition(".")
    if len(digits) != _OFFSET_DIGITS or not digits.isdigit() or not digits.isascii():
        return -1, ""
    return int(digits), dot + suffix


def _snapshot_path(directory: str, offset: int) -> str:
    return os.path.join(directory, file_name(offset) + SNAPSHOT_SUFFIX)


def _snapshot_offsets(filesystem: FileSystem, directory: str) -> list[int]:
    names = filesystem.list_directory(directory)
    return [offset for offset, suffix in map(_offset_of, names) if suffix == SNAPSHOT_SUFFIX]


def _remove_leftovers(
    filesystem: FileSystem, directory: str, names: list[str], bases: set[int]
) -> None:
    """Half-written files, and indexes whose segment is gone."""
    for name in names:
        offset, suffix = _offset_of(name)
        if name.endswith(".tmp") or (
            suffix in (INDEX_SUFFIX, TIME_INDEX_SUFFIX) and offset not in bases
        ):
            filesystem.unlink(os.path.join(directory, name))
