"""Campaigns in a real Redis, and the reader of what the pipeline wrote."""

from __future__ import annotations

import pytest

from frieda.errors import ConfigError, FriedaError, TransportError
from frieda.ysb import layout
from frieda.ysb.campaigns import Campaigns
from frieda.ysb.reader import collect
from frieda.ysb.store import campaigns_of, open_redis, write_campaigns

CAMPAIGNS = Campaigns.seeded(1, campaigns=3, ads_per_campaign=2)


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


@pytest.mark.parametrize(
    ("url", "error", "says"),
    [
        ("unix:///nowhere/redis.sock", TransportError, "Redis at unix:///nowhere/redis.sock"),
        ("unix:///nowhere?password=secret", TransportError, "Redis at unix:///nowhere"),
        ("http://localhost", ConfigError, "--redis http://localhost"),
        ("redis://user:secret@127.0.0.1:1/0", TransportError, "Redis at redis://127.0.0.1:1/0"),
    ],
)
async def test_a_redis_that_is_not_there_is_named_without_its_password(
    url: str, error: type[FriedaError], says: str
) -> None:
    with pytest.raises(error) as caught:
        async with open_redis(url):
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
