"""Which addresses a client thinks worth trying, and in which order."""

from __future__ import annotations

import pytest

from frieda.clients.metadata import Place
from frieda.clients.routes import Route, Standpoint, check_transport, host_of, plan_route
from frieda.errors import ConfigError

TCP, SHM, VERBS = "tcp://10.0.0.1:9500", "shm:///run/frieda.sock", "verbs://10.0.0.1:9501"
EVERYTHING = ("memory", "shm", "tcp", "verbs")
HERE, ELSEWHERE = "this-kernel", "another-kernel"


def me(
    *, schemes: tuple[str, ...] = EVERYTHING, came_by: str = "tcp", near: str = "10.0.0.1"
) -> Standpoint:
    return Standpoint(schemes, (came_by,), near, HERE)


def place(*listeners: str, host: str = HERE) -> Place:
    return Place(0, listeners, host)


def test_on_the_brokers_host_shared_memory_comes_before_verbs_and_both_before_tcp() -> None:
    route = plan_route("auto", place(TCP, VERBS, SHM), TCP, me())
    assert route == Route(base=(TCP,), better=(SHM, VERBS))


def test_on_another_host_or_one_that_is_not_known_shared_memory_is_not_tried() -> None:
    for host in (ELSEWHERE, ""):
        route = plan_route("auto", place(TCP, VERBS, SHM, host=host), TCP, me())
        assert route == Route(base=(TCP,), better=(VERBS,))
    nowhere = me()._replace(identity="")
    assert plan_route("auto", place(TCP, SHM, host=""), TCP, nowhere) == Route((TCP,), ())


def test_what_this_installation_cannot_speak_is_not_tried() -> None:
    route = plan_route("auto", place(TCP, VERBS, SHM, "kafka://x"), TCP, me(schemes=("tcp",)))
    assert route == Route(base=(TCP,), better=())


@pytest.mark.parametrize(
    ("known_as", "scheme"), [(SHM, "shm"), (VERBS, "verbs"), ("memory://b", "memory")]
)
def test_an_address_of_another_scheme_than_tcp_is_taken_at_its_word(
    known_as: str, scheme: str
) -> None:
    route = plan_route("auto", place(TCP, VERBS, SHM), known_as, me(came_by=scheme))
    assert route.base[0] == known_as
    assert TCP in route.base, "and yet the others are there when it fails"
    assert route.better == ()


def test_a_client_that_came_by_shared_memory_stays_with_it_when_that_connection_was_lost() -> None:
    route = plan_route("auto", place(TCP, VERBS, SHM), None, me(came_by="shm"))
    assert route.base[0] == SHM
    assert route.better == ()


def test_a_named_transport_is_the_only_one() -> None:
    assert plan_route("verbs", place(TCP, VERBS, SHM), TCP, me()) == Route((VERBS,), ())
    assert plan_route("tcp", place(TCP, VERBS, SHM), TCP, me()) == Route((TCP,), ())
    assert plan_route("shm", place(TCP), TCP, me()) == Route((), ())


def test_the_address_we_came_by_is_first_and_the_one_that_is_told_second() -> None:
    route = plan_route("auto", place("tcp://inside:9500", "memory://m"), TCP, me())
    assert route.base == (TCP, "tcp://inside:9500", "memory://m")


def test_a_listener_on_all_interfaces_is_where_the_broker_was_reached() -> None:
    told = place("tcp://0.0.0.0:9500", "verbs://[::]:9501", "shm:///0.0.0.0")
    route = plan_route("auto", told, None, me(near="fe80::1"))
    assert route == Route(("tcp://[fe80::1]:9500",), ("shm:///0.0.0.0", "verbs://[fe80::1]:9501"))


def test_an_address_that_makes_no_sense_is_left_to_whoever_connects_to_it() -> None:
    route = plan_route("auto", place("tcp://nonsense", "tcp://10.0.0.1:9500"), None, me())
    assert route.base == ("tcp://nonsense", "tcp://10.0.0.1:9500")


def test_the_host_is_that_of_the_first_address_that_names_one() -> None:
    assert (
        host_of(("shm:///x", "tcp://oops", "verbs://[fe80::2]:1?device=mlx5_0", TCP)) == "fe80::2"
    )
    assert host_of(("shm:///x", "memory://m")) == "127.0.0.1"


def test_a_transport_that_nobody_knows_is_named_with_those_that_are_known() -> None:
    check_transport("auto", ("tcp",))
    check_transport("tcp", ("tcp",))
    with pytest.raises(ConfigError, match="transport = 'rdma': must be one of auto, shm, tcp"):
        check_transport("rdma", ("shm", "tcp"))
