"""The TOML file of a matrix: every combination is a point, and every mistake is named by its key."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frieda.bench.matrix import Matrix, matrix_of, read_matrix
from frieda.bench.plan import Batching, Plan
from frieda.cli.contenders import find_contenders
from frieda.errors import ConfigError

EXAMPLES = Path(__file__).parents[2] / "bench" / "matrices"


def matrix(text: str) -> Matrix:
    return matrix_of(tomllib.loads(text))


def test_every_combination_that_fits_is_a_point_once() -> None:
    read = matrix(
        """
        [[points]]
        producers = [1, 2]
        record_size = [100, 1024]
        acks = [1, "all"]
        rate = 1000
        [[points]]
        producers = 2
        brokers = [1, 4]
        replication = [1, 4]
        [[points]]
        producers = 1
        rate = 1000.0
        """
    )
    names = [point.name for point in read.points]
    assert names == [
        "1 producer, 100 B, 1000/s",
        "1 producer, 100 B, acks=all, 1000/s",
        "1 producer, 1 KiB, 1000/s",
        "1 producer, 1 KiB, acks=all, 1000/s",
        "2 producers, 100 B, 1000/s",
        "2 producers, 100 B, acks=all, 1000/s",
        "2 producers, 1 KiB, 1000/s",
        "2 producers, 1 KiB, acks=all, 1000/s",
        "2 producers, 100 B",
        "2 producers, 100 B, 4 brokers",
        "2 producers, 100 B, 4 brokers, replication 4",
    ]


def test_what_is_the_same_everywhere_is_read_into_the_method() -> None:
    read = matrix(
        """
        frieda = "tcp"
        peers = ["kafka", "redis=redis://h:1"]
        clients = ["aiokafka"]
        durability = "disk"
        rounds = 7
        reference = "kafka"
        [method]
        duration_s = 20
        keys = 9
        linger_ms = 5.0
        [[points]]
        rate_share = 0.5
        """
    )
    assert (read.frieda, read.peers) == (("tcp",), ("kafka", "redis=redis://h:1"))
    assert (read.clients, read.durability, read.rounds) == (("aiokafka",), "disk", 7)
    assert read.reference == "kafka"
    assert (read.method.duration_s, read.method.keys) == (20.0, 9)
    assert read.method.batching == Batching(linger_ms=5.0)


def test_throughput_finds_the_batching_unless_one_is_given() -> None:
    points = "[[points]]\nproducers = 1\n"
    assert matrix(f'kind = "throughput"\n{points}').method.batching is None
    given = matrix(f'kind = "throughput"\n[method]\nbatch_bytes = 4096\n{points}')
    assert given.method.batching == Batching(batch_bytes=4096)
    assert matrix(points).method.batching == Batching()


POINTS = "[[points]]\nproducers = 1\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", r"\[\[points\]\]: give at least one"),
        ("points = 1", r"\[\[points\]\]: give at least one"),
        ("points = [1]", r"points: must be tables"),
        (f"speed = 1\n{POINTS}", "speed: unknown; allowed are frieda, peers, clients"),
        (f"{POINTS}size = 1", "points.size: unknown; allowed are producers, record_size, acks"),
        (f"[method]\nwarm = 1\n{POINTS}", "method.warm: unknown; allowed are records, duration_s"),
        (f'[method]\nkind = "latency"\n{POINTS}', "method.kind: unknown"),
        (f"method = 3\n{POINTS}", r"method: must be a table"),
        (f'kind = "speed"\n{POINTS}', "kind = 'speed': must be one of latency, throughput"),
        (f'durability = "ram"\n{POINTS}', "durability = 'ram': must be one of cache, disk"),
        (f"rounds = true\n{POINTS}", "rounds = True: must be a whole number"),
        (f"frieda = [1]\n{POINTS}", "frieda = 1: must be text"),
        (f'[method]\nkeys = "x"\n{POINTS}', "method.keys = 'x': must be a whole number"),
        (f'[method]\nduration_s = "x"\n{POINTS}', "method.duration_s = 'x': must be a number"),
        (f'[method]\narrivals = "x"\n{POINTS}', "method.arrivals = 'x': must be one of constant"),
        ("[[points]]\nproducers = []", "points.producers: the list is empty"),
        ("[[points]]\nproducers = 1.5", "points.producers = 1.5: must be a whole number"),
        ("[[points]]\nacks = 2", 'points.acks = 2: must be 0, 1 or "all"'),
        ("[[points]]\nacks = true", 'points.acks = True: must be 0, 1 or "all"'),
        ("[[points]]\nacks = [[1]]", r'points.acks = \[1\]: must be 0, 1 or "all"'),
        ("[[points]]\nreplication = 2", "points.replication: is above points.brokers"),
        ("[[points]]\nrate = 1\nrate_share = 0.5", "a rate or a share of a rate, not both"),
        ("[[points]]\nrate_share = 3", "rate_share = 3.0: must be above 0"),
        (f"[[points]]\nrecord_size = {list(range(1, 10_002))}", "more than 10000 combinations"),
    ],
)
def test_a_mistake_is_named_by_its_key(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "odd.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=rf"odd\.toml: .*{words}"):
        read_matrix(file)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*none\.toml: No such file"):
        read_matrix(tmp_path / "none.toml")
    odd = tmp_path / "odd.toml"
    odd.write_text("[")
    with pytest.raises(ConfigError, match=r"odd\.toml: not TOML"):
        read_matrix(odd)
    odd.write_bytes(b"#" * (1024 * 1024 + 1))
    with pytest.raises(ConfigError, match=r"odd\.toml: larger than"):
        read_matrix(odd)


JSON_VALUES = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
KEYS = st.sampled_from(
    [
        "frieda",
        "peers",
        "kind",
        "rounds",
        "reference",
        "method",
        "points",
        "producers",
        "acks",
        "rate",
    ]
)


@given(
    document=st.dictionaries(KEYS, JSON_VALUES),
    point=st.dictionaries(KEYS | st.sampled_from(["record_size", "replication"]), JSON_VALUES),
)
def test_any_document_is_a_matrix_or_a_config_error(
    document: dict[str, object], point: dict[str, object]
) -> None:
    for whole in (document, {"points": [point]}):
        try:
            read = matrix_of(whole)
        except ConfigError:
            continue
        assert read.points


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.toml")), ids=lambda file: file.stem)
def test_the_examples_are_plans_that_can_be_run(file: Path) -> None:
    read = read_matrix(file)
    frieda = find_contenders("tcp,shm", "").contenders
    Plan(contenders=frieda, points=read.points, method=read.method, durability=read.durability)
    assert read.peers == ("kafka",)
    assert {point.brokers for point in read.points} <= {1, 4}
