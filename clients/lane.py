"""One partition on the sending side: its open batch, its journey (delivery.py), its connection. Plain state."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from frieda.clients.batch import Batch
from frieda.clients.delivery import Identity, PartitionDelivery
from frieda.model import Header

if TYPE_CHECKING:
    from collections.abc import Sequence

    from frieda.clients.connection import BrokerConnection
    from frieda.clients.partitioner import Partitioner


class Lane:
    """A partition's batches from the first record to the last result."""

    __slots__ = (
        "batch_bytes",
        "connecting",
        "connection",
        "delivery",
        "is_pumping",
        "linger_timer",
        "next_ordinal",
        "open",
        "partition",
        "prefix",
        "retry_timer",
        "topic",
        "topic_id",
        "unreleased",
    )

    def __init__(
        self,
        topic: str,
        partition: int,
        topic_id: bytes,
        prefix: bytes,
        identity: Identity,
        max_in_flight: int,
        batch_bytes: int,
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.topic_id = topic_id
        self.prefix = prefix
        self.batch_bytes = batch_bytes
        self.delivery = PartitionDelivery(identity, max_in_flight)
        self.unreleased: deque[Batch] = deque()
        """The closed batches whose results are not out, in send order: they leave from its front."""
        self.open: Batch | None = None
        self.next_ordinal = 0
        self.connection: BrokerConnection | None = None
        self.connecting = False
        self.is_pumping = False
        self.linger_timer: asyncio.TimerHandle | None = None
        self.retry_timer: asyncio.TimerHandle | None = None

    @property
    def has_work(self) -> bool:
        """Whether records wait to be sent or acknowledged."""
        return self.open is not None or not self.delivery.is_idle

    def begin(self, deadline_ns: int) -> Batch:
        """Open a batch; the one before is closed."""
        batch = self.open = Batch(self.next_ordinal, deadline_ns, self, self.batch_bytes)
        return batch

    def close_open(self) -> None:
        """No record joins the open batch any more: it is queued, and has its place among the results."""
        batch = self.open
        assert batch is not None
        assert batch.builder is not None
        self.open = None
        if self.linger_timer is not None:
            self.linger_timer.cancel()
            self.linger_timer = None
        batch.record_count = count = batch.builder.record_count
        self.unreleased.append(batch)
        self.next_ordinal += count
        self.delivery.add(batch)

    def drop_empty(self) -> None:
        """Forget the open batch when its first record was refused."""
        if self.open is not None and not self.open.entries:
            self.open = None
            if self.linger_timer is not None:
                self.linger_timer.cancel()
                self.linger_timer = None

    def last_batch(self) -> Batch | None:
        """The batch whose results come last, or None without work."""
        if self.open is not None:
            return self.open
        delivery = self.delivery
        candidates = [*delivery.in_flight, *delivery.queued]
        if not candidates:
            return None
        last = max(candidates, key=lambda batch: batch.first_ordinal)
        while last.parent is not None:
            last = last.parent
        return last

    def stop_timers(self) -> None:
        """Nothing will be sent any more."""
        for timer in (self.linger_timer, self.retry_timer):
            if timer is not None:
                timer.cancel()
        self.linger_timer = self.retry_timer = None


class HeldRecord(NamedTuple):
    """A record for a topic whose partitions are not known yet."""

    value: bytes | None
    key: bytes | None
    partition: int | None
    headers: Sequence[Header]
    timestamp_ms: int | None
    charge_bytes: int
    entry: Any


class TopicLanes:
    """A topic's lanes, or, until its partitions are known, the records that wait for them."""

    __slots__ = ("held", "lanes", "look_up", "name", "partitioner")

    def __init__(self, name: str) -> None:
        self.name = name
        self.lanes: list[Lane] = []
        self.partitioner: Partitioner | None = None
        self.held: deque[HeldRecord] = deque()
        self.look_up: asyncio.Task[None] | None = None
