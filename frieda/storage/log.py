"""The log of one partition: append on the event loop, read from anywhere, roll, retain, sync, close.

One thread, the owner's (the event loop's), appends, rolls, cuts, applies retention and closes; `open` and `close` may
run in a worker thread while nothing else uses the log. What ReadableLog has and the `run` of a SyncJob or a Cut may run
in any thread beside that. Slow work of a roll and of deletion goes to `background`, when given.

What is promised: `append` returns when the bytes are with the kernel, so a killed process loses none; a power
cut loses none below `synced_offset`. When an append fails the log is as it was before. When an fsync fails the
log takes no more writes (`failed`), since the kernel may have dropped what it could not write; it stays readable.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from frieda.clock import Clock
from frieda.config import TopicConfig
from frieda.errors import ErrorCode, StorageError
from frieda.storage.cutting import Cut, Place
from frieda.storage.filesystem import FileSystem, storage_error, write_all
from frieda.storage.leader_epochs import LeaderEpochs
from frieda.storage.partition_folder import remove_partition
from frieda.storage.producer_state import Facts, ProducerState
from frieda.storage.readable import ReadableLog
from frieda.storage.recovery import recover
from frieda.storage.replicated import check_replicated
from frieda.storage.retention import expired_segments, forget_unused_indexes, old_enough_to_roll
from frieda.storage.sealing import Sealer
from frieda.storage.segment import MAX_RELATIVE_OFFSET, Segment
from frieda.storage.slow_work import Background, SlowWork
from frieda.storage.sync import SyncJob
from frieda.wire.batch import BatchHeader, facts_of, patch

CLOSE_TIMEOUT_S: Final = 30.0


class PartitionLog(ReadableLog):
    """See the module. Made by `open`; whoever opened it closes it.

    synced_offset: what lies below is on the disk.
    damages: (first offset, next readable offset, sentence) of what recovery found damaged and kept.
    scanned_segments, cut_bytes: what opening had to read with its checksums, and cut off.  cuts: how often it was cut.
    """

    def __init__(
        self,
        filesystem: FileSystem,
        directory: str,
        config: TopicConfig,
        clock: Clock,
        producers: ProducerState,
        background: Background | None,
        check_crc_on_read: bool,
    ) -> None:
        super().__init__(filesystem, directory, config, check_crc_on_read)
        self.producers = producers
        self.epochs = LeaderEpochs()
        self.synced_offset = 0
        self.damages: list[tuple[int, int, str]] = []
        self.scanned_segments = 0
        self.cut_bytes = 0
        self.cuts = 0
        self._clock = clock
        self._refusal: StorageError | None = None
        self._must_cut = False  # bytes of a failed write lie behind the end, or `_cut` is not done
        self._cut: Cut | None = None
        self._noted_epoch = -1  # the epoch that `epochs` knows to be the latest
        self._new_names = False
        self._changed = False
        self._sealer = Sealer(filesystem, directory, self.fail)
        self._idle_since_offset = -1
        self._slow_work = SlowWork(background)
        self._active: Segment

    @classmethod
    def open(
        cls,
        filesystem: FileSystem,
        directory: str,
        config: TopicConfig,
        clock: Clock,
        *,
        clean: bool,
        high_watermark: int | None = None,
        max_producers: int = 100_000,
        background: Background | None = None,
        check_crc_on_read: bool = True,
    ) -> PartitionLog:
        """Open or make the log in `directory`.

        clean: the data folder was closed cleanly (`DataFolder.was_clean`). high_watermark: the last that was saved;
        None where there are no other replicas, and all that is here counts as agreed. background: runs a callable in a
        worker thread and returns at once; without one, slow work is done where it arises. Raises StorageError.
        """
        producers = ProducerState(max_producers, clock.time_ms())
        log = cls(filesystem, directory, config, clock, producers, background, check_crc_on_read)
        try:
            found = recover(
                filesystem, directory, config.index_interval_bytes, log.producers, clean=clean
            )
        except OSError as error:
            raise storage_error(error, f"cannot open the log in {directory}") from error
        active = found.segments[-1]
        log._segments = tuple(found.segments)
        log._active = active
        log.epochs = found.epochs
        log.log_end_offset = log.high_watermark = active.next_offset
        start = max(found.checkpoint.log_start_offset, found.segments[0].base_offset)
        log.log_start_offset = min(start, log.log_end_offset)
        if high_watermark is not None:
            log.high_watermark = min(max(high_watermark, log.log_start_offset), log.log_end_offset)
        log.synced_offset = log.log_end_offset if found.clean else active.base_offset
        log._sealer.found(found)
        log._changed = log._new_names = not found.clean
        log.damages = [(d.first_offset, d.next_offset, d.reason) for _, d in found.damages]
        log.scanned_segments, log.cut_bytes = found.scanned_segments, found.cut_bytes
        return log

    @property
    def failed(self) -> bool:
        """An fsync failed, so the log takes no more writes."""
        return self._refusal is not None and self._refusal.code == ErrorCode.LOG_FAILED

    @property
    def failure(self) -> str:
        """Why the log takes no more writes, in a sentence; empty while it does."""
        return self._refusal.detail if self._refusal is not None else ""

    @property
    def maintenance_error(self) -> str:
        """Why the last roll's or deletion's slow work failed, or empty. Opening then has more to do."""
        return self._slow_work.error

    def append(self, batch: memoryview, header: BatchHeader, leader_epoch: int) -> int:
        """Store a batch that `check_batch` and `producers.check` let pass; returns its base offset.

        Writes base offset and leader epoch into `batch`, in place. Raises StorageError; the log is then as before,
        and for DISK_FULL and STORAGE_ERROR the next append may well succeed.
        """
        facts = facts_of(header)
        base_offset = self.write(batch, facts[3] + 1, leader_epoch)
        self.note(base_offset, len(batch), leader_epoch, facts)
        return base_offset

    def write(self, batch: memoryview, record_count: int, leader_epoch: int) -> int:
        """The first half of `append`, which makes the batch part of the log. Returns its base offset.

        `note` must follow before anything else is done with this log: a produce is answered in between. Flat on
        purpose: 16 KiB in about 4 us, of which the write is most.
        """
        segment = self._active
        base_offset = self.log_end_offset
        next_offset = base_offset + record_count
        size = len(batch)
        position = segment.end_position
        end = position + size
        if (
            end > segment.allocated
            or end > self.config.segment_bytes
            or next_offset - segment.base_offset > MAX_RELATIVE_OFFSET + 1
            or self._refusal is not None
            or self._must_cut
        ):
            segment = self._make_room(size, next_offset - 1)
            position = segment.end_position
            end = position + size
        patch(batch, base_offset, leader_epoch)
        try:
            written = (segment.open_file or segment.file()).pwrite(batch, position)
            if written != size:
                write_all(segment.file(), batch[written:], position + written)
        except OSError as error:
            self._must_cut = True
            raise storage_error(error, f"cannot write to {segment.path}") from error
        segment.end_position = end
        segment.next_offset = self.log_end_offset = next_offset
        return base_offset

    def note(self, base_offset: int, size_bytes: int, leader_epoch: int, batch: Facts) -> None:
        """The second half of `append`: what is to be known of the batch just written, by its BatchFacts."""
        producer_id, _, _, last_offset_delta, newest_ms = batch
        position = self._active.end_position - size_bytes
        self._active.note_written(position, base_offset + last_offset_delta, newest_ms)
        if leader_epoch != self._noted_epoch:
            self.epochs.note(leader_epoch, base_offset)
            self._noted_epoch = leader_epoch
        if producer_id >= 0:
            self.producers.note(batch, base_offset)

    def append_replicated(self, batches: memoryview, leader_epoch: int) -> int:
        """Store batches as their leader stored them, from the leader of that epoch; returns the log end offset then.

        All are checked before the first is stored: see `check_replicated`. Raises BrokerError as it does, and
        StorageError; what came before a batch that could not be written is stored then.
        """
        for header, batch in check_replicated(
            batches, self.log_end_offset, self.epochs.latest, leader_epoch
        ):
            size, next_offset = len(batch), header.next_offset
            segment = self._make_room(size, next_offset - 1)
            try:
                write_all(segment.file(), batch, segment.end_position)
            except OSError as error:
                self._must_cut = True
                raise storage_error(error, f"cannot write to {segment.path}") from error
            segment.end_position += size
            segment.next_offset = self.log_end_offset = next_offset
            self.note(header.base_offset, size, header.leader_epoch, facts_of(header))
        return self.log_end_offset

    def _require_writable(self) -> None:
        if self._refusal is not None:
            raise self._refusal
        if self._cut is not None:
            raise StorageError(
                ErrorCode.BUSY,
                f"the log in {self.directory} is being cut to offset {self.log_end_offset}",
            )

    def _make_room(self, size_bytes: int, last_offset: int) -> Segment:
        """All that an append seldom needs: refusal, the rest of a failed write, a roll, a longer file."""
        self._require_writable()
        self._changed = True
        active = self._active
        try:
            if self._must_cut:
                active.cut()
                self._must_cut = False
            if active.end_position and (
                active.end_position + size_bytes > self.config.segment_bytes
                or last_offset - active.base_offset > MAX_RELATIVE_OFFSET
            ):
                self.roll()
                active = self._active
            if active.end_position == 0:
                active.first_append_ms = self._clock.time_ms()
            if active.end_position + size_bytes > active.allocated:
                active.grow(size_bytes, self.config.segment_bytes)
        except OSError as error:
            raise storage_error(error, f"cannot make room in {active.path}") from error
        return active

    def roll(self) -> None:
        """Begin a new segment, unless the active one is empty. Raises StorageError; the log is then as before."""
        self._require_writable()
        closed, base_offset = self._active, self.log_end_offset
        if closed.end_position == 0:
            return
        fresh = self._new_segment(base_offset)
        try:
            closed.file()  # the slow work below finds it open
            fresh.start_empty()
        except OSError as error:
            raise storage_error(error, f"cannot begin the segment {fresh.path}") from error
        self._segments = (*self._segments, fresh)
        self._active = fresh
        self._new_names = self._changed = True
        snapshot, epochs = self.producers.encode(base_offset), self.epochs.encode()
        self._slow_work.start(
            partial(self._sealer.seal, closed, self.log_start_offset, snapshot, epochs)
        )

    def fail(self, error: OSError, what: str = "an fsync") -> None:
        """Take no more writes: what may not be tried again failed. Any thread."""
        self._refusal = StorageError(
            ErrorCode.LOG_FAILED,
            f"{what} in {self.directory} failed ({error.strerror or error}); "
            "the log takes no more writes until the broker restarts",
        )

    def begin_sync(self) -> SyncJob:
        """The work that brings all that was appended so far to the disk. Owner's thread; see SyncJob.

        Raises StorageError when the log has failed or is being cut, or a file cannot be opened.
        """
        self._require_writable()
        directory = self.directory if self._new_names else None
        job = SyncJob(self, self._filesystem, self._unsynced(), directory)
        self._new_names = False
        return job

    def apply_retention(self, now_ms: int) -> int:
        """The owner's tick: roll by age, delete what is too old or too much, forget silent things.

        Returns how many segments were deleted. Raises StorageError.
        """
        self.producers.now_ms = now_ms
        if self._cut is not None:
            return 0
        active = self._active
        if self._refusal is None and old_enough_to_roll(active, self.config, now_ms):
            self.roll()
        count = expired_segments(self._segments, self.config, now_ms, self.high_watermark)
        if count == len(self._segments) and self._refusal is None:
            self.roll()
        count = min(count, len(self._segments) - 1)
        self._delete_first(count)
        forget_unused_indexes(self._segments[:-1])
        if self._idle_since_offset == self.log_end_offset and self._slow_work.idle:
            self._active.drop_file()
        self._idle_since_offset = self.log_end_offset
        return count

    def delete_before(self, offset: int) -> int:
        """Records below `offset` are no more; whole segments of them are deleted. Returns how many segments.

        Raises BrokerError(OFFSET_OUT_OF_RANGE) above the high watermark, StorageError(BUSY) while the log is being cut.
        """
        if offset > self.high_watermark or offset < 0:
            raise self._out_of_range(f"cannot delete before offset {offset}")
        if offset <= self.log_start_offset:
            return 0
        if self._cut is not None:
            self._require_writable()
        self.log_start_offset = offset
        count = sum(segment.next_offset <= offset for segment in self._segments[:-1])
        self._delete_first(count, save=True)
        return count

    def _delete_first(self, count: int, *, save: bool = False) -> None:
        gone, kept = self._segments[:count], self._segments[count:]
        if not gone and not save:
            return
        self._changed, self._segments = True, kept
        self.log_start_offset = max(self.log_start_offset, kept[0].base_offset)
        self.epochs.cut_start(self.log_start_offset)
        self._slow_work.start(partial(self._unlink, gone))

    def _unlink(self, gone: tuple[Segment, ...]) -> None:
        self._sealer.save(self._sealer.recovery_point, self.log_start_offset)
        for segment in gone:
            segment.unlink()

    def truncate_to(self, offset: int) -> int:
        """Cut off the batch that holds `offset` and all behind it; returns the offset at which the log ends then.

        `find_cut`, `begin_cut` and `Cut.complete` in one; asks the disk. Raises what they do.
        """
        place = self.find_cut(offset)
        return self.log_end_offset if place is None else self.begin_cut(place).complete()

    def reset_to(self, offset: int) -> None:
        """Forget everything and be an empty log that begins at `offset`. Asks the disk; raises StorageError."""
        self.begin_cut(self.place_anew(offset)).complete()

    def begin_cut(self, place: Place) -> Cut:
        """End the log at `place.offset` from now on; it takes no writes until the cut is finished.

        The high watermark comes down only where it lay above that. Plans to read that were made before bring what they
        would have brought, or nothing. Raises StorageError, BrokerError(OFFSET_OUT_OF_RANGE) when the place is gone.
        """
        self._require_writable()
        before, source, end = self._segments, place.source, place.offset
        if source is not None and source not in before:
            raise self._out_of_range(f"cannot cut at offset {end}")
        stay = before[: before.index(source)] if source is not None else ()
        anew = source is None
        for segment in before[len(stay) :]:
            segment.superseded = True
        self._active.drop_file()  # (those of closed segments may be in use: they are being sealed)
        self._segments, self._active = (*stay, place.kept), place.kept
        self.log_end_offset = end
        self.log_start_offset = end if anew else min(self.log_start_offset, end)
        exposed, self.high_watermark = self.high_watermark, min(self.high_watermark, end)
        self.synced_offset = end if anew else min(self.synced_offset, end)
        self.damages = [] if anew else [each for each in self.damages if each[0] < end]
        self.epochs.cut_end(0 if anew else end)
        if anew:
            self.high_watermark = end
            self.producers.clear()
        self._noted_epoch = self._idle_since_offset = -1
        self._changed = self._must_cut = True
        self.cuts += 1
        self._cut = Cut(
            self,
            self._filesystem,
            self._sealer,
            self._segments,
            anew=anew,
            below_high_watermark=end < exposed,
            producers_known=self.producers.cut_end(end),
        )
        return self._cut

    def cut_finished(self, cut: Cut) -> None:
        """Take writes again: `cut` is done. For Cut."""
        if self._cut is cut:
            self._cut, self._must_cut = None, False
            if self.synced_offset >= self._active.base_offset:
                self.synced_offset = self.log_end_offset  # what stays of this segment was synced

    def wait_for_slow_work(self, what: str) -> None:
        """Return when no slow work is left. Any thread. Raises StorageError."""
        self._slow_work.wait(CLOSE_TIMEOUT_S, f"{what} in {self.directory}")

    def delete(self) -> None:
        """Close, and remove the whole folder: it gets a tombstone's name first. Asks the disk; raises StorageError."""
        self._refusal = StorageError(
            ErrorCode.STORAGE_ERROR, f"the log in {self.directory} was deleted"
        )
        for segment in self._segments:
            segment.deleted = True
        if self._cut is not None:
            self._cut.give_up()
        self.wait_for_slow_work("cannot delete the log")
        self._drop_files()
        remove_partition(self._filesystem, self.directory)

    def close(self) -> bool:
        """Sync, cut the tail, write indexes and checkpoints, close the files. Asks the disk; any number of times.

        Returns True when the next opening need not scan, False for a log that failed or was closed before. Raises
        StorageError; the files are closed then too.
        """
        if self._refusal is not None:
            self._drop_files()
            return False
        try:
            self.wait_for_slow_work("cannot close the log")
            if self._cut is not None:
                self._cut.complete()
            if self._changed:
                end = self.log_end_offset
                snapshot, epochs = self.producers.encode(end), self.epochs.encode()
                self._sealer.save_closed(self._unsynced(), self.log_start_offset, snapshot, epochs)
                self.synced_offset = end
                self._changed = False
        except OSError as error:
            raise storage_error(error, f"cannot close the log in {self.directory}") from error
        finally:
            self._drop_files()
            if not self.failed:
                self._refusal = StorageError(
                    ErrorCode.STORAGE_ERROR, f"the log in {self.directory} is closed"
                )
        return True

    def _unsynced(self) -> list[Segment]:
        """The segments that hold bytes which may not be on the disk yet; the active one always."""
        waiting = [self._active]
        for segment in reversed(self._segments[:-1]):
            if segment.next_offset <= self.synced_offset:
                break
            waiting.append(segment)
        return waiting[::-1]

    def _drop_files(self) -> None:
        for segment in self._segments:
            segment.drop_file()
