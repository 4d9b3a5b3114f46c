"""What --frieda and --peers name: started or there already, and a sentence for what is not to be had."""

from __future__ import annotations

from pathlib import Path

import pytest

from frieda.cli.contenders import find_contenders
from frieda.errors import ConfigError


def test_a_name_is_started_and_an_address_is_taken_as_it_is() -> None:
    found = find_contenders("tcp,shm,verbs=verbs://10.0.0.1:9500", "redis=redis://h:1")
    told = [
        (each.label, each.driver, each.system is not None, each.address)
        for each in found.contenders
    ]
    assert told == [
        ("frieda tcp", "frieda", True, None),
        ("frieda shm", "frieda", True, None),
        ("frieda verbs", "frieda", False, "verbs://10.0.0.1:9500"),
        ("redis", "redis", False, "redis://h:1"),
    ]
    assert found.missing == ()


def test_an_address_may_have_commas_of_its_own() -> None:
    found = find_contenders("", "kafka=h:1,i:2,j:3,redis=redis://h:1", ("aiokafka",))
    assert [(each.label, each.address) for each in found.contenders] == [
        ("kafka (aiokafka)", "h:1,i:2,j:3"),
        ("redis", "redis://h:1"),
    ]


def test_nothing_named_is_nothing_found() -> None:
    assert find_contenders("", " , ").contenders == ()


def test_what_is_not_installed_is_left_out_with_a_sentence_that_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("FRIEDA_PEERS", str(tmp_path))
    found = find_contenders("tcp", "redis")
    assert [each.label for each in found.contenders] == ["frieda tcp"]
    (sentence,) = found.missing
    assert sentence.startswith("redis is left out: redis-server is not installed: run 'make peers'")


@pytest.mark.parametrize(
    ("frieda", "peers", "words"),
    [
        ("udp", "", "--frieda udp: must be one of tcp, shm, verbs"),
        ("verbs", "", "--frieda verbs: only tcp and shm are started; give the address"),
        ("tcp=shm:///a", "", "--frieda tcp=shm:///a: must begin with tcp://"),
        ("tcp=", "", "--frieda tcp=: must be one of"),
        ("", "rabbitmq", "--peers rabbitmq: must be one of kafka, redis, nats"),
    ],
)
def test_a_name_that_is_none_is_refused(frieda: str, peers: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        find_contenders(frieda, peers)
