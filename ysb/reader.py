"""Collects what the pipeline wrote, along the same way as the original benchmark's own reader."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from frieda.errors import FriedaError
from frieda.ysb import layout
from frieda.ysb.store import redis_errors

if TYPE_CHECKING:
    from redis.asyncio import Redis


class WindowUpdate(NamedTuple):
    """One window of one campaign: its start, its views, and when it was last written (ms since the epoch)."""

    campaign: str
    window_ms: int
    seen_count: int
    time_updated_ms: int


async def collect(client: Redis) -> list[WindowUpdate]:
    """Every window of every campaign. Raises FriedaError when the layout is not kept."""
    found: list[WindowUpdate] = []
    with redis_errors():
        for campaign in sorted(await client.execute_command("SMEMBERS", layout.CAMPAIGNS_KEY)):
            list_key = await client.execute_command("HGET", campaign, layout.WINDOWS_FIELD)
            if list_key is None:
                continue  # no view of it was counted yet
            windows = await client.execute_command("LRANGE", list_key, 0, -1)
            keys = await client.execute_command("HMGET", campaign, *windows)
            async with client.pipeline(transaction=False) as pipe:
                for key in keys:
                    fields = (layout.SEEN_FIELD, layout.UPDATED_FIELD)
                    pipe.execute_command("HMGET", key, *fields)
                answers = await pipe.execute()
            for window, (seen, updated) in zip(windows, answers, strict=True):
                if seen is None or updated is None:
                    raise FriedaError(f"window {window} of campaign {campaign} has no counts")
                found.append(WindowUpdate(campaign, int(window), int(seen), int(updated)))
    return found


async def dropped_views(client: Redis) -> dict[tuple[str, int], int]:
    """The views that came too late to count, by campaign and window."""
    with redis_errors():
        fields = await client.execute_command("HGETALL", layout.DROPPED_KEY)
    dropped: dict[tuple[str, int], int] = {}
    for field, views in fields.items():
        window, _, campaign = field.partition(":")
        dropped[campaign, int(window)] = int(views)
    return dropped
