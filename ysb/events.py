"""The ad events of one producer: JSON with the fields of the original benchmark, the same for the same seed.

    {"user_id": "...", "page_id": "...", "ad_id": "...", "ad_type": "banner", "event_type": "view",
     "event_time": "1700000000000", "ip_address": "1.2.3.4"}

A producer has CYCLE events made beforehand, of random users, pages, ads and types, and sends them round and round:
only their times change, and all of one ms have the same time, so making one costs 0.4 us or less. Now and then a view
carries one more field, "sent_ns" (monotonic clock), by which the broker's share of the latency is sampled.

With skew, as the original's --with-skew has it: event times off by up to SKEW_MS, and one in `late_every` events
earlier by up to LATE_MS.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Final

from frieda.bench.load import ProducerShare, constant_arrivals
from frieda.errors import ConfigError
from frieda.ysb.campaigns import Campaigns, random_id
from frieda.ysb.schedule import Schedule

CYCLE: Final = 16_384
USERS: Final = 100
PAGES: Final = 100
AD_TYPES: Final = ("banner", "modal", "sponsored-search", "mail", "mobile")
VIEW: Final = "view"
EVENT_TYPES: Final = (VIEW, "click", "purchase")
SKEW_MS: Final = 50
LATE_MS: Final = 60_000
NS_PER_MS: Final = 1_000_000

_TAIL: Final = b'%d", "ip_address": "1.2.3.4"}'
_SAMPLED_TAIL: Final = b'%d", "ip_address": "1.2.3.4", "sent_ns": %d}'


@dataclass(frozen=True, slots=True)
class Skew:
    """Event times that are not the times of sending. `late_every` 0: none is late."""

    late_every: int = 100_000
    late_ms: int = LATE_MS

    def __post_init__(self) -> None:
        if self.late_every < 0 or not 0 <= self.late_ms <= 86_400_000:
            raise ConfigError(
                f"late_every = {self.late_every}, late_ms = {self.late_ms}: must not be negative, nor late_ms "
                "more than 86400000 (a day)"
            )


class AdEvents:
    """The events of one producer. Call `begin` with the time that the first is counted from.

    Whoever counts them reads `views`; whoever sends them calls `take_due`. Both have the same events.
    """

    def __init__(
        self, campaigns: Campaigns, share: ProducerShare, skew: Skew | None = None
    ) -> None:
        generator = random.Random(f"events {share.seed}")
        users = [random_id(generator) for _ in range(USERS)]
        pages = [random_id(generator) for _ in range(PAGES)]
        self._ads = generator.choices(campaigns.ads, k=CYCLE)
        self._types = generator.choices(EVENT_TYPES, k=CYCLE)
        self._heads = [
            _head(generator.choice(users), generator.choice(pages), ad, generator, event_type)
            for ad, event_type in zip(self._ads, self._types, strict=True)
        ]
        self._share = share
        self._schedule = Schedule(share)
        self._start_ms = 0
        self._skew = skew
        self._shifts_ms = [generator.randint(-SKEW_MS, SKEW_MS) for _ in range(CYCLE)]
        self._late_ms = [generator.randrange(skew.late_ms + 1) if skew else 0 for _ in range(CYCLE)]
        self._sent = 0

    def begin(self, start_ms: int) -> None:
        """The load starts at this time (ms since the epoch)."""
        self._start_ms = start_ms

    @property
    def end_ns(self) -> int:
        """When the last is due, in ns from the start."""
        return self._schedule.time_ns(self._schedule.count - 1)

    @property
    def sent(self) -> int:
        """How many `take_due` has given."""
        return self._sent

    @property
    def remaining(self) -> int:
        """How many it has not given yet."""
        return self._schedule.count - self._sent

    def is_due(self, time_ns: int) -> bool:
        """Whether there is an event that is due at `time_ns` (from the start) and was not taken yet."""
        return self.remaining > 0 and self._schedule.time_ns(self._sent) <= time_ns

    def take_due(self, time_ns: int, limit: int, sent_ns: int | None = None) -> list[bytes]:
        """The events that are due at `time_ns` (from the start) and were not taken yet, `limit` at most.

        With `sent_ns` the first view of them carries it.
        """
        first = self._sent
        end = min(self._schedule.due_by(time_ns), first + limit)
        if end <= first:
            return []
        self._sent = end
        values = self._skewed(first, end) if self._skew else self._plain(first, end)
        if sent_ns is not None:
            for number in range(first, end):
                if self._types[number % CYCLE] == VIEW:
                    time_ms = self._time_ms(number, self._schedule.time_ns(number))
                    head = self._heads[number % CYCLE]
                    values[number - first] = head + _SAMPLED_TAIL % (time_ms, sent_ns)
                    break
        return values

    def views(self) -> Iterator[tuple[str, int]]:
        """(ad, event time in ms) of every view of the whole load, one by one, for whoever counts what to expect."""
        rate = self._share.rate
        if rate is None:
            raise ValueError("without a rate there are no event times")
        times_ns = constant_arrivals(rate, self._schedule.count, self._share.phase)
        for number, time_ns in zip(count(), times_ns):
            if self._types[number % CYCLE] == VIEW:
                yield self._ads[number % CYCLE], self._time_ms(number, time_ns)

    def _time_ms(self, number: int, time_ns: int) -> int:
        time_ms = self._start_ms + time_ns // NS_PER_MS
        if self._skew is not None:
            time_ms += self._shifts_ms[number % CYCLE]
            if self._is_late(number):
                time_ms -= self._late_ms[(number // self._skew.late_every) % CYCLE]
        return time_ms

    def _is_late(self, number: int) -> bool:
        every = 0 if self._skew is None else self._skew.late_every
        return every > 0 and number % every == every - 1

    def _plain(self, first: int, end: int) -> list[bytes]:
        """All events of one ms have the same text behind their heads, so it is made once for them."""
        values: list[bytes] = []
        heads, schedule = self._heads, self._schedule
        while first < end:
            ms = schedule.time_ns(first) // NS_PER_MS
            stop = min(end, schedule.due_by((ms + 1) * NS_PER_MS - 1))
            tail = _TAIL % (self._start_ms + ms)
            while first < stop:
                begin = first % CYCLE
                part = heads[begin : begin + stop - first]
                values += [head + tail for head in part]
                first += len(part)
        return values

    def _skewed(self, first: int, end: int) -> list[bytes]:
        time_ns = self._schedule.time_ns
        return [
            self._heads[number % CYCLE] + _TAIL % self._time_ms(number, time_ns(number))
            for number in range(first, end)
        ]


def _head(user: str, page: str, ad: str, generator: random.Random, event_type: str) -> bytes:
    """The text of an event up to its time."""
    ad_type = generator.choice(AD_TYPES)
    return (
        f'{{"user_id": "{user}", "page_id": "{page}", "ad_id": "{ad}", "ad_type": "{ad_type}", '
        f'"event_type": "{event_type}", "event_time": "'
    ).encode("ascii")


def ticks_ns(tick_ms: float, phase: float, end_ns: int) -> Iterator[int]:
    """The times of a producer's ticks, in ns from the start: the last is the first at or after `end_ns`."""
    for number in count():
        time_ns = int((number + phase) * tick_ms * NS_PER_MS)
        yield time_ns
        if time_ns >= end_ns:
            return


def duration_records(rate: float, duration_s: float) -> int:
    """How many events a load of this rate has in this time."""
    return max(1, round(rate * duration_s))
