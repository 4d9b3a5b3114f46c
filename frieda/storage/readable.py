"""The part of a partition's log that any thread may use: planning to read, looking up a time, finding a place to cut.

It stands beneath PartitionLog, whose owner's thread alone changes what is read here: the segments as one tuple that is
replaced, the offsets one number at a time, the end last.
"""

from __future__ import annotations

from bisect import bisect_right
from operator import attrgetter

from frieda.config import TopicConfig
from frieda.errors import BrokerError, ErrorCode
from frieda.storage.cutting import Place, find_place
from frieda.storage.filesystem import FileSystem
from frieda.storage.reading import ReadPlan
from frieda.storage.segment import Segment
from frieda.storage.time_lookup import first_at_or_after

_base_offset = attrgetter("base_offset")


class ReadableLog:
    """See the module.

    log_start_offset, log_end_offset: the offsets that can be read, and the next to be given out.
    config: the topic's settings; altered ones hold from the next append or tick on.
    high_watermark: the owner's; readers see what lies below, and retention deletes nothing above it.
    """

    def __init__(
        self,
        filesystem: FileSystem,
        directory: str,
        config: TopicConfig,
        check_crc_on_read: bool,
    ) -> None:
        self.directory = directory
        self.config = config
        self.log_start_offset = 0
        self.log_end_offset = 0
        self.high_watermark = 0
        self._filesystem = filesystem
        self._segments: tuple[Segment, ...] = ()
        self._check_crc_on_read = check_crc_on_read

    @property
    def size_bytes(self) -> int:
        """Bytes of batches."""
        return sum(segment.end_position for segment in self._segments)

    @property
    def segment_count(self) -> int:
        return len(self._segments)

    def plan_read(
        self,
        offset: int,
        max_bytes: int,
        up_to_offset: int | None = None,
        *,
        at_least_one: bool = True,
    ) -> ReadPlan:
        """Plan to read whole batches from the one that holds `offset`, none that reaches beyond `up_to_offset`.

        Without that, up to the end: what a leader sends to a follower. (Readers see what is below the high watermark.)
        Never waits for the disk. The plan's `size_bytes` is 0 when there is nothing to read. at_least_one: the first
        batch even when it is larger than `max_bytes`. Raises BrokerError(OFFSET_OUT_OF_RANGE), StorageError. Any
        thread.
        """
        end = self.log_end_offset
        limit = end if up_to_offset is None or up_to_offset > end else up_to_offset
        if offset < self.log_start_offset or offset > end:
            raise self._out_of_range(f"offset {offset} cannot be read")
        segments = self._segments
        segment = segments[-1]
        if offset < segment.base_offset:  # most readers are near the end
            segment = segments[max(bisect_right(segments, offset, key=_base_offset) - 1, 0)]
        return ReadPlan(
            segment,
            offset,
            limit,
            max_bytes,
            at_least_one=at_least_one,
            check_crc=self._check_crc_on_read,
        )

    def offset_for_timestamp(self, timestamp_ms: int) -> tuple[int, int] | None:
        """(offset, timestamp) of the first record of that time or later, or None: see `first_at_or_after`."""
        return first_at_or_after(self._segments, timestamp_ms, self.log_start_offset)

    def find_cut(self, offset: int) -> Place | None:
        """Where to cut so that nothing of `offset` or beyond is left; None: there is nothing. Changes nothing.

        Any thread; asks the disk. Raises StorageError, BrokerError(OFFSET_OUT_OF_RANGE) below the log start offset.
        """
        if offset < self.log_start_offset:
            raise self._out_of_range(f"cannot cut at offset {offset}")
        return find_place(self._segments, offset) if offset < self.log_end_offset else None

    def place_anew(self, offset: int) -> Place:
        """The place for `begin_cut` after which nothing is left, and the log begins and ends at `offset`."""
        return Place(None, self._new_segment(offset))

    def _new_segment(self, offset: int) -> Segment:
        """One of which there is no file yet."""
        interval = self.config.index_interval_bytes
        segment = Segment(self._filesystem, self.directory, offset, interval)
        segment.begin_indexes()
        return segment

    def _out_of_range(self, what: str) -> BrokerError:
        return BrokerError(
            ErrorCode.OFFSET_OUT_OF_RANGE,
            f"{what}: {self.directory} holds {self.log_start_offset} to {self.log_end_offset}, "
            f"its high watermark is {self.high_watermark}",
        )
