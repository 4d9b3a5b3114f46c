"""Brokers that come, go, stop and move partitions at random, and what must hold of everything that was ever seen."""

from __future__ import annotations

import contextlib
import random

import pytest

from frieda.cluster.election import leads
from frieda.cluster.state import NO_LEADER
from frieda.cluster.store import ClusterChange
from frieda.cluster.zookeeper import ZooKeeperStore
from frieda.errors import BrokerError, ConflictError
from frieda.model import TopicPartition
from frieda.testing.effort import EFFORT
from frieda.testing.stores import StoreGroup, until

BROKERS = (1, 2, 3, 4)
PARTITIONS = 6
STEPS = 30 * EFFORT


class Observer:
    """Checks each state of each partition that it is told of against those before."""

    def __init__(self, store: ZooKeeperStore) -> None:
        self.leaders: dict[tuple[TopicPartition, int], tuple[int, str]] = {}
        self.last: dict[TopicPartition, tuple[int, int]] = {}
        self.faults: list[str] = []
        store.on_change(self.note)

    def note(self, change: ClusterChange) -> None:
        for partition in change.partitions:
            state = change.after.topics[partition.topic].partitions[partition.partition]
            epoch_and_version = state.leader_epoch, state.version
            before = self.last.get(partition, (-1, -1))
            if epoch_and_version[0] < before[0] or epoch_and_version[1] <= before[1]:
                self.faults.append(f"{partition} went back from {before} to {epoch_and_version}")
            self.last[partition] = epoch_and_version
            if not state.isr or not set(state.isr) <= set(state.replicas):
                self.faults.append(f"{partition} has the ISR {state.isr} of {state.replicas}")
            if state.leader == NO_LEADER:
                continue
            if state.leader not in state.isr:
                self.faults.append(f"{partition} is led by {state.leader}, ISR {state.isr}")
            leader = state.leader, state.leader_incarnation
            if self.leaders.setdefault((partition, state.leader_epoch), leader) != leader:
                self.faults.append(f"{partition} has two leaders in epoch {state.leader_epoch}")


@pytest.mark.parametrize("seed", [1, 2])
async def test_whatever_happens_an_epoch_has_one_leader_and_in_the_end_everybody_is_led(
    group: StoreGroup, seed: int
) -> None:
    chance = random.Random(seed)
    alive = {number: await group.join(number) for number in BROKERS}
    lives = dict.fromkeys(BROKERS, 0)
    await group.settle()
    topic = await alive[1].create_topic("orders", partitions=PARTITIONS, replication_factor=3)
    observer_store = await group.open()
    observer = Observer(observer_store)

    async def start(number: int) -> None:
        lives[number] += 1
        alive[number] = await group.join(number, f"-{lives[number]}")

    async def change_isrs(store: ZooKeeperStore) -> None:
        """As leaders do: drop some, take those back that are there."""
        own = next(number for number, each in alive.items() if each is store)
        brokers = store.state.brokers
        for index, state in enumerate(store.state.topics["orders"].partitions):
            if state.leader != own or not leads(state, brokers):
                continue
            isr = [
                n for n in state.replicas if n == own or (n in brokers and chance.random() < 0.7)
            ]
            joining = {n: brokers[n].number for n in isr if n not in state.isr}
            with contextlib.suppress(ConflictError):  # somebody was quicker, as may be
                await store.change_isr(topic.topic_id, index, state, isr, joining=joining)

    for _ in range(STEPS):
        number = chance.choice(BROKERS)
        store = alive.get(number)
        match chance.choice(["start", "leave", "stop", "isr", "isr", "isr", "prefer", "reassign"]):
            case "start" if store is None:
                await start(number)
            case "leave" if store is not None and len(alive) > 1:
                await group.leave(alive.pop(number))
            case "stop" if store is not None and len(alive) > 1:
                await store.hand_over(0.5)
                await group.leave(alive.pop(number))
            case "isr" if store is not None:
                await change_isrs(store)
            case "prefer" if store is not None:
                with contextlib.suppress(ConflictError):  # the last such order is not done yet
                    await store.prefer_leaders()
            case "reassign" if store is not None:
                target = chance.sample(
                    sorted(store.state.brokers), min(2, len(store.state.brokers))
                )
                partition = TopicPartition("orders", chance.randrange(PARTITIONS))
                # It changed meanwhile, or one of them is gone.
                with contextlib.suppress(ConflictError, BrokerError):
                    await store.reassign(partition, target)

    for number in BROKERS:
        if number not in alive:
            await start(number)
    await until(
        observer_store,
        lambda state: all(leads(each, state.brokers) for each in state.topics["orders"].partitions),
    )
    assert not observer.faults, f"seed {seed}: {observer.faults[0]}"
    assert len(observer.leaders) > PARTITIONS, "leaders did change"
