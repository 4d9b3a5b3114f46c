"""Metadata stores of several brokers in one process, against a real ZooKeeper, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from frieda.cluster.election import Tail
from frieda.cluster.state import BrokerRegistration, ClusterState
from frieda.cluster.zookeeper import ZooKeeperStore

GUARD_S: Final = 120.0
"""Against hanging: a machine that is slow, or stands still for a while, needs less."""


class StoreGroup:
    """Stores at one address. Owner: the test, which closes it; that closes those that are open still."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.stores: list[ZooKeeperStore] = []

    async def open(self, url: str | None = None, **settings: Any) -> ZooKeeperStore:
        """A store that has not registered. `settings`: arguments of ZooKeeperStore."""
        store = ZooKeeperStore(url or self.url, **({"session_timeout_s": 30.0} | settings))
        await store.open(GUARD_S)
        self.stores.append(store)
        return store

    async def join(
        self,
        number: int,
        life: str = "a",
        *,
        certain: bool = True,
        rack: str | None = None,
        replaces: str | None = None,
        tails: Mapping[tuple[bytes, int], Tail] | None = None,
        url: str | None = None,
        **settings: Any,
    ) -> ZooKeeperStore:
        """A store that has registered as a broker."""
        store = await self.open(url, **settings)
        await store.register(
            registration(number, life, certain=certain, rack=rack), replaces=replaces, tails=tails
        )
        return store

    async def join_all(self, *numbers: int, **settings: Any) -> list[ZooKeeperStore]:
        """Brokers that all know of each other, the first of them controller."""
        stores = []
        for number in numbers:
            stores.append(await self.join(number, **settings))
            await until(stores[0], lambda state: state.controller_id == numbers[0])
        for store in stores:
            await until(store, lambda state: set(numbers) <= set(state.brokers))
        return stores

    async def settle(self) -> None:
        """Let every store know what any of them has done."""
        for store in self.stores:
            await store.catch_up(GUARD_S)

    async def leave(self, store: ZooKeeperStore) -> None:
        """End without handing over: to the others it looks like a death, only sooner."""
        self.stores.remove(store)
        await store.close()

    async def close(self) -> None:
        """Close every store that is still open."""
        while self.stores:
            await self.stores.pop().close()


def registration(
    number: int, life: str = "a", *, certain: bool = True, rack: str | None = None
) -> BrokerRegistration:
    """A broker's, of a life of its own: the incarnation of broker 3 in life "b" is "3b"."""
    return BrokerRegistration(
        broker_id=number,
        incarnation=f"{number}{life}",
        listeners=(f"tcp://127.0.0.1:{9000 + number}",),
        tail_certain=certain,
        rack=rack,
    )


async def until(store: ZooKeeperStore, holds: Callable[[ClusterState], bool]) -> ClusterState:
    """Wait for a state of which `holds` is true; a KeyError is "not yet". Raises TimeoutError when none comes."""
    changed = asyncio.Event()
    store.on_change(lambda _change: changed.set())
    async with asyncio.timeout(GUARD_S):
        while not _is_true(holds, store.state):
            changed.clear()
            await changed.wait()
    return store.state


def _is_true(holds: Callable[[ClusterState], bool], state: ClusterState) -> bool:
    try:
        return holds(state)
    except KeyError:
        return False


async def eventually(holds: Callable[[], bool]) -> None:
    """Look until `holds` is true, for what nobody tells of. Raises TimeoutError when it does not become so."""
    async with asyncio.timeout(GUARD_S):
        while not holds():  # noqa: ASYNC110  (there is no event to wait for)
            await asyncio.sleep(0.01)
