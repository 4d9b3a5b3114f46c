import sys
import zlib

import pytest
from aiokafka import codec as aiokafka_codec
from hypothesis import given
from hypothesis import strategies as st

from frieda.errors import BrokerError, ErrorCode, MissingDependencyError
from frieda.wire import compression
from frieda.wire.compression import COMPRESSIONS, compress, decompress, require

PACKED = COMPRESSIONS[1:]
LIMIT = 1 << 20
TEXT = b"the quick brown fox " * 5000  # more than one snappy block, and more than it packs to


@pytest.mark.parametrize("name", COMPRESSIONS)
@given(data=st.binary(max_size=3000), repeat=st.sampled_from([1, 40]))
def test_what_is_compressed_unpacks_to_itself(name: str, data: bytes, repeat: int) -> None:
    payload = data * repeat
    for kind in (bytes, bytearray, memoryview):
        packed = compress(kind(payload), name)
        assert isinstance(packed, bytes)
        assert decompress(kind(packed), name, LIMIT) == payload


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("payload", [b"x", TEXT])
def test_another_client_reads_it_and_we_read_what_it_writes(name: str, payload: bytes) -> None:
    encode = getattr(aiokafka_codec, f"{name}_encode")
    decode = getattr(aiokafka_codec, f"{name}_decode")
    assert bytes(decode(compress(payload, name))) == payload
    assert decompress(encode(payload), name, LIMIT) == payload


def test_raw_snappy_without_a_frame_is_read_as_well() -> None:
    raw = aiokafka_codec.snappy_encode(TEXT, xerial_compatible=False)
    assert decompress(raw, "snappy", LIMIT) == TEXT


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_exactly_the_limit_unpacks_and_one_byte_more_does_not(name: str) -> None:
    packed = compress(TEXT, name)
    assert decompress(packed, name, len(TEXT)) == TEXT
    with pytest.raises(BrokerError, match="more than") as caught:
        decompress(packed, name, len(TEXT) - 1)
    assert caught.value.code is ErrorCode.INVALID_RECORD


@pytest.mark.parametrize("name", PACKED)
def test_a_bomb_takes_no_more_memory_than_the_limit(name: str) -> None:
    tracemalloc = pytest.importorskip("tracemalloc")
    bomb = compress(bytes(64 << 20), name)
    tracemalloc.start()
    try:
        with pytest.raises(BrokerError, match="more than"):
            decompress(bomb, name, LIMIT)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * LIMIT


@pytest.mark.parametrize("name", PACKED)
def test_compressed_data_cut_at_any_byte_is_corrupt(name: str) -> None:
    packed = compress(TEXT[:200], name)
    sizes = set(range(len(packed)))
    if name == "snappy":
        # snappy-java's frame does not say how many blocks it has: its bare header is an empty one.
        sizes.remove(16)
        assert decompress(packed[:16], name, LIMIT) == b""
    for size in sizes:
        with pytest.raises(BrokerError) as caught:
            decompress(packed[:size], name, LIMIT)
        assert caught.value.code is ErrorCode.CORRUPT_MESSAGE


@pytest.mark.parametrize("name", PACKED)
def test_bytes_after_the_end_are_corrupt(name: str) -> None:
    with pytest.raises(BrokerError) as caught:
        decompress(compress(TEXT, name) + b"\x7ftrailing bytes", name, LIMIT)
    assert caught.value.code is ErrorCode.CORRUPT_MESSAGE


@pytest.mark.parametrize("name", PACKED)
@given(data=st.binary(max_size=200), prefixed=st.booleans())
def test_garbage_unpacks_or_raises_broker_error(name: str, data: bytes, prefixed: bool) -> None:
    start = compress(b"", name) if prefixed else b""
    try:
        unpacked = decompress(start + data, name, LIMIT)
    except BrokerError:
        return
    assert len(unpacked) <= LIMIT


def test_a_snappy_block_cannot_claim_more_than_it_can_hold() -> None:
    with pytest.raises(BrokerError, match="claim to unpack"):
        decompress(b"\xff\xff\x3f\x00", "snappy", 1 << 30)


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    for call in (lambda: compress(b"", "brotli"), lambda: decompress(b"", "brotli", 1)):
        with pytest.raises(BrokerError, match="use one of none, gzip, snappy") as caught:
            call()
        assert caught.value.code is ErrorCode.UNSUPPORTED_COMPRESSION
    with pytest.raises(BrokerError, match="brotli"):
        require("brotli")


@pytest.mark.parametrize("name", ["snappy", "lz4", "zstd"])
def test_without_the_codecs_package_the_error_says_what_to_install(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = compress(TEXT, name)
    monkeypatch.setitem(sys.modules, "cramjam", None)
    compression._load_cramjam.cache_clear()
    try:
        for call in (
            lambda: compress(TEXT, name),
            lambda: decompress(packed, name, LIMIT),
            lambda: require(name),
        ):
            with pytest.raises(
                MissingDependencyError, match=r"pip install 'frieda\[compression\]'"
            ):
                call()
    finally:
        compression._load_cramjam.cache_clear()


def test_gzip_and_none_need_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cramjam", None)
    compression._load_cramjam.cache_clear()
    try:
        for name in ("none", "gzip"):
            require(name)
            assert decompress(compress(TEXT, name), name, LIMIT) == TEXT
        assert zlib.decompress(compress(TEXT, "gzip"), 31) == TEXT
    finally:
        compression._load_cramjam.cache_clear()
