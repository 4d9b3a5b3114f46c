"""`frieda produce`: lines or a file into a topic."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any, Final, cast, get_args

import click

from frieda.cli.blocking import BlockingThread
from frieda.cli.client_options import (
    client_options,
    client_settings,
    first_of,
    run_until_interrupted,
)
from frieda.cli.escapes import unescape
from frieda.cli.exit_codes import ExitCode, exit_code_of
from frieda.cli.line_reader import LineReader
from frieda.clients.admin import Admin
from frieda.clients.producer import Producer
from frieda.clients.settings import ProducerSettings
from frieda.config import KIB, MIB, Compression, ProducerConfig
from frieda.errors import BrokerError, BufferFullError, ConfigError, ErrorCode, FriedaError
from frieda.model import Header, RecordMetadata

CHUNK_BYTES: Final = MIB
STANDARD_INPUT: Final = 0
TOPIC_TIMEOUT_S: Final = 0.5
"""After this the broker is asked whether the topic exists at all."""


@click.command()
@click.argument("topic")
@client_options
@click.option(
    "-f", "--file", "file", type=click.Path(path_type=Path), help="Read this, not standard input."
)
@click.option("--whole", is_flag=True, help="Send all that is read as one record.")
@click.option(
    "--key-separator",
    metavar="S",
    help="What stands before S in a line is its record's key (\\t is a tab). A line without S has no key.",
)
@click.option("--key", help="The key of every record.")
@click.option("--partition", type=click.IntRange(min=0), help="Send all to this partition.")
@click.option("--header", "headers", multiple=True, metavar="NAME=VALUE", help="For every record.")
@click.option("--compression", type=click.Choice(get_args(Compression)))
@click.option("--acks", type=click.Choice(["0", "1", "all"]), help="Who must have stored a record.")
@click.option("--linger", "linger_ms", type=float, metavar="MS", help="Wait for a batch to fill.")
@click.option("--progress/--no-progress", default=None, help="A bar. [default: on a terminal]")
def produce(
    topic: str,
    bootstrap: str | None,
    config_file: Path | None,
    assignments: tuple[str, ...],
    file: Path | None,
    whole: bool,
    key_separator: str | None,
    key: str | None,
    partition: int | None,
    headers: tuple[str, ...],
    compression: str | None,
    acks: str | None,
    linger_ms: float | None,
    progress: bool | None,
) -> int:
    """Send lines of standard input, or of a file, to TOPIC: one record for each line, bytes as they are.

    Lines end with a newline, which is not sent; the last one may lack it. A summary goes to standard
    error. The first record that fails ends the command, with an exit code that says why. Ctrl-C stops
    reading and waits until what was read is acknowledged.
    """
    if whole and key_separator is not None:
        raise click.UsageError("--whole sends one record: it cannot be cut at --key-separator")
    if key is not None and key_separator is not None:
        raise click.UsageError("--key and --key-separator exclude each other")
    separator = None if key_separator is None else unescape(key_separator, "--key-separator")
    if separator == b"":
        raise click.UsageError("--key-separator must not be empty")
    flags = {
        "compression": compression,
        "acks": {"all": -1, "1": 1, "0": 0}[acks] if acks else None,
        "linger_ms": linger_ms,
    }
    settings = client_settings(ProducerConfig, bootstrap, config_file, assignments, flags)
    descriptor = STANDARD_INPUT if file is None else os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size_bytes = _size_of(descriptor, file)
        if progress is None:
            progress = sys.stderr.isatty() and size_bytes is not None
        sending = _Sending(
            topic=topic,
            settings=settings,
            descriptor=descriptor,
            size_bytes=size_bytes,
            whole=whole,
            separator=separator,
            key=None if key is None else os.fsencode(key),
            partition=partition,
            headers=_parse_headers(headers),
            progress=progress,
        )
        return run_until_interrupted(sending.run)
    finally:
        if file is not None:
            os.close(descriptor)


class _Sending:
    """One run of the command."""

    def __init__(
        self,
        *,
        topic: str,
        settings: dict[str, Any],
        descriptor: int,
        size_bytes: int | None,
        whole: bool,
        separator: bytes | None,
        key: bytes | None,
        partition: int | None,
        headers: tuple[Header, ...],
        progress: bool,
    ) -> None:
        self._topic = topic
        self._settings = settings
        self._descriptor = descriptor
        self._size_bytes = size_bytes
        self._whole = whole
        self._separator = separator
        self._key = key
        self._partition = partition
        self._headers = headers
        self._progress = progress
        self._max_record_bytes = settings["max_frame_bytes"] - KIB
        self._pending: deque[asyncio.Future[RecordMetadata]] = deque()
        self._records = self._bytes = self._failed = 0
        self._error: FriedaError | None = None

    async def run(self, interrupted: asyncio.Event) -> int:
        bootstrap = self._settings.pop("bootstrap")
        began = time.monotonic()
        thread = BlockingThread()
        try:
            async with Producer(bootstrap, **cast(ProducerSettings, self._settings)) as producer:
                known = await self._partitions(producer, bootstrap)
                if self._partition is not None and self._partition >= known:
                    raise BrokerError(
                        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
                        f"topic {self._topic!r} has partitions 0 to {known - 1}, not {self._partition}",
                    )
                with self._bar() as bar:
                    if self._whole:
                        await self._send_whole(producer, thread, interrupted)
                    else:
                        await self._send_lines(producer, thread, interrupted, bar)
                    try:
                        await producer.flush()
                    except FriedaError as error:
                        self._error = self._error or error
        finally:
            thread.close()
        return self._summary(time.monotonic() - began, interrupted.is_set())

    async def _partitions(self, producer: Producer, bootstrap: str) -> int:
        """How many partitions the topic has; a producer alone would wait long for one that is missing."""
        try:
            async with asyncio.timeout(TOPIC_TIMEOUT_S):
                return await producer.partitions_for(self._topic)
        except TimeoutError:
            async with Admin(bootstrap, polling="event") as admin:
                await admin.describe_topic(self._topic)
            return await producer.partitions_for(self._topic)

    async def _send_lines(
        self, producer: Producer, thread: BlockingThread, interrupted: asyncio.Event, bar: Any
    ) -> None:
        reader = LineReader(self._max_record_bytes)
        while self._error is None and not interrupted.is_set():
            chunk = await self._read(thread, CHUNK_BYTES, interrupted)
            if chunk is None:
                return
            await self._send(producer, reader.feed(chunk) if chunk else reader.end())
            bar.update(len(chunk))
            if not chunk:
                return

    async def _send_whole(
        self, producer: Producer, thread: BlockingThread, interrupted: asyncio.Event
    ) -> None:
        if self._size_bytes is not None:
            self._require_fits(self._size_bytes)
        parts: list[bytes] = []
        size = 0
        while True:
            chunk = await self._read(thread, CHUNK_BYTES, interrupted)
            if chunk is None:
                return
            if not chunk:
                break
            parts.append(chunk)
            size += len(chunk)
            self._require_fits(size)
        await self._send(producer, [b"".join(parts)])

    async def _read(
        self, thread: BlockingThread, size_bytes: int, interrupted: asyncio.Event
    ) -> bytes | None:
        """The next bytes, empty at the end, None when interrupted."""
        reading = asyncio.ensure_future(thread.run(lambda: os.read(self._descriptor, size_bytes)))
        return reading.result() if await first_of(reading, interrupted) else None

    async def _send(self, producer: Producer, values: list[bytes]) -> None:
        if not values:
            return
        try:
            if self._separator is None and self._key is None and not self._headers:
                await producer.submit_values(
                    self._topic, values, self._stretch_done, partition=self._partition
                )
                self._bytes += sum(map(len, values))
                return
            for value in values:
                await self._send_one(producer, value)
        except FriedaError as error:
            self._error = self._error or error

    async def _send_one(self, producer: Producer, line: bytes) -> None:
        key, value = self._key, line
        if self._separator is not None:
            before, found, after = line.partition(self._separator)
            if found:
                key, value = before, after
        while self._pending and self._pending[0].done():
            self._pending.popleft()
        future = None
        while future is None:
            try:
                future = producer.send_nowait(
                    self._topic, value, key, partition=self._partition, headers=self._headers
                )
            except BufferFullError:
                if not self._pending:
                    raise
                await asyncio.wait({self._pending.popleft()})
        self._bytes += len(value) + len(key or b"")
        self._pending.append(future)
        future.add_done_callback(self._one_done)

    def _one_done(self, future: asyncio.Future[RecordMetadata]) -> None:
        if future.cancelled():
            return
        error = future.exception()
        self._stretch_done(1, -1, error if isinstance(error, FriedaError) else None)

    def _stretch_done(self, count: int, base_offset: int, error: FriedaError | None) -> None:
        if error is None:
            self._records += count
        else:
            self._failed += count
            self._error = self._error or error

    def _require_fits(self, size_bytes: int) -> None:
        if size_bytes > self._max_record_bytes:
            raise ConfigError(
                f"--whole: {size_bytes} bytes do not fit into one record, which can hold "
                f"{self._max_record_bytes}; send lines, or raise max_frame_bytes here and at the broker"
            )

    def _bar(self) -> Any:
        length = (self._size_bytes or 0) if self._progress and not self._whole else 0
        return click.progressbar(
            length=length,
            label=f"to {self._topic}",
            file=sys.stderr,
            hidden=not self._progress or self._whole,
            update_min_steps=max(1, length // 200),
        )

    def _summary(self, seconds: float, interrupted: bool) -> int:
        rate = self._records / seconds if seconds > 0 else 0.0
        lead = "interrupted; what was read before is sent: " if interrupted else ""
        click.echo(
            f"{lead}{self._records} records, {self._bytes} bytes in {seconds:.3f} s "
            f"({rate:.0f} records/s)",
            err=True,
        )
        if self._error is not None:
            click.echo(f"frieda: {self._failed} records failed: {self._error}", err=True)
            return exit_code_of(self._error)
        return ExitCode.INTERRUPTED if interrupted else ExitCode.OK


def _size_of(descriptor: int, file: Path | None) -> int | None:
    """The size of a regular file; None for a pipe or a terminal."""
    status = os.fstat(descriptor)
    if stat.S_ISDIR(status.st_mode):
        raise ConfigError(f"{file}: is a folder, not a file")
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _parse_headers(headers: tuple[str, ...]) -> tuple[Header, ...]:
    parsed: list[Header] = []
    for header in headers:
        name, equals, value = header.partition("=")
        if not name or not equals:
            raise click.UsageError(f"--header {header!r}: must be NAME=VALUE")
        parsed.append((name, os.fsencode(value)))
    return tuple(parsed)
