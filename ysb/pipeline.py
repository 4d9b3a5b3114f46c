"""A worker of the pipeline: takes events, parses them, keeps the views, joins ad to campaign, counts, and writes.

It reads the partitions it is given through a driver, from where they were committed last. Counts and positions of
one commit are of the same moment, always between two batches.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from frieda.bench.drivers.base import ConsumerDriver, ConsumerOptions, Position, Taken
from frieda.bench.drivers.registry import driver
from frieda.bench.histogram import LatencyHistogram
from frieda.bench.worker import Channel
from frieda.ysb.cadence import PROGRESS_MS, Cadence
from frieda.ysb.campaigns import MAX_ADS
from frieda.ysb.events import NS_PER_MS, VIEW
from frieda.ysb.layout import PartitionState
from frieda.ysb.parsing import AdEvent, event_parser
from frieda.ysb.sink import Commit, Sink
from frieda.ysb.store import campaigns_of, open_redis
from frieda.ysb.timing import ProcessorTime, sleep_until
from frieda.ysb.updates import WindowUpdates
from frieda.ysb.window import PartitionClock, WindowCounts, WindowRule

TAKE_RECORDS: Final = 5000
"""A commit waits for the batch in hand: 5,000 events are about 5 ms of work."""
TAKE_TIMEOUT_S: Final = 0.5


@dataclass(slots=True)
class _Partition:
    """What a worker knows of one of its partitions."""

    clock: PartitionClock
    position: Position | None
    events: int
    views: int
    malformed: int
    unjoined: int
    waiting: list[tuple[str, int, bool]] = field(default_factory=list)
    """Views of this batch whose ad must be looked up: (ad, event time, does it count)."""

    def state(self) -> PartitionState:
        return PartitionState(
            position=self.position,
            watermark_ms=self.clock.watermark_ms,
            events=self.events,
            views=self.views,
            late=self.clock.late,
            dropped=self.clock.dropped,
            malformed=self.malformed,
            unjoined=self.unjoined,
        )


class Pipeline:
    """Events of some partitions in, counts by campaign and window out. `states` is what the sink's claim told."""

    def __init__(
        self,
        rule: WindowRule,
        states: Mapping[int, PartitionState],
        look_up: Callable[[Sequence[str]], Any],
    ) -> None:
        """`look_up(ads)` is awaited for the campaigns of ads that were not met before."""
        self._parse, self._parse_error = event_parser()
        self._look_up = look_up
        self._campaign_of: dict[str, str] = {}
        self._counts = WindowCounts(rule)
        self._dropped = WindowCounts(rule)
        self._changed: set[int] = set()
        self._sampled_from_ns = 0
        self.broker_share = LatencyHistogram()
        """From an event's send to its being taken here, of the sampled ones."""
        self._partitions = {
            partition: _Partition(
                clock=PartitionClock(rule, state.watermark_ms, state.late, state.dropped),
                position=state.position,
                events=state.events,
                views=state.views,
                malformed=state.malformed,
                unjoined=state.unjoined,
            )
            for partition, state in states.items()
        }

    def sample_from(self, sent_ns: int) -> None:
        """Of events that were sent before this the broker's share is not recorded."""
        self._sampled_from_ns = sent_ns

    @property
    def events(self) -> int:
        """How many were taken, those of workers before this one among them."""
        return sum(partition.events for partition in self._partitions.values())

    @property
    def watermark_ms(self) -> int:
        """The greatest event time of a view that was taken."""
        return max(partition.clock.watermark_ms for partition in self._partitions.values())

    async def process(self, taken: Taken, taken_ns: int) -> None:
        """All records of one batch. Raises FriedaError when an ad cannot be looked up: the worker must end then."""
        partition = self._partitions[taken.partition]
        self._changed.add(taken.partition)
        values = iter(taken.values)
        while True:
            try:
                self._views(partition, map(self._parse, values), taken_ns)
                break
            except self._parse_error:
                partition.malformed += 1  # and on with the one behind it
        partition.events += len(taken.values)
        if partition.waiting:
            await self._join_waiting(partition)
        partition.position = taken.next_position

    def _views(self, partition: _Partition, events: map[AdEvent], taken_ns: int) -> None:
        """The hot path, 0.37 us an event: flat on purpose."""
        campaign_of, accepts = self._campaign_of, partition.clock.accepts
        count, drop = self._counts.add, self._dropped.add
        sampled_from_ns = self._sampled_from_ns
        views = 0
        try:
            for event in events:
                if event.event_type != VIEW:
                    continue
                views += 1
                event_time, ad = event.event_time, event.ad_id
                counts = accepts(event_time)
                campaign = campaign_of.get(ad)
                if campaign is None:
                    partition.waiting.append((ad, event_time, counts))
                elif counts:
                    count(campaign, event_time)
                else:
                    drop(campaign, event_time)
                if event.sent_ns > sampled_from_ns:
                    self.broker_share.record(max(0, taken_ns - event.sent_ns))
        finally:
            partition.views += views

    async def _join_waiting(self, partition: _Partition) -> None:
        """Look up the ads that were met for the first time. An ad without a campaign is asked for every time."""
        unknown = list(dict.fromkeys(ad for ad, _, _ in partition.waiting))
        found = await self._look_up(unknown)
        if len(self._campaign_of) + len(found) <= MAX_ADS:
            self._campaign_of |= found
        for ad, event_time, counts in partition.waiting:
            campaign = found.get(ad)
            if campaign is None:
                partition.unjoined += 1
            elif counts:
                self._counts.add(campaign, event_time)
            else:
                self._dropped.add(campaign, event_time)
        partition.waiting.clear()

    def take_commit(self) -> Commit | None:
        """All that is to be written since the last call; None when nothing was taken. Between two batches only."""
        if not self._changed:
            return None
        states = {number: self._partitions[number].state() for number in self._changed}
        self._changed = set()
        return Commit(self._counts.take(), self._dropped.take(), states)

    def totals(self) -> dict[str, int]:
        """What became of the events, over all partitions."""
        states = [partition.state() for partition in self._partitions.values()]
        names = ("events", "views", "late", "dropped", "malformed", "unjoined")
        return {name: sum(getattr(state, name) for state in states) for name in names}


class Writer:
    """Writes the pipeline's counts at the moments of the cadence; when each window was last written is noted."""

    def __init__(
        self,
        pipeline: Pipeline,
        sink: Sink,
        cadence: Cadence,
        updates: WindowUpdates,
        epoch_ns: int,
    ) -> None:
        """`epoch_ns`: what to add to the monotonic clock for the time since the epoch."""
        self._pipeline = pipeline
        self._sink = sink
        self._cadence = cadence
        self._updates = updates
        self._epoch_ns = epoch_ns
        self.between_batches = asyncio.Lock()
        """Held by whoever changes the pipeline or takes what is to be written."""
        self.write_times = LatencyHistogram()
        """How long each write took, from what there was to write to Redis's answer."""

    async def run(self) -> None:
        """Write until cancelled; a write under way is finished first. Raises FriedaError."""
        while True:
            await sleep_until(self._cadence.next_ns(time.monotonic_ns()))
            writing = asyncio.ensure_future(self.write())
            try:
                await asyncio.shield(writing)
            except asyncio.CancelledError:
                await writing
                raise

    async def write(self) -> None:
        """Write what there is now. Raises FriedaError. Cancelled: what was taken may be written or lost."""
        async with self.between_batches:
            commit = self._pipeline.take_commit()
        if commit is None:
            return
        began_ns = time.monotonic_ns()
        await self._sink.commit(commit, (began_ns + self._epoch_ns) // NS_PER_MS)
        ended_ns = time.monotonic_ns()
        self._updates.note(commit.counts, ended_ns + self._epoch_ns)
        self.write_times.record(ended_ns - began_ns)


async def run(task: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """A worker process: claim, read on, count and write until told that all has been sent and taken."""
    rule = WindowRule(task["window_ms"], task["allowed_lateness_ms"])
    async with (
        open_redis(task["redis_url"]) as client,
        Sink(task["redis_url"], task["partitions"]) as sink,
        contextlib.AsyncExitStack() as stack,
    ):
        states = await sink.claim()
        pipeline = Pipeline(rule, states, lambda ads: campaigns_of(client, ads))
        consumer = _consumer(task, states)
        await consumer.start()
        stack.push_async_callback(consumer.close)
        start_ns = await channel.ready(
            {"settings": {k: str(v) for k, v in consumer.settings.items()}}
        )
        cadence = Cadence(start_ns, task["sink_ms"], task["sink_phase"])
        updates = WindowUpdates(rule.size_ms)
        writer = Writer(pipeline, sink, cadence, updates, task["epoch_ns"])
        measured_ns = start_ns + round(task["warm_up_s"] * 1e9)
        pipeline.sample_from(measured_ns)
        with ProcessorTime(measured_ns) as cpu:
            await _until_told(pipeline, consumer, writer, updates, channel, start_ns)
            await writer.write()
        return {
            "totals": pipeline.totals(),
            "updates": updates.as_json(),
            "broker_share": pipeline.broker_share.encode(),
            "write_times": writer.write_times.encode(),
            "cpu_s": cpu.used_s,
        }


def _consumer(task: Mapping[str, Any], states: Mapping[int, PartitionState]) -> ConsumerDriver:
    """A consumer of the worker's partitions, at the committed positions."""
    positions = {
        partition: state.position
        for partition, state in states.items()
        if state.position is not None
    }
    return driver(task["driver"]).consumer(
        ConsumerOptions(
            address=task["address"],
            topic=task["topic"],
            partitions=tuple(task["partitions"]),
            start=positions or "earliest",
            max_bytes=task["max_bytes"],
            polling=task["polling"],
            extra=task["consumer_extra"],
        )
    )


async def _until_told(
    pipeline: Pipeline,
    consumer: ConsumerDriver,
    writer: Writer,
    updates: WindowUpdates,
    channel: Channel,
    start_ns: int,
) -> None:
    """Read, write at the cadence and tell how it goes, until the other side says that it was all."""

    async def read() -> None:
        while True:
            found = await consumer.take(TAKE_TIMEOUT_S, TAKE_RECORDS)
            taken_ns = time.monotonic_ns()
            if found:
                async with writer.between_batches:
                    for taken in found:
                        await pipeline.process(taken, taken_ns)

    async def tell() -> None:
        moments = Cadence(start_ns, PROGRESS_MS, 0.0)
        while True:
            channel.progress(
                {
                    "events": pipeline.events,
                    "watermark_ms": pipeline.watermark_ms,
                    "windows": updates.news(),
                }
            )
            await sleep_until(moments.next_ns(time.monotonic_ns()))

    reading = asyncio.ensure_future(read())
    parts = [reading, *map(asyncio.ensure_future, (writer.run(), tell(), channel.heard()))]
    try:
        done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        for part in done:
            part.result()
        async with writer.between_batches:
            reading.cancel()
    finally:
        for part in parts:
            part.cancel()
        await asyncio.gather(*parts, return_exceptions=True)
