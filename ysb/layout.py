"""Where everything lies in Redis, PURE. Counts lie where the original benchmark's reader looks for them:

    campaigns                 set of the campaign ids
    <ad id>                   the id of its campaign
    <campaign id>             hash: "windows" -> a list's key; <start of a window in ms> -> a window's key
    <list's key>              list of the starts of the campaign's windows
    <window's key>            hash: seen_count, time_updated (ms since the epoch)

The original draws the keys of lists and windows at random. Here they follow from campaign and window, so that several
workers that begin the same window at once mean the same key. Its global list "time_updated", which its reader does
not read, is left out. What is ours alone:

    ysb:owner:<partition>     who may write for a partition: the worker that claimed it last
    ysb:partition:<partition> hash: where the partition's worker stands, committed together with the counts
    ysb:dropped               hash: <start of a window>:<campaign> -> views that came too late to count
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final
from uuid import UUID, uuid5

from frieda.bench.drivers.base import Position
from frieda.errors import FriedaError
from frieda.ysb.window import NO_WATERMARK_MS

CAMPAIGNS_KEY: Final = "campaigns"
WINDOWS_FIELD: Final = "windows"
SEEN_FIELD: Final = "seen_count"
UPDATED_FIELD: Final = "time_updated"
DROPPED_KEY: Final = "ysb:dropped"
_NAMESPACE: Final = UUID("5f0c3a52-6f51-4b0e-9a43-1a7b3a9c1d6e")


def window_key(campaign: str, window_ms: int) -> str:
    """The key of the hash of a window."""
    return str(uuid5(_NAMESPACE, f"window {window_ms} of {campaign}"))


def window_list_key(campaign: str) -> str:
    """The key of the list of a campaign's windows."""
    return str(uuid5(_NAMESPACE, f"windows of {campaign}"))


def owner_key(partition: int) -> str:
    """The key that says who owns a partition."""
    return f"ysb:owner:{partition}"


def partition_key(partition: int) -> str:
    """The key of the hash of a partition."""
    return f"ysb:partition:{partition}"


def dropped_field(window_ms: int, campaign: str) -> str:
    """The field of DROPPED_KEY for a campaign's window."""
    return f"{window_ms}:{campaign}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionState:
    """How far a partition was read, and what was found in it, as it is committed."""

    position: Position | None = None
    """Where to go on reading; None: at the beginning."""
    watermark_ms: int = NO_WATERMARK_MS
    events: int = 0
    views: int = 0
    late: int = 0
    dropped: int = 0
    malformed: int = 0
    """Records that are no ad events."""
    unjoined: int = 0
    """Views of an ad that no campaign has."""

    def as_fields(self) -> dict[str, str | int]:
        """The fields of the partition's hash."""
        return {**asdict(self), "position": json.dumps(self.position)}

    @classmethod
    def from_fields(cls, fields: Mapping[str, str]) -> PartitionState:
        """What the hash says; no fields: nothing was committed yet. Raises FriedaError when it is damaged."""
        try:
            values = dict(fields)
            position = json.loads(values.pop("position", "null"))
            if not isinstance(position, int | str | None):
                raise TypeError(f"position {position!r}")
            return cls(position=position, **{name: int(value) for name, value in values.items()})
        except (TypeError, ValueError) as error:
            raise FriedaError(f"a partition's state in Redis is damaged: {error}") from None
