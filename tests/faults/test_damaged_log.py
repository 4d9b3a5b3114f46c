"""Logs that were torn by a crash or rotted on the disk, seen through a broker that starts on them."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from frieda import Consumer
from frieda.cli.exit_codes import ExitCode
from frieda.errors import CorruptLogError, ErrorCode
from frieda.model import TopicPartition
from frieda.testing.brokers import BrokerProcess, running_server
from frieda.testing.conversation import (
    create_topic,
    fetch_of,
    fetch_values,
    produce,
    topic_id_of,
)
from frieda.testing.raw_client import decoded, raw_client
from frieda.wire.batch import iterate_batches

SEGMENT = Path("events-0/00000000000000000000.log")


async def write(data: Path, *batches: list[bytes], **configs: str) -> None:
    """A data folder as a killed broker leaves it, with these batches in it."""
    with BrokerProcess(data) as broker:
        async with raw_client(broker.url) as client:
            topic_id = await create_topic(client, **configs)
            for values in batches:
                await produce(client, topic_id, *values)
        broker.kill()


def batches_of(segment: Path) -> list[tuple[int, int]]:
    """Where each batch of a segment file begins and ends."""
    content = segment.read_bytes().rstrip(b"\0") + bytes(16)
    return [
        (position, position + header.size_bytes) for position, header in iterate_batches(content)
    ]


def verify(data: Path) -> subprocess.CompletedProcess[bytes]:
    """`frieda log verify` of a data folder."""
    command = [sys.executable, "-m", "frieda", "log", "verify", str(data), "--format", "json"]
    return subprocess.run(command, capture_output=True, timeout=60, check=False)


@pytest.mark.parametrize("how", ["cut off", "zeros"])
async def test_a_last_batch_torn_at_any_byte_is_cut_and_what_was_before_it_stays(
    tmp_path: Path, how: str
) -> None:
    crashed, copy = tmp_path / "crashed", tmp_path / "copy"
    await write(crashed, [b"one", b"two"], [b"three"], [b"torn", b"here"])
    content = (crashed / SEGMENT).read_bytes()
    start, end = batches_of(crashed / SEGMENT)[-1]
    whole = content.rstrip(b"\0")
    for cut in range(start, end):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(crashed, copy)
        tail = bytes(len(content) - cut) if how == "zeros" else b""
        (copy / SEGMENT).write_bytes(content[:cut] + tail)
        is_whole = how == "zeros" and cut >= len(whole)
        kept = [b"one", b"two", b"three"] + [b"torn", b"here"] * is_whole
        async with running_server(copy) as server, raw_client(server.urls[0]) as client:
            topic_id = await topic_id_of(client, "events")
            assert await fetch_values(client, topic_id) == kept
            assert await produce(client, topic_id, b"after") == len(kept)
            assert await fetch_values(client, topic_id) == [*kept, b"after"]


async def test_a_file_that_lost_its_end_after_a_clean_stop_is_noticed(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, raw_client(server.urls[0]) as client:
        topic_id = await create_topic(client)
        for value in (b"one", b"two"):
            await produce(client, topic_id, value)
    content = (tmp_path / SEGMENT).read_bytes()
    (tmp_path / SEGMENT).write_bytes(content[:-1])
    async with running_server(tmp_path) as server, raw_client(server.urls[0]) as client:
        assert await fetch_values(client, topic_id) == [b"one"]
        assert await produce(client, topic_id, b"again") == 1
        assert await fetch_values(client, topic_id) == [b"one", b"again"]


@pytest.mark.parametrize(
    ("byte", "segment_bytes"),
    [*((byte, 1 << 20) for byte in (0, 4, 8, 16, 20, 25, 57, 70, -1)), (16, 1024), (-1, 1024)],
    ids=lambda number: f"{number}",
)
async def test_a_flipped_bit_hides_its_batch_and_no_other(
    tmp_path: Path, byte: int, segment_bytes: int
) -> None:
    values = [b"%d " % number + b"x" * 100 for number in range(30)]
    batches = [values[first : first + 3] for first in range(0, 30, 3)]
    await write(tmp_path, *batches, segment_bytes=str(segment_bytes))
    # The second batch of the first segment.
    first, last = 3, 6
    start, end = batches_of(tmp_path / SEGMENT)[1]
    with (tmp_path / SEGMENT).open("r+b") as file:
        file.seek(start + byte if byte >= 0 else end + byte)
        flipped = file.read(1)[0] ^ 0x10
        file.seek(-1, 1)
        file.write(bytes([flipped]))

    verified = verify(tmp_path)
    assert verified.returncode == ExitCode.FAILURE
    assert str(start).encode() in verified.stdout
    assert len(json.loads(verified.stdout)) >= 2

    async with running_server(tmp_path) as server:
        async with raw_client(server.urls[0]) as client:
            topic_id = await topic_id_of(client, "events")
            for offset in range(first, last):
                request = fetch_of(topic_id, offset)
                envelope = await client.answer_to(client.send(request))
                (fetched,) = decoded(request, envelope).partitions
                assert fetched.error_code == ErrorCode.CORRUPT_LOG
                assert fetched.next_readable_offset == last
                assert str(tmp_path / SEGMENT) in fetched.detail
            assert await fetch_values(client, topic_id, last) == values[last:]
            assert await produce(client, topic_id, b"after") == 30
        read: list[bytes | None] = []
        async with (
            asyncio.timeout(60),
            Consumer(server.urls[0], "events", start="earliest", polling="event") as consumer,
        ):
            while len(read) < first:
                read.append((await consumer.getone()).value)
            with pytest.raises(CorruptLogError) as caught:
                await consumer.getone()
            assert caught.value.next_readable_offset == last
            consumer.seek(TopicPartition("events", 0), caught.value.next_readable_offset)
            while len(read) < 30 - (last - first) + 1:
                read.append((await consumer.getone()).value)
        assert read == [*values[:first], *values[last:], b"after"]
