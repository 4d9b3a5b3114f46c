"""The sink against a real Redis: a commit is whole or not at all, and a worker that was replaced cannot write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from frieda.bench.drivers.redis_connection import command_bytes
from frieda.bench.systems.redis import RedisSystem, RunningRedis
from frieda.errors import ConfigError, FriedaError, TransportError
from frieda.testing.effort import examples
from frieda.ysb import layout, sink
from frieda.ysb.campaigns import Campaigns
from frieda.ysb.layout import PartitionState
from frieda.ysb.reader import WindowUpdate, collect, dropped_views
from frieda.ysb.sink import Commit, Sink
from frieda.ysb.store import open_redis, partition_states, write_campaigns

CAMPAIGNS = Campaigns.seeded(1, campaigns=3, ads_per_campaign=2)
FIRST, SECOND, THIRD = CAMPAIGNS.ids


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Any]:
    """redis-py on an empty database with the campaigns."""
    async with open_redis(redis_url) as client:
        await write_campaigns(client, CAMPAIGNS)
        yield client


def commit(counts: dict[int, dict[str, int]], position: int | str, partition: int = 0) -> Commit:
    return Commit(counts, {}, {partition: PartitionState(position=position)})


def seen(updates: list[WindowUpdate]) -> dict[tuple[str, int], int]:
    return {(each.campaign, each.window_ms): each.seen_count for each in updates}


async def test_counts_lie_where_the_original_reader_looks_for_them(
    client: Any, redis_url: str
) -> None:
    # Its steps, command by command: smembers, hget, llen, lrange, hget, hget, hget.
    async with Sink(redis_url, [0]) as writer:
        await writer.claim()
        await writer.commit(commit({10_000: {FIRST: 5}, 20_000: {FIRST: 1}}, 7), 31_000)
        await writer.commit(commit({20_000: {FIRST: 2}}, 8), 32_000)
    found = {}
    for campaign in await client.smembers("campaigns"):
        windows_key = await client.hget(campaign, "windows")
        if windows_key is None:
            continue
        length = await client.llen(windows_key)
        for window in await client.lrange(windows_key, 0, length):
            window_key = await client.hget(campaign, window)
            found[campaign, window] = (
                await client.hget(window_key, "seen_count"),
                await client.hget(window_key, "time_updated"),
            )
    assert found == {(FIRST, "10000"): ("5", "31000"), (FIRST, "20000"): ("3", "32000")}
    assert sorted(await collect(client)) == [
        WindowUpdate(FIRST, 10_000, 5, 31_000),
        WindowUpdate(FIRST, 20_000, 3, 32_000),
    ]


async def test_two_workers_that_begin_the_same_window_share_it(client: Any, redis_url: str) -> None:
    async with Sink(redis_url, [0]) as first, Sink(redis_url, [1]) as second:
        for number, writer in enumerate((first, second)):
            await writer.claim()
            await writer.commit(commit({0: {FIRST: 1 + number}}, 1, number), 5 + number)
    assert await collect(client) == [WindowUpdate(FIRST, 0, 3, 6)]
    states = await partition_states(client, [0, 1, 2])
    assert [state.position for state in states.values()] == [1, 1, None]


@pytest.mark.parametrize("position", [0, 17, 2**60, "1700000000000-3", "$"])
async def test_a_new_worker_goes_on_where_the_last_commit_stood(
    redis_url: str, position: int | str
) -> None:
    state = PartitionState(
        position=position, watermark_ms=9, events=8, views=7, late=6, dropped=5, malformed=4, unjoined=3
    )  # fmt: skip
    async with Sink(redis_url, [0, 1]) as writer:
        assert await writer.claim() == {0: PartitionState(), 1: PartitionState()}
        await writer.commit(Commit({}, {}, {1: state}), 1)
    async with Sink(redis_url, [1, 2]) as writer:
        assert await writer.claim() == {1: state, 2: PartitionState()}


async def test_a_worker_that_was_replaced_writes_nothing(client: Any, redis_url: str) -> None:
    # The replaced one looked last when its names still stood: what stops it is the watch.
    async with Sink(redis_url, [0, 1]) as old, Sink(redis_url, [1]) as new:
        await old.claim()
        await old.commit(commit({0: {FIRST: 1}}, 1), 1)
        await new.claim()
        for _ in range(2):
            with pytest.raises(FriedaError, match="another worker has taken over partitions 0, 1"):
                await old.commit(commit({0: {FIRST: 1}}, 2), 2)
        await new.commit(commit({0: {FIRST: 10}}, 5, 1), 3)
    assert seen(await collect(client)) == {(FIRST, 0): 11}
    states = await partition_states(client, [0, 1])
    assert [state.position for state in states.values()] == [1, 5]


async def test_a_claim_between_a_commit_and_the_next_watch_is_seen_by_the_look(
    client: Any, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No watch stood when the name changed: the look at the names behind it must find out.
    async with Sink(redis_url, [0]) as old:
        await old.claim()
        changed = command_bytes("SET", layout.owner_key(0), "another")
        exchange = old._exchange

        async def claimed_meanwhile(data: bytes, count: int) -> list[Any]:
            return await exchange(data.replace(sink._EXEC, sink._EXEC + changed), count + 1)

        monkeypatch.setattr(old, "_exchange", claimed_meanwhile)
        with pytest.raises(FriedaError, match="taken over"):
            await old.commit(commit({0: {FIRST: 1}}, 1), 1)
        monkeypatch.undo()
        with pytest.raises(FriedaError, match="taken over"):
            await old.commit(commit({0: {FIRST: 1}}, 2), 1)
    assert seen(await collect(client)) == {(FIRST, 0): 1}
    assert (await partition_states(client, [0]))[0].position == 1


async def test_a_name_that_was_lost_before_the_claim_was_read_is_noticed(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Sink(redis_url, [0]) as writer:
        lost = command_bytes("SET", layout.owner_key(0), "another")
        monkeypatch.setattr(writer, "_claims", [*writer._claims, lost])
        with pytest.raises(FriedaError, match="taken over"):
            await writer.claim()


async def test_dropped_views_are_kept_beside_the_counts(client: Any, redis_url: str) -> None:
    async with Sink(redis_url, [0]) as writer:
        await writer.claim()
        for _ in range(2):
            await writer.commit(Commit({}, {10: {FIRST: 2, SECOND: 1}}, {}), 1)
    assert await dropped_views(client) == {(FIRST, 10): 4, (SECOND, 10): 2}


async def test_a_database_of_its_own_is_kept_apart(
    redis_server: RunningRedis, redis_url: str
) -> None:
    for other in (f"{redis_server.address}/3", f"{redis_server.unix_address}?db=4"):
        async with (
            Sink(other, [0]) as writer,
            open_redis(other) as its,
            open_redis(redis_url) as client,
        ):
            await writer.claim()
            await writer.commit(commit({}, 9), 1)
            assert (await partition_states(its, [0]))[0].position == 9
            assert (await partition_states(client, [0]))[0].position is None


@settings(max_examples=examples(15), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batches=st.lists(
        st.lists(st.tuples(st.sampled_from(CAMPAIGNS.ids), st.sampled_from([0, 10, 20]))),
        min_size=1,
        max_size=12,
    ),
    crashes=st.lists(st.sampled_from(["before", "after", "none"]), min_size=12, max_size=12),
)
def test_however_often_a_worker_dies_around_a_commit_every_view_counts_once(
    redis_server: RunningRedis, batches: list[list[tuple[str, int]]], crashes: list[str]
) -> None:
    # "before": it dies with counts that were not written; "after": before it hears that they were.
    async def run() -> None:
        url = redis_server.unix_address
        async with open_redis(url) as client:
            await client.flushall()
            await write_campaigns(client, CAMPAIGNS)
            position = 0
            left = [*crashes, *(["none"] * len(batches))]
            while position < len(batches):
                async with Sink(url, [0]) as writer:
                    found = (await writer.claim())[0].position or 0
                    assert isinstance(found, int)
                    position, crash = found, "none"
                    while position < len(batches) and crash == "none":
                        crash = left.pop(0)
                        if crash != "before":
                            counts = counted(batches[position])
                            await writer.commit(commit(counts, position + 1), 1)
                            position += 1
            wanted: dict[tuple[str, int], int] = {}
            for view in (view for batch in batches for view in batch):
                wanted[view] = wanted.get(view, 0) + 1
            assert seen(await collect(client)) == wanted

    asyncio.run(run())


def counted(views: list[tuple[str, int]]) -> dict[int, dict[str, int]]:
    counts: dict[int, dict[str, int]] = {}
    for campaign, window_ms in views:
        by_campaign = counts.setdefault(window_ms, {})
        by_campaign[campaign] = by_campaign.get(campaign, 0) + 1
    return counts


async def test_a_damaged_state_is_named(client: Any, redis_url: str) -> None:
    await client.hset(layout.partition_key(0), mapping={"position": "{}", "events": "many"})
    async with Sink(redis_url, [0]) as writer:
        with pytest.raises(FriedaError, match="a partition's state in Redis is damaged"):
            await writer.claim()


async def test_a_key_of_another_kind_in_the_way_is_an_error_and_the_sink_ends(
    client: Any, redis_url: str
) -> None:
    await client.set(FIRST, "no hash")
    async with Sink(redis_url, [0]) as writer:
        await writer.claim()
        for _ in range(2):
            with pytest.raises(FriedaError, match="WRONGTYPE"):
                await writer.commit(commit({0: {FIRST: 1}}, 1), 1)


async def test_a_redis_that_dies_fails_the_commit_and_all_behind_it(tmp_path: Any) -> None:
    with RedisSystem().running(tmp_path, "cache") as running:
        async with Sink(running.unix_address, [0]) as writer:
            await writer.claim()
            running.process.kill()
            for _ in range(2):
                with pytest.raises(TransportError, match="Redis at unix://"):
                    await writer.commit(commit({0: {FIRST: 1}}, 1), 1)


async def test_a_commit_that_was_given_up_leaves_a_sink_of_no_more_use(redis_url: str) -> None:
    async with Sink(redis_url, [0]) as writer:
        await writer.claim()
        giving_up = asyncio.ensure_future(writer.commit(commit({0: {FIRST: 1}}, 1), 1))
        await asyncio.sleep(0)
        with pytest.raises(FriedaError, match="a commit is under way already"):
            await writer.commit(commit({}, 2), 1)
        giving_up.cancel()
        await asyncio.wait([giving_up])
        with pytest.raises(FriedaError, match="the sink was given up"):
            await writer.commit(commit({}, 2), 1)


@pytest.mark.parametrize("url", ["http://localhost", "rediss://localhost:6379", "localhost:6379"])
async def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="must be redis://host:port/database or unix:///path"):
        async with Sink(url, [0]):
            raise AssertionError("there is none")
