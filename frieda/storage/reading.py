"""Reading from a log in two steps: a plan, which says how large a buffer it wants, then the read into that buffer.

Planning never waits for the disk: where the bytes that lead to the right batch are not in memory, the plan is
left open, and its read raises BlockingIOError on the event loop (wait=False). The caller then does the read in a
thread with wait=True, which also finishes the plan. Plans hold nothing open; they may be dropped at any time.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final

from frieda.errors import BrokerError, CorruptLogError, ErrorCode
from frieda.storage.filesystem import File, storage_error
from frieda.storage.scan import Damage
from frieda.wire.batch import HEADER_SIZE_BYTES, crc_matches, read_header

if TYPE_CHECKING:
    from frieda.storage.segment import Segment

_PREFIX: Final = Struct(">qiib")  # base offset, batch length, leader epoch, magic
_LAST_OFFSET_DELTA: Final = Struct(">i")
_LAST_OFFSET_DELTA_AT: Final = 23
_UNKNOWN_BATCH_BYTES: Final = 16 * 1024
_LEAST_BATCH_LENGTH: Final = HEADER_SIZE_BYTES - 12


class ReadPlan:
    """A stretch of one segment: whole batches from the one that holds `offset`, none that reaches `up_to_offset`.

    size_bytes: how large a buffer the read wants; 0 when there is nothing to read. next_offset: after the read, the
    offset behind the last batch it brought.
    """

    __slots__ = (
        "_at_least_one",
        "_base_offset",
        "_check_crc",
        "_max_bytes",
        "_position",
        "_segment",
        "_up_to_offset",
        "next_offset",
        "offset",
        "size_bytes",
    )

    def __init__(
        self,
        segment: Segment,
        offset: int,
        up_to_offset: int,
        max_bytes: int,
        *,
        at_least_one: bool,
        check_crc: bool,
    ) -> None:
        self._segment = segment
        self._up_to_offset = up_to_offset
        self._max_bytes = max(max_bytes, 0)
        self._at_least_one = at_least_one
        self._check_crc = check_crc
        self._position = -1
        self._base_offset = offset
        self.offset = self.next_offset = offset
        self.size_bytes = 0
        if offset >= up_to_offset or offset >= segment.next_offset:  # (the log was cut this moment)
            return
        try:
            self._locate(wait=False)
        except BlockingIOError:
            # Unknown yet; the thread that reads finds out.
            least = _UNKNOWN_BATCH_BYTES if at_least_one else 0
            self.size_bytes = min(max(self._max_bytes, least), segment.end_position)

    def read_into(self, view: memoryview, *, wait: bool = True) -> int:
        """Read into `view` (of `size_bytes`); returns the size of the whole and sound batches in it.

        That is 0 when a plan left open turns out to hold nothing, or a first batch larger than the view: plan again,
        what leads to it is in memory now. Also when the log was cut since: the plan is void.
        Raises BlockingIOError (wait=False, and the disk would have to be asked), CorruptLogError when the very first
        batch is damaged (later ones end the result before them), BrokerError(OFFSET_OUT_OF_RANGE) when the segment
        was deleted meanwhile, StorageError. Any thread.
        """
        if self.size_bytes == 0:
            return 0
        segment = self._segment
        try:
            sound, next_offset = self._read_sound(view, wait=wait)
        except BrokerError:
            if segment.superseded:
                return 0
            raise
        if sound == 0 or segment.superseded:
            # (Looked at after the read: what was read while the file was cut may be no batch.)
            return 0
        segment.hint(next_offset, self._position + sound)
        self.next_offset = next_offset
        return sound

    def _read_sound(self, view: memoryview, *, wait: bool) -> tuple[int, int]:
        """Size of what was read, and the offset behind it."""
        segment = self._segment
        if self._position < 0:
            if not wait:
                raise BlockingIOError
            self._locate(wait=True)
            if self.size_bytes == 0:
                return 0, self.offset
        file = self._open()
        try:
            sound, next_offset, reason = self._read(file, view, wait=wait)
            if sound == 0:
                if reason == _CUT_OFF and len(view) < self.size_bytes:
                    return 0, self.offset
                if not wait:
                    # To find where the log can be read again takes a search: not on the event loop.
                    raise BlockingIOError
                start = segment.locate_surely(file, self.offset)
                if isinstance(start, Damage):
                    raise corrupt_log(segment, start)
                if start[0] != self._position:  # a damaged header had led astray
                    self._position, self._base_offset = start
                    end = segment.end_position
                    if self._up_to_offset < segment.next_offset:
                        limit = segment.locate_surely(file, self._up_to_offset)
                        end = limit.position if isinstance(limit, Damage) else limit[0]
                    self.size_bytes = min(self.size_bytes, max(end - start[0], 0))
                    sound, next_offset, _ = self._read(file, view, wait=wait)
        except BlockingIOError:
            raise
        except OSError as error:
            raise storage_error(error, f"cannot read {segment.path}") from error
        finally:
            file.release()
        return sound, next_offset

    def _read(self, file: File, view: memoryview, *, wait: bool) -> tuple[int, int, str]:
        view = view[: self.size_bytes]
        count = file.read_into(view, self._position, wait=wait)
        return whole_batches(view[:count], self._base_offset, self._check_crc)

    def _open(self) -> File:
        try:
            return self._segment.retained_file()
        except FileNotFoundError:
            raise BrokerError(
                ErrorCode.OFFSET_OUT_OF_RANGE,
                f"offset {self.offset} was deleted from {self._segment.path}",
            ) from None
        except OSError as error:
            raise storage_error(error, f"cannot open {self._segment.path}") from error

    def _locate(self, *, wait: bool) -> None:
        segment = self._segment
        file = self._open()
        try:
            end = segment.end_position
            start = segment.locate(file, self.offset, wait=wait)
            if isinstance(start, Damage):
                if not wait:
                    raise BlockingIOError
                raise corrupt_log(segment, start)
            position, self._base_offset = start
            if self._up_to_offset < segment.next_offset:
                limit = segment.locate(file, self._up_to_offset, wait=wait)
                end = limit.position if isinstance(limit, Damage) else limit[0]
            size_bytes = max(end - position, 0)
            if size_bytes > self._max_bytes:
                size_bytes = self._max_bytes
                first = _first_batch_size(file, position, end, wait=wait)
                if first > size_bytes:
                    size_bytes = first if self._at_least_one else 0
        except BlockingIOError:
            raise
        except OSError as error:
            raise storage_error(error, f"cannot read {segment.path}") from error
        finally:
            file.release()
        self.size_bytes = size_bytes
        self._position = position


_CUT_OFF: Final = "the segment ends within the batch"


def whole_batches(view: memoryview, first_offset: int, check_crc: bool) -> tuple[int, int, str]:
    """Size of the whole and sound batches at the start of `view`, the offset after them, and what ended them."""
    position, expected, size = 0, first_offset, len(view)
    while size - position >= HEADER_SIZE_BYTES:
        base_offset, batch_length, _, magic = _PREFIX.unpack_from(view, position)
        if base_offset != expected or magic != 2 or batch_length < _LEAST_BATCH_LENGTH:
            return position, expected, "there is no batch where one is due"
        end = position + 12 + batch_length
        if end > size:
            break
        if check_crc:
            batch = view[position:end]
            if not crc_matches(batch, read_header(batch)):
                return position, expected, "its checksum is wrong"
        delta = _LAST_OFFSET_DELTA.unpack_from(view, position + _LAST_OFFSET_DELTA_AT)[0]
        if delta < 0:
            return position, expected, f"it says a last offset delta of {delta}"
        expected += delta + 1
        position = end
    return position, expected, _CUT_OFF


def corrupt_log(segment: Segment, damage: Damage) -> CorruptLogError:
    """The error for a damaged stretch, with the next offset that can be read."""
    next_offset = segment.next_offset if damage.torn else damage.next_offset
    return CorruptLogError(
        f"{segment.path} is damaged at byte {damage.position} (offset {damage.first_offset}): "
        f"{damage.reason}; offset {next_offset} is the next that can be read",
        next_offset,
    )


def _first_batch_size(file: File, position: int, end: int, *, wait: bool) -> int:
    head = memoryview(bytearray(12))
    file.read_into(head, position, wait=wait)
    # A damaged length must not ask for more than there is; the read then finds the damage.
    return min(max(int.from_bytes(head[8:12], signed=True) + 12, HEADER_SIZE_BYTES), end - position)
