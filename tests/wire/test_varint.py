import pytest
from hypothesis import given
from hypothesis import strategies as st

from frieda.errors import BrokerError, ErrorCode
from frieda.wire.varint import decode_varint, encode_varint, varint_size_bytes

int64 = st.integers(-(2**63), 2**63 - 1)


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00"),
        (-1, "01"),
        (1, "02"),
        (63, "7e"),
        (-64, "7f"),
        (64, "8001"),
        (-65, "8101"),
        (8191, "fe7f"),
        (2147483647, "feffffff0f"),
        (-2147483648, "ffffffff0f"),
        (2**63 - 1, "feffffffffffffffff01"),
        (-(2**63), "ffffffffffffffffff01"),
    ],
)
def test_known_numbers_have_the_bytes_that_kafka_gives_them(value: int, encoded: str) -> None:
    assert encode_varint(value).hex() == encoded
    assert decode_varint(bytes.fromhex(encoded)) == (value, len(encoded) // 2)


@given(int64, st.binary(max_size=4), st.binary(max_size=4))
def test_what_is_written_is_read_whatever_surrounds_it(
    value: int, before: bytes, after: bytes
) -> None:
    encoded = encode_varint(value)
    assert varint_size_bytes(value) == len(encoded)
    for kind in (bytes, bytearray, memoryview):
        buffer = kind(before + encoded + after)
        assert decode_varint(buffer, len(before)) == (value, len(before) + len(encoded))


@given(int64)
def test_a_varint_cut_at_any_byte_is_corrupt(value: int) -> None:
    encoded = encode_varint(value)
    for size in range(len(encoded)):
        with pytest.raises(BrokerError, match="end inside a varint") as caught:
            decode_varint(encoded[:size])
        assert caught.value.code is ErrorCode.CORRUPT_MESSAGE


@pytest.mark.parametrize("encoded", [b"\x80" * 11, b"\xff" * 9 + b"\x02", b"\x80" * 10 + b"\x00"])
def test_a_varint_of_more_than_64_bits_is_corrupt(encoded: bytes) -> None:
    with pytest.raises(BrokerError, match="more than 64 bits"):
        decode_varint(encoded)


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1])
def test_a_number_of_more_than_64_bits_is_not_written(value: int) -> None:
    with pytest.raises(OverflowError):
        encode_varint(value)
