"""Walking the batches of a segment file, and telling a torn tail from damage in the middle.

A walk yields a `Found` for each sound batch and a `Damage` for each stretch of bytes that is none. The rule
that everything rests on: damage with a sound batch behind it lies in the middle, and is kept; damage with
none behind it is the torn end of the last write, and may be cut.

What the checksum covers begins behind base offset, length and leader epoch, so these are held against what
must be there: offsets follow one another without a gap, and the bytes of the batch lie inside the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from frieda.errors import BrokerError
from frieda.storage.filesystem import File
from frieda.wire.batch import HEADER_SIZE_BYTES, BatchHeader, crc_matches, read_header

CHUNK_SIZE_BYTES: Final = 1 << 20
HEADERS_CHUNK_BYTES: Final = 4096

_MAGIC_AT: Final = 16
_ATTRIBUTES_AT: Final = 21
_MAX_OFFSET_STEP: Final = 1 << 31
_NOTHING: Final = memoryview(b"")


class Found(NamedTuple):
    """A sound batch at `position`. (`batch` is valid until the walk goes on.)"""

    position: int
    header: BatchHeader
    batch: memoryview


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes that are no sound batch.

    first_offset: the offset that should lie here. next_offset: that of the next sound batch; -1: none follows.
    torn: no sound batch follows, so this is the end of an unfinished write.
    """

    position: int
    size_bytes: int
    first_offset: int
    next_offset: int
    reason: str

    @property
    def torn(self) -> bool:
        return self.next_offset < 0


class Window:
    """A file read through one chunk that moves along; a batch larger than the chunk gets a larger one.

    wait: when False, reads raise BlockingIOError where the disk would have to be asked.
    """

    def __init__(
        self, file: File, end: int, chunk_bytes: int = CHUNK_SIZE_BYTES, *, wait: bool = True
    ) -> None:
        self._file = file
        self._start = 0
        self._data = memoryview(b"")
        self._chunk_bytes = chunk_bytes
        self._wait = wait
        self.end = end

    def view(self, position: int, size_bytes: int) -> memoryview:
        """The bytes there; fewer at the end of the file. Raises OSError."""
        size_bytes = min(size_bytes, self.end - position)
        at = position - self._start
        if at < 0 or at + size_bytes > len(self._data):
            wanted = min(max(self._chunk_bytes, size_bytes), self.end - position)
            data = memoryview(bytearray(wanted))
            count = self._file.read_into(data, position, wait=self._wait)
            self._data, self._start, at = data[:count], position, 0
        return self._data[at : at + size_bytes]


def walk(
    window: Window, start: int, first_offset: int, *, check_crc: bool
) -> Iterator[Found | Damage]:
    """The batches from `start` to the window's end; the first should have `first_offset`.

    check_crc=False reads the headers only, and leaves `Found.batch` empty. Stops at zeros that reach to the
    end (preallocated, never written), which are no damage. Raises OSError.
    """
    position, expected, end = start, first_offset, window.end
    while position < end:
        header = sound_header(window, position, expected)
        if isinstance(header, BatchHeader):
            batch = window.view(position, header.size_bytes) if check_crc else _NOTHING
            if not check_crc or crc_matches(batch, header):
                yield Found(position, header, batch)
                position += header.size_bytes
                expected = header.next_offset
                continue
            reason = "its checksum is wrong"
        else:
            reason = header
        if only_zeros(window, position):
            return
        after = find_batch(window, position, expected)
        if after is None:
            yield Damage(position, end - position, expected, -1, reason)
            return
        next_position, next_header = after
        yield Damage(position, next_position - position, expected, next_header.base_offset, reason)
        position, expected = next_position, next_header.base_offset


def sound_header(window: Window, position: int, expected_offset: int) -> BatchHeader | str:
    """The header of the batch at `position` when it can be right there, else why not (half a sentence)."""
    head = window.view(position, HEADER_SIZE_BYTES)
    if len(head) < HEADER_SIZE_BYTES:
        return f"only {len(head)} bytes are left, fewer than a batch header has"
    try:
        header = read_header(head)
    except BrokerError as error:
        return error.detail or str(error)
    if header.base_offset != expected_offset:
        return f"it says offset {header.base_offset} where {expected_offset} is due"
    if header.size_bytes > window.end - position:
        return f"it says {header.size_bytes} bytes where {window.end - position} are left"
    if header.last_offset_delta < 0:
        return f"it says a last offset delta of {header.last_offset_delta}"
    return header


def find_batch(window: Window, damaged_at: int, expected: int) -> tuple[int, BatchHeader] | None:
    """The next sound batch after the damaged one at `damaged_at`, which should have had offset `expected`.

    A record may hold bytes that look like a batch, so the checksum is not enough. Where the damaged header
    agrees with itself, the offset it implies must be met: exactly within the bytes it claims, at least behind
    them. Otherwise any later offset will do, best of a batch that is followed by another one or the end.
    """
    least, claimed_end = expected + 1, damaged_at
    try:
        damaged = read_header(window.view(damaged_at, HEADER_SIZE_BYTES))
    except BrokerError:
        damaged = None
    if damaged is not None and 0 < damaged.record_count == damaged.last_offset_delta + 1:
        least = expected + damaged.record_count
        if damaged_at + damaged.size_bytes <= window.end:
            claimed_end = damaged_at + damaged.size_bytes
            found = _candidate(window, claimed_end, least, expected + _MAX_OFFSET_STEP)
            if found is not None:
                return claimed_end, found
    alone: tuple[int, BatchHeader] | None = None
    for position in _magic_positions(window, damaged_at + 1):
        most = least if position < claimed_end else expected + _MAX_OFFSET_STEP
        found = _candidate(window, position, least, most)
        if found is None:
            continue
        if _goes_on(window, position, found):
            return position, found
        alone = alone or (position, found)
    return alone


def only_zeros(window: Window, position: int) -> bool:
    """Are there nothing but zeros from here to the end?"""
    # The first few bytes settle it nearly always.
    size_bytes = HEADER_SIZE_BYTES
    while position < window.end:
        data = bytes(window.view(position, size_bytes))
        if data.count(0) != len(data):
            return False
        position += len(data)
        size_bytes = CHUNK_SIZE_BYTES
    return True


def _magic_positions(window: Window, start: int) -> Iterator[int]:
    """Where a batch could begin: a 2 in the magic's place and nothing set in the high byte of the attributes."""
    position = start
    overlap = _ATTRIBUTES_AT
    while position + HEADER_SIZE_BYTES <= window.end:
        data = bytes(window.view(position, CHUNK_SIZE_BYTES))
        at = data.find(2, _MAGIC_AT)
        while at >= 0:
            begin = at - _MAGIC_AT
            if begin + _ATTRIBUTES_AT < len(data) and data[begin + _ATTRIBUTES_AT] == 0:
                yield position + begin
            at = data.find(2, at + 1)
        if position + len(data) >= window.end:
            return
        position += len(data) - overlap


def _candidate(window: Window, position: int, least: int, most: int) -> BatchHeader | None:
    head = window.view(position, HEADER_SIZE_BYTES)
    if len(head) < HEADER_SIZE_BYTES or not least <= int.from_bytes(head[:8]) <= most:
        return None
    header = sound_header(window, position, int.from_bytes(head[:8]))
    if isinstance(header, str):
        return None
    return header if crc_matches(window.view(position, header.size_bytes), header) else None


def _goes_on(window: Window, position: int, header: BatchHeader) -> bool:
    after = position + header.size_bytes
    return not isinstance(sound_header(window, after, header.next_offset), str) or only_zeros(
        window, after
    )
