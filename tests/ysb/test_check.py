"""The check finds every count that is wrong, and expects what the events say."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from frieda.bench.load import Load, shares
from frieda.ysb.campaigns import Campaigns
from frieda.ysb.check import compare_counts, expected_counts
from frieda.ysb.events import AdEvents, Skew
from frieda.ysb.window import WindowRule

START_MS = 1_700_000_000_000
keys = st.tuples(st.sampled_from(["a", "b"]), st.sampled_from([0, 10]))
tables = st.dictionaries(keys, st.integers(1, 5))


def test_what_is_expected_is_what_the_producers_send() -> None:
    load = Load(records=5000, producers=3, processes=2, rate=1000.0)
    campaigns, skew = Campaigns.seeded(1, 4, 2), Skew(late_every=50)
    rule = WindowRule(1000)
    expected = expected_counts(load, campaigns, START_MS, rule, skew)
    counts: Counter[tuple[str, int]] = Counter()
    for share in (share for part in shares(load) for share in part):
        events = AdEvents(campaigns, share, skew)
        events.begin(START_MS)
        for ad, time_ms in events.views():
            counts[campaigns.by_ad()[ad], rule.start_of(time_ms)] += 1
    assert expected == counts
    assert 1400 < sum(expected.values()) < 1950


def test_where_the_start_lies_only_moves_the_windows() -> None:
    load, campaigns, rule = Load(records=900, rate=500.0), Campaigns.seeded(1), WindowRule(1000)
    here = expected_counts(load, campaigns, START_MS, rule)
    there = expected_counts(load, campaigns, START_MS + 7000, rule)
    assert {(campaign, window + 7000): count for (campaign, window), count in here.items()} == there


@given(tables, tables, tables)
def test_counts_are_exact_if_and_only_if_every_window_adds_up(
    expected: dict[tuple[str, int], int],
    seen: dict[tuple[str, int], int],
    dropped: dict[tuple[str, int], int],
) -> None:
    report = compare_counts(expected, seen.items(), dropped)
    wrong = {
        key
        for key in {*expected, *seen, *dropped}
        if expected.get(key, 0) != seen.get(key, 0) + dropped.get(key, 0)
    }
    assert {(each.campaign, each.window_ms) for each in report.differences} == wrong
    assert report.exact == (not wrong)
    assert report.sentence().startswith("exact" if report.exact else "WRONG")


def test_a_report_names_a_few_and_says_how_many_more() -> None:
    expected = {("a", number): 1 for number in range(9)}
    sentence = compare_counts(expected, [], {}).sentence()
    assert "campaign a, window 0: expected 1, counted 0, dropped 0" in sentence
    assert sentence.endswith("; and 4 more")
