"""One segment file: batches end to end, named by the offset of its first record, with its two indexes.

Only the segment that is written to has a tail of preallocated zeros behind `end_position`; it grows in doubling
steps and is cut when the segment is closed. The names and formats are Kafka's (`.log`, `.index`, `.timeindex`).

The owner's thread alone changes a segment. Any thread may locate and read, with the file retained: a batch counts
only once `end_position` has passed it, and indexes only grow.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from frieda.errors import StorageError
from frieda.storage.filesystem import File, FileSystem, read_file, replace_file, storage_error
from frieda.storage.index import IndexDamagedError, OffsetIndex, TimeIndex
from frieda.storage.scan import HEADERS_CHUNK_BYTES, Damage, Found, Window, sound_header, walk
from frieda.wire.batch import BatchHeader

LOG_SUFFIX: Final = ".log"
INDEX_SUFFIX: Final = ".index"
TIME_INDEX_SUFFIX: Final = ".timeindex"

FIRST_STEP_BYTES: Final = 64 * 1024
LARGEST_STEP_BYTES: Final = 16 * 1024 * 1024
MAX_RELATIVE_OFFSET: Final = 2**31 - 1
_MAX_INDEX_BYTES: Final = 1 << 30
_MAX_HINTS: Final = 64


def file_name(base_offset: int) -> str:
    """The name of a segment without its suffix: the offset in 20 digits."""
    return f"{base_offset:020d}"


class Segment:
    """See the module.

    base_offset: the offset the file is named by.  end_position: bytes of batches.  next_offset: the offset after
    the last record.  allocated: how far the file reaches.  index_due: a batch that begins there or later gets an
    index entry.  open_file: what `file` gives, while it is open.  first_append_ms: wall clock of the first append
    (0: none), for rolling by age.  superseded: the log was cut, and the file is another object's by now.
    """

    __slots__ = (
        "_directory",
        "_filesystem",
        "_hints",
        "_index_interval_bytes",
        "_indexes",
        "allocated",
        "base_offset",
        "deleted",
        "end_position",
        "first_append_ms",
        "index_due",
        "index_used",
        "max_timestamp_ms",
        "max_timestamp_offset",
        "next_offset",
        "open_file",
        "path",
        "superseded",
    )

    def __init__(
        self, filesystem: FileSystem, directory: str, base_offset: int, index_interval_bytes: int
    ) -> None:
        self._filesystem = filesystem
        self._directory = directory
        self._index_interval_bytes = index_interval_bytes
        self.open_file: File | None = None
        self._indexes: tuple[OffsetIndex, TimeIndex] | None = None
        self._hints: dict[int, int] = {}
        self.index_due = index_interval_bytes
        self.path = os.path.join(directory, file_name(base_offset) + LOG_SUFFIX)
        self.base_offset = base_offset
        self.next_offset = base_offset
        self.end_position = 0
        self.allocated = 0
        self.max_timestamp_ms = -1
        self.max_timestamp_offset = base_offset
        self.first_append_ms = 0
        self.deleted = False
        self.superseded = False
        self.index_used = True

    def start_empty(self) -> None:
        """Make the file. Raises OSError; there is none then."""
        file = self._filesystem.open(self.path, create=True)
        try:
            file.truncate(0)
        except OSError:
            file.release()
            self._filesystem.unlink(self.path)
            raise
        self.open_file = file
        self.begin_indexes()

    def begin_indexes(self) -> None:
        """Nothing is in it yet."""
        self._indexes = OffsetIndex(), TimeIndex()

    def up_to(self, position: int, offset: int) -> Segment:
        """Another object for what this file holds before `position`, where the batch that begins with `offset` lies.

        It ends earlier where what lies before that is damaged. Changes nothing on the disk, but reads from it a
        little more than an index interval. Any thread; raises OSError, StorageError.
        """
        kept = Segment(
            self._filesystem, self._directory, self.base_offset, self._index_interval_bytes
        )
        kept.first_append_ms = self.first_append_ms
        offsets, times = self.indexes()
        kept._indexes = offsets.up_to(position), times.up_to(offset - self.base_offset)
        if not kept._take_up(position):
            kept.rebuild(position)
        return kept

    def file(self) -> File:
        """The file, opened when it is not. Owner's thread; raises OSError."""
        if self.open_file is None:
            self.open_file = self._filesystem.open(self.path)
        return self.open_file

    def retained_file(self) -> File:
        """A file with one more holder, for the caller to release. Any thread; raises OSError."""
        file = self.open_file
        if file is not None:
            try:
                file.retain()
            except ValueError:
                pass  # closed this moment by the owner: open another
            else:
                return file
        return self._filesystem.open(self.path, write=False)

    def drop_file(self) -> None:
        """Close the file; it is opened again when it is needed."""
        file, self.open_file = self.open_file, None
        if file is not None:
            file.release()

    def grow(self, size_bytes: int, limit_bytes: int) -> None:
        """Make room behind `end_position` for a batch of that size. Raises OSError; nothing has changed then."""
        file = self.file()
        needed = self.end_position + size_bytes
        step = min(max(self.allocated, FIRST_STEP_BYTES), LARGEST_STEP_BYTES)
        wanted = max(needed, min(self.allocated + step, limit_bytes))
        if wanted <= self.allocated:
            return
        try:
            file.allocate(self.allocated, wanted - self.allocated)
        except OSError:
            # A nearly full disk may still have what this one batch needs.
            file.truncate(self.allocated)
            if needed <= self.allocated:
                return
            file.allocate(self.allocated, needed - self.allocated)
            wanted = needed
        self.allocated = wanted

    def cut(self) -> None:
        """Take off all that lies behind `end_position`. Raises OSError."""
        self.file().truncate(self.end_position)
        self.allocated = self.end_position
        self._hints.clear()

    def _index_batch(self, position: int, last_offset: int) -> None:
        offsets, times = self.indexes()
        offsets.append(last_offset - self.base_offset, position)
        if self.max_timestamp_ms >= 0:
            times.append(self.max_timestamp_ms, self.max_timestamp_offset - self.base_offset)
        self.index_due = position + self._index_interval_bytes

    def note_written(self, position: int, last_offset: int, newest_ms: int) -> None:
        """Note for both indexes a batch that lies at `position` and is counted in."""
        if newest_ms > self.max_timestamp_ms:
            self.max_timestamp_ms = newest_ms
            self.max_timestamp_offset = last_offset
        if position >= self.index_due:
            self._index_batch(position, last_offset)

    def note_batch(self, position: int, header: BatchHeader) -> None:
        """Count in a batch that lies at `position`, and note it."""
        self.note_written(position, header.last_offset, header.max_timestamp_ms)
        self.end_position = position + header.size_bytes
        self.next_offset = header.next_offset

    def rebuild(
        self,
        end: int,
        *,
        visit: Callable[[BatchHeader], None] | None = None,
    ) -> list[Damage]:
        """Walk the file up to `end`, and make indexes and counters from what is there. Raises OSError.

        `visit` is called with each sound header. Bytes that are no batch are left where they are: see the
        damages returned.
        """
        self.begin_indexes()
        self.index_due = self._index_interval_bytes
        self.end_position, self.next_offset = 0, self.base_offset
        self.max_timestamp_ms, self.max_timestamp_offset = -1, self.base_offset
        self._hints.clear()
        damages: list[Damage] = []
        file = self.retained_file()
        try:
            for event in walk(Window(file, end), 0, self.base_offset, check_crc=True):
                if isinstance(event, Damage):
                    damages.append(event)
                    continue
                self.note_batch(event.position, event.header)
                if visit is not None:
                    visit(event.header)
        finally:
            file.release()
        return damages

    def resume(self, size_bytes: int) -> bool:
        """Take up a sound file of that size: load its indexes, walk from the last entry. Raises OSError.

        Returns False when the indexes or the walk don't fit the file, which then must be rebuilt.
        """
        indexes = self._read_indexes(size_bytes, MAX_RELATIVE_OFFSET + 1)
        if indexes is None:
            return False
        self._indexes = indexes
        return self._take_up(size_bytes)

    def _take_up(self, size_bytes: int) -> bool:
        """Walk from the last entry of the indexes to `size_bytes`; False when it does not fit. Raises OSError."""
        offsets, times = self.indexes()
        relative, position = offsets.last()
        timestamp_ms, timestamp_relative = times.last()
        self.max_timestamp_ms = timestamp_ms
        self.max_timestamp_offset = self.base_offset + max(timestamp_relative, 0)
        self.index_due = position + self._index_interval_bytes
        self.end_position, self.next_offset = 0, self.base_offset
        file = self.retained_file()
        try:
            window = Window(file, size_bytes, HEADERS_CHUNK_BYTES)
            expected = self.base_offset
            if relative >= 0:
                expected = int.from_bytes(window.view(position, 8))
            for event in walk(window, position, expected, check_crc=False):
                if isinstance(event, Damage):
                    return False
                if relative >= 0 and event.position == position:
                    if event.header.last_offset != self.base_offset + relative:
                        return False
                    self.end_position = position + event.header.size_bytes
                    self.next_offset = event.header.next_offset
                else:
                    self.note_batch(event.position, event.header)
        finally:
            file.release()
        return self.end_position == size_bytes

    def adopt(self, size_bytes: int, next_offset: int) -> None:
        """Take a closed segment as it is: nothing is read before it is needed."""
        self.end_position = self.allocated = size_bytes
        self.next_offset = next_offset

    def indexes(self) -> tuple[OffsetIndex, TimeIndex]:
        """Both indexes, loaded (or built again, when they don't fit) if they are not there. Any thread.

        Raises StorageError.
        """
        self.index_used = True
        indexes = self._indexes
        if indexes is None:
            indexes = self._indexes = self._load_indexes()
        return indexes

    def largest_timestamp_ms(self) -> int:
        """The highest timestamp in the segment, or -1. Any thread; raises StorageError."""
        return max(self.max_timestamp_ms, self.indexes()[1].last()[0])

    def offset_near(self, timestamp_ms: int) -> int:
        """An offset at or before the first record of `timestamp_ms` or later. Any thread; raises StorageError."""
        return self.base_offset + self.indexes()[1].lookup(timestamp_ms)

    def locate(self, file: File, offset: int, *, wait: bool) -> tuple[int, int] | Damage:
        """The batch that holds `offset`: its position and base offset, or the damage that hides it.

        Any thread. `offset` lies in this segment. Raises OSError; BlockingIOError when wait is False and more
        is needed than a look at bytes that are in memory.
        """
        if offset == self.base_offset:
            return 0, offset
        hint = self._hints.get(offset, -1)
        if hint >= 0:
            return hint, offset
        end = self.end_position
        if not wait and self._indexes is None:
            raise BlockingIOError
        relative, position = self.indexes()[0].lookup(offset - self.base_offset)
        window = Window(file, end, HEADERS_CHUNK_BYTES, wait=wait)
        expected = self.base_offset
        if relative >= 0:
            expected = int.from_bytes(window.view(position, 8))
        for event in walk(window, position, expected, check_crc=False):
            if isinstance(event, Damage):
                break
            last_offset = event.header.last_offset
            if event.position == position and 0 <= relative != last_offset - self.base_offset:
                break
            if last_offset >= offset:
                return event.position, event.header.base_offset
        # Something is damaged, and headers alone can't be trusted to say what.
        if not wait:
            raise BlockingIOError
        return self.locate_surely(file, offset)

    def locate_surely(self, file: File, offset: int) -> tuple[int, int] | Damage:
        """As `locate`, but every checksum on the way is looked at. Any thread; asks the disk; raises OSError."""
        relative, position = self.indexes()[0].lookup(offset - self.base_offset)
        window = Window(file, self.end_position)
        expected = self.base_offset
        if relative >= 0:
            expected = int.from_bytes(window.view(position, 8))
            first = next(walk(window, position, expected, check_crc=True), None)
            if not isinstance(first, Found) or (
                first.header.last_offset != self.base_offset + relative
            ):
                position, expected = 0, self.base_offset
        for event in walk(window, position, expected, check_crc=True):
            if isinstance(event, Damage):
                if event.torn or event.next_offset > offset:
                    return event
            elif event.header.last_offset >= offset:
                return event.position, event.header.base_offset
        end = self.end_position
        return Damage(end, 0, offset, -1, "the segment ends before this offset")

    def hint(self, offset: int, position: int) -> None:
        """Remember that the batch which begins with `offset` lies at `position`: a reader will come for it."""
        hints = self._hints
        if len(hints) >= _MAX_HINTS:
            hints.clear()
        hints[offset] = position

    def save_indexes(self) -> None:
        """Write both index files. Any thread; raises StorageError. Synced, since one cut short could pass for whole."""
        if self._indexes is None or self.deleted:
            return
        offsets, times = self._indexes
        if self.end_position:
            # The last entry of a closed segment says its highest timestamp, as Kafka's does.
            times.append(self.max_timestamp_ms, self.max_timestamp_offset - self.base_offset)
        replace_file(self._filesystem, self._sibling(INDEX_SUFFIX), offsets.encode())
        replace_file(self._filesystem, self._sibling(TIME_INDEX_SUFFIX), times.encode())

    def forget_indexes(self) -> None:
        """Give back the memory of the indexes of a closed segment; they are loaded again when needed."""
        self._indexes = None

    def unlink_indexes(self) -> None:
        """Remove the index files, which may say what is no longer true. Raises OSError."""
        for suffix in (INDEX_SUFFIX, TIME_INDEX_SUFFIX):
            self._filesystem.unlink(self._sibling(suffix))

    def unlink(self) -> None:
        """Remove the files. Who still reads from them may go on. Raises OSError."""
        self.deleted = True
        self.drop_file()
        for suffix in (LOG_SUFFIX, INDEX_SUFFIX, TIME_INDEX_SUFFIX):
            self._filesystem.unlink(self._sibling(suffix))

    def _sibling(self, suffix: str) -> str:
        return self.path.removesuffix(LOG_SUFFIX) + suffix

    def _read_indexes(
        self, size_bytes: int, offset_count: int
    ) -> tuple[OffsetIndex, TimeIndex] | None:
        offsets = read_file(self._filesystem, self._sibling(INDEX_SUFFIX), _MAX_INDEX_BYTES)
        times = read_file(self._filesystem, self._sibling(TIME_INDEX_SUFFIX), _MAX_INDEX_BYTES)
        if offsets is None or times is None:
            return None
        try:
            return (
                OffsetIndex.decode(offsets, size_bytes, offset_count),
                TimeIndex.decode(times, offset_count),
            )
        except IndexDamagedError:
            return None

    def _load_indexes(self) -> tuple[OffsetIndex, TimeIndex]:
        """Those of a closed segment; built again and saved when they don't fit it."""
        try:
            indexes = self._read_indexes(self.end_position, self.next_offset - self.base_offset)
            if indexes is not None and self._fits(indexes):
                return indexes
            fresh = Segment(
                self._filesystem, self._directory, self.base_offset, self._index_interval_bytes
            )
            fresh.rebuild(self.end_position)
        except OSError as error:
            raise storage_error(error, f"cannot read {self.path}") from error
        fresh.deleted = self.deleted
        with suppress(StorageError):  # a full disk must not keep anybody from reading
            fresh.save_indexes()
        return fresh.indexes()

    def _fits(self, indexes: tuple[OffsetIndex, TimeIndex]) -> bool:
        """Does the last entry point at a batch with that last offset, and are there entries where some are due?"""
        if not len(indexes[1]) and self.end_position:
            return False
        relative, position = indexes[0].last()
        if relative < 0:
            return self.end_position <= 2 * self._index_interval_bytes
        file = self.retained_file()
        try:
            window = Window(file, self.end_position, HEADERS_CHUNK_BYTES)
            base = int.from_bytes(window.view(position, 8))
            header = sound_header(window, position, base)
            return not isinstance(header, str) and header.last_offset == self.base_offset + relative
        finally:
            file.release()
