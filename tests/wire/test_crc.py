import pytest
from hypothesis import given
from hypothesis import strategies as st

from frieda.wire import crc
from frieda.wire.crc import crc32c


def reference(data: bytes) -> int:
    """CRC-32C bit by bit, as RFC 3720 (appendix B.4) defines it."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = (register >> 1) ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"", 0), (b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43)],
)
def test_the_vectors_of_the_standard(data: bytes, expected: int) -> None:
    assert crc32c(data) == expected


@given(st.binary(max_size=64), st.integers(0, 70))
def test_every_kind_of_buffer_gives_the_same_sum_from_any_start(data: bytes, start: int) -> None:
    expected = reference(data[start:])
    for kind in (bytes, bytearray, memoryview):
        assert crc32c(kind(data), start) == expected
    assert crc32c(memoryview(b"xx" + data + b"yy")[2:-2], start) == expected


def test_a_buffer_larger_than_one_piece_is_summed_whole() -> None:
    data = bytes(range(256)) * (3 * crc._PIECE_BYTES // 256) + b"tail"
    whole = int(crc.extend(0, data))
    assert crc32c(memoryview(data)) == whole
    assert crc32c(bytearray(data), 21) == int(crc.extend(0, data[21:]))
