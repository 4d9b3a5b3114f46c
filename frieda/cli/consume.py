"""`frieda consume`: the records of a topic on standard output."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from pathlib import Path
from typing import Any, Final, cast

import click

from frieda.cli.blocking import BlockingThread, write_all
from frieda.cli.client_options import (
    client_options,
    client_settings,
    first_of,
    run_until_interrupted,
)
from frieda.cli.exit_codes import ExitCode
from frieda.cli.record_format import Formatter, record_formatter
from frieda.clients.consumer import Consumer
from frieda.clients.settings import ConsumerSettings
from frieda.config import ConsumerConfig
from frieda.errors import BrokerError, ErrorCode
from frieda.model import Record, TopicPartition

STANDARD_OUTPUT: Final = 1
COMMIT_INTERVAL_S: Final = 1.0
WRITE_GRACE_S: Final = 1.0
"""How long an interruption waits for the write that is under way."""
_WAIT_MS: Final = 1000


def parse_timestamp(ctx: click.Context, option: click.Parameter, value: str | None) -> int | None:
    """Milliseconds since the Unix epoch, or an ISO 8601 date and time (local when it has no zone)."""
    if value is None:
        return None
    if value.isdecimal():
        return int(value)
    try:
        return int(datetime.fromisoformat(value).timestamp() * 1000)
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is neither milliseconds nor ISO 8601 (2030-01-31T12:00:00Z)"
        ) from None


@click.command()
@click.argument("topic")
@client_options
@click.option("--from-beginning", is_flag=True, help="Start at the first record, not at the end.")
@click.option("--offset", type=click.IntRange(min=0), help="Start at this offset of the partition.")
@click.option(
    "--timestamp",
    callback=parse_timestamp,
    metavar="T",
    help="Start at the first record of this time: milliseconds since 1970, or ISO 8601.",
)
@click.option(
    "-p",
    "--partition",
    "partitions",
    multiple=True,
    type=click.IntRange(min=0),
    help="Read this partition only; may be given several times.",
)
@click.option(
    "--group",
    help="Start where this group has committed and commit what was written out. A group only names its "
    "offsets: there is no rebalancing yet, two consumers of a group both read everything.",
)
@click.option("--exit-at-end", is_flag=True, help="End at the last record there was at the start.")
@click.option("-n", "--max-records", type=click.IntRange(min=1), help="End after so many records.")
@click.option(
    "--output",
    default="value",
    metavar="value|json|FORMAT",
    show_default=True,
    help="FORMAT has %k key, %v value, %o offset, %p partition, %t topic, %T timestamp in ms, %h headers, %% "
    "and the escapes \\n \\t \\xHH.",
)
@click.option("--raw", is_flag=True, help="Nothing after each record, not even a newline.")
def consume(
    topic: str,
    bootstrap: str | None,
    config_file: Path | None,
    assignments: tuple[str, ...],
    from_beginning: bool,
    offset: int | None,
    timestamp: int | None,
    partitions: tuple[int, ...],
    group: str | None,
    exit_at_end: bool,
    max_records: int | None,
    output: str,
    raw: bool,
) -> int:
    """Write the records of TOPIC to standard output: values exactly as they came, a newline after each.

    Starts at the end of the topic unless told otherwise. With --group, the group's committed offset comes
    before --from-beginning, which then says where to start without one. Ctrl-C ends it (with a commit).
    """
    if sum((from_beginning, offset is not None, timestamp is not None)) > 1:
        raise click.UsageError("--from-beginning, --offset and --timestamp exclude each other")
    flags = {"group": group, "start": "earliest" if from_beginning else None}
    settings = client_settings(ConsumerConfig, bootstrap, config_file, assignments, flags)
    formatter, has_newline = record_formatter(output)
    reading = _Reading(
        topic=topic,
        settings=settings,
        offset=offset,
        timestamp_ms=timestamp,
        partitions=partitions,
        exit_at_end=exit_at_end,
        max_records=max_records,
        formatter=formatter,
        ending=b"" if raw or has_newline else b"\n",
    )
    return run_until_interrupted(reading.run)


class _Reading:
    """One run of the command."""

    def __init__(
        self,
        *,
        topic: str,
        settings: dict[str, Any],
        offset: int | None,
        timestamp_ms: int | None,
        partitions: tuple[int, ...],
        exit_at_end: bool,
        max_records: int | None,
        formatter: Formatter,
        ending: bytes,
    ) -> None:
        self._topic = topic
        self._settings = settings
        self._offset = offset
        self._timestamp_ms = timestamp_ms
        self._partitions = partitions
        self._exit_at_end = exit_at_end
        self._max_records = max_records
        self._formatter = formatter
        self._ending = ending
        self._ends: dict[TopicPartition, int] = {}
        self._written = 0
        self._uncommitted: dict[TopicPartition, int] = {}

    async def run(self, interrupted: asyncio.Event) -> int:
        bootstrap = self._settings.pop("bootstrap")
        thread = BlockingThread()
        topics = () if self._partitions else (self._topic,)
        consumer = Consumer(bootstrap, *topics, **cast(ConsumerSettings, self._settings))
        if self._partitions:
            consumer.assign(TopicPartition(self._topic, number) for number in self._partitions)
        try:
            async with consumer:
                if not await first_of(self._start(consumer), interrupted):
                    return ExitCode.INTERRUPTED
                try:
                    await self._copy(consumer, thread, interrupted)
                finally:
                    await self._commit(consumer)
        finally:
            thread.close()
        return ExitCode.INTERRUPTED if interrupted.is_set() else ExitCode.OK

    async def _start(self, consumer: Consumer) -> None:
        """Go where reading is to begin, and find where it ends."""
        known = await consumer.partitions_for(self._topic)
        reading = consumer.assignment
        if self._offset is not None:
            if len(reading) > 1:
                raise click.UsageError(
                    f"--offset is an offset of one partition and {self._topic} has {len(known)}: "
                    "choose one with --partition"
                )
            await self._seek(consumer, reading[0], self._offset)
        elif self._timestamp_ms is not None:
            await consumer.seek_to_timestamp(self._timestamp_ms)
        if self._exit_at_end:
            self._ends = await consumer.end_offsets()

    async def _seek(self, consumer: Consumer, key: TopicPartition, offset: int) -> None:
        (first,) = (await consumer.beginning_offsets(key)).values()
        (end,) = (await consumer.end_offsets(key)).values()
        if not first <= offset <= end:
            raise BrokerError(
                ErrorCode.OFFSET_OUT_OF_RANGE,
                f"{key} has no offset {offset}; it holds {first} to {end}",
            )
        consumer.seek(key, offset)

    async def _copy(
        self, consumer: Consumer, thread: BlockingThread, interrupted: asyncio.Event
    ) -> None:
        committed_at = time.monotonic()
        stop = asyncio.ensure_future(interrupted.wait())
        try:
            while not interrupted.is_set() and not self._done(consumer):
                reading = asyncio.ensure_future(
                    consumer.getmany(timeout_ms=_WAIT_MS, max_records=self._left())
                )
                await asyncio.wait({reading, stop}, return_when=asyncio.FIRST_COMPLETED)
                if not reading.done():
                    reading.cancel()
                    await asyncio.wait({reading})
                    return
                for key, records in reading.result().items():
                    writing = asyncio.ensure_future(self._write(thread, key, records))
                    await asyncio.wait({writing, stop}, return_when=asyncio.FIRST_COMPLETED)
                    if not writing.done():
                        # Most likely it is done in a moment, and shall then be committed.
                        await asyncio.wait({writing}, timeout=WRITE_GRACE_S)
                    if not writing.done():
                        # Whoever reads our output has stopped reading; what they got is not known.
                        writing.cancel()
                        await asyncio.wait({writing})
                        return
                    writing.result()
                if time.monotonic() - committed_at >= COMMIT_INTERVAL_S:
                    await self._commit(consumer)
                    committed_at = time.monotonic()
        finally:
            stop.cancel()

    async def _write(
        self, thread: BlockingThread, key: TopicPartition, records: list[Record]
    ) -> None:
        end = self._ends.get(key)
        if end is not None and records and records[-1].offset >= end:
            records = [record for record in records if record.offset < end]
        if not records:
            return
        formatter, ending = self._formatter, self._ending
        data = ending.join([formatter(record) for record in records]) + ending
        await thread.run(lambda: write_all(STANDARD_OUTPUT, data))
        self._written += len(records)
        self._uncommitted[key] = records[-1].offset + 1

    def _left(self) -> int | None:
        return None if self._max_records is None else self._max_records - self._written

    def _done(self, consumer: Consumer) -> bool:
        if self._max_records is not None and self._written >= self._max_records:
            return True
        if not self._exit_at_end:
            return False
        at_end = [
            key
            for key, end in self._ends.items()
            if (position := consumer.position(key)) is not None and position >= end
        ]
        for key in at_end:
            # What comes later is not wanted, and must not keep the others waiting.
            consumer.pause(key)
        return len(at_end) == len(self._ends)

    async def _commit(self, consumer: Consumer) -> None:
        if self._settings.get("group") is None or not self._uncommitted:
            return
        offsets, self._uncommitted = self._uncommitted, {}
        await consumer.commit(offsets)
