"""Records into the open batches of the right partitions; topics looked up on the way.

The first record for a topic asks for its metadata; those that come meanwhile are held, in order, until it is
there. Room in the buffer is taken before a record comes here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from frieda.clients.batch import RECORD_OVERHEAD_BYTES, OnDone, Span
from frieda.clients.buffer_room import BufferRoom
from frieda.clients.lane import HeldRecord, Lane, TopicLanes
from frieda.clients.network import Network
from frieda.clients.partitioner import Partitioner
from frieda.clients.results import Results
from frieda.clients.sender import Sender
from frieda.config import ProducerConfig
from frieda.errors import BrokerError, ErrorCode, FriedaError
from frieda.model import Header, RecordMetadata, illegal_topic_name


class Accumulator:
    """The topics of a producer that runs. Owner: the Producer, which calls `fail_held` at its end."""

    def __init__(
        self,
        config: ProducerConfig,
        network: Network,
        room: BufferRoom,
        sender: Sender,
        results: Results,
        max_record_bytes: int,
    ) -> None:
        self.max_record_bytes = max_record_bytes
        """The largest record that a frame of ours and of the broker can carry."""
        self._network = network
        self._room = room
        self._sender = sender
        self._results = results
        self._time_ms = network.clock.time_ms
        self._topics: dict[str, TopicLanes] = {}
        self._lingers = config.linger_ms > 0
        self._batch_bytes = config.batch_bytes
        self._lookup_timeout_s = min(config.request_timeout_s, config.delivery_timeout_s)
        self._may_go_alone = (
            config.linger_ms == 0
            and config.compression == "none"
            and config.ordering == "partition"
        )

    def append(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        partition: int | None,
        headers: Sequence[Header],
        timestamp_ms: int | None,
        charge_bytes: int,
        entry: asyncio.Future[RecordMetadata],
    ) -> None:
        """Put a record whose room is taken into its lane's open batch, and send it when it may leave.

        The hot path of every send: flat on purpose.
        """
        sender = self._sender
        known = self._topics.get(topic)
        try:
            if known is None or known.partitioner is None:
                record = HeldRecord(
                    value, key, partition, headers, timestamp_ms, charge_bytes, entry
                )
                self._hold(topic, record)
                return
            if type(value) is not bytes and value is not None:
                value = _as_bytes("value", value)
            if key is not None and type(key) is not bytes:
                key = _as_bytes("key", key)
            if partition is not None:
                lane = self._lane(known, partition)
            elif key is not None:
                lane = known.lanes[known.partitioner.for_key(key)]
            else:
                lane = known.lanes[known.partitioner.next_sticky(charge_bytes)]
            if timestamp_ms is None:
                timestamp_ms = self._time_ms()
            batch = lane.open
            if batch is None:
                if charge_bytes > self.max_record_bytes:
                    self.check_size(charge_bytes, key, value)
                if self._may_go_alone and sender.send_alone(
                    lane, timestamp_ms, key, value, headers, charge_bytes, entry
                ):
                    return
                batch = sender.begin(lane)
            elif batch.builder.size_bytes + charge_bytes > self._batch_bytes:  # type: ignore[union-attr]
                if charge_bytes > self.max_record_bytes:
                    self.check_size(charge_bytes, key, value)
                sender.close_and_pump(lane)
                batch = lane.open or sender.begin(lane)
            size_bytes = batch.builder.append(  # type: ignore[union-attr]
                timestamp_ms, key, value, headers
            )
        except BaseException:
            self._room.give_back(charge_bytes)
            if known is not None:
                for each in known.lanes:
                    each.drop_empty()
            raise
        batch.charged_bytes += charge_bytes
        if batch.slots is None:
            batch.entries.append(entry)
            batch.timestamps_ms.append(timestamp_ms)
        else:
            self._results.add_entry(batch, entry, timestamp_ms)
        if not self._lingers:
            delivery = lane.delivery
            if len(delivery.in_flight) < delivery.max_in_flight:
                sender.pump(lane)
        elif size_bytes >= self._batch_bytes:
            sender.close_and_pump(lane)

    async def submit(
        self,
        topic: str,
        values: Sequence[bytes],
        partition: int | None,
        timestamp_ms: int,
        on_done_for: Callable[[int, int], OnDone],
    ) -> None:
        """Append values in bulk, waiting for room. The topic must be known (`lanes_of`).

        `on_done_for(i, p)` makes the callback of the stretch that begins with values[i], in partition p.
        """
        known, sender, room = self._topics[topic], self._sender, self._room
        assert known.partitioner is not None
        index, count = 0, len(values)
        while index < count:
            chosen = known.partitioner.sticky if partition is None else partition
            lane = self._lane(known, chosen)
            try:
                least = RECORD_OVERHEAD_BYTES + len(values[index])
            except TypeError:
                raise bad_record(None, values[index], ()) from None
            self.check_size(least, None, values[index])
            await room.take(least)
            charged = least
            taken = 0
            try:
                batch = lane.open or sender.begin(lane)
                assert batch.builder is not None
                before = batch.builder.size_bytes
                spare = 0 if room.waiting else max(0, room.limit_bytes - room.used_bytes)
                limit = min(self._batch_bytes, before + least + spare)
                taken = batch.builder.append_values(timestamp_ms, values, index, limit)
                if taken:
                    charged = max(least, batch.builder.size_bytes - before)
                    room.used_bytes += charged - least
                    batch.charged_bytes += charged
                    on_done = on_done_for(index, chosen)
                    self._results.add_entry(batch, Span(taken, on_done), timestamp_ms)
            except TypeError:
                bad = next((value for value in values[index:] if type(value) is not bytes), None)
                raise bad_record(None, bad, ()) from None
            finally:
                if not taken:
                    room.give_back(least)
                    lane.drop_empty()
            index += taken
            if partition is None and taken:
                known.partitioner.next_sticky(charged)
            if not taken or batch.builder.size_bytes + least > self._batch_bytes:
                # Full: let it go, and let answers come in between batches.
                sender.close_and_pump(lane)
                await asyncio.sleep(0)
            elif not self._lingers:
                sender.pump(lane)

    # --- topics -------------------------------------------------------------------------------------------

    def _lane(self, topic: TopicLanes, partition: int) -> Lane:
        if 0 <= partition < len(topic.lanes):
            return topic.lanes[partition]
        raise BrokerError(
            ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
            f"topic {topic.name!r} has partitions 0 to {len(topic.lanes) - 1}, not {partition}",
        )

    async def lanes_of(self, topic: str) -> list[Lane]:
        """The lanes of a topic, once its metadata is there. Raises BrokerError, ClientClosedError."""
        known = self._topics.get(topic)
        if known is None or known.partitioner is None:
            await self._network.topic(topic, self._lookup_timeout_s)
            known = self._topics.get(topic) or TopicLanes(topic)
            self._topics[topic] = known
            self._take_up(known)
        return known.lanes

    def _hold(self, topic: str, record: HeldRecord) -> None:
        """Keep a record until the topic's partitions are known; the first one asks for them."""
        if (reason := illegal_topic_name(topic)) is not None:
            raise BrokerError(ErrorCode.INVALID_TOPIC, reason)
        self.check_size(record.charge_bytes, record.key, record.value)
        known = self._topics.get(topic)
        if known is None:
            known = self._topics[topic] = TopicLanes(topic)
        known.held.append(record)
        if len(known.held) == 1:
            known.look_up = self._network.spawn(self._look_up(known))

    async def _look_up(self, topic: TopicLanes) -> None:
        try:
            await self._network.topic(topic.name, self._lookup_timeout_s)
        except FriedaError as error:
            if topic.partitioner is None:
                self._topics.pop(topic.name, None)
            self._fail_held(topic, error)
        else:
            self._take_up(topic)

    def _take_up(self, topic: TopicLanes) -> None:
        """The metadata of a topic came or changed: make the lanes it lacks, then send what was held."""
        metadata = self._network.metadata.topic(topic.name)
        if metadata is None:
            return
        sender = self._sender
        for index in range(metadata.partition_count):
            if index < len(topic.lanes):
                lane = topic.lanes[index]
                if lane.topic_id != metadata.topic_id:
                    lane.topic_id = metadata.topic_id
                    lane.prefix = sender.prefix_for(metadata.topic_id, index)
                sender.use(lane, self._network.open_connection_for(topic.name, index))
            else:
                topic.lanes.append(sender.make_lane(topic.name, index, metadata.topic_id))
        led = tuple(entry.partition for entry in metadata.partitions if entry.leader >= 0)
        if topic.partitioner is None:
            topic.partitioner = Partitioner(metadata.partition_count, self._batch_bytes)
        topic.partitioner.set_available(metadata.partition_count, led)
        while topic.held:
            held = topic.held.popleft()
            if held.entry.done():
                self._room.give_back(held.charge_bytes)
                continue
            try:
                self.append(
                    topic.name,
                    held.value,
                    held.key,
                    held.partition,
                    held.headers,
                    held.timestamp_ms,
                    held.charge_bytes,
                    held.entry,
                )
            except FriedaError as error:
                if not held.entry.done():
                    held.entry.set_exception(error)

    def _fail_held(self, topic: TopicLanes, error: FriedaError) -> None:
        while topic.held:
            held = topic.held.popleft()
            self._room.give_back(held.charge_bytes)
            if not held.entry.done():
                held.entry.set_exception(error)

    def metadata_changed(self) -> None:
        """Look at the topics in use again."""
        for topic in self._topics.values():
            if topic.partitioner is not None:
                self._take_up(topic)

    def check_size(self, charge_bytes: int, key: bytes | None, value: bytes | None) -> None:
        """Refuse a record that no frame can carry."""
        if charge_bytes > self.max_record_bytes:
            raise BrokerError(
                ErrorCode.MESSAGE_TOO_LARGE,
                f"a record of {len(value or b'')} bytes (key: {len(key or b'')} bytes) cannot be sent: "
                f"the largest that fits into a frame has {self.max_record_bytes} bytes",
            )

    async def release_held(self) -> None:
        """Wait until every record that is held now is in a lane, or has failed."""
        while look_ups := [
            each.look_up
            for each in self._topics.values()
            if each.look_up is not None and not each.look_up.done()
        ]:
            await asyncio.wait(look_ups)

    def fail_held(self, error: FriedaError) -> None:
        """Give up every record that is held."""
        for topic in self._topics.values():
            self._fail_held(topic, error)


def _as_bytes(what: str, given: Any) -> bytes | None:
    if given is None or isinstance(given, bytes | bytearray | memoryview):
        return None if given is None else bytes(given)
    raise _not_bytes(what, given)


def bad_record(key: Any, value: Any, headers: Any) -> BrokerError:
    """What is wrong with a record whose size cannot be told."""
    for what, given in (("key", key), ("value", value)):
        if not (given is None or isinstance(given, bytes | bytearray | memoryview)):
            return _not_bytes(what, given)
    return BrokerError(
        ErrorCode.INVALID_RECORD,
        f"the headers of a record are pairs of a name (str) and a value (bytes or None), not {headers!r:.60}",
    )


def _not_bytes(what: str, given: Any) -> BrokerError:
    return BrokerError(
        ErrorCode.INVALID_RECORD,
        f"the {what} of a record must be bytes, not {type(given).__name__}; encode it first",
    )
