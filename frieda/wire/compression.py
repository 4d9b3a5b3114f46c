"""The record compressions of Kafka: gzip, snappy (as snappy-java frames it), lz4 frames and zstd.

gzip is the standard library's; the others come from cramjam, the optional extra `frieda[compression]`.
What is read may come from anyone, so every decompression is bounded: memory is taken in steps, and never
more than the caller's limit.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any, Final

from frieda.errors import BrokerError, ErrorCode, MissingDependencyError

COMPRESSIONS: Final = ("none", "gzip", "snappy", "lz4", "zstd")
"""The names, each at the number that the attributes of a batch carry."""

_GZIP_WINDOW_BITS: Final = 31  # a gzip header and trailer around deflate's largest window
_FIRST_STEP_BYTES: Final = 64 * 1024

# snappy-java's stream: this magic, two version numbers, then (length, raw snappy block) pairs. Its Java
# reader refuses blocks that unpack to more than it asked for, so the block size is snappy-java's own.
_XERIAL_MAGIC: Final = b"\x82SNAPPY\x00"
_XERIAL_HEADER: Final = _XERIAL_MAGIC + b"\x00\x00\x00\x01\x00\x00\x00\x01"
_XERIAL_BLOCK_BYTES: Final = 32 * 1024
_LZ4_LEVEL: Final = 3
_ZSTD_LEVEL: Final = 3
_GZIP_LEVEL: Final = 6

# What cramjam says when the output buffer is full (any other message means damaged input).
_OUTPUT_FULL: Final = "failed to write whole buffer"


def compress(payload: bytes | bytearray | memoryview, compression: str) -> bytes:
    """Compress `payload` as Kafka's clients would.

    Raises BrokerError(UNSUPPORTED_COMPRESSION) for an unknown name, MissingDependencyError when the codec
    is not installed.
    """
    match compression:
        case "none":
            return bytes(payload)
        case "gzip":
            return zlib.compress(payload, _GZIP_LEVEL, _GZIP_WINDOW_BITS)
        case "snappy":
            return _compress_xerial(memoryview(payload))
        case "lz4":
            # Independent blocks and no content checksum: all that Kafka's Java reader takes (KIP-57).
            compressor = _cramjam("lz4").lz4.Compressor(
                level=_LZ4_LEVEL, content_checksum=False, block_linked=False
            )
            compressor.compress(bytes(payload))  # it takes nothing else
            return bytes(compressor.finish())
        case "zstd":
            return bytes(_cramjam("zstd").zstd.compress(payload, level=_ZSTD_LEVEL))
    raise _unknown(compression)


def decompress(payload: bytes | bytearray | memoryview, compression: str, max_bytes: int) -> bytes:
    """Undo `compress`. Raw snappy without snappy-java's frame is read as well.

    Raises BrokerError: CORRUPT_MESSAGE when the bytes are damaged, INVALID_RECORD when they unpack to more
    than `max_bytes`, UNSUPPORTED_COMPRESSION for an unknown name; and MissingDependencyError.
    """
    match compression:
        case "none":
            if len(payload) > max_bytes:
                raise _too_large(compression, max_bytes)
            return bytes(payload)
        case "gzip":
            return _decompress_gzip(payload, max_bytes)
        case "snappy":
            return _decompress_snappy(memoryview(payload), max_bytes)
        case "lz4":
            return _decompress_stepwise(
                _cramjam("lz4").lz4.decompress_into, payload, compression, max_bytes
            )
        case "zstd":
            return _decompress_stepwise(
                _cramjam("zstd").zstd.decompress_into, payload, compression, max_bytes
            )
    raise _unknown(compression)


def require(compression: str) -> None:
    """Raise now what `compress` would: for a client that wants to know when it is made."""
    if compression not in COMPRESSIONS:
        raise _unknown(compression)
    if compression not in ("none", "gzip"):
        _cramjam(compression)


@cache
def _load_cramjam() -> Any:
    return import_module("cramjam")


def _cramjam(compression: str) -> Any:
    try:
        return _load_cramjam()
    except ImportError as error:
        raise MissingDependencyError(
            f"{compression} compression needs a package that is not installed: "
            "pip install 'frieda[compression]'"
        ) from error


def _decompress_gzip(payload: bytes | bytearray | memoryview, max_bytes: int) -> bytes:
    """One gzip member, as every Kafka client writes. (Reading many, as RFC 1952 allows, would let a
    megabyte of empty ones cost a terabyte of copying.)"""
    member = zlib.decompressobj(_GZIP_WINDOW_BITS)
    try:
        out = member.decompress(payload, max_bytes + 1)
    except zlib.error as error:
        raise _damaged("gzip", error) from error
    if len(out) > max_bytes:
        raise _too_large("gzip", max_bytes)
    if not member.eof:
        raise _damaged("gzip", "it ends too early")
    if member.unused_data:
        raise _damaged("gzip", f"{len(member.unused_data)} bytes follow its end")
    return out


def _compress_xerial(payload: memoryview) -> bytes:
    compress_block = _cramjam("snappy").snappy.compress_raw
    out = bytearray(_XERIAL_HEADER)
    for start in range(0, len(payload), _XERIAL_BLOCK_BYTES):
        block = compress_block(payload[start : start + _XERIAL_BLOCK_BYTES])
        out += len(block).to_bytes(4, "big")
        out += bytes(block)
    return bytes(out)


def _decompress_snappy(payload: memoryview, max_bytes: int) -> bytes:
    snappy = _cramjam("snappy").snappy
    if payload[: len(_XERIAL_MAGIC)].tobytes() != _XERIAL_MAGIC:
        return _decompress_snappy_block(snappy, payload, max_bytes, max_bytes)
    if len(payload) < len(_XERIAL_HEADER):
        raise _damaged("snappy", "it ends inside its header")
    out = bytearray()
    position = len(_XERIAL_HEADER)
    while position < len(payload):
        size = int.from_bytes(payload[position : position + 4], "big")
        position += 4
        if size > len(payload) - position:
            raise _damaged("snappy", f"a block of {size} bytes reaches past its end")
        block = payload[position : position + size]
        out += _decompress_snappy_block(snappy, block, max_bytes - len(out), max_bytes)
        position += size
    return bytes(out)


def _decompress_snappy_block(
    snappy: Any, block: memoryview, left_bytes: int, max_bytes: int
) -> bytes:
    try:
        size = snappy.decompress_raw_len(block)
    except _codec_error() as error:
        raise _damaged("snappy", error) from error
    if size > left_bytes:
        raise _too_large("snappy", max_bytes)
    # Three bytes of snappy unpack to at most 64 (its longest copy), so a larger claim is a lie.
    if 3 * size > 64 * len(block):
        raise _damaged("snappy", f"{len(block)} bytes claim to unpack to {size}")
    out = bytearray(size)
    try:
        written = snappy.decompress_raw_into(block, out)
    except _codec_error() as error:
        raise _damaged("snappy", error) from error
    if written != size:
        raise _damaged("snappy", f"it unpacks to {written} bytes and claims {size}")
    return bytes(out)


def _decompress_stepwise(
    decompress_into: Callable[[Any, Any], int],
    payload: bytes | bytearray | memoryview,
    compression: str,
    max_bytes: int,
) -> bytes:
    """Formats that need not say how much they unpack to: try a buffer, and a larger one when it is full."""
    size = min(max_bytes, max(_FIRST_STEP_BYTES, 4 * len(payload)))
    while True:
        out = bytearray(size)
        try:
            written = decompress_into(payload, out)
        except _codec_error() as error:
            if _OUTPUT_FULL not in str(error):
                raise _damaged(compression, error) from error
        else:
            with memoryview(out) as view:
                return bytes(view[:written])
        if size >= max_bytes:
            raise _too_large(compression, max_bytes)
        size = min(max_bytes, size * 4)


def _codec_error() -> type[Exception]:
    error: type[Exception] = _load_cramjam().DecompressionError
    return error


def _unknown(compression: str) -> BrokerError:
    return BrokerError(
        ErrorCode.UNSUPPORTED_COMPRESSION,
        f"unknown compression {compression!r}: use one of {', '.join(COMPRESSIONS)}",
    )


def _damaged(compression: str, why: object) -> BrokerError:
    return BrokerError(
        ErrorCode.CORRUPT_MESSAGE, f"the {compression} data of a record batch is damaged: {why}"
    )


def _too_large(compression: str, max_bytes: int) -> BrokerError:
    return BrokerError(
        ErrorCode.INVALID_RECORD,
        f"the {compression} data of a record batch unpacks to more than {max_bytes} bytes",
    )
