"""What the pipeline has in Redis: campaigns to join with, and the sink, whose counts are exact also after a crash.

A commit is one MULTI: what each count grows by, and how far each partition was read. A worker that is killed leaves
either both or neither, and the next one goes on from there. The next one first puts its name on the partitions it
claims. A commit watches those names, so one that a dead or cut off worker still had under way fails from then on
instead of counting twice.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

from frieda.errors import ConfigError, FriedaError, MissingDependencyError, TransportError
from frieda.ysb import layout
from frieda.ysb.campaigns import Campaigns
from frieda.ysb.layout import PartitionState
from frieda.ysb.window import Counts, each_count

if TYPE_CHECKING:
    from redis.asyncio import Redis

TIMEOUT_S: Final = 10.0
MAX_OPEN_WINDOWS: Final = 1000
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
        raise ConfigError(f"--redis {_without_password(url)}: {error}") from None
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

    place = f"Redis at {_without_password(url)}" if url else "Redis"
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


@dataclass(frozen=True, slots=True)
class Commit:
    """What one commit writes."""

    counts: Counts
    dropped: Counts
    states: Mapping[int, PartitionState]


class Sink:
    """Writes the counts of the partitions of one worker. `claim` comes first."""

    def __init__(self, client: Redis, partitions: Sequence[int]) -> None:
        self._client = client
        self._partitions = tuple(partitions)
        self._owners = [layout.owner_key(partition) for partition in partitions]
        self._name = secrets.token_hex(8)
        self._window_keys: dict[int, dict[str, str]] = {}

    async def claim(self) -> dict[int, PartitionState]:
        """Become the one who writes for the partitions, and learn where the one before stood. Raises FriedaError."""
        with redis_errors():
            async with self._client.pipeline(transaction=True) as pipe:
                for owner in self._owners:
                    pipe.execute_command("SET", owner, self._name)
                await pipe.execute()
        # Read only now: no commit of another worker can come behind the new names.
        return await partition_states(self._client, self._partitions)

    async def commit(self, commit: Commit, time_ms: int) -> None:
        """Write it all or nothing. `time_ms` (since the epoch) becomes the windows' time_updated.

        Raises FriedaError when another worker has claimed one of the partitions: nothing was written. After
        a TransportError it may or may not be written; a new worker finds out by its claim.
        """
        import redis  # noqa: PLC0415

        with redis_errors():
            async with self._client.pipeline(transaction=True) as pipe:
                await pipe.watch(*self._owners)
                names = cast("list[str]", await pipe.execute_command("MGET", *self._owners))
                if any(name != self._name for name in names):
                    raise self._taken_over()
                pipe.multi()
                self._queue(pipe, commit, time_ms)
                try:
                    await pipe.execute()
                except redis.WatchError:
                    raise self._taken_over() from None

    def _queue(self, pipe: Any, commit: Commit, time_ms: int) -> None:
        for window_ms, campaign, views in each_count(commit.counts):
            key = self._key_of(pipe, campaign, window_ms)
            pipe.execute_command("HINCRBY", key, layout.SEEN_FIELD, views)
            pipe.execute_command("HSET", key, layout.UPDATED_FIELD, time_ms)
        for window_ms, campaign, views in each_count(commit.dropped):
            field = layout.dropped_field(window_ms, campaign)
            pipe.execute_command("HINCRBY", layout.DROPPED_KEY, field, views)
        for partition, state in commit.states.items():
            fields = [part for pair in state.as_fields().items() for part in pair]
            pipe.execute_command("HSET", layout.partition_key(partition), *fields)

    def _key_of(self, pipe: Any, campaign: str, window_ms: int) -> str:
        """The key of a window's hash, which is made known to the campaign when this worker first writes to it."""
        keys = self._window_keys.get(window_ms)
        if keys is None:
            while len(self._window_keys) >= MAX_OPEN_WINDOWS:
                del self._window_keys[min(self._window_keys)]
            keys = self._window_keys[window_ms] = {}
        key = keys.get(campaign)
        if key is None:
            key = keys[campaign] = layout.window_key(campaign, window_ms)
            windows = layout.window_list_key(campaign)
            pipe.execute_command("HSET", campaign, window_ms, key, layout.WINDOWS_FIELD, windows)
            # Another worker may have put it there.
            pipe.execute_command("LREM", windows, 0, window_ms)
            pipe.execute_command("LPUSH", windows, window_ms)
        return key

    def _taken_over(self) -> FriedaError:
        return FriedaError(
            f"another worker has taken over partitions {', '.join(map(str, self._partitions))}"
        )


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    if parts.password is None:
        return url
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
