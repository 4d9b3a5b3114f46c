"""The journey of batches to one partition: order, sequence numbers, retries, expiry. PURE.

A batch is *queued*, then *in flight* (at most `max_in_flight` at once), then settled; a retry puts it back into
the queue at its old place. With idempotence each batch gets a sequence number when it first leaves, and keeps
it over retries, so that the broker stores it once and in order (Kafka's idempotent producer, KIP-98).

The producer's identity (its id and epoch, shared by all partitions):

    UNKNOWN    nothing numbered may leave             --InitProducer answered--> READY
    READY      batches get numbers and leave          --a number is lost-->      DRAINING
    DRAINING   only batches that have a number leave  --none has a number--> UNKNOWN (next epoch)
    FAILED     another producer took over; nothing leaves any more

A number is lost when a numbered batch is given up while it may be stored, or while later ones have left
already: the broker would wait for it for ever. Then every numbered batch is first brought to its end, and the
rest starts again from zero under the next epoch (KIP-360). While draining a batch loses its number, to be
numbered anew, only when it is certain that the broker has not stored it: every attempt was answered with a
refusal, or an earlier number of the partition is certainly missing. An attempt without an answer is not
certain: such a batch is tried under its old number until its deadline, for to fail it is honest and to store
it twice is not.
"""

from __future__ import annotations

from collections import deque
from enum import Enum, auto
from typing import Final

from frieda.clients.batch import Batch
from frieda.errors import ERROR_TABLE, ErrorCode
from frieda.model import NO_PRODUCER_ID, NO_SEQUENCE

SEQUENCE_MASK: Final = 0x7FFF_FFFF
"""Sequence numbers go from 0 to 2^31 - 1 and then start again."""

_MAY_BE_STORED: Final = frozenset(
    {
        ErrorCode.UNKNOWN_SERVER_ERROR,
        ErrorCode.NOT_LEADER_OR_FOLLOWER,  # it led when the batch came, and then no more
        ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        ErrorCode.REQUEST_TIMED_OUT,
        ErrorCode.NETWORK_EXCEPTION,
        ErrorCode.STORAGE_ERROR,
        ErrorCode.LOG_FAILED,
        ErrorCode.BROKER_STOPPING,
    }
)
"""Refusals after which the batch may be in the log all the same."""


class IdentityState(Enum):
    """What the producer's id and epoch allow."""

    UNKNOWN = auto()
    READY = auto()
    DRAINING = auto()
    FAILED = auto()


# Bound once: in the hot path a member of an enum looked up on its class costs as much as a call.
READY: Final = IdentityState.READY
UNKNOWN: Final = IdentityState.UNKNOWN
FAILED: Final = IdentityState.FAILED


class Verdict(Enum):
    """What became of a batch that the broker refused."""

    RETRY = auto()
    """It is queued again, with its number."""
    RENUMBER = auto()
    """It is queued again, to be numbered anew."""
    SPLIT = auto()
    """Too large with several records in it: the caller cuts it and calls `replace`."""
    FAILED = auto()
    """It will not be tried again."""
    LATE = auto()
    """It was settled before; nothing changed."""


class Identity:
    """The producer's id and epoch, and how many batches are numbered under them."""

    __slots__ = ("generation", "idempotent", "numbered", "producer_epoch", "producer_id", "state")

    def __init__(self, *, idempotent: bool) -> None:
        self.idempotent = idempotent
        self.state = IdentityState.UNKNOWN if idempotent else IdentityState.READY
        self.producer_id = NO_PRODUCER_ID
        self.producer_epoch = -1
        self.generation = 0
        """How often an id or epoch was assigned."""
        self.numbered = 0
        """Batches of all partitions that have a number and are not settled."""

    @property
    def needs_assignment(self) -> bool:
        """Whether it is time for InitProducer (with `producer_id` and `producer_epoch` as they are)."""
        return self.state is IdentityState.UNKNOWN or (
            self.state is IdentityState.DRAINING and self.numbered == 0
        )

    def assigned(self, producer_id: int, producer_epoch: int) -> None:
        """InitProducer was answered: every partition starts again from number zero."""
        self.producer_id = producer_id
        self.producer_epoch = producer_epoch
        self.generation += 1
        self.state = IdentityState.READY

    def drain(self) -> None:
        """Let no more batches be numbered under this epoch."""
        if self.state is IdentityState.READY and self.idempotent:
            self.state = IdentityState.DRAINING

    def fail(self) -> None:
        """Another producer has this id now, or the broker gives none."""
        self.state = IdentityState.FAILED


class PartitionDelivery:
    """The batches of one partition that are closed and not settled."""

    __slots__ = (
        "_generation",
        "_hole",
        "_next_sequence",
        "identity",
        "in_flight",
        "max_in_flight",
        "queued",
    )

    def __init__(self, identity: Identity, max_in_flight: int, next_sequence: int = 0) -> None:
        self.identity = identity
        self.max_in_flight = max_in_flight
        self.queued: deque[Batch] = deque()
        """In order of `first_ordinal`."""
        self.in_flight: list[Batch] = []
        self._next_sequence = next_sequence
        self._generation = identity.generation
        self._hole = False
        """A number of this generation was given up and is certainly not stored: later ones cannot be."""

    @property
    def is_idle(self) -> bool:
        return not self.queued and not self.in_flight

    def add(self, batch: Batch) -> None:
        """Queue a closed batch; its records come after all that were added before."""
        self.queued.append(batch)

    def take(self, now_ns: int) -> Batch | None:
        """The batch to send now, which is in flight from here on, or None."""
        queued = self.queued
        if not queued or len(self.in_flight) >= self.max_in_flight:
            return None
        batch = queued[0]
        if batch.retry_at_ns > now_ns:
            return None
        identity = self.identity
        if identity.state is FAILED:
            return None
        if identity.idempotent and batch.sequence == NO_SEQUENCE and identity.state is not READY:
            return None
        queued.popleft()
        self.launch(batch)
        return batch

    @property
    def is_free(self) -> bool:
        """Whether a batch that was never queued may be launched now, ahead of nobody."""
        return (
            not self.queued
            and len(self.in_flight) < self.max_in_flight
            and self.identity.state is READY
        )

    def next_sequence(self) -> int:
        """The number that the next new batch gets."""
        identity = self.identity
        if not identity.idempotent:
            return NO_SEQUENCE
        if self._generation != identity.generation:
            self._start_generation()
        return self._next_sequence

    def launch(self, batch: Batch) -> None:
        """Put a batch in flight, under a number of its own (the next one) unless it has one."""
        if batch.sequence == NO_SEQUENCE and self.identity.idempotent:
            if self._generation != self.identity.generation:
                self._start_generation()
            batch.sequence = sequence = self._next_sequence
            self._next_sequence = (sequence + batch.record_count) & SEQUENCE_MASK
            self.identity.numbered += 1
        self.in_flight.append(batch)
        batch.attempts += 1

    def acknowledged(self, batch: Batch) -> bool:
        """The broker stored it. False when it was settled before (it had expired)."""
        if batch.settled:
            return False
        self.in_flight.remove(batch)
        batch.settled = True
        if batch.sequence != NO_SEQUENCE:
            self.identity.numbered -= 1
        return True

    def lost(self, batch: Batch, retry_at_ns: int = 0) -> Verdict:
        """No answer will come for this attempt: it may or may not be stored."""
        if batch.settled:
            return Verdict.LATE
        batch.uncertain = True
        self._requeue(batch, retry_at_ns)
        return Verdict.RETRY

    def refused(self, batch: Batch, code: ErrorCode, retry_at_ns: int = 0) -> Verdict:
        """The broker answered with an error. `retry_at_ns` is when a retry may leave."""
        if batch.settled:
            return Verdict.LATE
        if code in _MAY_BE_STORED:
            batch.uncertain = True
        numbered = batch.sequence != NO_SEQUENCE
        if code is ErrorCode.MESSAGE_TOO_LARGE and batch.record_count > 1 and not batch.uncertain:
            # (One that may be stored whole must not be stored in parts as well.)
            return Verdict.SPLIT
        if numbered and code is ErrorCode.OUT_OF_ORDER_SEQUENCE:
            if not self._has_earlier_numbered(batch):
                # The broker waits for a number that will never come, or has forgotten one.
                self.identity.drain()
                if self._hole or not batch.uncertain:
                    return self._renumber(batch, retry_at_ns)
            self._requeue(batch, retry_at_ns)
            return Verdict.RETRY
        if numbered and code is ErrorCode.UNKNOWN_PRODUCER_ID:
            # The broker keeps a producer as long as its log holds a batch of it: nothing of it is stored.
            self.identity.drain()
            return self._renumber(batch, retry_at_ns)
        if ERROR_TABLE[code].retriable:
            self._requeue(batch, retry_at_ns)
            return Verdict.RETRY
        if numbered and code is ErrorCode.INVALID_PRODUCER_EPOCH:
            self.identity.fail()
        self.in_flight.remove(batch)
        self._give_up(batch)
        return Verdict.FAILED

    def replace(self, batch: Batch, parts: list[Batch]) -> None:
        """Queue the parts of a batch that is too large, in its place, under its numbers."""
        self.in_flight.remove(batch)
        batch.settled = True
        sequence = batch.sequence
        if sequence != NO_SEQUENCE:
            self.identity.numbered += len(parts) - 1
        for part in parts:
            if sequence != NO_SEQUENCE:
                part.sequence = sequence
                sequence = (sequence + part.record_count) & SEQUENCE_MASK
            self._insert(part)

    def give_up(self, batch: Batch) -> None:
        """A batch in flight will not be tried again, though the broker did not refuse it."""
        self.in_flight.remove(batch)
        self._give_up(batch)

    def expire(self, now_ns: int) -> list[Batch]:
        """Give up what is past its deadline; those batches, in order."""
        expired = [batch for batch in self.in_flight if batch.deadline_ns <= now_ns]
        for batch in expired:
            batch.uncertain = True
        expired += [batch for batch in self.queued if batch.deadline_ns <= now_ns]
        self._drop(expired)
        return expired

    def fail_all(self) -> list[Batch]:
        """Give up everything; those batches, in order."""
        given_up = [*self.in_flight, *self.queued]
        for batch in self.in_flight:
            batch.uncertain = True
        self._drop(given_up)
        return given_up

    def next_deadline_ns(self) -> int | None:
        """When the first batch is past its deadline, or None without batches."""
        deadlines = [batch.deadline_ns for batch in self.in_flight]
        if self.queued:
            deadlines.append(self.queued[0].deadline_ns)
        return min(deadlines, default=None)

    def _start_generation(self) -> None:
        self._generation = self.identity.generation
        self._next_sequence = 0
        self._hole = False

    def _has_earlier_numbered(self, batch: Batch) -> bool:
        ordinal = batch.first_ordinal
        return any(other.first_ordinal < ordinal for other in self.in_flight) or any(
            other.sequence != NO_SEQUENCE and other.first_ordinal < ordinal for other in self.queued
        )

    def _requeue(self, batch: Batch, retry_at_ns: int) -> None:
        self.in_flight.remove(batch)
        batch.retry_at_ns = retry_at_ns
        self._insert(batch)

    def _insert(self, batch: Batch) -> None:
        # Only batches that were in flight come before it, so the walk is short.
        place = 0
        for other in self.queued:
            if other.first_ordinal > batch.first_ordinal:
                break
            place += 1
        self.queued.insert(place, batch)

    def _renumber(self, batch: Batch, retry_at_ns: int) -> Verdict:
        batch.sequence = NO_SEQUENCE
        batch.uncertain = False
        self.identity.numbered -= 1
        self._requeue(batch, retry_at_ns)
        return Verdict.RENUMBER

    def _give_up(self, batch: Batch) -> None:
        batch.settled = True
        if batch.sequence == NO_SEQUENCE:
            return
        self.identity.numbered -= 1
        is_last = (batch.sequence + batch.record_count) & SEQUENCE_MASK == self._next_sequence
        if batch.uncertain:
            self.identity.drain()
        elif is_last and self.identity.state is IdentityState.READY:
            # Nothing after it has left: its number is free again.
            self._next_sequence = batch.sequence
        else:
            self._hole = True
            self.identity.drain()

    def _drop(self, batches: list[Batch]) -> None:
        batches.sort(key=lambda batch: batch.first_ordinal)
        for batch in batches:
            if batch in self.in_flight:
                self.in_flight.remove(batch)
            else:
                self.queued.remove(batch)
        # The last first: a number is free again only when nothing after it is taken.
        for batch in reversed(batches):
            self._give_up(batch)
