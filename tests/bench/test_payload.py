"""Values and keys: different ones in turn, the same again from the same seed, and a file read within bounds."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frieda.bench import payload
from frieda.bench.load import Load, shares
from frieda.bench.payload import keys_of, mean_bytes, values_of
from frieda.errors import ConfigError


@given(size=st.integers(1, 5000), seed=st.integers(0, 10**9))
def test_random_values_have_their_size_and_come_again_from_the_same_seed(
    size: int, seed: int
) -> None:
    load = Load(records=1, record_size_bytes=size, seed=seed)
    values = values_of(load)
    assert {len(value) for value in values} == {size}
    assert values == values_of(load)
    assert values != values_of(load, seed + 1) or size < 3
    assert len(set(values)) > 1 or size == 1


def test_large_random_values_are_fewer() -> None:
    values = values_of(Load(records=1, record_size_bytes=16 * 1024 * 1024))
    assert sum(map(len, values)) <= payload.MAX_RANDOM_BYTES


def test_the_lines_of_a_file_are_sent_without_the_empty_ones(tmp_path: Path) -> None:
    file = tmp_path / "lines"
    file.write_bytes(b"one\n\nthree\r\nfive")
    values = values_of(Load(records=1, payload=str(file)))
    assert values == [b"one", b"three", b"five"]
    assert mean_bytes(values) == 4.0


def test_the_blocks_of_a_file_are_whole(tmp_path: Path) -> None:
    file = tmp_path / "blocks"
    file.write_bytes(bytes(range(10)))
    load = Load(records=1, record_size_bytes=4, payload=str(file), payload_form="blocks")
    assert values_of(load) == [bytes(range(4)), bytes(range(4, 8))]


def test_a_file_that_cannot_be_a_payload_is_refused_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    with pytest.raises(ConfigError, match=rf"payload {file}: cannot be read: No such file"):
        values_of(Load(records=1, payload=str(file)))
    file.write_bytes(b"\n\n")
    with pytest.raises(ConfigError, match="it holds no line"):
        values_of(Load(records=1, payload=str(file)))
    with pytest.raises(ConfigError, match="it holds no block of 100 B"):
        values_of(Load(records=1, payload=str(file), payload_form="blocks"))
    monkeypatch.setattr(payload, "MAX_PAYLOAD_BYTES", 1)
    with pytest.raises(ConfigError, match="2 bytes; at most 1 are read"):
        values_of(Load(records=1, payload=str(file)))


def test_every_producer_draws_its_own_keys() -> None:
    load = Load(records=2, producers=2, keys=5)
    [[first, second]] = shares(load)
    drawn = [list(islice(keys_of(load, share), 100)) for share in (first, second, first)]
    assert drawn[0] == drawn[2] != drawn[1]
    assert set(drawn[0]) == {b"key-%d" % number for number in range(5)}
    plain = Load(records=1)
    assert list(islice(keys_of(plain, first), 3)) == [None] * 3
