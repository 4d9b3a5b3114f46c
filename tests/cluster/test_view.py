from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frieda.cluster import nodes
from frieda.cluster.nodes import ControllerNode, NodeDamagedError, TopicNode
from frieda.cluster.state import NO_LEADER, BrokerRegistration, PartitionState
from frieda.cluster.view import View
from frieda.model import TopicPartition

IDS = [bytes([number]) * 16 for number in range(4)]


def topic_data(topic_id: bytes, partitions: int) -> bytes:
    return nodes.encode_topic(TopicNode(topic_id, partitions, {}))


def partition_data(leader: int, *replicas: int) -> bytes:
    return nodes.encode_partition(
        PartitionState(replicas=replicas, isr=replicas, leader=leader, leader_epoch=1)
    )


def broker_data(life: str) -> bytes:
    return nodes.encode_registration(
        BrokerRegistration(broker_id=0, incarnation=life, listeners=())
    )


def view_of_one_topic(partitions: int = 2) -> View:
    view = View("cluster")
    view.apply("/topics/orders", topic_data(IDS[0], partitions))
    for index in range(partitions):
        view.apply(nodes.partition_path(IDS[0], index), partition_data(1, 1, 2))
    view.commit()
    return view


def test_a_topic_shows_only_when_all_its_partitions_are_known() -> None:
    view = View("cluster")
    view.apply(nodes.partition_path(IDS[0], 1), partition_data(1, 1, 2))
    view.apply("/topics/orders", topic_data(IDS[0], 2))
    assert view.commit() is None
    view.apply(nodes.partition_path(IDS[0], 0), partition_data(2, 2, 1))
    change = view.commit()
    assert change is not None
    assert change.topics == {"orders"}
    assert change.partitions == {TopicPartition("orders", 0), TopicPartition("orders", 1)}
    assert [state.leader for state in view.state.topics["orders"].partitions] == [2, 1]


def test_a_change_names_just_the_partition_that_changed() -> None:
    view = view_of_one_topic(partitions=50)
    before = view.state
    view.apply(nodes.partition_path(IDS[0], 7), partition_data(2, 1, 2), version=1)
    change = view.commit()
    assert change is not None
    assert change.partitions == {TopicPartition("orders", 7)}
    assert not change.topics
    assert before.topics["orders"].partitions[7].leader == 1, "a state never changes in place"
    assert view.state.topics["orders"].partitions[7].version == 1


def test_reading_the_same_again_is_no_change() -> None:
    view = view_of_one_topic()
    view.apply("/topics/orders", topic_data(IDS[0], 2))
    view.apply(nodes.partition_path(IDS[0], 0), partition_data(1, 1, 2))
    view.apply("/brokers/3", None)
    assert view.commit() is None


def test_partitions_beyond_the_number_of_the_topic_wait_until_it_grows() -> None:
    view = view_of_one_topic()
    view.apply(nodes.partition_path(IDS[0], 2), partition_data(1, 1, 2))
    assert view.commit() is None
    view.apply("/topics/orders", topic_data(IDS[0], 3))
    change = view.commit()
    assert change is not None
    assert change.topics == {"orders"}
    assert change.partitions == {TopicPartition("orders", 2)}


def test_a_topic_made_again_under_its_name_is_another_topic() -> None:
    view = view_of_one_topic()
    view.apply("/topics/orders", topic_data(IDS[1], 1))
    view.apply(nodes.partition_path(IDS[1], 0), partition_data(1, 1, 2))
    change = view.commit()
    assert change is not None
    assert change.topics == {"orders"}
    # Equal states of another topic are other partitions.
    assert change.partitions == {TopicPartition("orders", 0), TopicPartition("orders", 1)}
    assert view.state.topics["orders"].topic_id == IDS[1]


def test_brokers_and_the_controller_come_and_go() -> None:
    view = View("cluster")
    view.apply("/brokers/3", broker_data("a"))
    view.apply("/controller", nodes.encode_controller(ControllerNode(3, 9)))
    view.apply("/controller_epoch", nodes.encode_number(9))
    change = view.commit()
    assert change is not None
    assert (change.brokers, change.controller) == ({3}, True)
    assert (view.state.controller_id, view.state.controller_epoch) == (3, 9)
    assert view.state.brokers[3].broker_id == 3
    view.apply("/controller", None)
    view.apply("/brokers/3", None)
    change = view.commit()
    assert change is not None
    assert change.before.controller_id == 3
    assert view.state.controller_id == NO_LEADER
    assert not view.state.brokers


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("/topics/orders", b"garbage"),
        (nodes.partition_path(IDS[0], 0), b"{}"),
        ("/brokers/x", broker_data("a")),
        ("/partitions/zz/0", partition_data(1, 1)),
        ("/controller", b"[]"),
    ],
)
def test_a_damaged_node_changes_nothing(path: str, data: bytes) -> None:
    view = view_of_one_topic()
    with pytest.raises(NodeDamagedError):
        view.apply(path, data)
    assert view.commit() is None
    assert "orders" in view.state.topics


contents = st.one_of(
    st.tuples(
        st.sampled_from(["/topics/a", "/topics/b"]),
        st.none() | st.builds(topic_data, st.sampled_from(IDS[:2]), st.integers(1, 3)),
    ),
    st.tuples(
        st.builds(nodes.partition_path, st.sampled_from(IDS[:2]), st.integers(0, 3)),
        st.none()
        | st.builds(
            lambda replicas: partition_data(replicas[0], *replicas),
            st.lists(st.integers(1, 4), min_size=1, max_size=3, unique=True),
        ),
    ),
    st.tuples(
        st.sampled_from(["/brokers/1", "/brokers/2"]),
        st.none() | st.sampled_from("ab").map(broker_data),
    ),
)


@given(st.lists(st.tuples(contents, st.booleans()), max_size=60))
def test_step_by_step_the_picture_is_that_of_reading_everything_at_once(
    steps: list[tuple[tuple[str, bytes | None], bool]],
) -> None:
    view, tree = View("cluster"), dict[str, bytes]()
    last = view.state
    owners: dict[str, bytes] = {}
    for (path, data), commits in steps:
        if path.startswith("/topics/"):
            # A topic id belongs to one name.
            topic_id = None if data is None else nodes.decode_topic(path, data).topic_id
            if topic_id is not None and owners.get(path) != topic_id:
                if topic_id in owners.values():
                    continue
                owners[path] = topic_id
            elif topic_id is None:
                owners.pop(path, None)
        view.apply(path, data, version=1)
        if data is None:
            tree.pop(path, None)
        else:
            tree[path] = data
        if commits and (change := view.commit()) is not None:
            assert change.before is last
            last = change.after
    final = view.commit()
    fresh = View("cluster")
    for path, data in tree.items():
        fresh.apply(path, data, version=1)
    fresh.commit()
    assert view.state == fresh.state
    assert final is None or final.after is view.state
    assert sorted(view.paths()) == sorted(tree)
    for broker in range(1, 5):
        held = {
            TopicPartition(name, index)
            for name, topic in view.state.topics.items()
            for index, state in enumerate(topic.partitions)
            if broker in state.replicas
        }
        assert view.replicas_on(broker) == held
