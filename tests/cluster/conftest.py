"""One real ZooKeeper for all tests of this folder, a root of its own for each test, and stores that join there."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator, Iterator

import pytest

from frieda.testing.stores import StoreGroup
from frieda.testing.zookeeper import ZooKeeper, missing

_roots = itertools.count()


def require_zookeeper() -> None:
    """Skip where there is none, and fail where there has to be one."""
    if (sentence := missing()) is not None:
        if os.environ.get("CI") == "true":
            pytest.fail(sentence)
        pytest.skip(sentence)


@pytest.fixture(scope="session")
def zookeeper() -> Iterator[ZooKeeper]:
    """Shared: a test must not stop, pause or restart it."""
    require_zookeeper()
    with ZooKeeper(tick_ms=100) as running:
        yield running


@pytest.fixture
def own_zookeeper() -> Iterator[ZooKeeper]:
    """For a test that does harm to it."""
    require_zookeeper()
    with ZooKeeper(tick_ms=100) as running:
        yield running


@pytest.fixture
def url(zookeeper: ZooKeeper) -> str:
    """A root below which nothing is."""
    return f"{zookeeper.url}/test-{next(_roots)}"


@pytest.fixture
async def group(url: str) -> AsyncIterator[StoreGroup]:
    """Stores below that root."""
    stores = StoreGroup(url)
    yield stores
    await stores.close()
