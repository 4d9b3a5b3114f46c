"""The same bytes in the hands of another client's codec (aiokafka's), in both directions."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from hypothesis import given
from hypothesis import strategies as st

from frieda.wire.compression import COMPRESSIONS

NOW_MS = 1_700_000_000_000
headers = st.lists(st.tuples(st.text(max_size=8), st.none() | st.binary(max_size=8)), max_size=3)
records_strategy = st.lists(
    st.tuples(
        st.integers(NOW_MS - 1000, NOW_MS + 100_000),
        st.none() | st.binary(max_size=40),
        st.none() | st.binary(max_size=300),
        headers,
    ),
    min_size=1,
    max_size=100,
)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@given(records=records_strategy)
def test_another_client_reads_what_we_build(
    codec: SimpleNamespace, compression: str, records: list[Any]
) -> None:
    builder = codec.batch.BatchBuilder()
    for record in records:
        builder.append(*record)
    batch = builder.build(5, 2, 77, compression)
    codec.batch.patch(batch, 1000, 3)
    theirs = DefaultRecordBatch(bytes(batch))
    assert theirs.validate_crc()
    assert (theirs.base_offset, theirs.next_offset) == (1000, 1000 + len(records))
    assert (theirs.producer_id, theirs.producer_epoch) == (5, 2)
    read = [(r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in theirs]
    assert read == [
        (1000 + index, timestamp_ms, key, value, tuple(headers))
        for index, (timestamp_ms, key, value, headers) in enumerate(records)
    ]


@pytest.mark.parametrize("compression", COMPRESSIONS)
@given(records=records_strategy)
def test_we_read_what_another_client_builds(
    codec: SimpleNamespace, compression: str, records: list[Any]
) -> None:
    builder = DefaultRecordBatchBuilder(2, COMPRESSIONS.index(compression), 0, 5, 2, 77, 1 << 20)
    for index, (timestamp_ms, key, value, headers) in enumerate(records):
        assert builder.append(index, timestamp_ms, key, value, headers) is not None
    batch = builder.build()
    header = codec.batch.check_batch(batch)
    codec.batch.check_records(batch, header)
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (5, 2, 77)
    read = [tuple(record[2:]) for record in codec.batch.decode_batch(batch, "t", 0)]
    assert read == [
        (index, timestamp_ms, key, value, tuple(headers))
        for index, (timestamp_ms, key, value, headers) in enumerate(records)
    ]


def test_uncompressed_both_build_the_same_bytes(codec: SimpleNamespace) -> None:
    theirs = DefaultRecordBatchBuilder(2, 0, 0, 5, 2, 77, 1 << 20)
    ours = codec.batch.BatchBuilder()
    for index in range(100):
        record = (NOW_MS + index, b"key %d" % index, b"value" * index, [("h", b"v")])
        theirs.append(index, *record)
        ours.append(*record)
    batch = ours.build(5, 2, 77)
    codec.batch.patch(batch, 0, 0)
    other = bytearray(theirs.build())
    codec.batch.patch(other, 0, 0)  # each writes another leader epoch for "not known"
    assert batch == other
