"""Producers and readers of a simulation: they retry, follow the leader by hearsay, and tell what they give up. PURE."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from frieda.errors import ErrorCode
from frieda.model import NO_PRODUCER_ID, NO_SEQUENCE
from frieda.testing.simulation.replica import FetchAnswer, ProduceAnswer, ProduceRequest
from frieda.testing.simulation.world import MS
from frieda.wire.batch import BatchHeader

if TYPE_CHECKING:
    from frieda.testing.simulation.broker import SimulatedBroker
    from frieda.testing.simulation.history import History
    from frieda.testing.simulation.network import Network
    from frieda.testing.simulation.store import MetadataStore
    from frieda.testing.simulation.world import World

MAX_IN_FLIGHT: Final = 5
ANSWER_WITHIN_NS: Final = 300 * MS
RETRY_NS: Final = 40 * MS
POLL_NS: Final = 50 * MS
FETCH_BYTES: Final = 5000

# A refusal after which the batch may be in the log all the same; see clients.delivery.
_GIVE_UP = frozenset({ErrorCode.INVALID_PRODUCER_EPOCH})


class Directory:
    """How clients find a leader: what the metadata say, sometimes what they said a while ago."""

    def __init__(
        self,
        world: World,
        network: Network,
        store: MetadataStore,
        brokers: dict[int, SimulatedBroker],
    ) -> None:
        self.world = world
        self.network = network
        self.brokers = brokers
        self._store = store

    def leader(self, partition: int) -> int:
        state = self._store.states[partition]
        if state.leader in self.brokers and self.world.random.random() < 0.9:
            return state.leader
        return self.world.random.choice(state.replicas)


class _InFlight:
    __slots__ = ("attempt", "first_sequence", "number", "values")

    def __init__(
        self, number: int, first_sequence: int, values: tuple[tuple[int, int], ...]
    ) -> None:
        self.number = number
        self.first_sequence = first_sequence
        self.values = values
        self.attempt = 0


class SimulatedProducer:
    """An idempotent producer to one partition, with several batches in flight.

    new_epochs: how often it had to leave its epoch. What was in flight then it does not send again, since that may be
    stored under the epoch it left.
    """

    def __init__(
        self, directory: Directory, producer: int, partition: int, acks: int, period_ns: int
    ) -> None:
        self._directory = directory
        self._world = directory.world
        self.name = f"producer {producer}"
        self._producer = producer
        self._partition = partition
        self._acks = acks
        self._period_ns = period_ns
        self._epoch = 0
        self._next_sequence = 0
        self._next_value = 0
        self._next_number = 0
        self._in_flight: dict[int, _InFlight] = {}
        self._leader = directory.leader(partition)
        self.stopped = False
        self.new_epochs = 0

    @property
    def idle(self) -> bool:
        return self.stopped and not self._in_flight

    def run(self) -> None:
        """Send a batch every now and then, until `stopped`."""
        if self.stopped:
            return
        random = self._world.random
        if len(self._in_flight) < MAX_IN_FLIGHT:
            count = random.choice((1, 1, 1, 2, 3))
            values = tuple((self._producer, self._next_value + i) for i in range(count))
            batch = _InFlight(self._next_number, self._next_sequence, values)
            self._next_number += 1
            self._next_value += count
            self._next_sequence += count
            self._in_flight[batch.number] = batch
            self._send(batch)
        self._world.after(int(random.expovariate(1.0) * self._period_ns), self.run)

    def _send(self, batch: _InFlight) -> None:
        batch.attempt += 1
        count = len(batch.values)
        numbers = (self._producer, self._epoch, batch.first_sequence)
        header = BatchHeader(
            0, 49 + 100 * count, -1, 2, 0, 0, count - 1, 0, 0,
            *(numbers if self._acks else (NO_PRODUCER_ID, -1, NO_SEQUENCE)), count,
        )  # fmt: skip
        first_in_flight = min(other.first_sequence for other in self._in_flight.values())
        request = ProduceRequest(
            self.name,
            batch.number,
            self._partition,
            header,
            batch.values,
            self._acks,
            first_in_flight,
        )
        broker = self._directory.brokers[self._leader]
        self._directory.network.send(self.name, self._leader, broker.receive, "produce", request)
        if self._acks == 0:
            del self._in_flight[batch.number]
        else:
            self._world.after(ANSWER_WITHIN_NS, self._unanswered, batch, batch.attempt)

    def _unanswered(self, batch: _InFlight, attempt: int) -> None:
        if self._in_flight.get(batch.number) is batch and batch.attempt == attempt:
            self._leader = self._directory.leader(self._partition)
            self._send(batch)

    def answered(self, answer: ProduceAnswer) -> None:
        """An answer came; perhaps to an attempt that was given up, perhaps twice."""
        batch = self._in_flight.get(answer.number)
        if batch is None:
            return
        if answer.error is None:
            del self._in_flight[answer.number]
        elif answer.gap or answer.error in _GIVE_UP:
            self._take_new_epoch()
        else:
            if answer.error is ErrorCode.NOT_LEADER_OR_FOLLOWER:
                self._leader = self._directory.leader(self._partition)
            attempt = batch.attempt
            delay_ns = int(RETRY_NS * self._world.random.uniform(0.5, 1.5))
            self._world.after(delay_ns, self._unanswered, batch, attempt)

    def _take_new_epoch(self) -> None:
        """Sequences that were acknowledged are missing at the leader: nothing that follows them can be stored."""
        self._world.note(self.name, "takes epoch", self._epoch + 1)
        self.new_epochs += 1
        self._in_flight.clear()
        self._epoch += 1
        self._next_sequence = 0


class SimulatedReader:
    """Reads one partition from its beginning, over and over asking for what comes next."""

    def __init__(self, directory: Directory, history: History, number: int, partition: int) -> None:
        self._directory = directory
        self._world = directory.world
        self._history = history
        self._partition = partition
        self.name = f"reader {number}"
        self.position = 0
        self._request = 0
        self._changes = 0

    def run(self) -> None:
        """Poll, until the simulation ends."""
        self._request += 1
        leader = self._directory.leader(self._partition)
        broker = self._directory.brokers[leader]
        answered: Callable[[FetchAnswer], None] = self._answer_to(self._request, self.position)
        self._directory.network.send(
            self.name, leader, broker.receive, "fetch",
            self.name, self._partition, self.position, FETCH_BYTES, answered,
        )  # fmt: skip
        self._world.after(int(self._world.random.uniform(0.5, 1.5) * POLL_NS), self.run)

    def _answer_to(self, request: int, offset: int) -> Callable[[FetchAnswer], None]:
        def answered(answer: FetchAnswer) -> None:
            if request != self._request:
                return
            changes = self._history.partitions[self._partition].changes
            if answer.error is ErrorCode.OFFSET_OUT_OF_RANGE:
                self._history.out_of_range(self.name, self._partition, offset, self._changes)
                self.position = min(answer.high_watermark, offset)
                self._changes = changes
            elif answer.error is None and answer.batches:
                if changes == self._changes:
                    partition, batches = self._partition, answer.batches
                    self.position = self._history.polled(self.name, partition, offset, batches)
                else:
                    # What it has read was lost, excused: go back to what is still so.
                    committed = len(self._history.partitions[self._partition].committed)
                    self.position = min(self.position, committed)
                    self._changes = changes

        return answered
