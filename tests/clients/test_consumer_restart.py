"""The Consumer against a real broker process that is killed while it reads."""

from __future__ import annotations

import asyncio
from pathlib import Path

from frieda.clients.admin import Admin
from frieda.clients.consumer import Consumer
from frieda.clients.producer import Producer
from frieda.testing.brokers import BrokerProcess

ROUNDS = 4
RECORDS_PER_ROUND = 2000


async def test_a_killed_broker_costs_a_consumer_neither_a_record_nor_a_repetition(
    tmp_path: Path,
    process_listen: str,
) -> None:
    with BrokerProcess(tmp_path / "data", "--flush", "batch", listen=process_listen) as broker:
        async with Admin(broker.url) as admin:
            await admin.create_topic("t", partitions=2)
        seen: dict[int, list[int]] = {0: [], 1: []}
        values: set[bytes | None] = set()
        async with (
            Consumer(broker.url, "t", start="earliest", polling="event") as consumer,
            Producer(broker.url, polling="event") as producer,
        ):
            for round_number in range(ROUNDS):
                first = round_number * RECORDS_PER_ROUND
                sent = [b"%d" % number for number in range(first, first + RECORDS_PER_ROUND)]
                sending = asyncio.ensure_future(producer.send_batch("t", sent))
                # Half of what is there by now is read, so that the end comes in the middle of a batch.
                async with asyncio.timeout(60):
                    for _ in range(RECORDS_PER_ROUND // 2):
                        record = await consumer.getone()
                        seen[record.partition].append(record.offset)
                        values.add(record.value)
                    if round_number < ROUNDS - 1:
                        broker.kill()
                        broker.start()
                    await sending
            async with asyncio.timeout(60):
                while len(values) < ROUNDS * RECORDS_PER_ROUND:
                    record = await consumer.getone()
                    seen[record.partition].append(record.offset)
                    values.add(record.value)
            assert consumer.health().reconnects >= 1
        for offsets in seen.values():
            assert offsets == list(range(len(offsets)))
        assert sum(map(len, seen.values())) == ROUNDS * RECORDS_PER_ROUND
        assert values == {b"%d" % number for number in range(ROUNDS * RECORDS_PER_ROUND)}
