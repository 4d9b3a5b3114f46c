"""Which fetch may leave now, what its answer changes, and which records come next. PURE.

One partition, by what it waits for:

    adrift     its leader or its offset is not known; somebody has to `place` it or `seek` it
    ready      a fetch from `fetch_offset` may leave as soon as there is room
    in flight  exactly one fetch is under way
    stopped    paused, or failed: a failed one goes on after `seek` only

It becomes ready again the moment an answer tells the next offset, before a record is decoded: that is the
prefetch. What has arrived waits as chunks, in offset order, since the next offset is asked for only when the one
before is known. A generation number tells the answers of now from those of before a seek.

Room is counted in bytes: a fetch reserves what it may bring, what came occupies its size until it is decoded.
Partitions that had data last time are fetched apart from the idle ones when there is room for both, so that a
busy partition does not drag a thousand idle ones along.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from itertools import chain, islice
from typing import Final, NamedTuple

from frieda.clients.chunks import BatchExtent, Chunk
from frieda.config import StartAt
from frieda.errors import BrokerError, CorruptLogError, FriedaError
from frieda.model import Record, TopicPartition

UNKNOWN_OFFSET: Final = -1
MAX_PARTITIONS_PER_FETCH: Final = 1000

Leader = Hashable
Decode = Callable[[memoryview, str, int, int], list[Record]]
"""(batch, topic, partition, from_offset) -> records. Raises BrokerError for a damaged batch."""


class PartitionFetch:
    """One partition: three offsets (asked for, decoded, handed to the application) and what lies between."""

    __slots__ = (
        "chunks",
        "error",
        "explicit",
        "fetch_offset",
        "generation",
        "high_watermark",
        "in_flight",
        "key",
        "leader",
        "listed",
        "log_start_offset",
        "paused",
        "pending",
        "position",
        "queue",
        "start",
        "suspect_offset",
        "take_offset",
        "topic_id",
        "use_committed",
    )

    def __init__(self, key: TopicPartition, topic_id: bytes, start: StartAt) -> None:
        self.key = key
        self.topic_id = topic_id
        """Empty: not known yet."""
        self.start = start
        """Where to begin when no offset is given."""
        self.use_committed = True
        """Whether an offset that the group has committed comes before that."""
        self.generation = 0
        self.fetch_offset = UNKNOWN_OFFSET
        """The next offset to ask for."""
        self.take_offset = UNKNOWN_OFFSET
        """The next offset to decode."""
        self.position = UNKNOWN_OFFSET
        """The next offset for the application; kept by who hands the records out."""
        self.explicit = False
        """Nothing has come yet from an offset that the application chose."""
        self.high_watermark = UNKNOWN_OFFSET
        self.log_start_offset = UNKNOWN_OFFSET
        self.in_flight = False
        self.paused = False
        self.error: FriedaError | None = None
        self.leader: Leader | None = None
        self.chunks: deque[Chunk] = deque()
        self.pending: tuple[list[Record], int] | None = None
        self.suspect_offset = UNKNOWN_OFFSET
        self.listed = False
        self.queue: dict[PartitionFetch, None] | None = None

    @property
    def has_data(self) -> bool:
        return bool(self.chunks) or self.pending is not None


class FetchSlot(NamedTuple):
    """One partition's part of a fetch."""

    partition: PartitionFetch
    generation: int
    offset: int


class FetchOrder:
    """A fetch to send to one leader; `FetchState.settle` or `abandon` ends it, exactly once."""

    __slots__ = ("leader", "max_bytes", "slots")

    def __init__(self, leader: Leader, slots: tuple[FetchSlot, ...], max_bytes: int) -> None:
        self.leader = leader
        self.slots = slots
        self.max_bytes = max_bytes


class Outcome(NamedTuple):
    """What an answer says of one slot. At most one of `chunk`, `error`, `lost`, `out_of_range`, `retry`."""

    chunk: Chunk | None = None
    high_watermark: int = UNKNOWN_OFFSET
    log_start_offset: int = UNKNOWN_OFFSET
    error: FriedaError | None = None
    """The partition stays failed until a seek."""
    lost: bool = False
    """Somebody else serves the partition, or nobody."""
    out_of_range: bool = False
    """The offset is not there any more (or not yet); another must be found."""
    retry: bool = False


class Taken(NamedTuple):
    """Decoded records of one partition; `next_offset` follows them (and whatever was skipped)."""

    partition: PartitionFetch
    records: list[Record]
    next_offset: int
    size_bytes: int
    """What was decoded for them; 0 when they were decoded before."""


class _Queues:
    __slots__ = ("hot", "idle")

    def __init__(self) -> None:
        self.hot: dict[PartitionFetch, None] = {}
        self.idle: dict[PartitionFetch, None] = {}


class FetchState:
    """All partitions of one consumer. Everything is called on one thread; nothing here waits."""

    def __init__(self, decode: Decode, *, prefetch_bytes: int, max_bytes: int) -> None:
        self.partitions: dict[TopicPartition, PartitionFetch] = {}
        self.adrift: dict[PartitionFetch, None] = {}
        """Partitions without a leader or an offset."""
        self.failed: dict[PartitionFetch, None] = {}
        self.buffered_bytes = 0
        self.reserved_bytes = 0
        self.freed = False
        """Room came free since `next_order` was last asked."""
        self._decode = decode
        self._max_bytes = min(max_bytes, prefetch_bytes)
        self._prefetch_bytes = prefetch_bytes
        self._queues: dict[Leader, _Queues] = {}
        self._deliverable: deque[PartitionFetch] = deque()

    # --- which partitions, from where ---------------------------------------------------------------------

    def add(self, key: TopicPartition, topic_id: bytes, start: StartAt) -> PartitionFetch:
        """A new partition, adrift."""
        partition = PartitionFetch(key, topic_id, start)
        self.partitions[key] = partition
        self.adrift[partition] = None
        return partition

    def remove(self, key: TopicPartition) -> None:
        """Forget a partition; answers under way for it will be dropped."""
        partition = self.partitions.pop(key)
        self._restart(partition, UNKNOWN_OFFSET)
        partition.leader = None
        self.adrift.pop(partition, None)

    def clear(self) -> None:
        """Forget all of them and give back every buffer."""
        for key in list(self.partitions):
            self.remove(key)
        self._queues.clear()
        self._deliverable.clear()

    def seek(self, partition: PartitionFetch, offset: int, *, explicit: bool = True) -> None:
        """Go on at `offset` (UNKNOWN_OFFSET: adrift until another seek); drops all that was fetched."""
        self._restart(partition, offset)
        partition.position = offset
        partition.explicit = explicit
        partition.suspect_offset = UNKNOWN_OFFSET
        if offset == UNKNOWN_OFFSET or partition.leader is None:
            self.adrift[partition] = None
        else:
            self.adrift.pop(partition, None)
            self._enqueue(partition, hot=True)

    def begin(self, partition: PartitionFetch, offset: int) -> None:
        """Give an offset to a partition that has none; what it fetched before is delivered first."""
        partition.fetch_offset = offset
        if not partition.has_data:
            partition.take_offset = partition.position = offset
        if partition.leader is not None:
            self.adrift.pop(partition, None)
            self._enqueue(partition, hot=True)

    def place(self, partition: PartitionFetch, leader: Leader | None) -> None:
        """Say who serves the partition; None: nobody at this moment."""
        self._dequeue(partition)
        partition.leader = leader
        if leader is None or partition.fetch_offset == UNKNOWN_OFFSET:
            self.adrift[partition] = None
        else:
            self.adrift.pop(partition, None)
            self._enqueue(partition, hot=True)

    def forget_leader(self, leader: Leader) -> None:
        """The connection has ended: its partitions are adrift."""
        self._queues.pop(leader, None)
        for partition in self.partitions.values():
            if partition.leader == leader:
                self.place(partition, None)

    def pause(self, partition: PartitionFetch) -> None:
        """Fetch and deliver nothing of it; what has arrived, or is under way, is kept."""
        partition.paused = True
        self._dequeue(partition)

    def resume(self, partition: PartitionFetch) -> None:
        partition.paused = False
        self._list(partition)
        self._enqueue(partition, hot=True)

    # --- what to send, and what came of it ----------------------------------------------------------------

    @property
    def leaders(self) -> list[Leader]:
        """Everyone who has partitions that are ready."""
        return [leader for leader, queues in self._queues.items() if queues.hot or queues.idle]

    def next_order(self, leader: Leader) -> FetchOrder | None:
        """The next fetch that may leave for `leader`, or None when nothing is ready or there is no room."""
        self.freed = False
        queues = self._queues.get(leader)
        if queues is None or not (queues.hot or queues.idle):
            return None
        used = self.reserved_bytes + self.buffered_bytes
        if used and used + self._max_bytes > self._prefetch_bytes:
            return None
        room_for_two = used + 2 * self._max_bytes <= self._prefetch_bytes
        # Idle partitions go along in front when a request of their own might find no room.
        ready = queues.hot if queues.hot and room_for_two else chain(queues.idle, queues.hot)
        chosen = list(islice(ready, MAX_PARTITIONS_PER_FETCH))
        slots = []
        for partition in chosen:
            self._dequeue(partition)
            partition.in_flight = True
            slots.append(FetchSlot(partition, partition.generation, partition.fetch_offset))
        self.reserved_bytes += self._max_bytes
        return FetchOrder(leader, tuple(slots), self._max_bytes)

    def settle(self, order: FetchOrder, outcomes: Sequence[Outcome]) -> bool:
        """Take up an answer, one outcome for each slot. True when there is something new to deliver or raise."""
        self.reserved_bytes -= order.max_bytes
        news = False
        served: list[PartitionFetch] = []
        for slot, outcome in zip(order.slots, outcomes, strict=True):
            partition, generation, _ = slot
            if partition.generation != generation:
                if outcome.chunk is not None:
                    outcome.chunk.release()
                continue
            partition.in_flight = False
            if outcome.high_watermark >= 0:
                partition.high_watermark = outcome.high_watermark
                partition.log_start_offset = outcome.log_start_offset
            if outcome.chunk is not None:
                news = True
                self._keep(partition, outcome.chunk)
                served.append(partition)
            elif outcome.error is not None:
                news = True
                partition.error = outcome.error
                self.failed[partition] = None
            elif outcome.lost:
                self.place(partition, None)
            elif outcome.out_of_range:
                partition.fetch_offset = UNKNOWN_OFFSET
                self.adrift[partition] = None
            else:
                behind = outcome.retry or partition.high_watermark > partition.fetch_offset
                self._enqueue(partition, hot=behind)
        # Those that got something stand behind those that got nothing for want of room in the answer.
        for partition in served:
            self._enqueue(partition, hot=True)
        return news

    def abandon(self, order: FetchOrder) -> None:
        """The fetch failed as a whole: its partitions are adrift."""
        self.settle(order, (Outcome(lost=True),) * len(order.slots))

    # --- what to deliver ----------------------------------------------------------------------------------

    def take(self) -> Taken | None:
        """The records of the next batch; partitions take turns by chunks. None when nothing has arrived.

        The list is empty when the batch held nothing for the application. A damaged batch is fetched once
        more (it may have been damaged on its way); then its partition fails.
        """
        deliverable = self._deliverable
        while deliverable:
            partition = deliverable[0]
            if partition.paused or not partition.has_data:
                deliverable.popleft()
                partition.listed = False
                continue
            if partition.pending is not None:
                records, next_offset = partition.pending
                partition.pending = None
                return Taken(partition, records, next_offset, 0)
            chunk = partition.chunks[0]
            batch = chunk.batches[chunk.index]
            try:
                records = self._decode(
                    chunk.buffer[batch.start : batch.end], *partition.key, chunk.from_offset
                )
            except FriedaError as error:
                self._damaged(partition, batch, error)
                continue
            partition.take_offset = batch.next_offset
            chunk.index += 1
            if chunk.index == len(chunk.batches):
                partition.chunks.popleft()
                self._drop(chunk)
                deliverable.rotate(-1)
            return Taken(partition, records, batch.next_offset, batch.end - batch.start)
        return None

    def put_back(self, taken: Taken) -> None:
        """Records that were taken and not used; they come first again. To be called before the next `take`
        of the same partition."""
        if self.partitions.get(taken.partition.key) is not taken.partition:
            return
        records, next_offset = taken.records, taken.next_offset
        if taken.partition.pending is not None:
            later, next_offset = taken.partition.pending
            records = records + later
        taken.partition.pending = (records, next_offset)
        if not taken.partition.listed:
            self._list(taken.partition)
        elif self._deliverable[0] is not taken.partition:
            self._deliverable.remove(taken.partition)
            self._deliverable.appendleft(taken.partition)

    # --- inside -------------------------------------------------------------------------------------------

    def _restart(self, partition: PartitionFetch, offset: int) -> None:
        """From now on only answers to fetches sent from now on count."""
        partition.generation += 1
        partition.in_flight = False
        partition.fetch_offset = partition.take_offset = offset
        partition.pending = None
        partition.error = None
        self.failed.pop(partition, None)
        while partition.chunks:
            self._drop(partition.chunks.popleft())
        self._dequeue(partition)

    def _keep(self, partition: PartitionFetch, chunk: Chunk) -> None:
        partition.fetch_offset = chunk.next_offset
        partition.explicit = False
        partition.chunks.append(chunk)
        self.buffered_bytes += chunk.size_bytes
        self._list(partition)

    def _drop(self, chunk: Chunk) -> None:
        self.buffered_bytes -= chunk.size_bytes
        self.freed = True
        chunk.release()

    def _damaged(self, partition: PartitionFetch, batch: BatchExtent, error: FriedaError) -> None:
        offset, position, explicit = partition.take_offset, partition.position, partition.explicit
        seen_before = partition.suspect_offset == batch.base_offset
        self._restart(partition, offset)
        partition.position, partition.explicit = position, explicit
        if isinstance(error, BrokerError) and not seen_before:
            partition.suspect_offset = batch.base_offset
            self._enqueue(partition, hot=True)
            self.freed = True
            return
        if isinstance(error, BrokerError):
            error = CorruptLogError(
                f"{partition.key}: the batch at offset {batch.base_offset} is damaged ({error}); "
                f"seek to {batch.next_offset} to read on",
                batch.next_offset,
            )
        partition.error = error
        self.failed[partition] = None

    def _list(self, partition: PartitionFetch) -> None:
        if not partition.listed and partition.has_data and not partition.paused:
            partition.listed = True
            self._deliverable.append(partition)

    def _enqueue(self, partition: PartitionFetch, *, hot: bool) -> None:
        if (
            partition.leader is None
            or partition.fetch_offset == UNKNOWN_OFFSET
            or partition.in_flight
            or partition.paused
            or partition.error is not None
        ):
            return
        self._dequeue(partition)
        queues = self._queues.get(partition.leader)
        if queues is None:
            queues = self._queues[partition.leader] = _Queues()
        partition.queue = queues.hot if hot else queues.idle
        partition.queue[partition] = None

    def _dequeue(self, partition: PartitionFetch) -> None:
        if partition.queue is not None:
            partition.queue.pop(partition, None)
            partition.queue = None
