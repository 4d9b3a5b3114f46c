from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from frieda.cluster.placement import alternate_racks, check_assignment, place
from frieda.errors import BrokerError, ErrorCode

racks = st.dictionaries(
    st.integers(0, 50), st.sampled_from([None, "a", "b", "c"]), min_size=1, max_size=12
)


@given(racks, st.data())
def test_replicas_are_different_brokers_in_as_many_racks_as_there_are(
    rack_of: dict[int, str | None], data: st.DataObject
) -> None:
    factor = data.draw(st.integers(1, len(rack_of)))
    partitions = data.draw(st.integers(1, 60))
    named = {broker: rack or str(broker) for broker, rack in rack_of.items()}
    for replicas in place("orders", partitions, factor, rack_of):
        assert len(set(replicas)) == len(replicas) == factor
        assert set(replicas) <= set(rack_of)
        used = {named[broker] for broker in replicas}
        assert len(used) == min(factor, len(set(named.values())))


@given(racks, st.text("abc.", min_size=1, max_size=8), st.integers(1, 100))
def test_no_broker_leads_more_than_one_partition_above_another(
    rack_of: dict[int, str | None], topic: str, partitions: int
) -> None:
    leaders = Counter(replicas[0] for replicas in place(topic, partitions, 1, rack_of))
    counts = [leaders[broker] for broker in rack_of]
    assert max(counts) - min(counts) <= 1


@given(st.integers(2, 4), st.integers(2, 4), st.integers(1, 3), st.integers(1, 4))
def test_with_racks_of_equal_size_every_broker_holds_as_many_replicas(
    rack_count: int, rack_size: int, rounds: int, factor: int
) -> None:
    count = rack_count * rack_size
    assume(factor <= rack_count)
    rack_of = {broker: f"rack {broker % rack_count}" for broker in range(count)}
    assignment = place("orders", count * (count - 1) * rounds, factor, rack_of)
    held = Counter(broker for replicas in assignment for broker in replicas)
    assert max(held.values()) <= 1.25 * min(held.values())


@given(racks, st.integers(1, 20), st.integers(1, 20))
def test_a_topic_that_grows_is_placed_as_if_it_had_been_as_large_from_the_start(
    rack_of: dict[int, str | None], before: int, more: int
) -> None:
    factor = min(2, len(rack_of))
    whole = place("orders", before + more, factor, rack_of)
    first = place("orders", before, factor, rack_of)
    rest = place("orders", more, factor, rack_of, first_partition=before)
    assert first + rest == whole


def test_the_followers_of_one_brokers_partitions_are_not_all_on_one_other() -> None:
    rack_of = dict.fromkeys(range(5))
    assignment = place("orders", 100, 2, rack_of)
    for leader in rack_of:
        followers = Counter(replicas[1] for replicas in assignment if replicas[0] == leader)
        assert set(followers) == set(rack_of) - {leader}


def test_topics_of_one_partition_begin_at_different_brokers() -> None:
    leaders = {place(f"topic-{n}", 1, 1, dict.fromkeys(range(4)))[0][0] for n in range(50)}
    assert leaders == {0, 1, 2, 3}


def test_the_list_of_brokers_alternates_between_racks_also_when_one_is_larger() -> None:
    # The example of KIP-36, and one broker more.
    rack_of: dict[int, str | int] = {0: "1", 1: "3", 2: "3", 3: "2", 4: "2", 5: "1", 6: "1"}
    assert alternate_racks(rack_of) == [0, 3, 1, 5, 4, 2, 6]


def test_more_replicas_than_brokers_are_refused_with_both_numbers() -> None:
    with pytest.raises(
        BrokerError, match="factor of 4 needs as many brokers; there are 3"
    ) as caught:
        place("orders", 1, 4, dict.fromkeys(range(3)))
    assert caught.value.code is ErrorCode.INVALID_REPLICATION_FACTOR


@pytest.mark.parametrize("assignment", [[], [[]], [[1, 1]], [[1, 7]], [[1], [2, 9]]])
def test_an_assignment_that_cannot_be_is_refused(assignment: list[list[int]]) -> None:
    with pytest.raises(BrokerError):
        check_assignment(assignment, dict.fromkeys([1, 2]))
