"""Batches as wholes: built, checked, re-stamped, read, and refused."""

from __future__ import annotations

from collections.abc import Callable
from struct import pack, pack_into
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frieda.errors import BrokerError, ErrorCode, LocalProtocolError
from frieda.model import Record
from frieda.wire.compression import COMPRESSIONS
from frieda.wire.crc import crc32c
from frieda.wire.varint import encode_varint

NOW_MS = 1_700_000_000_000
timestamps = st.one_of(st.integers(-1, 2**62), st.integers(NOW_MS - 100, NOW_MS + 100))
optional_bytes = st.none() | st.binary(max_size=200)
header_lists = st.lists(
    st.tuples(st.text(max_size=10), st.none() | st.binary(max_size=10)), max_size=3
)
record_lists = st.lists(
    st.tuples(timestamps, optional_bytes, optional_bytes, header_lists), min_size=1, max_size=80
)


def reference_records(records: list[tuple[int, Any, Any, Any]]) -> bytes:
    """The records section, written down from Kafka's documentation with the plain varints."""

    def sized(data: bytes | None) -> bytes:
        return encode_varint(-1) if data is None else encode_varint(len(data)) + data

    out = b""
    for offset_delta, (timestamp_ms, key, value, headers) in enumerate(records):
        body = b"\x00" + encode_varint(timestamp_ms - records[0][0]) + encode_varint(offset_delta)
        body += sized(key) + sized(value) + encode_varint(len(headers))
        for name, content in headers:
            body += sized(name.encode()) + sized(content)
        out += encode_varint(len(body)) + body
    return out


def build(
    codec: SimpleNamespace, records: list[tuple[int, Any, Any, Any]], **options: Any
) -> bytearray:
    builder = codec.batch.BatchBuilder(16384)
    for record in records:
        builder.append(*record)
    return builder.build(**options)


def sample(codec: SimpleNamespace, compression: str = "none") -> bytearray:
    """Five records with keys, nulls and headers."""
    return build(
        codec,
        [
            (NOW_MS, None, b"first", ()),
            (NOW_MS + 5, b"key", b"second" * 30, [("name", b"content"), ("none", None)]),
            (NOW_MS - 3, b"", b"", ()),
            (NOW_MS, b"deleted", None, ()),
            (NOW_MS + 70_000, None, None, [("", b"")]),
        ],
        producer_id=7,
        producer_epoch=1,
        base_sequence=100,
        compression=compression,
    )


def with_fields(batch: bytes | bytearray, **fields: int) -> bytearray:
    """A copy with header fields changed and, unless `crc` is given, a right checksum."""
    places = {
        "base_offset": (">q", 0),
        "batch_length": (">i", 8),
        "magic": (">b", 16),
        "crc": (">I", 17),
        "attributes": (">h", 21),
        "last_offset_delta": (">i", 23),
        "base_timestamp_ms": (">q", 27),
        "max_timestamp_ms": (">q", 35),
        "producer_id": (">q", 43),
        "producer_epoch": (">h", 51),
        "base_sequence": (">i", 53),
        "record_count": (">i", 57),
    }
    changed = bytearray(batch)
    for name, value in fields.items():
        layout, position = places[name]
        pack_into(layout, changed, position, value)
    if "crc" not in fields:
        pack_into(">I", changed, 17, crc32c(changed, 21))
    return changed


def with_records(
    codec: SimpleNamespace, section: bytes, count: int, last_offset_delta: int
) -> bytearray:
    """A batch with a sound header and checksum around any records section."""
    head = build(codec, [(NOW_MS, None, b"", ())])[:61]
    return with_fields(
        head + section,
        batch_length=49 + len(section),
        record_count=count,
        last_offset_delta=last_offset_delta,
    )


def refused(code: ErrorCode, match: str, call: Callable[[], object]) -> None:
    with pytest.raises(BrokerError, match=match or None) as caught:
        call()
    assert caught.value.code is code


@pytest.mark.parametrize("compression", COMPRESSIONS)
@given(records=record_lists)
def test_what_is_built_is_read_back(
    codec: SimpleNamespace, compression: str, records: list[tuple[int, Any, Any, Any]]
) -> None:
    batch = build(codec, records, compression=compression)
    header = codec.batch.check_batch(memoryview(batch))
    codec.batch.check_records(batch, header)
    assert header.compression == compression
    assert header.record_count == len(records)
    assert header.max_timestamp_ms == max(record[0] for record in records)
    codec.batch.patch(batch, 1000, 3)
    decoded = codec.batch.decode_batch(batch, "topic", 4)
    assert decoded == [
        Record("topic", 4, 1000 + index, timestamp_ms, key, value, tuple(headers))
        for index, (timestamp_ms, key, value, headers) in enumerate(records)
    ]
    assert all(type(record) is Record for record in decoded)


@given(
    records=record_lists,
    producer=st.tuples(
        st.integers(-1, 2**63 - 1), st.integers(-1, 2**15 - 1), st.integers(-1, 2**31 - 1)
    ),
)
def test_a_batch_of_one_is_what_a_builder_would_have_built(
    codec: SimpleNamespace,
    records: list[tuple[int, Any, Any, Any]],
    producer: tuple[int, int, int],
) -> None:
    builder = codec.batch.BatchBuilder()
    builder.append(*records[0])
    built = builder.build(*producer)
    batch = codec.batch.batch_of_one(*records[0], *producer)
    assert type(batch) is bytearray
    assert batch == built
    assert codec.batch.stamp_of(batch) == producer
    codec.batch.restamp(batch, 7, 1, 9)
    assert codec.batch.stamp_of(batch) == (7, 1, 9)
    codec.batch.check_batch(batch)


@pytest.mark.parametrize("size", [0, 1, 62, 63, 64, 8190, 8191, 8192, 100_000])
def test_a_batch_of_one_is_right_at_every_length_of_its_numbers(
    codec: SimpleNamespace, size: int
) -> None:
    for key, value in ((None, bytes(size)), (bytes(size), None), (bytes(size), b"v")):
        builder = codec.batch.BatchBuilder()
        builder.append(NOW_MS, key, value)
        assert codec.batch.batch_of_one(NOW_MS, key, value, (), -1, -1, -1) == builder.build()


def test_a_batch_of_one_refuses_what_cannot_be(codec: SimpleNamespace) -> None:
    for timestamp_ms in (-2, 2**62 + 1):
        with pytest.raises(LocalProtocolError, match="cannot be written"):
            codec.batch.batch_of_one(timestamp_ms, None, b"v", (), -1, -1, -1)
    for key, value in (("text", b"v"), (None, "text"), (None, 7)):
        with pytest.raises(TypeError):
            codec.batch.batch_of_one(NOW_MS, key, value, (), -1, -1, -1)


@given(records=record_lists)
def test_the_records_are_the_bytes_of_the_documentation(
    codec: SimpleNamespace, records: list[tuple[int, Any, Any, Any]]
) -> None:
    assert build(codec, records)[61:] == reference_records(records)


@given(
    timestamp_ms=timestamps,
    sizes=st.lists(st.integers(0, 300), min_size=1, max_size=150),
    before=st.integers(0, 70),
    limit=st.integers(0, 20_000),
)
def test_bulk_takes_what_one_by_one_would_fit_within_the_limit(
    codec: SimpleNamespace, timestamp_ms: int, sizes: list[int], before: int, limit: int
) -> None:
    values = [b"v" * size for size in sizes]
    builder, one_by_one = codec.batch.BatchBuilder(), codec.batch.BatchBuilder()
    for each in (builder, one_by_one):
        for _ in range(before):
            each.append(NOW_MS, b"key", None)
    taken = builder.append_values(timestamp_ms, values, 1, limit)
    for value in values[1 : 1 + taken]:
        assert one_by_one.size_bytes < limit or one_by_one.record_count == 0
        one_by_one.append(timestamp_ms, None, value)
    assert builder.record_count == one_by_one.record_count == before + taken
    if taken + 1 < len(values) and builder.record_count:
        size_before = one_by_one.size_bytes
        assert builder.size_bytes == size_before
        assert one_by_one.append(timestamp_ms, None, values[1 + taken]) > limit
    elif builder.record_count:
        assert builder.build() == one_by_one.build()


def test_the_first_record_of_a_batch_is_taken_whatever_the_limit(codec: SimpleNamespace) -> None:
    builder = codec.batch.BatchBuilder()
    assert builder.append_values(NOW_MS, [b"x" * 500, b"y"], 0, 100) == 1
    assert builder.append_values(NOW_MS, [b"x" * 500, b"y"], 1, 100) == 0
    assert builder.append_values(NOW_MS, [], 0, 10_000) == 0
    assert builder.append_values(NOW_MS, [b"z"], 1, 10_000) == 0
    assert builder.record_count == 1


def test_many_records_and_large_ones_grow_the_buffer(codec: SimpleNamespace) -> None:
    builder = codec.batch.BatchBuilder(64)
    values = [b"%d" % index for index in range(20_000)]  # offsets beyond the plain table of varints
    assert builder.append_values(NOW_MS, values, 0, 1 << 30) == 20_000
    builder.append(NOW_MS, None, b"x" * 3_000_000)
    records = codec.batch.decode_batch(builder.build(), "t", 0)
    assert [record.value for record in records[:-1]] == values
    assert len(records[-1].value) == 3_000_000


@given(record=st.tuples(timestamps, optional_bytes, optional_bytes, header_lists))
def test_the_size_said_before_bounds_the_size_after(codec: SimpleNamespace, record: Any) -> None:
    builder = codec.batch.BatchBuilder()
    before = builder.append(NOW_MS, b"some", b"record")
    after = builder.append(*record)
    bound = builder.record_size_bytes(*record[1:])
    assert after - before <= bound <= after - before + 36
    assert after == builder.size_bytes == len(builder.build())


def test_first_and_largest_timestamp_are_kept_while_building(codec: SimpleNamespace) -> None:
    builder = codec.batch.BatchBuilder()
    assert builder.first_timestamp_ms == -1
    for timestamp_ms in (500, 900, 100):
        builder.append(timestamp_ms, None, b"")
    builder.append_values(700, [b"", b""], 0, 10_000)
    assert builder.first_timestamp_ms == 500
    header = codec.batch.read_header(builder.build())
    assert (header.base_timestamp_ms, header.max_timestamp_ms) == (500, 900)


@pytest.mark.parametrize("timestamp_ms", [-2, 2**62 + 1])
def test_an_impossible_timestamp_is_refused_and_changes_nothing(
    codec: SimpleNamespace, timestamp_ms: int
) -> None:
    builder = codec.batch.BatchBuilder()
    builder.append(NOW_MS, None, b"kept")
    size = builder.size_bytes
    for call in (
        lambda: builder.append(timestamp_ms, None, b"x"),
        lambda: builder.append_values(timestamp_ms, [b"x"], 0, 1000),
    ):
        with pytest.raises(LocalProtocolError, match="cannot be written"):
            call()
    assert builder.size_bytes == size
    assert [record.value for record in codec.batch.decode_batch(builder.build(), "t", 0)] == [
        b"kept"
    ]


def test_a_wrong_type_in_the_middle_leaves_the_builder_as_it_was(codec: SimpleNamespace) -> None:
    builder = codec.batch.BatchBuilder()
    builder.append(NOW_MS, None, b"kept")
    size = builder.size_bytes
    for call in (
        lambda: builder.append_values(NOW_MS, [b"x" * 900, "text", b"y"], 0, 10_000),
        lambda: builder.append(NOW_MS, b"key", "text"),
        lambda: builder.append(NOW_MS, "text", b"value"),
        lambda: builder.append_values(NOW_MS, [b"x"], -1, 10_000),
    ):
        with pytest.raises((TypeError, ValueError)):
            call()
    assert (builder.size_bytes, builder.record_count) == (size, 1)
    codec.batch.check_batch(builder.build())


def test_an_empty_batch_is_not_built(codec: SimpleNamespace) -> None:
    with pytest.raises(LocalProtocolError, match="at least one record"):
        codec.batch.BatchBuilder().build()


def test_a_builder_is_spent_once_built(codec: SimpleNamespace) -> None:
    builder = codec.batch.BatchBuilder()
    builder.append(NOW_MS, None, b"x")
    batch = builder.build()
    kept = bytes(batch)
    for call in (
        builder.build,
        lambda: builder.append(NOW_MS, None, b"y"),
        lambda: builder.append_values(NOW_MS, [b"y"], 0, 10_000),
    ):
        with pytest.raises(LocalProtocolError, match="built already"):
            call()
    assert bytes(batch) == kept


def test_an_unknown_compression_does_not_spend_the_builder(codec: SimpleNamespace) -> None:
    builder = codec.batch.BatchBuilder()
    builder.append(NOW_MS, None, b"x")
    refused(
        ErrorCode.UNSUPPORTED_COMPRESSION, "brotli", lambda: builder.build(compression="brotli")
    )
    codec.batch.check_batch(builder.build())


def test_the_header_says_what_the_builder_was_told(codec: SimpleNamespace) -> None:
    batch = sample(codec)
    header = codec.batch.read_header(b"\xff" * 9 + batch, 9)
    assert header.size_bytes == len(batch)
    assert (header.base_offset, header.leader_epoch, header.last_offset_delta) == (0, -1, 4)
    assert (header.last_offset, header.next_offset) == (4, 5)
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (7, 1, 100)
    assert (header.compression, header.is_control, header.has_append_time) == ("none", False, False)
    assert codec.batch.crc_matches(batch, header)


def test_patching_leaves_the_checksum_right(codec: SimpleNamespace) -> None:
    batch = sample(codec)
    codec.batch.patch(memoryview(batch), 2**40, 12)
    header = codec.batch.check_batch(batch)
    assert (header.base_offset, header.leader_epoch) == (2**40, 12)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_restamping_changes_the_producer_and_nothing_else(
    codec: SimpleNamespace, compression: str
) -> None:
    batch = sample(codec, compression)
    before = codec.batch.decode_batch(batch, "t", 0)
    codec.batch.restamp(memoryview(batch), 8, 2, 0)
    header = codec.batch.check_batch(batch)
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (8, 2, 0)
    assert codec.batch.decode_batch(batch, "t", 0) == before


def test_records_below_the_wanted_offset_are_left_out(codec: SimpleNamespace) -> None:
    batch = sample(codec)
    codec.batch.patch(batch, 50, 0)
    for from_offset in range(48, 57):
        offsets = [r.offset for r in codec.batch.decode_batch(batch, "t", 0, from_offset)]
        assert offsets == list(range(max(50, from_offset), 55))


def test_a_fetch_answer_is_walked_and_its_cut_off_end_ignored(codec: SimpleNamespace) -> None:
    first, second = sample(codec), sample(codec, "gzip")
    codec.batch.patch(second, 5, 0)
    answer = bytes(first + second)
    positions = [(0, 0), (len(first), 5)]
    for size in range(len(answer) + 1):
        found = [
            (p, h.base_offset) for p, h in codec.batch.iterate_batches(memoryview(answer)[:size])
        ]
        whole = (size >= len(first)) + (size == len(answer))
        assert found == positions[:whole]


def test_a_control_batch_has_no_records_for_people(codec: SimpleNamespace) -> None:
    control = with_fields(sample(codec), attributes=0x20)
    assert codec.batch.decode_batch(control, "t", 0) == []
    refused(
        ErrorCode.INVALID_RECORD, "only a broker may set", lambda: codec.batch.check_batch(control)
    )


def test_with_append_time_every_record_has_the_batchs_timestamp(codec: SimpleNamespace) -> None:
    stamped = with_fields(sample(codec), attributes=0x08, max_timestamp_ms=NOW_MS + 99)
    records = codec.batch.decode_batch(stamped, "t", 0)
    assert {record.timestamp_ms for record in records} == {NOW_MS + 99}
    refused(
        ErrorCode.INVALID_RECORD, "only a broker may set", lambda: codec.batch.check_batch(stamped)
    )


def test_a_compacted_batch_is_read_but_may_not_be_produced(codec: SimpleNamespace) -> None:
    def record(offset_delta: int) -> bytes:
        return b"\x0e\x00\x00" + encode_varint(offset_delta) + b"\x01\x02x\x00"

    thinned = with_records(codec, record(2) + record(7), 2, 9)
    assert [r.offset for r in codec.batch.decode_batch(thinned, "t", 0)] == [2, 7]
    emptied = with_records(codec, b"", 0, 9)
    assert codec.batch.decode_batch(emptied, "t", 0) == []
    for batch in (thinned, emptied):
        refused(
            ErrorCode.INVALID_RECORD, "says", lambda batch=batch: codec.batch.check_batch(batch)
        )


# --- what must be refused ---------------------------------------------------------------------------


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_batch_cut_at_any_byte_is_corrupt(codec: SimpleNamespace, compression: str) -> None:
    batch = bytes(sample(codec, compression))
    for size in range(len(batch)):
        cut = memoryview(batch)[:size]
        for call in (codec.batch.check_batch, lambda cut: codec.batch.decode_batch(cut, "t", 0)):
            refused(ErrorCode.CORRUPT_MESSAGE, "", lambda cut=cut, call=call: call(cut))


def test_bytes_behind_the_batch_are_corrupt(codec: SimpleNamespace) -> None:
    longer = sample(codec) + b"\x00"
    refused(ErrorCode.CORRUPT_MESSAGE, "says it has", lambda: codec.batch.check_batch(longer))
    refused(
        ErrorCode.CORRUPT_MESSAGE, "says it has", lambda: codec.batch.decode_batch(longer, "t", 0)
    )


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_every_flipped_bit_that_the_checksum_covers_is_found(
    codec: SimpleNamespace, compression: str
) -> None:
    batch = sample(codec, compression)
    header = codec.batch.read_header(batch)
    for position in range(17, len(batch)):
        for bit in range(8):
            batch[position] ^= 1 << bit
            if position >= 21:
                assert not codec.batch.crc_matches(batch, header)
            for call in (codec.batch.check_batch, lambda b: codec.batch.decode_batch(b, "t", 0)):
                refused(ErrorCode.CORRUPT_MESSAGE, "checksum", lambda call=call: call(batch))
            batch[position] ^= 1 << bit
    codec.batch.check_batch(batch)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"magic": 0}, ErrorCode.INVALID_RECORD),
        ({"magic": 1}, ErrorCode.INVALID_RECORD),
        ({"magic": 3}, ErrorCode.CORRUPT_MESSAGE),
        ({"batch_length": -1}, ErrorCode.CORRUPT_MESSAGE),
        ({"batch_length": 0}, ErrorCode.CORRUPT_MESSAGE),
        ({"batch_length": 48}, ErrorCode.CORRUPT_MESSAGE),
        ({"batch_length": 2**31 - 1}, ErrorCode.CORRUPT_MESSAGE),
        ({"base_offset": -1}, ErrorCode.CORRUPT_MESSAGE),
    ],
)
def test_a_header_that_leads_nowhere_is_refused(
    codec: SimpleNamespace, fields: dict[str, int], code: ErrorCode
) -> None:
    batch = with_fields(sample(codec), **fields)
    refused(code, "", lambda: codec.batch.read_header(batch))
    refused(code, "", lambda: list(codec.batch.iterate_batches(batch)))


def test_a_position_outside_the_buffer_is_refused(codec: SimpleNamespace) -> None:
    batch = sample(codec)
    for position in (-1, len(batch) - 60, len(batch), len(batch) + 1):
        refused(ErrorCode.CORRUPT_MESSAGE, "", lambda p=position: codec.batch.read_header(batch, p))


@pytest.mark.parametrize(
    "fields",
    [
        {"record_count": 4},
        {"record_count": 6},
        {"record_count": 0},
        {"record_count": -1},
        {"record_count": 2**31 - 1, "last_offset_delta": 2**31 - 2},
        {"last_offset_delta": 5},
        {"last_offset_delta": -1},
        {"record_count": 0, "last_offset_delta": -1},
        {"base_timestamp_ms": -2},
        {"base_timestamp_ms": 2**63 - 1},
        {"max_timestamp_ms": -(2**63)},
        {"attributes": 0x08},
        {"base_sequence": -1},
        {"producer_epoch": -1},
    ],
)
def test_a_header_that_lies_is_not_taken_from_a_producer(
    codec: SimpleNamespace, fields: dict[str, int]
) -> None:
    batch = with_fields(sample(codec), **fields)
    refused(
        ErrorCode.INVALID_RECORD, "the batch at offset 0", lambda: codec.batch.check_batch(batch)
    )


@pytest.mark.parametrize("number", [5, 6, 7])
def test_an_unknown_compression_is_refused(codec: SimpleNamespace, number: int) -> None:
    batch = with_fields(sample(codec), attributes=number)
    for call in (codec.batch.check_batch, lambda b: codec.batch.decode_batch(b, "t", 0)):
        refused(ErrorCode.UNSUPPORTED_COMPRESSION, str(number), lambda call=call: call(batch))


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("count", [1, 4, 6, 40])
def test_a_count_that_lies_is_found_by_walking(
    codec: SimpleNamespace, compression: str, count: int
) -> None:
    batch = with_fields(sample(codec, compression), record_count=count, last_offset_delta=count - 1)
    header = codec.batch.read_header(batch)
    for call in (
        lambda: codec.batch.check_records(batch, header),
        lambda: codec.batch.decode_batch(batch, "t", 0),
    ):
        refused(ErrorCode.INVALID_RECORD, "record|follow", call)


def test_a_largest_timestamp_that_lies_is_found_by_the_deep_check(codec: SimpleNamespace) -> None:
    batch = with_fields(sample(codec), max_timestamp_ms=NOW_MS)
    header = codec.batch.check_batch(batch)
    refused(
        ErrorCode.INVALID_RECORD,
        "largest timestamp",
        lambda: codec.batch.check_records(batch, header),
    )


def test_compressed_records_unpack_to_no_more_than_the_reader_allows(
    codec: SimpleNamespace,
) -> None:
    batch = build(codec, [(NOW_MS, None, bytes(1 << 20), ())], compression="gzip")
    header = codec.batch.check_batch(batch)
    for call in (
        lambda: codec.batch.decode_batch(batch, "t", 0, max_bytes=1 << 20),
        lambda: codec.batch.check_records(batch, header, 1 << 20),
    ):
        refused(ErrorCode.INVALID_RECORD, "more than 1048576 bytes", call)
    assert len(codec.batch.decode_batch(batch, "t", 0)) == 1


LIES = {
    "length past the end": b"\x20\x00\x00\x00\x01\x02x\x00",
    "length shorter than the record": b"\x0c\x00\x00\x00\x01\x02x\x00",
    "negative length": b"\x0d\x00\x00\x00\x01\x02x\x00",
    "length of eleven bytes": b"\x80" * 10 + b"\x00" + b"\x00" * 8,
    "length above 63 bits": b"\xfe" + b"\xff" * 8 + b"\x01" + b"\x00" * 8,
    "length of zero": b"\x00",
    "empty": b"",
    "ends after the attributes": b"\x02\x00",
    "ends inside the timestamp": b"\x04\x00\x80",
    "timestamp of eleven bytes": b"\x20\x00" + b"\x80" * 11 + b"\x00\x01\x01\x00",
    "timestamp too late": b"\x1e\x00" + encode_varint(2**63 - 1) + b"\x00\x01\x01\x00",
    "negative offset": b"\x0e\x00\x00\x01\x01\x02x\x00",
    "offset past the last": b"\x0e\x00\x00\x02\x01\x02x\x00",
    "key past the record": b"\x0e\x00\x00\x00\x20\x02x\x00",
    "key of length -2": b"\x0e\x00\x00\x00\x03\x02x\x00",
    "key of 2**62 bytes": b"\x1c\x00\x00\x00" + encode_varint(2**62) + b"\x00",
    "value past the record": b"\x0e\x00\x00\x00\x01\x20x\x00",
    "value of length -2": b"\x0e\x00\x00\x00\x01\x03x\x00",
    "headers negative": b"\x0e\x00\x00\x00\x01\x02x\x01",
    "headers without end": b"\x10\x00\x00\x00\x01\x02x\xfe\x01",
    "header count of 2**62": b"\x20\x00\x00\x00\x01\x02x" + encode_varint(2**62),
    "header key past the record": b"\x14\x00\x00\x00\x01\x02x\x02\x20k\x00",
    "header key null": b"\x14\x00\x00\x00\x01\x02x\x02\x01k\x00",
    "header key not UTF-8": b"\x14\x00\x00\x00\x01\x02x\x02\x02\xff\x00",
    "header value past the record": b"\x14\x00\x00\x00\x01\x02x\x02\x02k\x20",
    "header value of length -2": b"\x14\x00\x00\x00\x01\x02x\x02\x02k\x03",
    "bytes after the record": b"\x0e\x00\x00\x00\x01\x02x\x00\x00",
}


@pytest.mark.parametrize("lie", LIES)
def test_a_record_that_lies_about_itself_is_invalid(codec: SimpleNamespace, lie: str) -> None:
    batch = with_records(codec, LIES[lie], 1, 0)
    header = codec.batch.read_header(batch)
    for call in (
        lambda: codec.batch.decode_batch(batch, "t", 0),
        lambda: codec.batch.decode_batch(batch, "t", 0, 10),
        lambda: codec.batch.check_records(batch, header),
    ):
        refused(ErrorCode.INVALID_RECORD, "batch at offset 0", call)


def test_offsets_that_do_not_rise_are_invalid(codec: SimpleNamespace) -> None:
    record = b"\x0e\x00\x00\x00\x01\x02x\x00"
    batch = with_records(codec, record + record, 2, 1)
    refused(
        ErrorCode.INVALID_RECORD, "record 1 .* out of order",
        lambda: codec.batch.decode_batch(batch, "t", 0),
    )  # fmt: skip


def test_a_records_section_cut_at_any_byte_is_invalid(codec: SimpleNamespace) -> None:
    section = bytes(sample(codec)[61:])
    for size in range(len(section)):
        batch = with_records(codec, section[:size], 5, 4)
        refused(
            ErrorCode.INVALID_RECORD,
            "",
            lambda batch=batch: codec.batch.decode_batch(batch, "t", 0),
        )


def test_a_batch_at_the_last_possible_offset_does_not_wrap(codec: SimpleNamespace) -> None:
    batch = sample(codec)
    codec.batch.patch(batch, 2**62, 0)
    assert codec.batch.decode_batch(batch, "t", 0)[-1].offset == 2**62 + 4
    codec.batch.patch(batch, 2**62 + 1, 0)
    refused(ErrorCode.INVALID_RECORD, "offset", lambda: codec.batch.decode_batch(batch, "t", 0))


@given(section=st.binary(max_size=200), count=st.integers(0, 40), delta=st.integers(-1, 50))
def test_any_records_section_decodes_or_raises_broker_error(
    codec: SimpleNamespace, section: bytes, count: int, delta: int
) -> None:
    batch = with_records(codec, section, count, delta)
    try:
        records = codec.batch.decode_batch(batch, "t", 0)
    except BrokerError:
        return
    assert len(records) == count


def test_the_reader_refuses_bytes_without_padding(codec: SimpleNamespace) -> None:
    for data in (b"", b"x" * 40, pack(">i", 1)):
        with pytest.raises(ValueError, match="padding"):
            codec.records.read_records(data, 0, 1, 0, "t", 0, 0, 0, -1, 0, None)


def test_a_read_record_behaves_as_any_other_tuple(codec: SimpleNamespace) -> None:
    batch = sample(codec)
    record = codec.batch.decode_batch(batch, "t", 0)[1]
    same = Record(*record)
    assert record == same
    assert hash(record) == hash(same)
    assert record._replace(offset=9).offset == 9
    assert {same: 1}[record] == 1
    assert repr(record) == repr(same)
