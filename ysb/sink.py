"""Writes the counts to Redis, exactly once also when workers crash.

A commit is one MULTI: what each count grows by, and how far each partition was read. A worker that is killed leaves
either both or neither, and the next one goes on from there. The next one first puts its name on the partitions that it
claims. Every commit watches those names, so one that a dead or cut off worker still has under way fails from then on
instead of counting twice.

The watch stands from one commit to the next: each commit's last words are WATCH for the one behind it, and a look
whether the names are still ours. So a commit is one round trip. It goes through hiredis on a bare connection: 0.24 ms
of processor time for a hundred campaigns, which is taken from the events (redis-py's pipeline: 2.2 ms, three trips).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import parse_qs, unquote, urlsplit

from frieda.bench.drivers.redis_connection import RedisConnection, command_bytes, error_in
from frieda.errors import ConfigError, FriedaError, TransportError
from frieda.ysb import layout
from frieda.ysb.layout import PartitionState
from frieda.ysb.store import without_password
from frieda.ysb.window import Counts, each_count

TIMEOUT_S: Final = 10.0
MAX_OPEN_WINDOWS: Final = 1000
_MULTI: Final = b"*1\r\n$5\r\nMULTI\r\n"
_EXEC: Final = b"*1\r\n$4\r\nEXEC\r\n"


@dataclass(frozen=True, slots=True)
class Commit:
    """What one commit writes."""

    counts: Counts
    dropped: Counts
    states: Mapping[int, PartitionState]


class Sink:
    """Writes for the partitions of one worker, to redis://host:port/database or unix:///path. Use it as `async with`.

    `claim` comes first. After any error it is of no more use: a new one finds by its claim what was written.
    """

    def __init__(self, url: str, partitions: Sequence[int]) -> None:
        self._url = url
        self._partitions = tuple(partitions)
        self._name = secrets.token_hex(8).encode()
        owners = [layout.owner_key(partition) for partition in partitions]
        self._claims = [command_bytes("SET", owner, self._name) for owner in owners]
        self._watch = command_bytes("WATCH", *owners) + command_bytes("MGET", *owners)
        self._ours = [self._name] * len(owners)
        self._window_keys: dict[int, dict[str, str]] = {}
        self._connection = RedisConnection(self._replied, self._lost)
        self._replies: list[Any] = []
        self._expected = 0
        self._answer: asyncio.Future[None] | None = None
        self._failed: FriedaError | None = None

    async def __aenter__(self) -> Self:
        """Connect. Raises ConfigError for an address that is none, TransportError."""
        parts = urlsplit(self._url)
        if parts.scheme not in ("redis", "unix"):
            raise ConfigError(
                f"--redis {without_password(self._url)}: must be redis://host:port/database or unix:///path"
            )
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        password = unquote(parts.password or "") or asked.get("password")
        database = asked.get("db") or (parts.path.strip("/") if parts.scheme == "redis" else "")
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        address = f"redis://{host or 'localhost'}:{parts.port or 6379}"
        if parts.scheme == "unix":
            address = f"unix://{parts.path}"
        await self._connection.connect(address)
        try:
            if password:
                user = [unquote(parts.username)] if parts.username else []
                await self._connection.ask("AUTH", *user, password)
            if database:
                await self._connection.ask("SELECT", database)
        except BaseException:
            await self._connection.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._connection.close()

    async def claim(self) -> dict[int, PartitionState]:
        """Become the one who writes for the partitions, and learn where the one before stood. Raises FriedaError."""
        # Only then, with the new names standing and watched, is it read: no commit of another can come behind them.
        states = [
            command_bytes("HGETALL", layout.partition_key(partition))
            for partition in self._partitions
        ]
        parts = [_MULTI, *self._claims, _EXEC, self._watch, *states]
        replies = await self._exchange(b"".join(parts), len(self._claims) + 4 + len(states))
        names, found = replies[len(self._claims) + 3], replies[-len(states) :]
        self._require_ours(names)
        return {
            partition: PartitionState.from_fields(_as_fields(fields))
            for partition, fields in zip(self._partitions, found, strict=True)
        }

    async def commit(self, commit: Commit, time_ms: int) -> None:
        """Write it all or nothing. `time_ms` (since the epoch) becomes the windows' time_updated.

        Raises FriedaError when another worker has claimed one of the partitions. After a TransportError, or
        cancelled, it may or may not be written.
        """
        commands = self._commands(commit, time_ms)
        parts = [_MULTI, *commands, _EXEC, self._watch]
        replies = await self._exchange(b"".join(parts), len(commands) + 4)
        executed, names = replies[len(commands) + 1], replies[-1]
        if executed is None:
            self._failed = self._taken_over()
            raise self._failed
        for reply in executed:
            self._require_no_error(reply)
        self._require_ours(names)

    def _commands(self, commit: Commit, time_ms: int) -> list[bytes]:
        commands: list[bytes] = []
        for window_ms, campaign, views in each_count(commit.counts):
            key = self._key_of(commands, campaign, window_ms)
            commands.append(command_bytes("HINCRBY", key, layout.SEEN_FIELD, views))
            commands.append(command_bytes("HSET", key, layout.UPDATED_FIELD, time_ms))
        for window_ms, campaign, views in each_count(commit.dropped):
            field = layout.dropped_field(window_ms, campaign)
            commands.append(command_bytes("HINCRBY", layout.DROPPED_KEY, field, views))
        for partition, state in commit.states.items():
            fields = [part for pair in state.as_fields().items() for part in pair]
            commands.append(command_bytes("HSET", layout.partition_key(partition), *fields))
        return commands

    def _key_of(self, commands: list[bytes], campaign: str, window_ms: int) -> str:
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
            commands += [
                command_bytes("HSET", campaign, window_ms, key, layout.WINDOWS_FIELD, windows),
                # Another worker may have put it there.
                command_bytes("LREM", windows, 0, window_ms),
                command_bytes("LPUSH", windows, window_ms),
            ]
        return key

    async def _exchange(self, data: bytes, count: int) -> list[Any]:
        """Send commands and wait for their `count` replies. Raises FriedaError, also for an error among them."""
        if self._failed is not None:
            raise self._failed
        if self._answer is not None:
            raise FriedaError("a commit is under way already")
        self._replies, self._expected = [], count
        self._answer = asyncio.get_running_loop().create_future()
        try:
            self._connection.wire.write(data)
            async with asyncio.timeout(TIMEOUT_S):
                await self._answer
        except TimeoutError:
            place = without_password(self._url)
            self._failed = TransportError(f"Redis at {place} did not answer within {TIMEOUT_S:g} s")
            raise self._failed from None
        except BaseException as error:
            if self._failed is None:
                self._failed = FriedaError(f"the sink was given up: {error!r}")
            raise
        finally:
            self._answer = None
        for reply in self._replies:
            self._require_no_error(reply)
        return self._replies

    def _replied(self, replies: list[Any]) -> None:
        self._replies += replies
        if self._answer is not None and not self._answer.done() and self._complete:
            self._answer.set_result(None)

    @property
    def _complete(self) -> bool:
        return len(self._replies) >= self._expected

    def _lost(self, error: FriedaError) -> None:
        self._failed = TransportError(f"Redis at {without_password(self._url)}: {error}")
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(self._failed)

    def _require_no_error(self, reply: object) -> None:
        if isinstance(reply, Exception):
            self._failed = error_in(reply)
            raise self._failed

    def _require_ours(self, names: object) -> None:
        if names != self._ours:
            self._failed = self._taken_over()
            raise self._failed

    def _taken_over(self) -> FriedaError:
        return FriedaError(
            f"another worker has taken over partitions {', '.join(map(str, self._partitions))}"
        )


def _as_fields(pairs: Sequence[bytes]) -> dict[str, str]:
    texts = [part.decode() for part in pairs]
    return dict(zip(texts[::2], texts[1::2], strict=True))
