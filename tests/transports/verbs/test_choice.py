"""Which device, port and address is used, with devices made up for it."""

from __future__ import annotations

from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frieda.errors import ConfigError
from frieda.transports.verbs.choice import (
    ETHERNET,
    INFINIBAND,
    ROCE_V1,
    ROCE_V2,
    Device,
    Gid,
    Port,
    Route,
    Wish,
    choose,
    fits,
    parse_url,
    survey,
)

URL = "verbs://10.0.0.1:9501"
LINK_LOCAL = "fe80::1"
MAPPED = "::ffff:10.0.0.1"
OTHER = "::ffff:10.0.0.2"
GLOBAL = "2001:db8::1"


def gid(index: int, address: str, kind: str = ROCE_V2) -> Gid:
    return Gid(index, IPv6Address(address), kind)


def port(*gids: Gid, number: int = 1, state: str = "active", layer: str = ETHERNET, lid: int = 0) -> Port:  # fmt: skip
    return Port(number, state, layer, lid, 4, gids)


def device(name: str, *ports: Port, problem: str | None = None) -> Device:
    return Device(name, ports, problem)


# As a ConnectX shows itself: each address once as RoCE v1 and once as v2.
MELLANOX = port(
    gid(0, LINK_LOCAL, ROCE_V1), gid(1, LINK_LOCAL), gid(2, MAPPED, ROCE_V1), gid(3, MAPPED), gid(4, GLOBAL)
)  # fmt: skip


@pytest.mark.parametrize(
    ("devices", "local", "chosen"),
    [
        pytest.param([device("a", MELLANOX)], None, ("a", 1, 3), id="IPv4-mapped RoCE v2 is preferred"),
        pytest.param(
            [device("a", port(gid(0, GLOBAL), gid(1, MAPPED)))], None, ("a", 1, 1), id="before IPv6"
        ),
        pytest.param(
            [device("a", port(gid(0, MAPPED, ROCE_V1), gid(1, GLOBAL)))],
            None,
            ("a", 1, 1),
            id="RoCE v2 by IPv6 before any v1",
        ),
        pytest.param(
            [device("a", port(gid(0, "::"), gid(1, LINK_LOCAL), gid(2, MAPPED, ROCE_V1)))],
            None,
            ("a", 1, 2),
            id="RoCE v1 where there is nothing else",
        ),
        pytest.param(
            [device("a", port(gid(0, MAPPED))), device("b", port(gid(7, OTHER)))],
            "10.0.0.2",
            ("b", 1, 7),
            id="the connection's own address before the first device",
        ),
        pytest.param(
            [device("a", port(gid(0, MAPPED))), device("b", port(gid(7, GLOBAL)))],
            "2001:db8::1%eth0",
            ("b", 1, 7),
            id="an own IPv6 address, with its scope",
        ),
        pytest.param(
            [device("a", port(gid(0, MAPPED)))], "127.0.0.1", ("a", 1, 0), id="loopback fits nothing"
        ),
        pytest.param(
            [device("a", port(layer=INFINIBAND, lid=5))], None, ("a", 1, None), id="InfiniBand by LID"
        ),
        pytest.param(
            [device("a", port(gid(0, LINK_LOCAL, INFINIBAND), layer=INFINIBAND, lid=5)),
             device("b", port(gid(1, MAPPED)))],
            None,
            ("b", 1, 1),
            id="RoCE v2 by IPv4 before InfiniBand",
        ),
        pytest.param(
            [device("a", port(gid(0, GLOBAL))), device("b", port(layer=INFINIBAND, lid=5))],
            None,
            ("b", 1, None),
            id="InfiniBand before RoCE v2 by IPv6",
        ),
        pytest.param(
            [device("a", port(gid(0, MAPPED), state="down"), port(gid(0, OTHER), number=2))],
            None,
            ("a", 2, 0),
            id="a port that is down is passed over",
        ),
        pytest.param(
            [device("a", problem="iWARP"), device("b", port(gid(0, MAPPED)))],
            None,
            ("b", 1, 0),
            id="a device that cannot be used is passed over",
        ),
        pytest.param(
            [device("a", port(gid(5, MAPPED), gid(6, OTHER)))], None, ("a", 1, 5), id="the first of equals"
        ),
    ],
)  # fmt: skip
def test_the_rules_choose(devices, local, chosen):
    route = choose(devices, Wish(), local, URL)
    assert (route.device, route.port.number, route.gid and route.gid.index) == chosen


TWO = [device("a", MELLANOX, port(gid(0, OTHER), number=2)), device("b", port(gid(9, GLOBAL)))]


@pytest.mark.parametrize(
    ("wish", "chosen"),
    [
        (Wish(device="b"), ("b", 1, 9)),
        (Wish(device="a", port=2), ("a", 2, 0)),
        (Wish(gid=9), ("b", 1, 9)),
        (Wish(device="a", gid=2), ("a", 1, 2)),
        (Wish(device="a", gid=1), ("a", 1, 1)),  # asked for: link-local too
        (Wish(port=2), ("a", 2, 0)),
    ],
)
def test_a_url_may_ask_for_a_device_a_port_and_an_address(wish, chosen):
    route = choose(TWO, wish, "10.0.0.1", URL)
    assert (route.device, route.port.number, route.gid and route.gid.index) == chosen


def test_an_infiniband_address_asked_for_is_a_global_route():
    devices = [device("a", port(gid(0, LINK_LOCAL, INFINIBAND), layer=INFINIBAND, lid=5))]
    assert choose(devices, Wish(gid=0), None, URL).gid == gid(0, LINK_LOCAL, INFINIBAND)


@pytest.mark.parametrize(
    ("devices", "wish", "named"),
    [
        ([], Wish(), "this host has no RDMA device"),
        ([device("a", port(gid(0, LINK_LOCAL)))], Wish(), "a port 1 GID 0: the GID is link-local"),
        ([device("a", port(gid(0, "::")))], Wish(gid=0), "the GID is zero"),
        ([device("a", port(state="down"))], Wish(), "a port 1: the port is down"),
        ([device("a", port())], Wish(), "it has no GID; has its network interface an address?"),
        ([device("a", port(layer=INFINIBAND))], Wish(), "is a subnet manager running?"),
        ([device("a", port(layer="unknown (9)"))], Wish(), "the link layer is unknown (9)"),
        ([device("a")], Wish(), "it has no port"),
        ([device("a", problem="iWARP, whose")], Wish(), "a: iWARP, whose"),
        (TWO, Wish(device="mlx5_0"), "not the device asked for, mlx5_0"),
        (TWO, Wish(device="b", port=3), "no RDMA device fits device=b port=3"),
        (TWO, Wish(device="b", gid=3), "it has no GID 3"),
    ],
)
def test_where_nothing_can_be_used_one_sentence_says_why_and_what_else_there_is(
    devices, wish, named
):
    with pytest.raises(ConfigError) as caught:
        choose(devices, wish, None, URL)
    assert named in str(caught.value)
    assert URL in str(caught.value)
    assert "tcp://" in str(caught.value)
    assert "shm://" in str(caught.value)


def test_the_survey_lists_every_candidate_once_and_the_best_first():
    verdicts = survey(TWO, Wish(), "10.0.0.2")
    assert len(verdicts) == 7
    assert (verdicts[0].device, verdicts[0].port.number) == ("a", 2)
    ranks = [each.rank for each in verdicts]
    used = [rank for rank in ranks if rank is not None]
    assert used == sorted(used)
    assert ranks[len(used) :] == [None] * (len(ranks) - len(used))


@pytest.mark.parametrize(
    ("url", "wish"),
    [
        ("verbs://10.0.0.1:9501", Wish()),
        ("verbs://10.0.0.1:9501?device=mlx5_0&port=1&gid=3", Wish("mlx5_0", 1, 3)),
        ("verbs://10.0.0.1:9501/?gid=0", Wish(gid=0)),
        ("verbs://[::1]:9501?port=2", Wish(port=2)),
    ],
)
def test_a_url_is_read(url, wish):
    (host, number), found = parse_url(url)
    assert number == 9501
    assert host in ("10.0.0.1", "::1")
    assert found == wish


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("devise=a", "did you mean 'device'"),
        ("device=", "device has no value"),
        ("port=0", "port must be a number from 1"),
        ("gid=x", "gid must be a number from 0"),
        ("gid=-1", "gid must be a number from 0"),
        ("gid=70000", "65535"),
        ("gid=1&gid=2", "says gid twice"),
    ],
)
def test_a_url_that_makes_no_sense_is_refused(query, named):
    with pytest.raises(ConfigError) as caught:
        parse_url(f"{URL}?{query}")
    assert named in str(caught.value)
    assert URL in str(caught.value)


addresses = st.sampled_from(["::", LINK_LOCAL, MAPPED, OTHER, GLOBAL]).map(IPv6Address)
gids = st.builds(Gid, st.integers(0, 20), addresses, st.sampled_from([ROCE_V1, ROCE_V2]))
ports = st.builds(
    Port,
    st.integers(1, 2),
    st.sampled_from(["active", "down"]),
    st.sampled_from([ETHERNET, INFINIBAND]),
    st.integers(0, 2),
    st.just(4),
    st.lists(gids, max_size=4).map(tuple),
)
any_devices = st.lists(
    st.builds(
        Device,
        st.sampled_from("abc"),
        st.lists(ports, max_size=2).map(tuple),
        st.sampled_from([None, None, "broken"]),
    ),
    max_size=3,
)


@given(any_devices, st.sampled_from([None, "10.0.0.1", "127.0.0.1"]))
def test_whatever_there_is_the_choice_can_be_used_or_is_refused(devices, local):
    try:
        route = choose(devices, Wish(), local, URL)
    except ConfigError:
        assert all(verdict.rank is None for verdict in survey(devices, Wish(), local))
        return
    assert route.port.state == "active"
    if route.gid is None:
        assert route.port.link_layer == INFINIBAND
        assert route.port.lid
    else:
        assert int(route.gid.address) != 0
        assert not route.gid.address.is_link_local
    if fits(route, Wish(), local):
        assert str(route.gid.address.ipv4_mapped) == local


def test_a_device_in_use_is_taken_again_only_where_it_would_be_chosen():
    route = Route("a", MELLANOX, gid(3, MAPPED))
    assert fits(route, Wish(), "10.0.0.1")
    assert not fits(route, Wish(), "10.0.0.2")
    assert not fits(route, Wish(), None)
    assert not fits(route, Wish(device="a"), "10.0.0.1")
    assert fits(route, Wish("a", None, 3), None)
    assert fits(route, Wish("a", 1, 3), "10.0.0.2")
    assert not fits(route, Wish("a", 2, 3), "10.0.0.1")
    assert not fits(Route("a", MELLANOX, gid(2, MAPPED, ROCE_V1)), Wish(), "10.0.0.1")
