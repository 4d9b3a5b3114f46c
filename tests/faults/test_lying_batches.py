"""Record batches that are damaged, or sound but untrue: who finds what, from the produce to the consumer.

A produce is checked for all that the header alone gives away. What only the records tell is found by
`validate = deep`, by `frieda log verify` and by whoever reads; a reader goes on behind such a batch.
"""

from __future__ import annotations

import os
from pathlib import Path
from struct import pack_into

import pytest

from frieda import Consumer
from frieda.broker.server import Server
from frieda.errors import BrokerError, CorruptLogError, ErrorCode
from frieda.model import TopicPartition
from frieda.storage.filesystem import RealFileSystem
from frieda.storage.verify import verify_folder
from frieda.testing.batches import make_batch
from frieda.testing.brokers import running_server
from frieda.testing.conversation import create_topic, fetch_values, produce, unharmed
from frieda.testing.raw_client import raw_client
from frieda.wire.crc import crc32c
from frieda.wire.messages import ProduceRequest

LAST_OFFSET_DELTA = (">i", 23)
MAX_TIMESTAMP = (">q", 35)
PRODUCER_ID = (">q", 43)
RECORD_COUNT = (">i", 57)
ATTRIBUTES = (">h", 21)


def told(*lies: tuple[tuple[str, int], int], values: int = 2, compression: str = "none") -> bytes:
    """A batch whose header says something else than is true, under a checksum that is right."""
    batch = bytearray(
        make_batch([b"value %d" % number for number in range(values)], compression=compression)
    )
    for (layout, position), value in lies:
        pack_into(layout, batch, position, value)
    pack_into(">I", batch, 17, crc32c(batch, 21))
    return bytes(batch)


HEADER_LIES = {
    "more records than offsets": told((RECORD_COUNT, 3)),
    "more offsets than records": told((LAST_OFFSET_DELTA, 2)),
    "more records than bytes": told((RECORD_COUNT, 1000), (LAST_OFFSET_DELTA, 999)),
    "2 billion records": told((RECORD_COUNT, 2**31 - 1), (LAST_OFFSET_DELTA, 2**31 - 2)),
    "no records": told((RECORD_COUNT, 0), (LAST_OFFSET_DELTA, -1)),
    "fewer than no records": told((RECORD_COUNT, -5), (LAST_OFFSET_DELTA, -6)),
    "an unknown compression": told((ATTRIBUTES, 7)),
    "a control batch": told((ATTRIBUTES, 0x20)),
    "a producer without a sequence": told((PRODUCER_ID, 5)),
    "a time beyond all time": told((MAX_TIMESTAMP, 2**63 - 1)),
}
RECORD_LIES = {
    "3 records": told((RECORD_COUNT, 3), (LAST_OFFSET_DELTA, 2)),
    "1 record": told((RECORD_COUNT, 1), (LAST_OFFSET_DELTA, 0)),
    "5 records, compressed": told(
        (RECORD_COUNT, 5), (LAST_OFFSET_DELTA, 4), values=50, compression="gzip"
    ),
    "a compression that it does not have": told((ATTRIBUTES, 1)),
}


@pytest.mark.parametrize("lie", HEADER_LIES.values(), ids=HEADER_LIES.keys())
async def test_a_header_that_contradicts_itself_is_refused(server: Server, lie: bytes) -> None:
    async with unharmed(server) as topic_id, raw_client(server.urls[0]) as client:
        with pytest.raises(BrokerError) as caught:
            await client.call(ProduceRequest(topic_id, 0, 1, 1000), lie)
        assert caught.value.code in (ErrorCode.INVALID_RECORD, ErrorCode.UNSUPPORTED_COMPRESSION)
        assert not caught.value.retriable


async def test_every_bit_of_a_produced_batch_is_guarded(server: Server) -> None:
    sound = make_batch([b"a", b"bc"])
    async with unharmed(server) as topic_id, raw_client(server.urls[0]) as client:
        for bit in range(8 * len(sound)):
            if bit < 64 or 96 <= bit < 128:
                continue  # base offset and leader epoch are the broker's to set
            batch = bytearray(sound)
            batch[bit // 8] ^= 1 << bit % 8
            with pytest.raises(BrokerError) as caught:
                await client.call(ProduceRequest(topic_id, 0, 1, 1000), bytes(batch))
            assert caught.value.code in (ErrorCode.CORRUPT_MESSAGE, ErrorCode.INVALID_RECORD)


async def test_a_produce_of_part_of_a_batch_or_of_more_is_refused(server: Server) -> None:
    sound = bytes(make_batch([b"value"]))
    async with unharmed(server) as topic_id, raw_client(server.urls[0]) as client:
        for body in (b"", sound + b"\0", sound + sound, *(sound[:n] for n in range(1, len(sound)))):
            with pytest.raises(BrokerError) as caught:
                await client.call(ProduceRequest(topic_id, 0, 1, 1000), body)
            assert caught.value.code is ErrorCode.CORRUPT_MESSAGE


@pytest.mark.parametrize("lie", RECORD_LIES.values(), ids=RECORD_LIES.keys())
async def test_deep_validation_refuses_a_batch_whose_records_contradict_its_header(
    server: Server, lie: bytes
) -> None:
    async with unharmed(server), raw_client(server.urls[0]) as client:
        topic_id = await create_topic(client, validate="deep")
        for batch in (lie, told((MAX_TIMESTAMP, 7))):
            with pytest.raises(BrokerError) as caught:
                await client.call(ProduceRequest(topic_id, 0, 1, 1000), batch)
            assert caught.value.code in (ErrorCode.INVALID_RECORD, ErrorCode.CORRUPT_MESSAGE)
        assert await produce(client, topic_id, b"true") == 0
        assert await fetch_values(client, topic_id) == [b"true"]


@pytest.mark.parametrize("lie", RECORD_LIES.values(), ids=RECORD_LIES.keys())
async def test_without_it_verify_and_the_consumer_find_the_lie_and_the_rest_is_read(
    tmp_path: Path, lie: bytes
) -> None:
    async with running_server(tmp_path) as server:
        async with raw_client(server.urls[0]) as client:
            topic_id = await create_topic(client)
            await produce(client, topic_id, b"before")
            stored = await client.call(ProduceRequest(topic_id, 0, 1, 1000), lie)
            assert stored.base_offset == 1
            behind = await produce(client, topic_id, b"after")
        async with Consumer(
            server.urls[0], "events", start="earliest", polling="event"
        ) as consumer:
            assert (await consumer.getone()).value == b"before"
            with pytest.raises(CorruptLogError, match="offset 1") as caught:
                await consumer.getone()
            assert caught.value.next_readable_offset == behind
            consumer.seek(TopicPartition("events", 0), behind)
            assert (await consumer.getone()).value == b"after"
    reports = list(verify_folder(RealFileSystem(), os.fspath(tmp_path)))
    problems = [problem for report in reports for problem in report.problems]
    assert len(problems) == 1, problems
    assert "offset 1" in problems[0] or "byte" in problems[0]
