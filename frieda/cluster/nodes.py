"""The nodes in ZooKeeper: where each thing lies and how it is written. PURE.

    /cluster_id                 text
    /controller                 ephemeral; who is controller: {"broker", "epoch"}
    /controller_epoch           the number of the latest controller; every write of a controller checks its version
    /brokers/ID                 ephemeral; a BrokerRegistration
    /incarnations/ID            the life of the latest registration; its version is the number of that registration
    /tails/ID                   ephemeral; where the logs of a broker end that is not certain of them
    /topics/NAME                {"id", "partitions", "configs"}; a topic is there when this node is
    /partitions/TOPIC_ID/P      a PartitionState, whose `version` is the node's
    /preferred_leaders          what the controller was told to move back; it removes the node when done
    /producer_ids               the first number that no block holds

Partitions lie below the id and not the name of their topic: a late compare-and-set for a topic that was deleted and
made again meets no node, where below the name it could meet a new one of the same version.
Values are JSON, in UTF-8.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from frieda.cluster.election import Tail
from frieda.cluster.state import NO_LEADER, BrokerRegistration, PartitionState
from frieda.errors import CoordinationError
from frieda.model import TopicPartition, illegal_topic_name

CLUSTER_ID: Final = "/cluster_id"
CONTROLLER: Final = "/controller"
CONTROLLER_EPOCH: Final = "/controller_epoch"
BROKERS: Final = "/brokers"
INCARNATIONS: Final = "/incarnations"
TAILS: Final = "/tails"
TOPICS: Final = "/topics"
PARTITIONS: Final = "/partitions"
PREFERRED_LEADERS: Final = "/preferred_leaders"
PRODUCER_IDS: Final = "/producer_ids"
FOLDERS: Final = (BROKERS, INCARNATIONS, TAILS, TOPICS, PARTITIONS)
MAX_PARTITIONS: Final = 10_000
"""Of one topic."""


@dataclass(frozen=True, slots=True)
class TopicNode:
    """What /topics/NAME holds."""

    topic_id: bytes
    partitions: int
    configs: dict[str, str]


@dataclass(frozen=True, slots=True)
class ControllerNode:
    """What /controller holds."""

    broker_id: int
    epoch: int


class NodeDamagedError(CoordinationError):
    """A node holds what nobody of ours writes; someone has to restore or remove it."""

    retriable = False


def broker_path(broker_id: int) -> str:
    return f"{BROKERS}/{broker_id}"


def incarnation_path(broker_id: int) -> str:
    return f"{INCARNATIONS}/{broker_id}"


def tails_path(broker_id: int) -> str:
    return f"{TAILS}/{broker_id}"


def topic_path(name: str) -> str:
    return f"{TOPICS}/{name}"


def partitions_path(topic_id: bytes) -> str:
    return f"{PARTITIONS}/{topic_id.hex()}"


def partition_path(topic_id: bytes, index: int) -> str:
    return f"{PARTITIONS}/{topic_id.hex()}/{index}"


def encode(document: Any) -> bytes:
    """A value as it is stored."""
    return json.dumps(document, separators=(",", ":")).encode()


def encode_registration(registration: BrokerRegistration) -> bytes:
    return encode(
        {
            "incarnation": registration.incarnation,
            "listeners": registration.listeners,
            "rack": registration.rack,
            "tail_certain": registration.tail_certain,
            "stopping": registration.stopping,
            "number": registration.number,
        }
    )


def decode_registration(path: str, data: bytes) -> BrokerRegistration:
    """Raises NodeDamagedError."""
    with _reading(path, data) as document:
        rack = document["rack"]
        return BrokerRegistration(
            broker_id=int(path.rpartition("/")[2]),
            incarnation=str(document["incarnation"]),
            listeners=tuple(map(str, document["listeners"])),
            rack=None if rack is None else str(rack),
            tail_certain=_flag(document["tail_certain"]),
            stopping=_flag(document["stopping"]),
            number=int(document["number"]),
        )


def encode_partition(state: PartitionState) -> bytes:
    document: dict[str, Any] = {
        "replicas": state.replicas,
        "isr": state.isr,
        "leader": state.leader,
        "leader_incarnation": state.leader_incarnation,
        "leader_epoch": state.leader_epoch,
        "controller_epoch": state.controller_epoch,
    }
    if state.adding or state.removing:
        document |= {"adding": state.adding, "removing": state.removing}
    return encode(document)


def decode_partition(path: str, data: bytes, version: int) -> PartitionState:
    """Raises NodeDamagedError."""
    with _reading(path, data) as document:
        state = PartitionState(
            replicas=_brokers(document["replicas"]),
            isr=_brokers(document["isr"]),
            leader=int(document["leader"]),
            leader_incarnation=str(document["leader_incarnation"]),
            leader_epoch=int(document["leader_epoch"]),
            controller_epoch=int(document["controller_epoch"]),
            adding=_brokers(document.get("adding", ())),
            removing=_brokers(document.get("removing", ())),
            version=version,
        )
        if not state.replicas or not (set(state.isr) | {state.leader}) <= {
            *state.replicas,
            NO_LEADER,
        }:
            raise ValueError("leader or ISR are no replicas")
        return state


def encode_topic(topic: TopicNode) -> bytes:
    return encode(
        {"id": topic.topic_id.hex(), "partitions": topic.partitions, "configs": topic.configs}
    )


def decode_topic(path: str, data: bytes) -> TopicNode:
    """Raises NodeDamagedError."""
    with _reading(path, data) as document:
        topic_id = bytes.fromhex(document["id"])
        partitions = int(document["partitions"])
        configs: dict[str, str] = dict(document["configs"])
        problem = illegal_topic_name(path.removeprefix(TOPICS + "/"))
        if problem or len(topic_id) != 16 or not 1 <= partitions <= MAX_PARTITIONS:
            raise ValueError(problem or f"{partitions} partitions, an id of {len(topic_id)} bytes")
        if not all(isinstance(text, str) for pair in configs.items() for text in pair):
            raise TypeError("a setting is no text")
        return TopicNode(topic_id, partitions, configs)


def encode_controller(controller: ControllerNode) -> bytes:
    return encode({"broker": controller.broker_id, "epoch": controller.epoch})


def decode_controller(path: str, data: bytes) -> ControllerNode:
    """Raises NodeDamagedError."""
    with _reading(path, data) as document:
        return ControllerNode(int(document["broker"]), int(document["epoch"]))


def encode_number(number: int) -> bytes:
    return encode(number)


def decode_number(path: str, data: bytes) -> int:
    """Raises NodeDamagedError."""
    try:
        number = json.loads(data)
    except ValueError as error:
        raise _damaged(path, error) from None
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise _damaged(path, "it is no number")
    return number


def encode_tails(tails: Mapping[tuple[bytes, int], Tail]) -> bytes:
    """`tails` by topic id and partition."""
    by_topic: dict[str, dict[str, Tail]] = {}
    for (topic_id, index), tail in tails.items():
        by_topic.setdefault(topic_id.hex(), {})[str(index)] = tail
    return encode(by_topic)


def decode_tails(path: str, data: bytes) -> dict[tuple[bytes, int], Tail]:
    """Raises NodeDamagedError."""
    with _reading(path, data) as document:
        return {
            (bytes.fromhex(topic_id), int(index)): Tail(int(tail[0]), int(tail[1]))
            for topic_id, tails in document.items()
            for index, tail in tails.items()
        }


def encode_wanted(partitions: Iterable[TopicPartition]) -> bytes:
    """Partitions whose preferred leaders are asked for; none: of all."""
    return encode({"partitions": sorted(partitions)})


def decode_wanted(path: str, data: bytes) -> frozenset[TopicPartition]:
    """Raises NodeDamagedError."""
    with _reading(path, data) as document:
        return frozenset(
            TopicPartition(str(name), int(index)) for name, index in document["partitions"]
        )


@contextmanager
def _reading(path: str, data: bytes) -> Iterator[dict[str, Any]]:
    """The object that a node holds; what goes wrong with it inside the block becomes NodeDamagedError."""
    try:
        document = json.loads(data)
        if not isinstance(document, dict):
            raise TypeError("it is no JSON object")
        yield document
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise _damaged(path, error) from None


def _brokers(values: Any) -> tuple[int, ...]:
    brokers = tuple(int(value) for value in values)
    if len(set(brokers)) != len(brokers) or any(broker < 0 for broker in brokers):
        raise ValueError(f"{list(brokers)} are no brokers")
    return brokers


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is neither true nor false")
    return value


def _damaged(path: str, reason: object) -> NodeDamagedError:
    return NodeDamagedError(
        f"the node {path} in ZooKeeper is damaged ({reason}): restore it, or remove it"
    )
