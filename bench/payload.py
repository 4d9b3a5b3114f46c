"""The values and keys of the records that a load sends, made or read before it begins.

Random values are different ones in turn, so that no layer sees the same bytes twice in a row; those of a file are
sent in its order, again and again.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import repeat
from pathlib import Path
from typing import Final

from frieda.bench.load import MAX_RECORD_BYTES, Load, ProducerShare, drawn_keys
from frieda.errors import ConfigError

RANDOM_VALUES: Final = 64
MAX_RANDOM_BYTES: Final = 64 * 1024 * 1024
MAX_PAYLOAD_BYTES: Final = 256 * 1024 * 1024


def values_of(load: Load, seed: int | None = None) -> Sequence[bytes]:
    """The different values of a load, to be sent in turn; random ones from `seed`, the load's own when None.

    Raises ConfigError for a payload file that cannot be read, is too large or holds no whole record.
    """
    if load.payload is None:
        generator = random.Random(load.seed if seed is None else seed)
        size = load.record_size_bytes
        count = max(2, min(RANDOM_VALUES, MAX_RANDOM_BYTES // size))
        return [generator.randbytes(size) for _ in range(count)]
    data = _read(Path(load.payload))
    if load.payload_form == "lines":
        values = [line for line in data.splitlines() if line]
    else:
        size = load.record_size_bytes
        values = [data[at : at + size] for at in range(0, len(data) - size + 1, size)]
    if not values:
        whole = "line" if load.payload_form == "lines" else f"block of {load.record_size_bytes} B"
        raise ConfigError(f"payload {load.payload}: it holds no {whole}; give a larger file")
    longest = max(map(len, values))
    if longest > MAX_RECORD_BYTES:
        raise ConfigError(
            f"payload {load.payload}: a line has {longest} bytes; at most {MAX_RECORD_BYTES} are allowed"
        )
    return values


def mean_bytes(values: Sequence[bytes]) -> float:
    """The size of a value on average."""
    return sum(map(len, values)) / len(values)


def keys_of(load: Load, share: ProducerShare) -> Iterator[bytes | None]:
    """The key of each record of one producer, without end."""
    if load.keys is None:
        return repeat(None)
    names = [b"key-%d" % number for number in range(load.keys)]
    return (names[key] for key in drawn_keys(load.keys, load.key_distribution, share.seed))


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_PAYLOAD_BYTES:
            raise ConfigError(f"payload {path}: {size} bytes; at most {MAX_PAYLOAD_BYTES} are read")
        with path.open("rb") as file:
            return file.read(MAX_PAYLOAD_BYTES)
    except OSError as error:
        raise ConfigError(f"payload {path}: cannot be read: {error.strerror}") from None
