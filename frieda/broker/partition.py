"""One partition at its leader: what a produce and a fetch mean for its log.

Appends happen inside the call, on the event loop: a write into the page cache of a preallocated file costs
about as much as handing it to a thread would. What has to wait (an fsync, an earlier batch) is completed by
callback, never by a task.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from frieda.broker.parking import Parked, ParkingLot
from frieda.errors import BrokerError, ErrorCode, FriedaError, StorageError
from frieda.storage.producer_state import ACCEPT, VerdictKind
from frieda.wire.batch import BatchHeader, check_batch, check_records

if TYPE_CHECKING:
    from frieda.clock import Clock
    from frieda.storage.flusher import Flusher
    from frieda.storage.log import PartitionLog
    from frieda.storage.reading import ReadPlan
    from frieda.transports.buffers import BufferPool, Lease

# Called once with the base offset and None, or with -1 and the error.
Done = Callable[[int, FriedaError | None], None]

_SEQUENCE_SPAN = 2**31


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionSettings:
    """What a partition takes from the settings of its topic and broker."""

    flush: str
    deep_validation: bool
    max_message_bytes: int
    park_timeout_ms: int


class EarlyBatch:
    """A parked batch: its bytes, which lie in a lease, whom to tell, and the answer if it waits in vain."""

    __slots__ = ("acks", "batch", "done", "error", "header", "lease")

    def __init__(
        self,
        batch: memoryview,
        lease: Lease,
        header: BatchHeader,
        acks: int,
        done: Done,
        error: ErrorCode,
    ) -> None:
        self.batch = batch
        self.lease = lease
        self.header = header
        self.acks = acks
        self.done = done
        self.error = error


class Partition:
    """A partition and its log. Owned by its topic, which closes the log after `stop`."""

    def __init__(
        self,
        *,
        topic_name: str,
        topic_id: bytes,
        index: int,
        log: PartitionLog,
        settings: PartitionSettings,
        flusher: Flusher,
        pool: BufferPool,
        clock: Clock,
        parking_limit: int,
        parking_began: Callable[[Partition], None],
    ) -> None:
        self.topic_name = topic_name
        self.topic_id = topic_id
        self.index = index
        # The broker's own topics begin with two underscores: clients read them but never write.
        self.internal = topic_name.startswith("__")
        self.log = log
        self.leader_epoch = 0
        log.high_watermark = log.log_end_offset
        self.parking: ParkingLot[EarlyBatch] = ParkingLot(parking_limit)
        # Told when the high watermark moves: the long polls that wait here.
        self.watchers: set[Callable[[], None]] = set()
        self._flusher = flusher
        self._pool = pool
        self._clock = clock
        self._parking_began = parking_began
        self._stopped: BrokerError | None = None
        self._write_error = ""
        self.settings = settings

    @property
    def settings(self) -> PartitionSettings:
        """What holds from the next produce on."""
        return self._settings

    @settings.setter
    def settings(self, settings: PartitionSettings) -> None:
        self._settings = settings
        self._look()

    def _look(self) -> None:
        """Note whether a sound batch may go to the log and be answered with nothing in between or to wait for.

        plain_bytes: the largest such batch, or -1: `produce` knows what is special here. syncs_soon: it is on the
        disk within the flush interval.
        """
        settings = self._settings
        plain = not (
            self.internal
            or settings.deep_validation
            or settings.flush == "batch"
            or self._write_error
            or self._stopped is not None
        )
        self.plain_bytes = settings.max_message_bytes if plain else -1
        self.syncs_soon = settings.flush == "interval"

    @property
    def high_watermark(self) -> int:
        """The end of what readers see."""
        return self.log.high_watermark

    @property
    def trouble(self) -> str:
        """Why its log could not be written, the last time or for good; empty when all is well."""
        return self.log.failure or self._write_error or self.log.maintenance_error

    @property
    def stopped(self) -> bool:
        """It takes nothing more: its topic was deleted or the broker stops."""
        return self._stopped is not None

    def __str__(self) -> str:
        return f"{self.topic_name}-{self.index}"

    # --- produce --------------------------------------------------------------------------------------

    def produce(self, batch: memoryview, lease: Lease | None, acks: int, done: Done) -> int | None:
        """Append one record batch; it is changed in place.

        Returns the base offset when the promise of `acks` and of the flush setting holds already; the
        caller then answers and calls `wake`. Returns None when it holds later: `done` is called then, and
        the watchers are told. Raises BrokerError when nothing was and nothing will be stored.
        """
        if self._stopped is not None:
            raise self._stopped
        header = check_batch(batch)
        settings = self.settings
        if len(batch) > settings.max_message_bytes:
            raise BrokerError(
                ErrorCode.MESSAGE_TOO_LARGE,
                f"a batch of {len(batch)} bytes for {self}; its max.message.bytes is "
                f"{settings.max_message_bytes}",
            )
        if settings.deep_validation:
            check_records(batch, header, settings.max_message_bytes * 4)
        promised = self._admit(batch, lease, header, acks, done)
        if self.parking.by_producer:
            self._unpark(header)
        return promised

    def write_failed(self, error: StorageError) -> None:
        """Remember the trouble until an append succeeds."""
        self._write_error = error.detail
        self._look()

    def sync_soon(self) -> None:
        """flush=interval: something was appended."""
        self._flusher.sync_soon(self.log)

    def wake(self) -> None:
        """Tell the watchers that the high watermark has moved."""
        for watcher in tuple(self.watchers):
            watcher()

    def _admit(
        self, batch: memoryview, lease: Lease | None, header: BatchHeader, acks: int, done: Done
    ) -> int | None:
        """Append a batch that is sound, unless its producer's order forbids it or it is here already."""
        if header.producer_id >= 0:
            verdict = self.log.producers.check(header)
            if verdict is not ACCEPT:
                if verdict.kind is VerdictKind.DUPLICATE:
                    return self._promise(verdict.base_offset, header, acks, done)
                if verdict.kind is VerdictKind.EARLY and self._park(
                    batch, lease, header, acks, done, verdict.error
                ):
                    return None
                raise BrokerError(verdict.error, f"{verdict.detail} ({self})")
        if self.settings.flush == "batch":
            self._flusher.require_room()
        try:
            base_offset = self.log.append(batch, header, self.leader_epoch)
        except StorageError as error:
            self.write_failed(error)
            raise
        if self._write_error:
            self._write_error = ""
            self._look()
        return self._promise(base_offset, header, acks, done)

    def _promise(self, base_offset: int, header: BatchHeader, acks: int, done: Done) -> int | None:
        """The base offset when the batch is as safe as it has to be, else None and `done` later."""
        log = self.log
        end_offset = base_offset + header.last_offset_delta + 1
        flush = self.settings.flush
        if flush == "batch" and log.synced_offset < end_offset:

            def synced(error: BaseException | None) -> None:
                if error is not None:
                    failure = error if isinstance(error, FriedaError) else _unexpected(error)
                    done(-1, failure)
                    return
                self.log.high_watermark = max(self.log.high_watermark, end_offset)
                done(base_offset, None)
                self.wake()

            self._flusher.request(self.log, end_offset, synced)
            return None
        log.high_watermark = max(log.high_watermark, end_offset)
        if flush == "interval":
            self._flusher.sync_soon(log)
        return base_offset

    # --- batches that are early -------------------------------------------------------------------------

    def _park(
        self,
        batch: memoryview,
        lease: Lease | None,
        header: BatchHeader,
        acks: int,
        done: Done,
        error: ErrorCode,
    ) -> bool:
        if lease is not None:
            lease.retain()
            kept, view = lease, batch
        else:
            copy = self._pool.keep(batch, None)
            if copy is None:
                return False
            kept, view = copy, copy.view
        deadline_ns = self._clock.monotonic_ns() + self.settings.park_timeout_ms * 1_000_000
        early = EarlyBatch(view, kept, header, acks, done, error)
        parked = Parked(
            header.producer_id, header.producer_epoch, header.base_sequence, deadline_ns, early
        )
        if not self.parking.park(parked):
            kept.release()
            return False
        self._parking_began(self)
        return True

    def _unpark(self, header: BatchHeader) -> None:
        """Append, in order, the parked batches that `header` was missing for."""
        while True:
            following = (header.base_sequence + header.record_count) % _SEQUENCE_SPAN
            parked = self.parking.take(header.producer_id, following)
            if parked is None:
                return
            early = parked.item
            header = early.header
            try:
                # Checked again: the producer's epoch may have moved on while it waited.
                base_offset = self._admit(early.batch, early.lease, header, early.acks, early.done)
            except FriedaError as error:
                early.done(-1, error)
            else:
                if base_offset is not None:
                    early.done(base_offset, None)
            finally:
                early.lease.release()

    def expire_parked(self, now_ns: int) -> None:
        """Refuse the parked batches whose time is over."""
        for parked in self.parking.expire(now_ns):
            self._refuse_parked(
                parked,
                BrokerError(
                    parked.item.error,
                    f"sequence {parked.base_sequence} of producer {parked.producer_id} waited "
                    f"{self.settings.park_timeout_ms} ms for the one before it ({self})",
                ),
            )

    def refuse_parked(self, reason: BrokerError) -> None:
        """Tell every parked batch that it waits in vain."""
        for parked in self.parking.clear():
            self._refuse_parked(parked, reason)

    def _refuse_parked(self, parked: Parked[EarlyBatch], error: BrokerError) -> None:
        parked.item.lease.release()
        parked.item.done(-1, error)

    # --- fetch ------------------------------------------------------------------------------------------

    def plan_read(self, offset: int, max_bytes: int, *, at_least_one: bool) -> ReadPlan:
        """Which bytes a fetch from `offset` gets, below the high watermark; perhaps none.

        Raises BrokerError (OFFSET_OUT_OF_RANGE, CORRUPT_LOG).
        """
        if self._stopped is not None:
            raise self._stopped
        high_watermark = self.log.high_watermark
        if offset > high_watermark:
            raise BrokerError(
                ErrorCode.OFFSET_OUT_OF_RANGE,
                f"offset {offset} of {self}; it can be read from {self.log.log_start_offset} "
                f"to {high_watermark}",
            )
        return self.log.plan_read(offset, max_bytes, high_watermark, at_least_one=at_least_one)

    # --- the end ----------------------------------------------------------------------------------------

    def stop(self, reason: BrokerError) -> None:
        """Take nothing more: what is parked or waits is told `reason`. The log stays open."""
        self._stopped = reason
        self._look()
        self.refuse_parked(reason)
        self.wake()


def _unexpected(error: BaseException) -> BrokerError:
    return BrokerError(ErrorCode.UNKNOWN_SERVER_ERROR, f"{type(error).__name__}: {error}")
