from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frieda.cluster.address import EnsembleAddress, parse_address
from frieda.errors import ConfigError


def test_an_address_names_servers_with_or_without_port_and_the_root() -> None:
    address = parse_address("zk://a.example:1234,b,[::1]:99/frieda/test")
    assert address.hosts == (("a.example", 1234), ("b", 2181), ("[::1]", 99))
    assert address.root == "/frieda/test"
    assert address.host_list == "a.example:1234,b:2181,[::1]:99"


@pytest.mark.parametrize("text", ["zk://a", "zk://a/"])
def test_without_a_root_the_cluster_keeps_apart_from_other_programs(text: str) -> None:
    assert parse_address(text).root == "/frieda"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("host:2181", "'host:2181' is no address of a ZooKeeper; write it as zk://"),
        ("tcp://host:2181", "write it as zk://"),
        ("zk://", "'' is no host:port"),
        ("zk://a,,b", "'' is no host:port"),
        ("zk://a:b", "'a:b' is no host:port"),
        ("zk://a:0", "must be from 1 to 65535"),
        ("zk://a:65536", "must be from 1 to 65535"),
        ("zk://a,a:2181", "names a server twice"),
        ("zk://a/b c", "the part 'b c' of the root"),
        ("zk://a/../b", "the part '..' of the root"),
    ],
)
def test_a_bad_address_is_one_sentence(text: str, names: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_address(text)
    assert names in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=40))
def test_whatever_is_written_is_an_address_or_a_config_error(text: str) -> None:
    try:
        address = parse_address("zk://" + text)
    except ConfigError:
        return
    assert isinstance(address, EnsembleAddress)
    assert parse_address(str(address)) == address
