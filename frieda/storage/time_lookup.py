"""Finding the first record of a time or later. Source: Kafka's LogSegment.findOffsetByTimestamp."""

from __future__ import annotations

from collections.abc import Sequence

from frieda.storage.filesystem import storage_error
from frieda.storage.scan import HEADERS_CHUNK_BYTES, Damage, Window, walk
from frieda.storage.segment import Segment
from frieda.wire.batch import crc_matches, decode_batch


def first_at_or_after(
    segments: Sequence[Segment], timestamp_ms: int, log_start_offset: int
) -> tuple[int, int] | None:
    """(offset, timestamp) of that record, or None. Damaged batches are passed over. Any thread; asks the disk.

    Raises StorageError; BrokerError when a batch was made wrong.
    """
    for segment in segments:
        if segment.largest_timestamp_ms() < timestamp_ms:
            continue
        try:
            found = _in_segment(segment, timestamp_ms, log_start_offset)
        except OSError as error:
            raise storage_error(error, f"cannot read {segment.path}") from error
        if found is not None:
            return found
    return None


def first_timestamp_ms(segment: Segment) -> int:
    """The newest timestamp in the first batch of a segment; -1 when it has none. Raises StorageError."""
    try:
        file = segment.retained_file()
        try:
            window = Window(file, segment.end_position, HEADERS_CHUNK_BYTES)
            for event in walk(window, 0, segment.base_offset, check_crc=False):
                return -1 if isinstance(event, Damage) else event.header.max_timestamp_ms
        finally:
            file.release()
    except OSError as error:
        raise storage_error(error, f"cannot read {segment.path}") from error
    return -1


def _in_segment(
    segment: Segment, timestamp_ms: int, log_start_offset: int
) -> tuple[int, int] | None:
    file = segment.retained_file()
    try:
        near = max(segment.offset_near(timestamp_ms), log_start_offset)
        if near >= segment.next_offset:
            return None
        start = segment.locate(file, near, wait=True)
        if isinstance(start, Damage):
            start = (0, segment.base_offset)
        window = Window(file, segment.end_position, HEADERS_CHUNK_BYTES)
        for event in walk(window, *start, check_crc=False):
            if isinstance(event, Damage) or event.header.max_timestamp_ms < timestamp_ms:
                continue
            batch = window.view(event.position, event.header.size_bytes)
            if not crc_matches(batch, event.header):
                continue
            for record in decode_batch(batch, "", 0, log_start_offset, check_crc=False):
                if record.timestamp_ms >= timestamp_ms:
                    return record.offset, record.timestamp_ms
    finally:
        file.release()
    return None
