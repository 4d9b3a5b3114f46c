"""Nobody who was stopped, and whose time is over, changes anything or believes that it still may."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from struct import iter_unpack

import pytest

from frieda.bench.systems.processes import ChildProcess
from frieda.cluster.candidacy import Candidacy
from frieda.cluster.session import Delete, Write
from frieda.errors import FencedError
from frieda.testing.proxy import FaultProxy
from frieda.testing.stores import StoreGroup, eventually, until
from frieda.testing.zookeeper import ZooKeeper

SCRIPT = Path(__file__).with_name("store_process.py")


def process(mode: str, url: str, folder: Path) -> ChildProcess:
    command = [sys.executable, SCRIPT, mode, url, folder / "heartbeats"]
    return ChildProcess(mode, command, folder)


async def test_only_one_of_many_candidates_becomes_controller(group: StoreGroup) -> None:
    stores = [await group.open() for _ in range(5)]
    candidates = [Candidacy(store.session, number) for number, store in enumerate(stores)]
    claimed = await asyncio.gather(*(candidate.claim() for candidate in candidates))
    assert sum(claimed) == 1
    winner = candidates[claimed.index(True)]
    assert winner.mandate is not None
    assert winner.mandate.epoch == 1
    assert await winner.claim(), "who is controller may ask again"
    assert winner.mandate.epoch == 1


async def test_a_controller_whose_place_was_taken_changes_nothing(group: StoreGroup) -> None:
    one, two = await group.open(), await group.open()
    first, second = Candidacy(one.session, 1), Candidacy(two.session, 2)
    await one.session.create("/probe")
    assert await first.claim()
    assert not await second.claim()
    await first.write([Write("/probe", b"1", -1)])
    # As when the session of the first has expired and it does not know yet.
    await two.session.delete("/controller")
    assert await second.claim()
    assert second.mandate is not None
    assert second.mandate.epoch == 2
    with pytest.raises(FencedError, match="another has followed on epoch 1"):
        await first.write([Write("/probe", b"2", -1)])
    with pytest.raises(FencedError):
        await first.write([Delete("/controller")])
    await second.write([Write("/probe", b"3", -1)])
    node = await one.session.get("/probe")
    assert node is not None
    assert (node.data, node.version) == (b"3", 2)


async def test_two_that_claim_and_write_all_the_time_never_both_succeed(group: StoreGroup) -> None:
    """Each takes the other's place again and again; the numbers that they write never go back."""
    stores = [await group.open(), await group.open()]
    await stores[0].session.create("/probe", b"0")
    written: list[int] = []

    async def compete(number: int) -> int:
        candidate, session = Candidacy(stores[number].session, number), stores[number].session
        refused = 0
        for _ in range(60):
            try:
                if candidate.mandate is None and not await candidate.claim():
                    await session.multi([Delete("/controller")])
                    continue
                epoch = candidate.mandate.epoch if candidate.mandate else 0
                versions = await candidate.write([Write("/probe", str(epoch).encode(), -1)])
                written.append(versions[0] * 1_000_000 + epoch)
            except FencedError:
                refused += 1
        return refused

    refused = await asyncio.gather(compete(0), compete(1))
    by_version = [value % 1_000_000 for value in sorted(written)]
    assert by_version == sorted(by_version)
    assert len(set(by_version)) > 2, "each was controller for a while"
    assert sum(refused) > 0


async def test_a_controller_that_was_stopped_is_fenced_when_it_goes_on(
    group: StoreGroup, url: str, tmp_path: Path
) -> None:
    two = await group.open()
    await two.session.create("/probe")
    with process("writer", url, tmp_path) as child:
        await eventually(lambda: "controller" in child.log_tail())
        written = await two.session.get("/probe")
        assert written is not None
        second = await group.join(2)
        child.send_signal(signal.SIGSTOP)
        await until(second, lambda state: state.controller_id == 2)
        assert second._controller is not None
        await eventually(lambda: second.controller_epoch is not None)
        candidacy = second._controller._candidacy
        (version,) = await candidacy.write([Write("/probe", b"the second", -1)])
        child.send_signal(signal.SIGCONT)
        await eventually(lambda: "fenced: " in child.log_tail() or child.ended)
        assert "fenced: " in child.log_tail()
        node = await two.session.get("/probe")
        assert node is not None
        assert (node.data, node.version) == (b"the second", version)


async def test_when_the_controller_is_killed_that_also_leads_another_does_both(
    group: StoreGroup, url: str, tmp_path: Path
) -> None:
    observer = await group.open()
    await observer.session.create("/probe")
    with process("writer", url, tmp_path) as child:
        await eventually(lambda: "controller" in child.log_tail())
        second = await group.join(2)
        await until(second, lambda state: set(state.brokers) == {1, 2})
        topic = await second.create_topic("orders", assignment=[[1, 2]])
        assert topic.partitions[0].leader == 1
        child.kill()
        state = await until(second, lambda state: state.topics["orders"].partitions[0].leader == 2)
        assert state.controller_id == 2
        assert state.topics["orders"].partitions[0].isr == (2,)


@pytest.fixture
def clock_difference_s() -> Iterator[float]:
    """Unix time less the monotonic clock's; a step of the system's clock meanwhile would spoil the comparison."""
    before = time.time() - time.monotonic()
    yield before
    assert abs(time.time() - time.monotonic() - before) < 0.05, "the clock was set during the test"


async def test_a_lease_ends_before_the_server_lets_the_session_expire(
    own_zookeeper: ZooKeeper, tmp_path: Path, clock_difference_s: float
) -> None:
    async with FaultProxy(own_zookeeper.url.replace("zk://", "tcp://")) as proxy:
        # A long way there and back: whoever counts from the answer counts too long.
        proxy.delay_s = 0.1
        url = proxy.url.replace("tcp://", "zk://")
        with process("sessions", url, tmp_path) as child:
            await eventually(lambda: "ready" in child.log_tail() or child.ended)
            child.send_signal(signal.SIGSTOP)
            held = list(iter_unpack("<QQQ", (tmp_path / "heartbeats").read_bytes()))
            sessions = {session for session, _, _ in held}
            assert len(sessions) == 5, child.log_tail()
            await eventually(lambda: sessions <= set(own_zookeeper.expirations()))
            expired_at_s = own_zookeeper.expirations()
            child.kill()
    for session, sent_ns, timeout_ns in held:
        end_s = (sent_ns + timeout_ns) / 1e9 + clock_difference_s
        # Without any margin, and by the server's own clock, whose log is cut to milliseconds.
        assert end_s <= expired_at_s[session] + 0.001
