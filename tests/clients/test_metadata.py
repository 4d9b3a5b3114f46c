"""The metadata cache: what one answer changes, and what it leaves."""

from __future__ import annotations

import pytest

from frieda.clients.metadata import ClusterMetadata
from frieda.errors import BrokerError, ErrorCode
from frieda.wire.messages import BrokerEntry, MetadataResponse, PartitionEntry, TopicEntry

ID_A, ID_B = b"a" * 16, b"b" * 16


def partition(number: int, leader: int = 1, *endpoints: str) -> PartitionEntry:
    return PartitionEntry(number, 0, leader, 0, (leader,), (leader,), endpoints)


def answer(*topics: TopicEntry) -> MetadataResponse:
    brokers = (BrokerEntry(1, None, ("tcp://one:1",)), BrokerEntry(2, None, ("tcp://two:2",)))
    return MetadataResponse("cluster", 1, brokers, topics)


def test_topics_are_found_by_name_and_by_id() -> None:
    metadata = ClusterMetadata()
    metadata.update(answer(TopicEntry("a", ID_A, 0, "", (partition(1), partition(0)))), ["a"])
    topic = metadata.require("a")
    assert [entry.partition for entry in topic.partitions] == [0, 1]
    assert topic.partition_count == 2
    assert metadata.name_of(ID_A) == "a"
    assert metadata.topics == (topic,)


def test_what_an_answer_does_not_speak_of_stays() -> None:
    metadata = ClusterMetadata()
    metadata.update(answer(TopicEntry("a", ID_A, 0, "", (partition(0),))), ["a"])
    metadata.update(answer(TopicEntry("b", ID_B, 0, "", (partition(0),))), ["b"])
    assert {topic.name for topic in metadata.topics} == {"a", "b"}


def test_an_answer_for_all_topics_forgets_the_others() -> None:
    metadata = ClusterMetadata()
    metadata.update(answer(TopicEntry("a", ID_A, 0, "", (partition(0),))), ["a"])
    metadata.update(answer(TopicEntry("b", ID_B, 0, "", (partition(0),))))
    assert metadata.topic("a") is None
    with pytest.raises(BrokerError, match="there is no topic 'a'"):
        metadata.require("a")


def test_a_topic_made_again_has_its_new_id_only() -> None:
    metadata = ClusterMetadata()
    metadata.update(answer(TopicEntry("a", ID_A, 0, "", (partition(0),))), ["a"])
    metadata.update(answer(TopicEntry("a", ID_B, 0, "", (partition(0),))), ["a"])
    assert metadata.name_of(ID_A) is None
    assert metadata.name_of(ID_B) == "a"


def test_an_error_takes_the_topic_away_and_a_good_answer_the_error() -> None:
    metadata = ClusterMetadata()
    code = int(ErrorCode.LEADER_NOT_AVAILABLE)
    metadata.update(answer(TopicEntry("a", ID_A, code, "soon", ())), ["a"])
    error = metadata.error("a")
    assert error is not None
    assert (error.code, error.detail) == (ErrorCode.LEADER_NOT_AVAILABLE, "soon")
    metadata.update(answer(TopicEntry("a", ID_A, 0, "", (partition(0),))), ["a"])
    assert metadata.error("a") is None


def test_an_error_number_of_a_newer_broker_is_an_error_all_the_same() -> None:
    metadata = ClusterMetadata()
    metadata.update(answer(TopicEntry("a", ID_A, 31_999, "news", ())), ["a"])
    with pytest.raises(BrokerError, match="error 31999 for 'a': news"):
        metadata.require("a")


@pytest.mark.parametrize("numbers", [(), (1,), (0, 0), (0, 2)])
def test_an_answer_that_names_not_all_partitions_is_not_believed(numbers: tuple[int, ...]) -> None:
    metadata = ClusterMetadata()
    metadata.update(answer(TopicEntry("a", ID_A, 0, "", tuple(map(partition, numbers)))), ["a"])
    with pytest.raises(BrokerError, match="names not all partitions"):
        metadata.require("a")


def test_a_partition_is_served_by_its_leader_or_where_it_says() -> None:
    metadata = ClusterMetadata()
    entries = (partition(0, 2), partition(1, 1, "shm://x"), partition(2, 7))
    metadata.update(answer(TopicEntry("a", ID_A, 0, "", entries)), ["a"])
    assert metadata.place("a", 0) == (2, ("tcp://two:2",), "")
    assert metadata.place("a", 1) == (-1, ("shm://x",), "")
    with pytest.raises(BrokerError, match="a-2 has no leader"):
        metadata.place("a", 2)
    with pytest.raises(BrokerError, match="has partitions 0 to 2, not 3"):
        metadata.place("a", 3)
