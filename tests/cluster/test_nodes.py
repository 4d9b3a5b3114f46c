from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frieda.cluster import nodes
from frieda.cluster.election import Tail
from frieda.cluster.nodes import ControllerNode, NodeDamagedError, TopicNode
from frieda.cluster.state import NO_LEADER, BrokerRegistration, PartitionState
from frieda.model import TopicPartition

numbers = st.integers(0, 2**31 - 1)
texts = st.text(max_size=20)
topic_ids = st.binary(min_size=16, max_size=16)


@given(
    st.builds(
        BrokerRegistration,
        broker_id=numbers,
        incarnation=texts,
        listeners=st.lists(texts).map(tuple),
        rack=st.none() | texts,
        tail_certain=st.booleans(),
        stopping=st.booleans(),
        number=numbers,
    )
)
def test_a_registration_is_read_as_it_was_written(registration: BrokerRegistration) -> None:
    path = nodes.broker_path(registration.broker_id)
    data = nodes.encode_registration(registration)
    assert nodes.decode_registration(path, data) == registration


@st.composite
def partition_states(draw: st.DrawFn) -> PartitionState:
    replicas = tuple(draw(st.lists(numbers, min_size=1, max_size=5, unique=True)))
    some = st.lists(st.sampled_from(replicas), unique=True).map(tuple)
    return PartitionState(
        replicas=replicas,
        isr=draw(some),
        leader=draw(st.sampled_from([NO_LEADER, *replicas])),
        leader_incarnation=draw(texts),
        leader_epoch=draw(numbers),
        controller_epoch=draw(numbers),
        adding=draw(some),
        removing=draw(some),
        version=draw(numbers),
    )


@given(partition_states())
def test_a_partition_is_read_as_it_was_written_with_the_version_of_its_node(
    state: PartitionState,
) -> None:
    data = nodes.encode_partition(state)
    assert nodes.decode_partition("/partitions/x/0", data, state.version) == state


@given(st.builds(TopicNode, topic_ids, st.integers(1, 10_000), st.dictionaries(texts, texts)))
def test_a_topic_is_read_as_it_was_written(topic: TopicNode) -> None:
    assert nodes.decode_topic("/topics/orders", nodes.encode_topic(topic)) == topic


@given(
    st.dictionaries(
        st.tuples(topic_ids, numbers), st.builds(Tail, st.integers(-1, 2**31 - 1), numbers)
    )
)
def test_tails_are_read_as_they_were_written(tails: dict[tuple[bytes, int], Tail]) -> None:
    assert nodes.decode_tails("/tails/1", nodes.encode_tails(tails)) == tails


def test_the_other_nodes_are_read_as_they_were_written() -> None:
    controller = ControllerNode(3, 17)
    encoded = nodes.encode_controller(controller)
    assert nodes.decode_controller(nodes.CONTROLLER, encoded) == controller
    assert nodes.decode_number(nodes.PRODUCER_IDS, nodes.encode_number(2**40)) == 2**40
    wanted = {TopicPartition("a", 0), TopicPartition("b", 12)}
    assert nodes.decode_wanted(nodes.PREFERRED_LEADERS, nodes.encode_wanted(wanted)) == wanted


DECODERS: dict[str, Callable[[bytes], Any]] = {
    "registration": lambda data: nodes.decode_registration("/brokers/1", data),
    "partition": lambda data: nodes.decode_partition("/partitions/x/1", data, 0),
    "topic": lambda data: nodes.decode_topic("/topics/orders", data),
    "controller": lambda data: nodes.decode_controller("/controller", data),
    "number": lambda data: nodes.decode_number("/producer_ids", data),
    "tails": lambda data: nodes.decode_tails("/tails/1", data),
    "wanted": lambda data: nodes.decode_wanted("/preferred_leaders", data),
}
KEYS = [
    "id",
    "partitions",
    "configs",
    "replicas",
    "isr",
    "leader",
    "leader_epoch",
    "controller_epoch",
    "leader_incarnation",
    "incarnation",
    "listeners",
    "rack",
    "tail_certain",
    "stopping",
    "number",
    "broker",
    "epoch",
    "ab",
    "0",
]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner,
            max_size=8,
        )
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("kind", DECODERS)
@given(data=st.one_of(st.binary(max_size=40), json_values.map(nodes.encode)))
def test_whatever_a_node_holds_is_a_value_or_a_damaged_node(kind: str, data: bytes) -> None:
    try:
        DECODERS[kind](data)
    except NodeDamagedError as error:
        assert "restore it, or remove it" in str(error)  # noqa: PT017  (the other outcome is fine too)


@pytest.mark.parametrize(
    "change",
    [
        {"replicas": []},
        {"replicas": [1, 1]},
        {"replicas": [-2]},
        {"isr": [4]},
        {"leader": 4},
        {"leader_epoch": "x"},
        {"isr": None},
    ],
)
def test_a_partition_that_cannot_be_is_damaged(change: dict[str, Any]) -> None:
    good = {
        "replicas": [1, 2],
        "isr": [1],
        "leader": 1,
        "leader_incarnation": "",
        "leader_epoch": 0,
        "controller_epoch": 0,
    }
    assert nodes.decode_partition("/partitions/x/0", nodes.encode(good), 3).version == 3
    with pytest.raises(NodeDamagedError, match="/partitions/x/0 in ZooKeeper is damaged"):
        nodes.decode_partition("/partitions/x/0", nodes.encode(good | change), 3)
