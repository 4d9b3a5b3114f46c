"""The events: real JSON, each at its time, and the same for whoever sends them and whoever counts them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frieda.bench.load import Load, ProducerShare, shares
from frieda.errors import ConfigError
from frieda.testing.effort import examples
from frieda.ysb.campaigns import Campaigns
from frieda.ysb.events import AD_TYPES, EVENT_TYPES, AdEvents, Skew, duration_records, ticks_ns

START_MS = 1_700_000_000_000
CAMPAIGNS = Campaigns.seeded(1, campaigns=5, ads_per_campaign=3)
FIELDS = ("user_id", "page_id", "ad_id", "ad_type", "event_type", "event_time", "ip_address")


def share_of(records: int, rate: float, seed: int = 1) -> ProducerShare:
    return shares(Load(records=records, rate=rate, seed=seed))[0][0]


def made(share: ProducerShare, skew: Skew | None = None) -> AdEvents:
    events = AdEvents(CAMPAIGNS, share, skew)
    events.begin(START_MS)
    return events


def parsed(values: Sequence[bytes]) -> list[dict[str, Any]]:
    return [json.loads(value) for value in values]


def test_an_event_has_the_fields_of_the_original_benchmark_in_their_order() -> None:
    for event in parsed(made(share_of(300, 1000.0)).take_due(10**9, 300)):
        assert tuple(event) == FIELDS
        assert all(UUID(event[name]).version == 4 for name in FIELDS[:3])
        assert event["ad_id"] in CAMPAIGNS.ads
        assert event["ad_type"] in AD_TYPES
        assert event["event_type"] in EVENT_TYPES
        assert event["event_time"].isdigit()


@pytest.mark.parametrize("skew", [None, Skew(late_every=7, late_ms=5000)])
@settings(max_examples=examples(10))
@given(
    records=st.integers(1, 40_000),
    rate=st.floats(10, 2e6),
    steps=st.lists(st.integers(0, 10**9), max_size=8),
    limit=st.integers(1, 50_000),
    sampled=st.booleans(),
)
def test_however_they_are_taken_the_events_are_those_that_are_counted(
    skew: Skew | None, records: int, rate: float, steps: list[int], limit: int, sampled: bool
) -> None:
    events, counted = made(share_of(records, rate), skew), made(share_of(records, rate), skew)
    values: list[bytes] = []
    for time_ns in sorted(steps):
        values += events.take_due(time_ns, limit, 1 if sampled else None)
    while events.remaining:
        values += events.take_due(events.end_ns, limit, 1 if sampled else None)
    assert len(values) == records == events.sent
    assert not events.is_due(2**62)
    views = [
        (event["ad_id"], int(event["event_time"]))
        for event in parsed(values)
        if event["event_type"] == "view"
    ]
    assert views == list(counted.views())


@settings(max_examples=examples(30))
@given(rate=st.floats(100, 1e6), moment=st.integers(0, 10**9))
def test_no_event_is_given_before_its_time(rate: float, moment: int) -> None:
    events = made(share_of(5000, rate))
    assert events.is_due(moment) == (events.take_due(moment, 1) != [])
    events = made(share_of(5000, rate))
    for event in parsed(events.take_due(moment, 5000)):
        assert int(event["event_time"]) <= START_MS + moment // 1_000_000
    assert not events.is_due(moment)


def test_one_view_of_what_is_taken_carries_when_it_was_sent() -> None:
    values = made(share_of(500, 1e6)).take_due(10**9, 500, sent_ns=123456789)
    events = parsed(values)
    sampled = [event for event in events if "sent_ns" in event]
    assert [event["sent_ns"] for event in sampled] == [123456789]
    assert sampled[0] is next(event for event in events if event["event_type"] == "view")


def test_the_seed_decides_everything_and_producers_differ() -> None:
    first, again, other = (
        made(share_of(100, 1000.0, seed)).take_due(10**9, 100) for seed in (1, 1, 2)
    )
    assert first == again != other
    of_two = shares(Load(records=200, producers=2, rate=2000.0))[0]
    assert made(of_two[0]).take_due(10**9, 100) != made(of_two[1]).take_due(10**9, 100)


def test_with_skew_some_events_are_late_and_all_are_off_by_a_little() -> None:
    share = share_of(20_000, 20_000.0)
    plain = [time_ms for _, time_ms in made(share).views()]
    skewed = [time_ms for _, time_ms in made(share, Skew(late_every=100, late_ms=60_000)).views()]
    off = [before - after for before, after in zip(plain, skewed, strict=True)]
    near = [each for each in off if abs(each) <= 50]
    assert min(off) >= -50
    assert max(off) <= 60_050
    assert 0.95 < len(near) / len(off) < 1
    assert len(set(near)) > 90


def test_ticks_begin_with_the_phase_and_end_behind_the_last_event() -> None:
    assert list(ticks_ns(1.0, 0.25, 2_000_000)) == [250_000, 1_250_000, 2_250_000]
    assert list(ticks_ns(0.5, 0.0, 0)) == [0]


def test_a_load_has_as_many_events_as_rate_and_duration_say() -> None:
    assert duration_records(120_000, 60) == 7_200_000
    assert duration_records(0.1, 0.1) == 1


def test_a_skew_out_of_range_is_refused() -> None:
    with pytest.raises(ConfigError, match="late_every"):
        Skew(late_every=-1)
