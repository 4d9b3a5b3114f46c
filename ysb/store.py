"""Redis through redis-py: campaigns written and looked up, and what is committed of each partition.

What is written while the load runs goes through `frieda.ysb.sink`.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from frieda.errors import ConfigError, FriedaError, MissingDependencyError, TransportError
from frieda.ysb import layout
from frieda.ysb.campaigns import Campaigns
from frieda.ysb.layout import PartitionState

if TYPE_CHECKING:
    from redis.asyncio import Redis

TIMEOUT_S: Final = 10.0
_KEYS_AT_ONCE: Final = 1000


@contextlib.asynccontextmanager
async def open_redis(url: str) -> AsyncIterator[Redis]:
    """A client of the Redis at redis://host:port/database or unix:///path, answers decoded.

    Raises ConfigError, MissingDependencyError, TransportError when nobody answers there.
    """
    try:
        from redis.asyncio import Redis  # noqa: PLC0415  (only who talks to Redis needs it)
    except ImportError:
        raise MissingDependencyError(
            "the Yahoo Streaming Benchmark needs redis-py: pip install 'frieda[ysb]'"
        ) from None
    try:
        client = Redis.from_url(
            url,
            decode_responses=True,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
        )
    except ValueError as error:
        raise ConfigError(f"--redis {without_password(url)}: {error}") from None
    try:
        with redis_errors(url):
            await client.execute_command("PING")
        yield client
    finally:
        await client.aclose()


@contextlib.contextmanager
def redis_errors(url: str = "") -> Iterator[None]:
    """What redis-py raises, as errors of ours: TransportError when the connection fails, else FriedaError."""
    import redis  # noqa: PLC0415

    place = f"Redis at {without_password(url)}" if url else "Redis"
    try:
        yield
    except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
        raise TransportError(f"{place}: {error}") from None
    except redis.RedisError as error:
        raise FriedaError(f"{place}: {error}") from None


async def write_campaigns(client: Redis, campaigns: Campaigns) -> None:
    """Write campaigns and ads. Raises ConfigError when that database holds some already: it is not ours to empty."""
    with redis_errors():
        if await client.execute_command("EXISTS", layout.CAMPAIGNS_KEY):
            raise ConfigError(
                "this database of Redis holds campaigns already: give another (redis://host:port/NUMBER), or "
                "empty it with 'redis-cli -n NUMBER flushdb'"
            )
        await client.execute_command("SADD", layout.CAMPAIGNS_KEY, *campaigns.ids)
        pairs = [part for pair in campaigns.by_ad().items() for part in pair]
        for begin in range(0, len(pairs), 2 * _KEYS_AT_ONCE):
            await client.execute_command("MSET", *pairs[begin : begin + 2 * _KEYS_AT_ONCE])


async def campaigns_of(client: Redis, ads: Sequence[str]) -> dict[str, str]:
    """The campaign of each ad that has one. Raises FriedaError."""
    found: dict[str, str] = {}
    with redis_errors():
        for begin in range(0, len(ads), _KEYS_AT_ONCE):
            part = ads[begin : begin + _KEYS_AT_ONCE]
            answers = await client.execute_command("MGET", *part)
            found |= {ad: answer for ad, answer in zip(part, answers, strict=True) if answer}
    return found


async def partition_states(client: Redis, partitions: Sequence[int]) -> dict[int, PartitionState]:
    """What is committed of each partition. Raises FriedaError."""
    with redis_errors():
        async with client.pipeline(transaction=True) as pipe:
            for partition in partitions:
                pipe.execute_command("HGETALL", layout.partition_key(partition))
            answers = await pipe.execute()
    return {
        partition: PartitionState.from_fields(fields)
        for partition, fields in zip(partitions, answers, strict=True)
    }


def without_password(url: str) -> str:
    """The address as it may be shown."""
    place, mark, query = re.sub("//[^/]*@", "//", url).partition("?")
    return place if "password" in query else place + mark + query
