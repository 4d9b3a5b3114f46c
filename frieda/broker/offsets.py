"""Committed offsets by group name, kept in an internal, compacted log.

Every commit is a record of `__committed_offsets`: its key names group, topic and partition, its value holds
the offset. At start the log is read through; when it has grown far beyond what is live, all that is live is
written again at its end and the segments before are deleted.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgpack

from frieda.errors import BrokerError, CorruptLogError, ErrorCode, FriedaError
from frieda.wire.batch import BatchBuilder, decode_batch, iterate_batches

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from frieda.broker.partition import Partition
    from frieda.clock import Clock

logger = logging.getLogger(__name__)

OFFSETS_TOPIC: Final = "__committed_offsets"
MAX_GROUP_LENGTH: Final = 255
MAX_METADATA_LENGTH: Final = 4096
COMPACT_ABOVE_BYTES: Final = 16 * 1024 * 1024
_READ_BYTES: Final = 1024 * 1024
_BATCH_BYTES: Final = 256 * 1024


class Committed(NamedTuple):
    """One group's place in one partition."""

    offset: int
    leader_epoch: int
    metadata: str


class GroupOffsets:
    """All committed offsets in memory, behind their log. Loads at once: `partition` must be readable."""

    def __init__(self, partition: Partition, clock: Clock) -> None:
        self._partition = partition
        self._clock = clock
        self._groups: dict[str, dict[tuple[str, int], Committed]] = {}
        self._load()

    def __len__(self) -> int:
        return sum(len(places) for places in self._groups.values())

    def fetch(self, group: str) -> dict[tuple[str, int], Committed]:
        """What a group has committed, by topic and partition."""
        return dict(self._groups.get(group, {}))

    def commit(
        self,
        group: str,
        places: dict[tuple[str, int], Committed],
        done: Callable[[FriedaError | None], None],
    ) -> None:
        """Keep these places; `done` is called once they are as safe as the flush setting says.

        Raises BrokerError when the group's name or a place is not legal, or the log takes no writes.
        """
        if not 0 < len(group) <= MAX_GROUP_LENGTH:
            raise BrokerError(
                ErrorCode.INVALID_GROUP_ID,
                f"a group name has 1 to {MAX_GROUP_LENGTH} characters, not {len(group)}",
            )
        for (topic, index), place in places.items():
            if (
                place.offset < 0
                or place.offset >= 2**63
                or len(place.metadata) > MAX_METADATA_LENGTH
            ):
                raise BrokerError(
                    ErrorCode.INVALID_REQUEST,
                    f"{topic}-{index}: a committed offset is not negative and its metadata has at most "
                    f"{MAX_METADATA_LENGTH} characters",
                )
        if not places:
            done(None)
            return
        changes = [(group, topic, index, place) for (topic, index), place in places.items()]

        def stored(_: int, error: FriedaError | None) -> None:
            if error is None:
                self._groups.setdefault(group, {}).update(places)
            done(error)

        self._append(changes, stored)
        self._compact_if_worth_it()

    def forget_topic(self, topic: str) -> None:
        """A topic was deleted: its offsets mean nothing for another of the same name.

        Raises BrokerError when that cannot be written down; they are back after a restart then.
        """
        gone = [
            (group, topic, index, None)
            for group, places in self._groups.items()
            for name, index in places
            if name == topic
        ]
        if not gone:
            return
        for group, _, index, _ in gone:
            del self._groups[group][(topic, index)]
        self._append(gone, lambda _offset, _error: None)

    # --- the log ------------------------------------------------------------------------------------------

    def _append(
        self,
        changes: Sequence[tuple[str, str, int, Committed | None]],
        done: Callable[[int, FriedaError | None], None],
    ) -> None:
        """One batch for each quarter megabyte; `done` follows the last of them."""
        now_ms = self._clock.time_ms()
        builder = BatchBuilder(_BATCH_BYTES)
        for position, (group, topic, index, place) in enumerate(changes):
            key = msgpack.packb((group, topic, index))
            value = None if place is None else msgpack.packb(tuple(place))
            size_bytes = builder.append(now_ms, key, value)
            if size_bytes >= _BATCH_BYTES and position + 1 < len(changes):
                self._write(builder, lambda _offset, _error: None)
                builder = BatchBuilder(_BATCH_BYTES)
        self._write(builder, done)

    def _write(
        self, builder: BatchBuilder, done: Callable[[int, FriedaError | None], None]
    ) -> None:
        batch = memoryview(bytearray(builder.build(-1, -1, -1, "none")))
        base_offset = self._partition.produce(batch, None, -1, done)
        if base_offset is not None:
            done(base_offset, None)

    def _load(self) -> None:
        offset = self._partition.log.log_start_offset
        while True:
            try:
                batches = self._read(offset)
            except CorruptLogError as error:
                # What a damaged batch said is lost; the commits after it still count.
                logger.error("%s", error)
                offset = error.next_readable_offset
                continue
            if batches is None:
                return
            for position, header in iterate_batches(batches):
                batch = batches[position : position + header.size_bytes]
                for record in decode_batch(batch, OFFSETS_TOPIC, 0, offset):
                    self._apply(record.key, record.value)
                offset = header.next_offset

    def _read(self, offset: int) -> memoryview | None:
        plan = self._partition.log.plan_read(offset, _READ_BYTES)
        if plan.size_bytes == 0:
            return None
        buffer = memoryview(bytearray(plan.size_bytes))
        return buffer[: plan.read_into(buffer)]

    def _apply(self, key: bytes | None, value: bytes | None) -> None:
        group, topic, index = _unpack(key)
        if value is None:
            self._groups.get(group, {}).pop((topic, index), None)
        else:
            self._groups.setdefault(group, {})[(topic, index)] = Committed(*_unpack(value))

    def _compact_if_worth_it(self) -> None:
        log = self._partition.log
        live = len(self)
        if (
            log.size_bytes < COMPACT_ABOVE_BYTES
            or log.log_end_offset - log.log_start_offset < 4 * live
        ):
            return
        snapshot_offset = log.log_end_offset
        everything: list[tuple[str, str, int, Committed | None]] = [
            (group, topic, index, place)
            for group, places in self._groups.items()
            for (topic, index), place in places.items()
        ]

        def written(_: int, error: FriedaError | None) -> None:
            if error is None:
                log.delete_before(snapshot_offset)

        log.roll()
        self._append(everything, written)


def _unpack(data: bytes | None) -> Any:
    if data is None:
        raise BrokerError(ErrorCode.CORRUPT_LOG, f"a record of {OFFSETS_TOPIC} has no key")
    return msgpack.unpackb(data, use_list=False)
