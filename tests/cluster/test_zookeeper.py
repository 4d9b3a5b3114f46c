"""The metadata store against a real ZooKeeper: several brokers' stores in one process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest

from frieda.cluster.candidacy import Candidacy
from frieda.cluster.controller import Controller
from frieda.cluster.following import TreeFollower
from frieda.cluster.registration import Registrar
from frieda.cluster.session import Check, Delete, Operation, Write
from frieda.cluster.state import NO_LEADER, ClusterState
from frieda.cluster.store import ClusterChange
from frieda.cluster.zookeeper import ZooKeeperStore
from frieda.errors import (
    BrokerError,
    ConfigError,
    ConflictError,
    CoordinationError,
    ErrorCode,
    LocalProtocolError,
)
from frieda.model import TopicPartition
from frieda.testing.proxy import FaultProxy
from frieda.testing.stores import GUARD_S, StoreGroup, registration, until
from frieda.testing.zookeeper import ZooKeeper

ORDERS_0 = TopicPartition("orders", 0)


async def test_brokers_see_each_other_and_one_cluster_id(group: StoreGroup) -> None:
    one, two = await group.join_all(1, 2)
    assert one.state.brokers == two.state.brokers
    assert one.state.brokers[2].listeners == ("tcp://127.0.0.1:9002",)
    assert one.cluster_id == two.cluster_id != ""
    await group.leave(two)
    await until(one, lambda state: set(state.brokers) == {1})


async def test_a_topic_that_one_broker_makes_is_known_to_all_with_leaders(
    group: StoreGroup,
) -> None:
    one, two = await group.join_all(1, 2)
    made = await two.create_topic(
        "orders", partitions=4, replication_factor=2, configs={"retention.ms": "5"}
    )
    assert made.configs == {"retention.ms": "5"}
    for state in made.partitions:
        assert state.isr == state.replicas
        assert state.leader == state.replicas[0]
        assert state.leader_incarnation == f"{state.leader}a"
    await until(one, lambda state: "orders" in state.topics)
    assert one.state.topics["orders"] == made


async def test_a_topic_is_altered_grown_and_deleted(group: StoreGroup) -> None:
    one, two = await group.join_all(1, 2)
    before = await one.create_topic("orders", partitions=2, replication_factor=2)
    assert (await one.alter_topic("orders", {"a": "b"})).configs == {"a": "b"}
    grown = await two.add_partitions("orders", 5)
    assert grown.partitions[:2] == before.partitions
    assert [len(state.replicas) for state in grown.partitions] == [2] * 5
    await one.delete_topic("orders")
    assert "orders" not in one.state.topics
    await until(two, lambda state: "orders" not in state.topics)
    assert await one.session.children("/partitions") == []


async def test_a_topic_made_again_is_another_and_late_changes_of_the_old_one_fail(
    group: StoreGroup,
) -> None:
    (one,) = await group.join_all(1)
    old = await one.create_topic("orders")
    await one.delete_topic("orders")
    new = await one.create_topic("orders")
    assert new.topic_id != old.topic_id
    assert new.partitions[0].version == old.partitions[0].version, "or the test proves nothing"
    with pytest.raises(ConflictError):
        await one.change_isr(old.topic_id, 0, old.partitions[0], [1])
    assert one.state.topics["orders"] == new


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"name": "no/slash"}, ErrorCode.INVALID_TOPIC),
        ({"name": "there"}, ErrorCode.TOPIC_ALREADY_EXISTS),
        ({"name": "new", "partitions": 0}, ErrorCode.INVALID_PARTITIONS),
        ({"name": "new", "partitions": 10_001}, ErrorCode.INVALID_PARTITIONS),
        ({"name": "new", "replication_factor": 2}, ErrorCode.INVALID_REPLICATION_FACTOR),
        ({"name": "new", "assignment": [[7]]}, ErrorCode.INVALID_REPLICATION_FACTOR),
    ],
)
async def test_a_topic_that_cannot_be_is_refused(
    group: StoreGroup, arguments: dict[str, object], code: ErrorCode
) -> None:
    (one,) = await group.join_all(1)
    await one.create_topic("there")
    with pytest.raises(BrokerError) as caught:
        await one.create_topic(**arguments)  # type: ignore[arg-type]
    assert caught.value.code is code
    assert len(await one.session.children("/partitions")) == 1


async def test_two_that_make_the_same_topic_at_once_do_not_both_succeed(group: StoreGroup) -> None:
    one, two = await group.join_all(1, 2)
    results = await asyncio.gather(
        one.create_topic("orders"), two.create_topic("orders"), return_exceptions=True
    )
    refused = [result for result in results if isinstance(result, BrokerError)]
    assert [error.code for error in refused] == [ErrorCode.TOPIC_ALREADY_EXISTS]
    assert len(await one.session.children("/partitions")) == 1


async def test_an_unknown_topic_is_named(group: StoreGroup) -> None:
    (one,) = await group.join_all(1)
    for asked in (
        one.alter_topic("missing", {}),
        one.delete_topic("missing"),
        one.add_partitions("missing", 2),
        one.reassign(TopicPartition("missing", 0), [1]),
    ):
        with pytest.raises(BrokerError, match="there is no topic 'missing"):
            await asked


async def test_the_isr_changes_by_compare_and_set(group: StoreGroup) -> None:
    one, two = await group.join_all(1, 2)
    topic = await one.create_topic("orders", assignment=[[1, 2]])
    first = topic.partitions[0]
    shrunk = await one.change_isr(topic.topic_id, 0, first, [1])
    await until(two, lambda state: state.topics["orders"].partitions[0] == shrunk)
    with pytest.raises(ConflictError):
        await one.change_isr(topic.topic_id, 0, first, [1])
    number = two.state.brokers[2].number
    grown = await one.change_isr(topic.topic_id, 0, shrunk, [1, 2], joining={2: number})
    assert grown.isr == (1, 2)
    assert grown.leader_epoch == first.leader_epoch


async def test_a_replica_does_not_join_the_isr_as_a_life_that_is_over(group: StoreGroup) -> None:
    one, two = await group.join_all(1, 2)
    topic = await one.create_topic("orders", assignment=[[1, 2]])
    first = topic.partitions[0]
    shrunk = await one.change_isr(topic.topic_id, 0, first, [1])
    caught_up = one.state.brokers[2].number
    # It loses power, and may have lost what it had caught up with.
    await group.leave(two)
    await group.join(2, "b", certain=False)
    with pytest.raises(ConflictError):
        await one.change_isr(topic.topic_id, 0, shrunk, [1, 2], joining={2: caught_up})
    with pytest.raises(LocalProtocolError, match="the registration must be named"):
        await one.change_isr(topic.topic_id, 0, shrunk, [1, 2])


async def test_producer_ids_are_never_given_twice(group: StoreGroup) -> None:
    stores = await group.join_all(1, 2, 3)
    blocks = await asyncio.gather(
        *(store.allocate_producer_ids() for store in stores for _ in range(5))
    )
    given = [number for block in blocks for number in block]
    assert len(set(given)) == len(given) == 15_000


async def test_a_broker_id_belongs_to_one_process(group: StoreGroup) -> None:
    await group.join(1)
    second = await group.open()
    with pytest.raises(ConfigError, match="another process is registered as broker 1"):
        await second.register(registration(1, "b"), timeout_s=0.3)


async def test_a_broker_that_was_killed_takes_its_place_again_at_once(group: StoreGroup) -> None:
    first = await group.join(1)
    number = first.state.brokers[1].number
    again = await group.join(1, "b", replaces="1a")
    assert again.state.brokers[1].incarnation == "1b"
    assert again.state.brokers[1].number == number + 1
    # The first one still has its session, and must not think that it has a place.
    await until(first, lambda state: state.brokers[1].incarnation == "1b")
    assert first.lease_until_ns == 0
    assert again.lease_until_ns > time.monotonic_ns()


async def test_when_a_broker_dies_the_isr_elects(group: StoreGroup) -> None:
    one, two, three = await group.join_all(1, 2, 3)
    await one.create_topic("orders", assignment=[[2, 3, 1], [3, 1, 2]])
    await group.leave(two)
    state = await until(three, lambda state: _partition(state, 0).leader == 3)
    assert _partition(state, 0).isr == (3, 1)
    assert _partition(state, 0).leader_epoch == 1
    follower_left = await until(one, lambda state: _partition(state, 1).isr == (3, 1))
    assert _partition(follower_left, 1).leader_epoch == 0


async def test_a_broker_that_is_back_before_anyone_noticed_is_elected_anew(
    group: StoreGroup,
) -> None:
    one, _two = await group.join_all(1, 2)
    await one.create_topic("orders", assignment=[[2, 1]])
    again = await group.join(2, "b", replaces="2a")
    state = await until(again, lambda state: _partition(state, 0).leader_incarnation == "2b")
    assert _partition(state, 0).leader_epoch == 1


async def test_without_a_replica_in_sync_nobody_leads_until_one_is_back(group: StoreGroup) -> None:
    one, two = await group.join_all(1, 2)
    topic = await one.create_topic("orders", assignment=[[2, 1]])
    await group.settle()
    await two.change_isr(topic.topic_id, 0, topic.partitions[0], [2])
    await group.leave(two)
    state = await until(one, lambda state: _partition(state, 0).leader == NO_LEADER)
    assert _partition(state, 0).isr == (2,)
    back = await group.join(2, "b")
    await until(back, lambda state: _partition(state, 0).leader == 2)


async def test_with_unclean_election_another_replica_leads_alone(group: StoreGroup) -> None:
    one, two = await group.join_all(1, 2)
    settings = {"unclean.leader.election.enable": "true"}
    topic = await one.create_topic("orders", assignment=[[2, 1]], configs=settings)
    await group.settle()
    await two.change_isr(topic.topic_id, 0, topic.partitions[0], [2])
    await group.leave(two)
    state = await until(one, lambda state: _partition(state, 0).leader == 1)
    assert _partition(state, 0).isr == (1,)


async def test_a_broker_that_lost_its_tail_leaves_every_isr_and_is_certain_after(
    group: StoreGroup,
) -> None:
    one, two = await group.join_all(1, 2)
    await one.create_topic("orders", assignment=[[2, 1], [1, 2]])
    await group.leave(two)
    back = await group.join(2, "b", certain=False)
    state = await until(back, lambda state: state.brokers[2].tail_certain)
    assert [_partition(state, index).isr for index in (0, 1)] == [(1,), (1,)]
    assert _partition(state, 0).leader == 1


async def test_when_every_replica_lost_its_tail_the_longest_log_leads_once_all_are_back(
    group: StoreGroup,
) -> None:
    one, two, three = await group.join_all(1, 2, 3)
    topic = await one.create_topic("orders", assignment=[[2, 3]])
    await group.leave(two)
    await until(one, lambda state: _partition(state, 0).leader == 3)
    await group.leave(three)
    # 3 was the last of the ISR, and has to be waited for.
    state = await until(one, lambda state: _partition(state, 0).leader == NO_LEADER)
    assert _partition(state, 0).isr == (3,)
    at = topic.topic_id, 0
    await group.join(2, "b", certain=False, tails={at: (0, 50)})
    assert _partition(one.state, 0).leader == NO_LEADER
    back = await group.join(3, "b", certain=False, tails={at: (1, 40)})
    state = await until(back, lambda state: _partition(state, 0).leader != NO_LEADER)
    assert (_partition(state, 0).leader, _partition(state, 0).isr) == (3, (3,))
    await until(back, lambda state: all(each.tail_certain for each in state.brokers.values()))


async def test_after_a_power_failure_of_the_whole_cluster_the_tails_decide(
    group: StoreGroup,
) -> None:
    stores = await group.join_all(1, 2, 3)
    topic = await stores[0].create_topic("orders", assignment=[[1, 2, 3]])
    # All at once: their nodes vanish in one step, so that the ISR stays what it was.
    controller_gone = [Delete(f"/brokers/{number}") for number in (1, 2, 3)]
    for store in stores:
        assert store._controller is not None
        await store._controller.close()
    await stores[0].session.multi(controller_gone)
    for store in stores:
        await group.leave(store)
    at = topic.topic_id, 0
    first = await group.join(1, "b", certain=False, tails={at: (0, 10)})
    await group.join(2, "b", certain=False, tails={at: (0, 12)})
    await until(first, lambda state: _partition(state, 0).leader == NO_LEADER)
    assert _partition(first.state, 0).isr == (1, 2, 3)
    await group.join(3, "b", certain=False, tails={at: (0, 11)})
    state = await until(first, lambda state: _partition(state, 0).leader == 2)
    assert _partition(state, 0).isr == (2,)
    await until(first, lambda state: all(each.tail_certain for each in state.brokers.values()))


async def test_a_stopping_broker_hands_over_without_a_moment_without_leader(
    group: StoreGroup,
) -> None:
    one, two, three = await group.join_all(1, 2, 3)
    await one.create_topic("orders", partitions=12, replication_factor=3)
    await one.create_topic("alone", assignment=[[1]])
    leaders: list[int] = []
    three.on_change(lambda change: leaders.extend(_leaders(change.after)))
    await until(three, lambda state: "alone" in state.topics)
    assert await one.hand_over(60.0) == 1, "only the topic without another replica stays"
    for store in (one, two, three):
        await store.catch_up()
        for partition in store.state.topics["orders"].partitions:
            assert set(partition.isr) == {2, 3}
            assert partition.leader in (2, 3)
    assert NO_LEADER not in leaders
    assert one.state.topics["alone"].partitions[0].leader == 1


async def test_leadership_goes_back_to_preferred_leaders_when_told(group: StoreGroup) -> None:
    one, two = await group.join_all(1, 2)
    topic = await one.create_topic("orders", partitions=6, replication_factor=2)
    await group.leave(two)
    await until(one, lambda state: set(_leaders(state)) == {1})
    back = await group.join(2, "b")
    await until(one, lambda state: 2 in state.brokers)
    number = one.state.brokers[2].number
    for index, state in enumerate(one.state.topics["orders"].partitions):
        await one.change_isr(topic.topic_id, index, state, [1, 2], joining={2: number})
    await back.catch_up()
    await back.prefer_leaders()
    state = await until(
        back,
        lambda state: all(p.leader == p.replicas[0] for p in state.topics["orders"].partitions),
    )
    assert {2, 1} == set(_leaders(state))
    async with asyncio.timeout(GUARD_S):
        while await back.session.get("/preferred_leaders") is not None:
            await back.catch_up()


async def test_a_reassignment_is_carried_on_to_its_end(group: StoreGroup) -> None:
    one, two, three = await group.join_all(1, 2, 3)
    topic = await one.create_topic("orders", assignment=[[1, 2]])
    moving = await two.reassign(ORDERS_0, [3, 2])
    assert (moving.adding, moving.removing) == ((3,), (1,))
    assert moving.leader == topic.partitions[0].leader == 1
    await until(one, lambda state: _partition(state, 0).adding == (3,))
    number = one.state.brokers[3].number
    await one.change_isr(
        topic.topic_id, 0, _partition(one.state, 0), [1, 2, 3], joining={3: number}
    )
    state = await until(three, lambda state: _partition(state, 0).replicas == (3, 2))
    done = _partition(state, 0)
    assert (done.leader, set(done.isr), done.adding, done.removing) == (3, {2, 3}, (), ())


async def test_a_reassignment_can_be_cancelled(group: StoreGroup) -> None:
    one, _two, _three = await group.join_all(1, 2, 3)
    await one.create_topic("orders", assignment=[[1, 2]])
    await one.reassign(ORDERS_0, [3])
    back = await one.reassign(ORDERS_0, None)
    assert (back.replicas, back.isr, back.adding, back.removing) == ((1, 2), (1, 2), (), ())


async def test_what_a_dead_broker_left_half_made_is_removed_by_the_next_controller(
    group: StoreGroup,
) -> None:
    one, two = await group.join_all(1, 2)
    half, alive = f"/partitions/{'ab' * 16}", f"/partitions/{'cd' * 16}"
    await one.session.create(half, b"some dead life")
    await one.session.create(f"{half}/0", b"{}")
    await one.session.create(alive, b"2a")
    await group.leave(one)
    await until(two, lambda state: state.controller_id == 2)
    async with asyncio.timeout(GUARD_S):
        while await two.session.get(half) is not None:
            await two.session.sync()
    assert await two.session.get(alive) is not None, "who makes it is still there"


async def test_a_damaged_node_does_not_make_a_topic_vanish(group: StoreGroup) -> None:
    (one,) = await group.join_all(1)
    topic = await one.create_topic("orders")
    path = f"/partitions/{topic.topic_id.hex()}/0"
    await one.session.write(path, b"garbage", -1)
    await one.session.create("/brokers/x", b"{}")
    await one.catch_up()
    assert one.state.topics["orders"] == topic
    with pytest.raises(CoordinationError, match=r"is damaged|is named by no number"):
        await group.open()


async def test_a_listener_that_fails_does_not_keep_others_from_the_change(
    group: StoreGroup, caplog: pytest.LogCaptureFixture
) -> None:
    (one,) = await group.join_all(1)
    told: list[ClusterChange] = []

    def fail(change: ClusterChange) -> None:
        raise ZeroDivisionError

    one.on_change(fail)
    one.on_change(told.append)
    await one.create_topic("orders")
    assert [change.topics for change in told] == [{"orders"}]
    assert "ZeroDivisionError" in caplog.text


async def test_a_broker_whose_node_somebody_removed_registers_again(group: StoreGroup) -> None:
    one, two = await group.join_all(1, 2)
    number = one.state.brokers[2].number
    await one.session.delete("/brokers/2")
    state = await until(
        one, lambda state: 2 in state.brokers and state.brokers[2].number == number + 1
    )
    assert state.brokers[2].incarnation == "2a"
    await two.catch_up()
    assert two.lease_until_ns > time.monotonic_ns()


@pytest.mark.parametrize("when", ["before the write", "before the last look"])
async def test_leadership_is_not_taken_from_a_broker_that_has_registered_again(
    group: StoreGroup, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    one, two = await group.join_all(1, 2)
    topic = await one.create_topic("orders", partitions=2, assignment=[[2, 1], [2, 1]])
    await group.settle()
    number = one.state.brokers[2].number
    decided = asyncio.Event()

    async def registered_again() -> None:
        decided.set()
        while (node := await one.session.get("/incarnations/2")) is None or node.version == number:
            await one.session.sync()

    if when == "before the write":
        write = Candidacy.write

        async def late_write(self: Candidacy, operations: Sequence[Operation]) -> list[int]:
            await registered_again()
            return await write(self, operations)

        monkeypatch.setattr(Candidacy, "write", late_write)
    else:
        absences = Controller._absences

        async def late_look(self: Controller, brokers: set[int]) -> dict[int, Check | None]:
            await registered_again()
            return await absences(self, brokers)

        monkeypatch.setattr(Controller, "_absences", late_look)
    # Broker 2 notices that its node was removed only once the controller has decided.
    register_again = Registrar.register_again

    async def hesitant(self: Registrar) -> None:
        if self.registration is not None and self.registration.broker_id == 2:
            await decided.wait()
        await register_again(self)

    monkeypatch.setattr(Registrar, "register_again", hesitant)
    await one.session.delete("/brokers/2")
    await until(one, lambda state: 2 in state.brokers and state.brokers[2].number > number)
    assert decided.is_set()
    # An order is followed when nothing is pending any more.
    await one.prefer_leaders()
    while await one.session.get("/preferred_leaders") is not None:
        await one.session.sync()
    await group.settle()
    assert one.state.topics["orders"].partitions == topic.partitions
    assert two.lease_until_ns > time.monotonic_ns()


async def test_a_new_controller_that_fails_at_first_still_looks_at_everything(
    group: StoreGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, three = await group.join_all(1, 2, 3)
    await one.create_topic("orders", assignment=[[3, 2]])
    await two.catch_up()
    # Broker 3 goes while nobody is controller, and what the next one does first goes wrong.
    assert two._controller is not None
    assert one._controller is not None
    failures = iter([CoordinationError("not now")])
    catch_up = TreeFollower.catch_up

    async def fail_once(follower: TreeFollower, timeout_s: float) -> None:
        if two._controller is not None and two._controller.epoch is not None:
            for failure in failures:
                raise failure
        await catch_up(follower, timeout_s)

    monkeypatch.setattr(TreeFollower, "catch_up", fail_once)
    await three._controller.close()  # type: ignore[union-attr]
    await one._controller.close()
    await group.leave(three)
    await until(two, lambda state: _partition(state, 0).leader == 2)
    assert next(failures, None) is None, "it did fail"


async def test_a_reader_that_was_cut_off_sees_everything_after(
    group: StoreGroup, zookeeper: ZooKeeper, url: str
) -> None:
    (one,) = await group.join_all(1)
    await one.create_topic("kept", partitions=3)
    await one.create_topic("deleted")
    root = url.rpartition("/")[2]
    async with FaultProxy(zookeeper.url.replace("zk://", "tcp://")) as proxy:
        far = await group.join(2, url=f"{proxy.url.replace('tcp://', 'zk://')}/{root}")
        changes: list[ClusterChange] = []
        far.on_change(changes.append)
        proxy.refuse = True
        proxy.drop()
        await one.delete_topic("deleted")
        await one.create_topic("deleted", partitions=2)
        await one.create_topic("new", assignment=[[1]])
        kept = one.state.topics["kept"].partitions[1]
        changed = await one.change_isr(one.state.topics["kept"].topic_id, 1, kept, [1])
        await one.alter_topic("kept", {"a": "b"})
        assert "new" not in far.state.topics
        proxy.refuse = False
        await until(far, lambda state: state == one.state)
        assert far.state.topics["kept"].partitions[1] == changed
        assert changes[-1].after == one.state
        assert {name for change in changes for name in change.topics} == {"kept", "deleted", "new"}
        # And the watch is there again.
        await one.delete_topic("new")
        await until(far, lambda state: "new" not in state.topics)
        await group.leave(far)


async def test_after_its_session_was_lost_a_broker_has_a_lease_only_when_registered_again(
    own_zookeeper: ZooKeeper,
) -> None:
    group = StoreGroup(own_zookeeper.url)
    try:
        (one,) = await group.join_all(1)
        async with FaultProxy(own_zookeeper.url.replace("zk://", "tcp://")) as proxy:
            address = proxy.url.replace("tcp://", "zk://")
            far = await group.join(2, url=address, session_timeout_s=1.0)
            first = (await until(one, lambda state: 2 in state.brokers)).brokers[2].number
            lost = far.session.session_id
            proxy.refuse = True
            proxy.drop()
            await until(one, lambda state: 2 not in state.brokers)
            assert far.lease_until_ns < time.monotonic_ns()
            proxy.refuse = False
            await until(one, lambda state: 2 in state.brokers)
            await until(far, lambda _state: far.session.session_id != lost)
            assert one.state.brokers[2].number > first
            assert one.state.brokers[2].incarnation == "2a"
            await far.catch_up()
            assert far.lease_until_ns > time.monotonic_ns()
            await group.leave(far)
    finally:
        await group.close()


async def test_the_cluster_goes_on_after_zookeeper_was_killed_and_started_again(
    own_zookeeper: ZooKeeper,
) -> None:
    group = StoreGroup(own_zookeeper.url)
    try:
        one, two = await group.join_all(1, 2, session_timeout_s=6.0)
        topic = await one.create_topic("orders", partitions=3, replication_factor=2)
        own_zookeeper.nodes[0].kill()
        with pytest.raises(CoordinationError):
            await one.allocate_producer_ids()
        own_zookeeper.nodes[0].start()
        for store in (one, two):
            await store.catch_up(GUARD_S)
            assert store.state.topics["orders"].topic_id == topic.topic_id
            assert set(store.state.brokers) == {1, 2}
        await two.create_topic("more", replication_factor=2)
        await until(one, lambda state: "more" in state.topics)
        await group.leave(two)
        await until(one, lambda state: set(_leaders(state)) == {1})
    finally:
        await group.close()


async def test_a_thousand_partitions_are_made_and_elected_in_seconds(group: StoreGroup) -> None:
    one, two = await group.join_all(1, 2)
    began_s = time.monotonic()
    await one.create_topic("orders", partitions=1000, replication_factor=2)
    await until(two, lambda state: "orders" in state.topics)
    await group.leave(two)
    await until(one, lambda state: set(_leaders(state)) == {1})
    assert all(state.isr == (1,) for state in one.state.topics["orders"].partitions)
    # Two seconds on an idle machine.
    assert time.monotonic() - began_s < 60


@pytest.mark.usefixtures("zookeeper")  # which skips where there is none
async def test_in_an_ensemble_a_broker_survives_the_server_it_is_connected_to() -> None:
    with ZooKeeper(nodes=3, tick_ms=200) as ensemble:
        group = StoreGroup(ensemble.url)
        try:
            one, two = await group.join_all(1, 2)
            await one.create_topic("orders", replication_factor=2)
            sessions = one.session.session_id, two.session.session_id
            ensemble.node_of("leader").kill()
            for store in (one, two):
                await store.catch_up(GUARD_S)
            assert (one.session.session_id, two.session.session_id) == sessions
            assert set(one.state.brokers) == {1, 2}
            await two.create_topic("more", replication_factor=2)
            assert one.lease_until_ns > time.monotonic_ns()
        finally:
            await group.close()


async def test_a_store_that_is_not_open_or_not_registered_says_so(url: str) -> None:
    store = ZooKeeperStore(url)
    with pytest.raises(CoordinationError, match="is not open"):
        _ = store.state
    await store.open()
    try:
        with pytest.raises(CoordinationError, match="not registered"):
            await store.create_topic("orders")
        assert store.lease_until_ns == 0
        assert store.controller_epoch is None
    finally:
        await store.close()


async def test_tails_that_no_node_can_hold_are_refused_before_anything_is_done(
    group: StoreGroup,
) -> None:
    store = await group.open()
    tails = {(bytes(16), index): (1, 2**40) for index in range(30_000)}
    with pytest.raises(ConfigError, match="use flush=batch"):
        await store.register(registration(1, certain=False), tails=tails)
    assert not store.state.brokers


async def test_partitions_that_are_left_from_a_failed_growth_are_written_over(
    group: StoreGroup,
) -> None:
    (one,) = await group.join_all(1)
    topic = await one.create_topic("orders")
    path = f"/partitions/{topic.topic_id.hex()}/1"
    stale = replace(topic.partitions[0], leader=NO_LEADER)
    await one.session.create(path, b"whatever is here")
    grown = await one.add_partitions("orders", 2)
    assert grown.partitions[1].leader == 1
    assert stale not in grown.partitions


async def test_a_late_growth_does_not_write_over_partitions_in_use(group: StoreGroup) -> None:
    (one,) = await group.join_all(1)
    topic = await one.create_topic("orders")
    _, version = await one._writer._topic("orders")
    await one.add_partitions("orders", 2)
    path = f"/partitions/{topic.topic_id.hex()}/1"
    with pytest.raises(ConflictError):
        await one.session.multi([Check("/topics/orders", version), Write(path, b"late", -1)])


def _partition(state: ClusterState, index: int):  # type: ignore[no-untyped-def]
    return state.topics["orders"].partitions[index]


def _leaders(state: ClusterState, *topics: str) -> list[int]:
    return [
        partition.leader
        for name in topics or state.topics
        for partition in state.topics[name].partitions
    ]
