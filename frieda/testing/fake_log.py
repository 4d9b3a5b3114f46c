"""What a fake broker stores: topics of logs in memory, with the rules of idempotent producers."""

from __future__ import annotations

import uuid
from typing import Final

from frieda.errors import BrokerError, ErrorCode
from frieda.model import EARLIEST_TIMESTAMP, LATEST_TIMESTAMP, Record
from frieda.wire.batch import BatchHeader, check_batch, decode_batch, patch

SEQUENCE_MASK: Final = 0x7FFF_FFFF


class FakePartition:
    """A log in memory: whole batches with their offsets set, and what each producer sent last."""

    def __init__(self) -> None:
        self.batches: list[tuple[BatchHeader, bytes]] = []
        self.log_start_offset = 0
        self.end_offset = 0
        self.producers: dict[int, tuple[int, list[tuple[int, int, int]]]] = {}
        """Producer id -> epoch, and (first sequence, last sequence, base offset) of its last batches."""

    def append(self, body: bytes) -> int:
        """Store a batch; returns its base offset. Raises BrokerError."""
        batch = bytearray(body)
        header = check_batch(batch)
        stored = self._check_sequence(header)
        if stored is not None:
            return stored
        base_offset = self.end_offset
        patch(batch, base_offset, 0)
        self.batches.append((check_batch(batch), bytes(batch)))
        self.end_offset += header.record_count
        if header.producer_id >= 0:
            epoch, sent = self.producers.get(header.producer_id, (header.producer_epoch, []))
            if header.producer_epoch != epoch:
                sent = []
            last = (header.base_sequence + header.record_count - 1) & SEQUENCE_MASK
            sent = [*sent, (header.base_sequence, last, base_offset)][-64:]
            self.producers[header.producer_id] = (header.producer_epoch, sent)
        return base_offset

    def records(self, topic: str = "", partition: int = 0) -> list[Record]:
        """All that is stored."""
        return [
            record for _, batch in self.batches for record in decode_batch(batch, topic, partition)
        ]

    def read(self, offset: int, max_bytes: int) -> bytes:
        """Whole batches from the one that holds `offset` on: at least one."""
        found: list[bytes] = []
        size = 0
        for header, batch in self.batches:
            if header.last_offset < offset:
                continue
            if found and size + len(batch) > max_bytes:
                break
            found.append(batch)
            size += len(batch)
        return b"".join(found)

    def offset_for(self, timestamp_ms: int) -> tuple[int, int]:
        """(offset, timestamp) of the first record of that time or later; (-1, -1) when there is none."""
        if timestamp_ms == LATEST_TIMESTAMP:
            return self.end_offset, -1
        if timestamp_ms == EARLIEST_TIMESTAMP:
            return self.log_start_offset, -1
        for record in self.records():
            if record.timestamp_ms >= timestamp_ms:
                return record.offset, record.timestamp_ms
        return -1, -1

    def _check_sequence(self, header: BatchHeader) -> int | None:
        if header.producer_id < 0:
            return None
        known = self.producers.get(header.producer_id)
        if known is None:
            if header.base_sequence == 0:
                return None
            raise BrokerError(ErrorCode.UNKNOWN_PRODUCER_ID)
        epoch, sent = known
        if header.producer_epoch < epoch:
            raise BrokerError(ErrorCode.INVALID_PRODUCER_EPOCH)
        if header.producer_epoch > epoch:
            if header.base_sequence == 0:
                return None
            raise BrokerError(ErrorCode.OUT_OF_ORDER_SEQUENCE)
        last = (header.base_sequence + header.record_count - 1) & SEQUENCE_MASK
        for first_sent, last_sent, base_offset in sent:
            if (first_sent, last_sent) == (header.base_sequence, last):
                return base_offset
        if header.base_sequence != (sent[-1][1] + 1) & SEQUENCE_MASK:
            raise BrokerError(ErrorCode.OUT_OF_ORDER_SEQUENCE)
        return None


class FakeTopic:
    """A topic and its id."""

    def __init__(self, name: str, partitions: int, configs: dict[str, str]) -> None:
        self.name = name
        self.topic_id = uuid.uuid4().bytes
        self.configs = configs
        self.partitions = [FakePartition() for _ in range(partitions)]
