"""The last write of a window counts, whichever worker made it."""

from __future__ import annotations

from frieda.ysb.updates import WindowUpdates, last_updates, window_latencies_ns

MS = 1_000_000


def test_the_last_write_of_any_worker_is_the_windows() -> None:
    first, second = WindowUpdates(10), WindowUpdates(10)
    first.note({0: {"a": 1, "b": 2}, 10: {"a": 1}}, 12 * MS)
    first.note({0: {"a": 1}}, 15 * MS)
    second.note({0: {"a": 7, "b": 1}}, 14 * MS)
    last = last_updates([first.as_json(), second.as_json()])
    assert last == {("a", 0): 15 * MS, ("b", 0): 14 * MS, ("a", 10): 12 * MS}
    assert window_latencies_ns(last, 10, 0, 20) == {
        ("a", 0): 5 * MS,
        ("b", 0): 4 * MS,
        ("a", 10): -8 * MS,
    }


def test_a_window_that_the_load_does_not_fill_has_no_latency() -> None:
    last = dict.fromkeys((("a", 0), ("a", 10), ("a", 20)), 40 * MS)
    assert window_latencies_ns(last, 10, 10, 29) == {("a", 10): 20 * MS}


def test_only_windows_that_are_over_are_news_and_only_once() -> None:
    updates = WindowUpdates(10)
    updates.note({0: {"a": 1}, 10: {"a": 1}}, 12 * MS)
    assert updates.news() == [(0, 2.0)]
    assert updates.news() == []
