"""What happened, as an observer sees it who knows everything, and what must not happen. PURE.

Every anomaly is told at the moment it can be seen, by the names of Jepsen's checker for Kafka where that has one:

    lost-write            a record that was acknowledged with acks=all is not in the log (while the promise held)
    duplicate             a record is in the log twice
    inconsistent-offsets  an offset below a high watermark has two contents
    reordered             two records of one producer are in the log in the wrong order
    unseen                a record is in the log, and a reader that read to the end has not seen it
    nonmonotonic-poll     a reader goes back, skips something, or is told that an offset it may read does not exist
    dirty-read            a reader sees what is not committed
    stale-acknowledgement a leader acknowledges when the metadata know a younger leadership
    too-few-copies        acks=all is acknowledged while fewer than min_insync_replicas have the record
    diverged-logs         the logs differ when all is quiet again
    no-progress           all is whole again, and yet something does not come to its end

The promise of acks=all ends with an unclean election, and with one of the last resort (all in sync lost their machines
before they synced): what is lost then is counted, not held against anyone; but an election of the last resort must not
lose what a member of the last ISR still had when it registered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from frieda.cluster.election import Reason, Tail
from frieda.cluster.state import PartitionState
from frieda.testing.simulation.disk import SimulatedLog, StoredBatch
from frieda.testing.simulation.store import MetadataStore
from frieda.testing.simulation.world import World

if TYPE_CHECKING:
    from frieda.testing.simulation.replica import ProduceRequest

Value = tuple[int, int]


class AnomalyError(AssertionError):
    """Something happened that must not. `name`: see the module."""

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(f"{name}: {detail}")
        self.name = name


class PartitionHistory:
    """committed: what has been below a high watermark, by offset.  acknowledged: value -> acks."""

    def __init__(self) -> None:
        self.committed: list[Value] = []
        self.offset_of: dict[Value, int] = {}
        self.newest_of: dict[int, int] = {}
        self.acknowledged: dict[Value, int] = {}
        self.excused: set[Value] = set()
        self.excuse: Reason | None = None
        self.changes = 0
        """How often what was committed was cut, excused."""
        self.leaderships = 0
        self.last_led = (-1, -1)


class History:
    """Told by the simulated brokers and clients of all that counts. Raises AnomalyError.

    min_insync: of each partition.  logs: of each partition, by broker.
    """

    def __init__(
        self,
        world: World,
        store: MetadataStore,
        min_insync: int,
        logs: list[dict[int, SimulatedLog]],
    ) -> None:
        self._world = world
        self._store = store
        self._min_insync = min_insync
        self._logs = logs
        self.partitions = [PartitionHistory() for _ in logs]
        self.counts = {"acknowledged": 0, "elections": 0, "excused": 0}
        self.unnumbered: set[int] = set()
        """Producers without sequence numbers (acks=0): theirs may come twice, and in any order."""
        store.elected = self._elected

    # --- elections and leaders ------------------------------------------------------------------------------

    def _elected(
        self, partition: int, before: PartitionState, state: PartitionState, reason: Reason
    ) -> None:
        self.counts["elections"] += 1
        history = self.partitions[partition]
        if reason in (Reason.UNCLEAN, Reason.LONGEST_LOG):
            history.excuse = reason
        if reason is Reason.LONGEST_LOG:
            self._check_last_resort(partition, before, state)

    def _check_last_resort(
        self, partition: int, before: PartitionState, state: PartitionState
    ) -> None:
        """What the elected one lacks, no member of the last ISR may have."""
        history, logs = self.partitions[partition], self._logs[partition]
        chosen = logs[state.leader]
        at = _first_difference(history.committed, chosen)
        for broker_id in before.isr:
            registered = self._store.tails.get(broker_id, {}).get(partition)
            if registered != Tail(*logs[broker_id].position):
                continue  # it has grown since, which an election does not see
            if _first_difference(history.committed, logs[broker_id]) > at:
                raise AnomalyError(
                    "lost-write",
                    f"partition {partition}: broker {state.leader} was elected with the committed records up to {at}, "
                    f"and broker {broker_id} has more of them",
                )

    def leads(self, partition: int, broker_id: int, epoch: int, log: SimulatedLog) -> None:
        """A leadership begins: what is committed must be in its log."""
        history = self.partitions[partition]
        if (broker_id, epoch) == history.last_led or epoch < history.last_led[1]:
            return
        history.last_led = (broker_id, epoch)
        history.leaderships += 1
        at = _first_difference(history.committed, log)
        if at == len(history.committed):
            history.excuse = None
        elif history.excuse is not None:
            self._excuse_from(partition, at)
            history.excuse = None
        elif self._store.states[partition].leader_epoch == epoch:
            raise AnomalyError(
                "lost-write",
                f"partition {partition}: broker {broker_id} leads epoch {epoch} and lacks offset {at}, which is "
                f"committed: {history.committed[at]}; it has {log.value_at(at)}",
            )
        # What was shown while an excuse was open counts from now on.
        self.advanced(partition, broker_id, log, min(log.high_watermark, log.log_end_offset))

    def _excuse_from(self, partition: int, offset: int) -> None:
        history = self.partitions[partition]
        gone = history.committed[offset:]
        self._world.note("observer: partition", partition, "loses", len(gone), "committed, excused")
        del history.committed[offset:]
        history.excused.update(gone)
        self.counts["excused"] += len(gone)
        for value in gone:
            history.offset_of.pop(value, None)
        history.newest_of.clear()
        for producer, number in history.committed:
            history.newest_of[producer] = number
        history.changes += 1

    def advanced(
        self, partition: int, broker_id: int, log: SimulatedLog, high_watermark: int
    ) -> None:
        """A leader's high watermark moved."""
        history = self.partitions[partition]
        committed = history.committed
        if history.excuse is not None:
            return
        while len(committed) < high_watermark:
            offset = len(committed)
            for batch in log.read(offset, 1 << 30, high_watermark):
                for value in batch.values[max(offset - batch.base_offset, 0) :]:
                    self._commit(partition, history, value)
            if len(committed) == offset:
                raise AnomalyError(
                    "inconsistent-offsets",
                    f"partition {partition}: broker {broker_id} has the high watermark {high_watermark} and "
                    f"ends at {log.log_end_offset}",
                )

    def _commit(self, partition: int, history: PartitionHistory, value: Value) -> None:
        producer, number = value
        offset = len(history.committed)
        if producer in self.unnumbered:
            history.committed.append(value)
            return
        if value in history.offset_of:
            raise AnomalyError(
                "duplicate",
                f"partition {partition}: {value} is at {history.offset_of[value]} and at {offset}",
            )
        if history.newest_of.get(producer, -1) > number:
            raise AnomalyError(
                "reordered",
                f"partition {partition}: {value} at {offset} comes after "
                f"{(producer, history.newest_of[producer])}",
            )
        history.newest_of[producer] = number
        history.offset_of[value] = offset
        history.committed.append(value)

    # --- clients ----------------------------------------------------------------------------------------------

    def acknowledged(
        self,
        partition: int,
        broker_id: int,
        epoch: int,
        request: ProduceRequest,
        base_offset: int,
    ) -> None:
        """A broker answers that the promise of acks=1 or all holds."""
        history = self.partitions[partition]
        self.counts["acknowledged"] += 1
        current = self._store.states[partition].leader_epoch
        if current > epoch:
            raise AnomalyError(
                "stale-acknowledgement",
                f"partition {partition}: broker {broker_id} acknowledges {request.values} under epoch {epoch}, and "
                f"the metadata have {current}",
            )
        for value in request.values:
            history.acknowledged[value] = request.acks
        if request.acks != -1:
            return
        for value in request.values:
            offset = history.offset_of.get(value)
            if offset is None and value not in history.excused and history.excuse is None:
                raise AnomalyError(
                    "lost-write",
                    f"partition {partition}: broker {broker_id} acknowledges {value} at {base_offset}, which was "
                    "never committed",
                )
        first = request.values[0]
        offset = history.offset_of.get(first)
        if offset is not None:
            copies = sum(
                log.value_at(offset) == first or offset < log.lost_up_to
                for log in self._logs[partition].values()
            )
            if copies < self._min_insync:
                raise AnomalyError(
                    "too-few-copies",
                    f"partition {partition}: {first} is acknowledged and {copies} replicas have it",
                )

    def polled(
        self, reader: str, partition: int, offset: int, batches: tuple[StoredBatch, ...]
    ) -> int:
        """A reader got the records from `offset` on, still in the order of offsets. Returns how far it came.

        What was lost, excused, a leader of before may show still; the reader stops there.
        """
        history = self.partitions[partition]
        committed = history.committed
        for batch in batches:
            if batch.base_offset > offset:
                raise AnomalyError(
                    "nonmonotonic-poll",
                    f"{reader} asked for {offset} of partition {partition} and got {batch.base_offset}",
                )
            for value in batch.values[offset - batch.base_offset :]:
                is_committed = offset < len(committed) and committed[offset] == value
                if not is_committed and value in history.excused:
                    return offset
                if offset < len(committed) and committed[offset] != value:
                    raise AnomalyError(
                        "inconsistent-offsets",
                        f"{reader} reads {value} at {offset} of partition {partition}, where {committed[offset]} "
                        "is committed",
                    )
                if offset >= len(committed) and history.excuse is None:
                    raise AnomalyError(
                        "dirty-read", f"{reader} reads {value} at {offset} of partition {partition}"
                    )
                offset += 1
        return offset

    def out_of_range(self, reader: str, partition: int, offset: int, changes: int) -> None:
        """A reader was told that an offset it had come to does not exist; `changes`: as of its last poll."""
        history = self.partitions[partition]
        if offset <= len(history.committed) and history.changes == changes and not history.excuse:
            raise AnomalyError(
                "nonmonotonic-poll",
                f"{reader} is told that offset {offset} of partition {partition} is out of range",
            )

    # --- the end ------------------------------------------------------------------------------------------------

    def finish(self, seen: dict[int, int]) -> None:
        """All is quiet. `seen`: how far a reader of each partition came."""
        for partition, history in enumerate(self.partitions):
            leader_log = next(iter(self._logs[partition].values()))
            for broker_id, log in self._logs[partition].items():
                if log.batches != leader_log.batches:
                    raise AnomalyError(
                        "diverged-logs", f"partition {partition}: broker {broker_id} differs"
                    )
            if len(history.committed) != leader_log.log_end_offset:
                raise AnomalyError(
                    "no-progress",
                    f"partition {partition}: {len(history.committed)} of {leader_log.log_end_offset} are committed",
                )
            if (at := _first_difference(history.committed, leader_log)) < len(history.committed):
                raise AnomalyError("inconsistent-offsets", f"partition {partition}: at {at}")
            lone = history.leaderships == 1
            for value, acks in history.acknowledged.items():
                held = acks == -1 or lone
                if held and value not in history.offset_of and value not in history.excused:
                    raise AnomalyError(
                        "lost-write",
                        f"partition {partition}: {value}, acknowledged with acks={acks}",
                    )
            if seen[partition] < len(history.committed):
                raise AnomalyError(
                    "unseen", f"partition {partition}: a reader came to {seen[partition]} only"
                )


def _first_difference(committed: list[Value], log: SimulatedLog) -> int:
    """The first committed offset whose record is not in the log as it should be."""
    offset = 0
    for batch in log.batches:
        for value in batch.values:
            if offset >= len(committed) or committed[offset] != value:
                return offset
            offset += 1
    return offset
