from importlib.metadata import EntryPoint

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frieda.errors import ConfigError, MissingDependencyError
from frieda.transports import registry
from frieda.transports.address import HostPort, join_host_port, parse_host_port, split_url
from frieda.transports.memory import MemoryTransport
from frieda.transports.registry import known_schemes, transport_class
from frieda.transports.tcp import TcpTransport


def test_built_in_transports_are_found_by_scheme_in_any_case():
    assert transport_class("tcp://127.0.0.1:1") is TcpTransport
    assert transport_class("TCP://127.0.0.1:1") is TcpTransport
    assert transport_class("memory://name") is MemoryTransport
    assert {"tcp", "memory"} <= set(known_schemes())


def test_an_unknown_scheme_names_the_known_ones_and_the_nearest():
    with pytest.raises(ConfigError) as caught:
        transport_class("tpc://host:1")
    assert "did you mean 'tcp'" in str(caught.value)
    assert "memory" in str(caught.value)


def test_other_transports_come_from_entry_points(monkeypatch):
    entries = [
        EntryPoint("other", "frieda.transports.memory:MemoryTransport", registry.GROUP),
        EntryPoint("wrong", "frieda.transports.memory:PIPE_BYTES", registry.GROUP),
        EntryPoint("broken", "a_package_that_is_not_there:Transport", registry.GROUP),
        EntryPoint("tcp", "frieda.transports.memory:MemoryTransport", registry.GROUP),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: entries)
    assert transport_class("other://x") is MemoryTransport
    assert transport_class("tcp://x:1") is TcpTransport  # nothing replaces a built-in one
    with pytest.raises(ConfigError, match="not a Transport"):
        transport_class("wrong://x")
    with pytest.raises(MissingDependencyError, match="a_package_that_is_not_there"):
        transport_class("broken://x")


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("tcp://127.0.0.1:9500", "127.0.0.1", 9500),
        ("tcp://broker.example:1/", "broker.example", 1),
        ("tcp://[::1]:65535", "::1", 65535),
        ("tcp://0.0.0.0:0", "0.0.0.0", 0),
    ],
)
def test_hosts_and_ports(url, host, port):
    assert parse_host_port(url) == HostPort(host, port)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("127.0.0.1:9500", "scheme://"),
        ("://x", "scheme://"),
        ("tcp://", "no address"),
        ("tcp://host", "no port"),
        ("tcp://:1", "no host"),
        ("tcp://host:", "port must be"),
        ("tcp://host:65536", "port must be"),
        ("tcp://host:-1", "port must be"),
        ("tcp://host:9x", "port must be"),
        ("tcp://host:²", "port must be"),
        ("tcp://::1:9500", "brackets"),
        ("tcp://[::1:9500", "not closed"),
        ("tcp://[::1]9500", "no port"),
        ("tcp://user@host:1", "'@'"),
        ("tcp://host:1/path", "'/'"),
        ("tcp://host:1?x=y", "'?'"),
    ],
)
def test_malformed_urls_say_what_is_wrong_with_them(url, says):
    with pytest.raises(ConfigError) as caught:
        parse_host_port(url)
    assert says in str(caught.value)
    assert repr(url) in str(caught.value)


@given(st.text(max_size=30))
def test_any_text_parses_or_is_a_config_error(text):
    for url in (text, f"tcp://{text}"):
        try:
            host, port = parse_host_port(url)
        except ConfigError:
            continue
        assert parse_host_port(join_host_port(split_url(url)[0], host, port)) == (host, port)
