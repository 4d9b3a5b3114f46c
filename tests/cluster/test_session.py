"""A session with a real ZooKeeper: requests, deadlines, heartbeats, and what happens when it is silent."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator

import pytest
from kazoo.protocol.connection import ConnectionHandler

from frieda.cluster.address import parse_address
from frieda.cluster.heartbeats import Heartbeat, HeartbeatConnection, require_fitting_kazoo
from frieda.cluster.session import (
    Check,
    Create,
    Delete,
    Node,
    SessionState,
    Write,
    ZooKeeperSession,
)
from frieda.errors import (
    ConflictError,
    CoordinationError,
    LocalProtocolError,
    MissingDependencyError,
)
from frieda.testing.stores import GUARD_S, eventually
from frieda.testing.zookeeper import ZooKeeper


@pytest.fixture
async def session(url: str) -> AsyncIterator[ZooKeeperSession]:
    opened = ZooKeeperSession(parse_address(url), session_timeout_s=30.0)
    await opened.open(GUARD_S)
    yield opened
    await opened.close()


async def test_nodes_are_made_read_changed_listed_and_removed(session: ZooKeeperSession) -> None:
    await session.create("/a", b"1")
    assert await session.get("/a") == Node(b"1", 0, 0)
    assert await session.write("/a", b"2", 0) == 1
    assert await session.get("/a") == Node(b"2", 1, 0)
    await session.create("/a/b", ephemeral=True)
    assert await session.children("/a") == ["b"]
    node = await session.get("/a/b")
    assert node is not None
    assert node.owner == session.session_id
    await session.delete("/a/b")
    await session.delete("/a", version=1)
    assert await session.get("/a") is None
    assert await session.children("/a") == []


@pytest.mark.parametrize(
    ("operation", "says"),
    [
        (Create("/there"), "it is there already"),
        (Create("/missing/child"), "there is no such node"),
        (Write("/there", b"", 7), "it has changed"),
        (Write("/missing", b"", -1), "there is no such node"),
        (Delete("/there", 7), "it has changed"),
        (Delete("/there"), "it has children"),
        (Check("/there", 7), "it has changed"),
    ],
)
async def test_a_change_that_does_not_fit_changes_nothing_and_says_which_and_why(
    session: ZooKeeperSession, operation: Create | Write | Delete | Check, says: str
) -> None:
    await session.multi([Create("/there"), Create("/there/child")])
    with pytest.raises(ConflictError, match=says) as caught:
        await session.multi([Create("/before"), operation, Create("/after")])
    assert operation.path in str(caught.value)
    assert caught.value.position == 1
    assert await session.children("/") == ["there"]


async def test_more_than_zookeeper_takes_at_once_is_refused_here(session: ZooKeeperSession) -> None:
    with pytest.raises(LocalProtocolError, match="more than the 900000 bytes"):
        await session.multi([Create("/a", bytes(500_000)), Create("/b", bytes(500_000))])
    assert await session.children("/") == []
    await session.multi([Create("/a", bytes(800_000))])


async def test_thousands_of_requests_at_once_wait_for_each_other(session: ZooKeeperSession) -> None:
    await asyncio.gather(*(session.create(f"/n{number}") for number in range(2000)))
    nodes = await session.get_all(f"/n{number}" for number in range(2000))
    assert all(node is not None for node in nodes)


async def test_a_tree_watch_tells_every_change_below_the_root_again_and_again(
    session: ZooKeeperSession, url: str
) -> None:
    told: list[str] = []
    await session.watch_tree(told.append)
    other = ZooKeeperSession(parse_address(url))
    await other.open(GUARD_S)
    await other.create("/a", b"1")
    await other.create("/a/b")
    await other.write("/a", b"2", 0)
    await other.write("/a", b"3", 1)
    await other.delete("/a/b")
    # ZooKeeper tells of a change before it answers what was asked after it.
    await session.sync()
    await session.get("/a")
    assert told == ["/a", "/a/b", "/a", "/a", "/a/b"]
    await other.close()


async def test_ephemeral_nodes_vanish_when_the_session_is_closed(
    session: ZooKeeperSession, url: str
) -> None:
    other = ZooKeeperSession(parse_address(url))
    await other.open(GUARD_S)
    await other.create("/here", ephemeral=True)
    await other.close()
    await session.sync()
    assert await session.get("/here") is None


async def test_an_answered_request_counts_from_its_sending(session: ZooKeeperSession) -> None:
    before_ns = time.monotonic_ns()
    await session.get("/")
    after_ns = time.monotonic_ns()
    assert before_ns <= session.heartbeat.sent_ns <= after_ns
    assert session.heartbeat.timeout_ns == 30 * 10**9


async def test_without_requests_heartbeats_go_on(url: str) -> None:
    quiet = ZooKeeperSession(parse_address(url), session_timeout_s=4.0)
    await quiet.open(GUARD_S)
    first = quiet.heartbeat
    await eventually(lambda: quiet.heartbeat.sent_ns > first.sent_ns + first.timeout_ns // 2)
    await quiet.close()


async def test_a_late_answer_counts_from_its_sending_too(
    own_zookeeper: ZooKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    heartbeats: list[Heartbeat] = []
    read_header = HeartbeatConnection._read_header

    def noted(connection: HeartbeatConnection, timeout: float) -> object:
        answer = read_header(connection, timeout)
        heartbeats.append(connection.client.heartbeat)
        return answer

    monkeypatch.setattr(HeartbeatConnection, "_read_header", noted)
    session = ZooKeeperSession(parse_address(own_zookeeper.url), session_timeout_s=60.0)
    await session.open(GUARD_S)
    own_zookeeper.nodes[0].pause()
    heartbeats.clear()
    asked = asyncio.create_task(session.get("/"))
    client = session._client
    assert client is not None
    await eventually(lambda: bool(client._pending))  # sent, and not answered
    sent_before_ns = time.monotonic_ns()
    own_zookeeper.nodes[0].resume()
    await asked
    assert heartbeats[0].sent_ns <= sent_before_ns
    await session.close()


async def test_a_zookeeper_that_is_silent_costs_a_request_its_deadline_and_no_more(
    own_zookeeper: ZooKeeper,
) -> None:
    session = ZooKeeperSession(
        parse_address(own_zookeeper.url), session_timeout_s=60.0, request_timeout_s=0.3
    )
    await session.open(GUARD_S)
    own_zookeeper.nodes[0].pause()
    # More than fit into the window, so that some wait for it.
    asked = [asyncio.create_task(session.get(f"/{number}")) for number in range(150)]
    done, _ = await asyncio.wait(asked, timeout=GUARD_S)
    assert len(done) == 150
    for task in done:
        assert isinstance(task.exception(), CoordinationError)
    assert "did not read /0 within 0.3 s" in str(asked[0].exception())
    own_zookeeper.nodes[0].resume()
    await session.wait_connected(GUARD_S)
    async with asyncio.timeout(GUARD_S):
        while True:  # what was asked in vain is worked off first
            try:
                await session.create("/again")
                break
            except CoordinationError:
                await asyncio.sleep(0.05)
    await session.close()


async def test_without_a_connection_a_request_fails_at_once_and_the_state_is_told(
    own_zookeeper: ZooKeeper,
) -> None:
    session = ZooKeeperSession(parse_address(own_zookeeper.url), session_timeout_s=60.0)
    await session.open(GUARD_S)
    states: asyncio.Queue[SessionState] = asyncio.Queue()
    session.on_state(states.put_nowait)
    own_zookeeper.nodes[0].kill()
    async with asyncio.timeout(GUARD_S):
        assert await states.get() is SessionState.SUSPENDED
    with pytest.raises(CoordinationError, match="there is no connection to ZooKeeper at zk://"):
        await session.get("/a")
    with pytest.raises(CoordinationError, match=r"no connection to ZooKeeper .* within 0.05 s"):
        await session.wait_connected(0.05)
    own_zookeeper.nodes[0].start()
    async with asyncio.timeout(GUARD_S):
        while await states.get() is not SessionState.CONNECTED:
            pass
    await session.close()


async def test_a_session_that_ends_while_zookeeper_is_gone_leaves_no_thread(
    own_zookeeper: ZooKeeper,
) -> None:
    session = ZooKeeperSession(parse_address(own_zookeeper.url))
    await session.open(GUARD_S)
    assert session._client is not None
    connection = session._client._connection
    own_zookeeper.nodes[0].pause()
    await session.close()
    assert connection.connection_stopped.is_set()
    assert connection._connection_routine is None


async def test_an_address_where_nobody_is_costs_the_timeout_and_one_sentence() -> None:
    session = ZooKeeperSession(parse_address("zk://127.0.0.1:1/x"))
    with pytest.raises(CoordinationError, match=r"no ZooKeeper answered at zk://127.0.0.1:1/x"):
        await session.open(0.3)
    with pytest.raises(CoordinationError, match="is not open"):
        await session.get("/")


async def test_without_kazoo_a_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "frieda.cluster.heartbeats", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'frieda\[cluster\]'"):
        await ZooKeeperSession(parse_address("zk://127.0.0.1:1")).open()


def test_a_kazoo_that_is_made_otherwise_is_refused_at_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    require_fitting_kazoo()
    monkeypatch.setattr(ConnectionHandler, "_submit", lambda self, request: None)
    with pytest.raises(MissingDependencyError, match=r"does not fit \(its _submit is another\)"):
        require_fitting_kazoo()
