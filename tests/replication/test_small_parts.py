"""The lease, links, pending produces, the ISR and its proposal: each alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frieda.cluster.state import PartitionState
from frieda.errors import ConfigError
from frieda.replication.isr import InSync
from frieda.replication.lease import Lease
from frieda.replication.link import Link, LinkChange
from frieda.replication.pending import Pending

MS = 1_000_000


def test_a_lease_counts_from_the_sending_of_the_heartbeat() -> None:
    lease = Lease(1000, 200)
    assert not lease.holds(0)
    lease.answered(5 * MS)
    assert lease.holds(804 * MS)
    assert not lease.holds(805 * MS)


def test_an_answer_that_comes_late_does_not_shorten_a_lease() -> None:
    lease = Lease(1000, 200)
    lease.answered(500 * MS)
    lease.answered(100 * MS)
    assert lease.holds(1299 * MS)


def test_a_lease_that_was_given_up_does_not_hold() -> None:
    lease = Lease(1000, 200)
    lease.answered(500 * MS)
    lease.give_up()
    assert not lease.holds(501 * MS)


@pytest.mark.parametrize("margin_ms", [0, -1, 1000, 2000])
def test_a_lease_without_a_sensible_margin_is_refused(margin_ms: int) -> None:
    with pytest.raises(ConfigError, match="margin"):
        Lease(1000, margin_ms)


def test_a_link_is_up_while_pings_are_answered_in_time() -> None:
    link = Link(100, 400)
    assert link.ping_due(0)
    assert not link.ping_due(99 * MS)
    assert link.answered(0, "a", 10 * MS) is LinkChange.UP
    assert link.answered(100 * MS, "a", 110 * MS) is LinkChange.NONE
    assert link.tick(399 * MS) is LinkChange.NONE
    assert link.tick(401 * MS) is LinkChange.DOWN
    assert link.tick(402 * MS) is LinkChange.NONE


def test_an_answer_to_a_ping_of_long_ago_brings_no_link_up() -> None:
    link = Link(100, 400)
    assert link.answered(0, "a", 500 * MS) is LinkChange.NONE
    assert not link.is_up


def test_a_peer_that_was_started_anew_renews_the_link() -> None:
    link = Link(100, 400)
    link.answered(0, "a", 1 * MS)
    assert link.answered(100 * MS, "b", 101 * MS) is LinkChange.RENEWED


def test_a_broken_connection_is_told_once() -> None:
    link = Link(100, 400)
    link.answered(0, "a", 1 * MS)
    assert link.broken() is LinkChange.DOWN
    assert link.broken() is LinkChange.NONE
    assert link.answered(100 * MS, "a", 101 * MS) is LinkChange.UP


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20))))
def test_pending_produces_are_released_in_the_order_of_their_offsets(
    steps: list[tuple[bool, int]],
) -> None:
    pending = Pending()
    waiting: list[tuple[int, int]] = []
    for serial, (adds, offset) in enumerate(steps):
        if adds:
            pending.add(offset, 0, (offset, serial))
            waiting.append((offset, serial))
        else:
            expected = sorted(entry for entry in waiting if entry[0] <= offset)
            assert pending.reached(offset) == expected
            waiting = [entry for entry in waiting if entry[0] > offset]
        assert len(pending) == len(waiting)
    assert pending.clear() == sorted(waiting)


def test_what_waits_too_long_is_given_back() -> None:
    pending = Pending()
    pending.add(1, 50, "a")
    pending.add(2, 60, "b")
    assert pending.deadline_ns == 50
    assert pending.expired(49) == []
    assert pending.expired(55) == ["a"]
    assert pending.deadline_ns == 60


def state(version: int, *isr: int) -> PartitionState:
    return PartitionState(replicas=(1, 2, 3), isr=isr, version=version)


def test_while_a_change_is_proposed_both_sets_count() -> None:
    in_sync = InSync(state(4, 1, 2))
    in_sync.propose((1, 3))
    assert set(in_sync.maximal) == {1, 2, 3}
    assert in_sync.agreed == (1, 2)


def test_only_a_higher_version_ends_a_proposal() -> None:
    in_sync = InSync(state(4, 1, 2))
    in_sync.propose((1,))
    assert not in_sync.learned(state(4, 1, 2))
    assert in_sync.proposed == (1,)
    assert in_sync.learned(state(5, 1))
    assert (in_sync.agreed, in_sync.maximal, in_sync.proposed) == ((1,), (1,), None)


def test_a_refusal_counts_for_the_version_it_was_given_for() -> None:
    in_sync = InSync(state(4, 1, 2))
    in_sync.propose((1, 2, 3))
    in_sync.refused(3)
    assert in_sync.proposed == (1, 2, 3)
    in_sync.refused(4)
    assert (in_sync.proposed, in_sync.maximal) == (None, (1, 2))
