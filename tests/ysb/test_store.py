"""The sink against a real Redis: a commit is whole or not at all, and a worker that was replaced cannot write."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from frieda.errors import ConfigError, FriedaError, TransportError
from frieda.testing.effort import examples
from frieda.ysb import layout
from frieda.ysb.campaigns import Campaigns
from frieda.ysb.layout import PartitionState
from frieda.ysb.reader import WindowUpdate, collect, dropped_views
from frieda.ysb.store import (
    Commit,
    Sink,
    campaigns_of,
    open_redis,
    partition_states,
    write_campaigns,
)

CAMPAIGNS = Campaigns.seeded(1, campaigns=3, ads_per_campaign=2)
FIRST, SECOND, THIRD = CAMPAIGNS.ids


def commit(
    counts: dict[int, dict[str, int]], position: int | str, partition: int = 0, **state: int
) -> Commit:
    return Commit(counts, {}, {partition: PartitionState(position=position, **state)})


def seen(updates: list[WindowUpdate]) -> dict[tuple[str, int], int]:
    return {(each.campaign, each.window_ms): each.seen_count for each in updates}


async def test_every_ad_leads_to_its_campaign_and_an_unknown_one_to_none(redis_url: str) -> None:
    async with open_redis(redis_url) as client:
        await write_campaigns(client, CAMPAIGNS)
        found = await campaigns_of(client, [*CAMPAIGNS.ads, "unknown"])
        assert found == CAMPAIGNS.by_ad()
        assert await client.smembers(layout.CAMPAIGNS_KEY) == set(CAMPAIGNS.ids)


async def test_more_ads_than_one_command_takes_are_written_and_found(redis_url: str) -> None:
    many = Campaigns.seeded(2, campaigns=5, ads_per_campaign=501)
    async with open_redis(redis_url) as client:
        await write_campaigns(client, many)
        assert await campaigns_of(client, many.ads) == many.by_ad()


async def test_a_database_with_campaigns_is_refused_and_left_as_it_is(redis_url: str) -> None:
    async with open_redis(redis_url) as client:
        await write_campaigns(client, CAMPAIGNS)
        with pytest.raises(ConfigError, match="holds campaigns already"):
            await write_campaigns(client, Campaigns.seeded(9))
        assert await client.smembers(layout.CAMPAIGNS_KEY) == set(CAMPAIGNS.ids)


async def test_counts_lie_where_the_original_reader_looks_for_them(redis_url: str) -> None:
    # Its steps, command by command: smembers, hget, llen, lrange, hget, hget, hget.
    async with open_redis(redis_url) as client:
        await write_campaigns(client, CAMPAIGNS)
        sink = Sink(client, [0])
        await sink.claim()
        await sink.commit(commit({10_000: {FIRST: 5}, 20_000: {FIRST: 1}}, 7), 31_000)
        await sink.commit(commit({20_000: {FIRST: 2}}, 8), 32_000)
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


async def test_two_workers_that_begin_the_same_window_share_it(redis_url: str) -> None:
    async with open_redis(redis_url) as client:
        await write_campaigns(client, CAMPAIGNS)
        sinks = [Sink(client, [number]) for number in (0, 1)]
        for number, sink in enumerate(sinks):
            await sink.claim()
            await sink.commit(commit({0: {FIRST: 1 + number}}, 1, partition=number), 5 + number)
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
    async with open_redis(redis_url) as client:
        sink = Sink(client, [0, 1])
        assert await sink.claim() == {0: PartitionState(), 1: PartitionState()}
        await sink.commit(Commit({}, {}, {1: state}), 1)
        assert await Sink(client, [1, 2]).claim() == {1: state, 2: PartitionState()}


async def test_a_worker_that_was_replaced_writes_nothing(redis_url: str) -> None:
    async with open_redis(redis_url) as client:
        old = Sink(client, [0, 1])
        await old.claim()
        await old.commit(commit({0: {FIRST: 1}}, 1), 1)
        await Sink(client, [1]).claim()
        with pytest.raises(FriedaError, match="another worker has taken over partitions 0, 1"):
            await old.commit(commit({0: {FIRST: 1}}, 2), 2)
        assert seen(await collect_all(client)) == {(FIRST, 0): 1}
        assert (await partition_states(client, [0]))[0].position == 1


async def test_a_claim_between_the_look_and_the_writing_stops_the_commit(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The moment in which a worker that stood still long enough would count twice.
    async with open_redis(redis_url) as client:
        old = Sink(client, [0])
        await old.claim()
        taken_over = asyncio.Event()
        queue = old._queue

        def late(pipe: Any, what: Commit, time_ms: int) -> None:
            queue(pipe, what, time_ms)
            taken_over.set()

        monkeypatch.setattr(old, "_queue", late)
        real_execute = type(client.pipeline()).execute

        async def execute(pipe: Any, *arguments: Any, **named: Any) -> Any:
            if taken_over.is_set():
                monkeypatch.undo()
                await Sink(client, [0]).claim()
            return await real_execute(pipe, *arguments, **named)

        monkeypatch.setattr(type(client.pipeline()), "execute", execute)
        with pytest.raises(FriedaError, match="taken over"):
            await old.commit(commit({0: {FIRST: 1}}, 1), 1)
        assert await collect_all(client) == []
        assert (await partition_states(client, [0]))[0] == PartitionState()


async def test_dropped_views_are_kept_beside_the_counts(redis_url: str) -> None:
    async with open_redis(redis_url) as client:
        sink = Sink(client, [0])
        await sink.claim()
        for _ in range(2):
            await sink.commit(Commit({}, {10: {FIRST: 2, SECOND: 1}}, {}), 1)
        assert await dropped_views(client) == {(FIRST, 10): 4, (SECOND, 10): 2}


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
    redis_server: Any, batches: list[list[tuple[str, int]]], crashes: list[str]
) -> None:
    # "before": it dies with counts that were not written; "after": before it hears that they were.
    async def run() -> None:
        async with open_redis(redis_server.unix_address) as client:
            await client.flushall()
            await write_campaigns(client, CAMPAIGNS)
            sink = Sink(client, [0])
            position = (await sink.claim())[0].position or 0
            for crash in [*crashes, *(["none"] * len(batches))]:
                assert isinstance(position, int)
                if position == len(batches):
                    break
                counts: dict[int, dict[str, int]] = {}
                for campaign, window_ms in batches[position]:
                    by_campaign = counts.setdefault(window_ms, {})
                    by_campaign[campaign] = by_campaign.get(campaign, 0) + 1
                if crash != "before":
                    await sink.commit(commit(counts, position + 1), 1)
                    position += 1
                if crash != "none":
                    sink = Sink(client, [0])
                    position = (await sink.claim())[0].position or 0
            wanted: dict[tuple[str, int], int] = {}
            for view in (view for batch in batches for view in batch):
                wanted[view] = wanted.get(view, 0) + 1
            assert seen(await collect(client)) == wanted

    asyncio.run(run())


async def test_a_damaged_state_is_named(redis_url: str) -> None:
    async with open_redis(redis_url) as client:
        await client.hset(layout.partition_key(0), mapping={"position": "{}", "events": "many"})
        with pytest.raises(FriedaError, match="a partition's state in Redis is damaged"):
            await Sink(client, [0]).claim()


@pytest.mark.parametrize(
    ("use", "error", "says"),
    [
        ("unix:///nowhere/redis.sock", TransportError, "Redis at unix:///nowhere/redis.sock"),
        ("http://localhost", ConfigError, "--redis http://localhost"),
        ("redis://user:secret@127.0.0.1:1/0", TransportError, "Redis at redis://127.0.0.1:1/0"),
    ],
)
async def test_a_redis_that_is_not_there_is_named_without_its_password(
    use: str, error: type[FriedaError], says: str
) -> None:
    with pytest.raises(error) as caught:
        async with open_redis(use):
            raise AssertionError("there is none")
    assert says in str(caught.value)
    assert "secret" not in str(caught.value)


async def test_a_reader_says_which_window_has_no_counts(redis_url: str) -> None:
    async with open_redis(redis_url) as client:
        await client.sadd("campaigns", "c")
        await client.hset("c", mapping={"windows": "list", "10000": "window"})
        await client.lpush("list", "10000")
        with pytest.raises(FriedaError, match="window 10000 of campaign c has no counts"):
            await collect(client)


async def collect_all(client: Any) -> list[WindowUpdate]:
    """Also where no campaigns were written."""
    await client.sadd(layout.CAMPAIGNS_KEY, *CAMPAIGNS.ids)
    return await collect(client)
