"""What any broker may change in ZooKeeper by itself: topics, the ISR of what it leads, producer ids, orders.

A topic is there once `/topics/NAME` is, which is made last; its partitions come before, in steps as large as ZooKeeper
takes. What a broker leaves half made or half deleted, because it died, is removed by the next controller.
"""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final, TypeVar

from frieda.cluster import nodes, placement, reassignment
from frieda.cluster.nodes import TopicNode
from frieda.cluster.session import Check, Create, Delete, Operation, Write, ZooKeeperSession
from frieda.cluster.state import ClusterState, PartitionState
from frieda.errors import (
    BrokerError,
    ConflictError,
    CoordinationError,
    ErrorCode,
    LocalProtocolError,
)
from frieda.model import TopicPartition, illegal_topic_name

logger = logging.getLogger(__name__)
Change = TypeVar("Change", bound=Operation)

PRODUCER_ID_BLOCK: Final = 1000
DELETED: Final = b""
"""Stands in /partitions/ID once its topic is gone; before, the life of the broker that made it."""
_CHUNK: Final = 500
_ATTEMPTS: Final = 50


class ClusterWriter:
    """Changes on behalf of one broker. Every method takes the state it is based on."""

    def __init__(self, session: ZooKeeperSession) -> None:
        self._session = session

    async def create_topic(
        self,
        state: ClusterState,
        name: str,
        partitions: int,
        replication_factor: int,
        configs: Mapping[str, str],
        assignment: Sequence[Sequence[int]] | None,
        creator: str,
    ) -> None:
        """Raises BrokerError; CoordinationError."""
        if (problem := illegal_topic_name(name)) is not None:
            raise BrokerError(ErrorCode.INVALID_TOPIC, problem)
        if name in state.topics:
            raise _exists(name)
        chosen = _choose(state, name, partitions, replication_factor, assignment, first_partition=0)
        topic = TopicNode(uuid.uuid4().bytes, len(chosen), dict(configs))
        parent = nodes.partitions_path(topic.topic_id)
        await self._session.create(parent, creator.encode())
        try:
            for chunk in _chunks(_new_partitions(state, topic.topic_id, chosen, 0)):
                await self._session.multi(chunk)
            try:
                await self._session.multi(
                    [Check(parent, 0), Create(nodes.topic_path(name), nodes.encode_topic(topic))]
                )
            except ConflictError as error:
                if error.position == 0:
                    raise
                raise _exists(name) from None
        except (BrokerError, LocalProtocolError, ConflictError):
            with contextlib.suppress(CoordinationError):  # then the next controller removes it
                await self._remove_partitions(topic.topic_id)
            raise

    async def alter_topic(self, name: str, configs: Mapping[str, str]) -> None:
        """Raises BrokerError(UNKNOWN_TOPIC_OR_PARTITION); ConflictError; CoordinationError."""
        topic, version = await self._topic(name)
        encoded = nodes.encode_topic(replace(topic, configs=dict(configs)))
        await self._session.write(nodes.topic_path(name), encoded, version)

    async def add_partitions(
        self,
        state: ClusterState,
        name: str,
        partitions: int,
        assignment: Sequence[Sequence[int]] | None,
    ) -> None:
        """Raises BrokerError; ConflictError when the topic changes meanwhile; CoordinationError."""
        topic, version = await self._topic(name)
        known = state.topics.get(name)
        if known is None:
            raise _unknown(name)
        if partitions <= topic.partitions:
            raise BrokerError(
                ErrorCode.INVALID_PARTITIONS,
                f"topic {name!r} has {topic.partitions} partitions; it can only get more",
            )
        chosen = _choose(
            state,
            name,
            partitions - topic.partitions,
            len(reassignment.target_of(known.partitions[0])),
            assignment,
            first_partition=topic.partitions,
        )
        if topic.partitions + len(chosen) != partitions:
            raise BrokerError(
                ErrorCode.INVALID_PARTITIONS,
                f"{len(chosen)} lists of replicas do not bring topic {name!r} from {topic.partitions} to {partitions} "
                "partitions",
            )
        # The check of the topic's version keeps a late one from writing over partitions that are in use by then.
        check = Check(nodes.topic_path(name), version)
        left = set(await self._session.children(nodes.partitions_path(topic.topic_id)))
        for chunk in _chunks(_new_partitions(state, topic.topic_id, chosen, topic.partitions)):
            await self._session.multi(
                [
                    check,
                    *(
                        Write(made.path, made.data, -1)
                        if made.path.rpartition("/")[2] in left
                        else made
                        for made in chunk
                    ),
                ]
            )
        encoded = nodes.encode_topic(replace(topic, partitions=partitions))
        await self._session.write(nodes.topic_path(name), encoded, version)

    async def delete_topic(self, name: str) -> None:
        """Raises BrokerError(UNKNOWN_TOPIC_OR_PARTITION); ConflictError; CoordinationError."""
        topic, version = await self._topic(name)
        await self._session.multi(
            [
                Delete(nodes.topic_path(name), version),
                Write(nodes.partitions_path(topic.topic_id), DELETED, -1),
            ]
        )
        try:
            await self._remove_partitions(topic.topic_id)
        except CoordinationError as error:
            logger.warning(
                "topic %r is deleted; the next controller removes the rest of it: %s", name, error
            )

    async def remove_leftovers(self, state: ClusterState) -> None:
        """What is left of topics that were half made or half deleted by brokers that are gone."""
        known = {topic.topic_id.hex() for topic in state.topics.values()}
        alive = {broker.incarnation.encode() for broker in state.brokers.values()}
        for name in await self._session.children(nodes.PARTITIONS):
            if name in known:
                continue
            node = await self._session.get(f"{nodes.PARTITIONS}/{name}")
            if node is not None and node.data not in alive:
                logger.info("removing the rest of topic %s, which is not there", name)
                await self._remove_partitions(bytes.fromhex(name))

    async def change_isr(
        self,
        topic_id: bytes,
        index: int,
        expected: PartitionState,
        isr: Sequence[int],
        joining: Mapping[int, int],
    ) -> PartitionState:
        """Raises ConflictError, for a topic that is gone too; CoordinationError; LocalProtocolError."""
        added = set(isr) - set(expected.isr)
        if added - set(joining) or not set(isr) <= set(expected.replicas):
            raise LocalProtocolError(
                f"the ISR {list(expected.isr)} cannot become {list(isr)}: of each new member the registration must "
                f"be named, and all must be among the replicas {list(expected.replicas)}"
            )
        after = replace(expected, isr=tuple(isr))
        path = nodes.partition_path(topic_id, index)
        versions = await self._session.multi(
            [
                Write(path, nodes.encode_partition(after), expected.version),
                *(Check(nodes.incarnation_path(broker), joining[broker]) for broker in added),
            ]
        )
        return replace(after, version=versions[0])

    async def reassign(
        self, state: ClusterState, partition: TopicPartition, target: Sequence[int] | None
    ) -> PartitionState:
        """Raises BrokerError, ConflictError, CoordinationError."""
        topic = state.topics.get(partition.topic)
        if topic is None or not 0 <= partition.partition < len(topic.partitions):
            raise _unknown(str(partition))
        now = topic.partitions[partition.partition]
        if target is None:
            after = reassignment.cancel(now)
        else:
            placement.check_assignment([target], state.brokers)
            after = reassignment.begin(now, tuple(target))
        if after is None:
            return now
        path = nodes.partition_path(topic.topic_id, partition.partition)
        version = await self._session.write(path, nodes.encode_partition(after), now.version)
        return replace(after, version=version)

    async def prefer_leaders(self, partitions: Sequence[TopicPartition] | None) -> None:
        """None: of all. Raises ConflictError when the last such order is not done yet; CoordinationError."""
        if partitions is not None and not partitions:
            return
        await self._session.create(nodes.PREFERRED_LEADERS, nodes.encode_wanted(partitions or ()))

    async def allocate_producer_ids(self) -> range:
        """Raises CoordinationError."""
        for _ in range(_ATTEMPTS):
            node = await self._session.get(nodes.PRODUCER_IDS)
            first = 0 if node is None else nodes.decode_number(nodes.PRODUCER_IDS, node.data)
            data = nodes.encode_number(first + PRODUCER_ID_BLOCK)
            try:
                if node is None:
                    await self._session.create(nodes.PRODUCER_IDS, data)
                else:
                    await self._session.write(nodes.PRODUCER_IDS, data, node.version)
            except ConflictError:
                continue  # another broker took that block
            return range(first, first + PRODUCER_ID_BLOCK)
        raise CoordinationError(f"no block of producer ids could be had in {_ATTEMPTS} attempts")

    async def _topic(self, name: str) -> tuple[TopicNode, int]:
        path = nodes.topic_path(name)
        node = None if illegal_topic_name(name) else await self._session.get(path)
        if node is None:
            raise _unknown(name)
        return nodes.decode_topic(path, node.data), node.version

    async def _remove_partitions(self, topic_id: bytes) -> None:
        parent = nodes.partitions_path(topic_id)
        names = await self._session.children(parent)
        for chunk in _chunks([Delete(f"{parent}/{name}") for name in names]):
            await self._session.multi(chunk)
        await self._session.delete(parent)


def _choose(
    state: ClusterState,
    name: str,
    partitions: int,
    replication_factor: int,
    assignment: Sequence[Sequence[int]] | None,
    *,
    first_partition: int,
) -> placement.Assignment:
    steady = {b: broker for b, broker in state.brokers.items() if not broker.stopping}
    if assignment is not None:
        placement.check_assignment(assignment, steady)
        chosen = tuple(tuple(replicas) for replicas in assignment)
    else:
        if partitions < 1:
            raise BrokerError(ErrorCode.INVALID_PARTITIONS, "a topic has at least one partition")
        racks = {b: broker.rack for b, broker in steady.items()}
        chosen = placement.place(
            name, partitions, replication_factor, racks, first_partition=first_partition
        )
    if first_partition + len(chosen) > nodes.MAX_PARTITIONS:
        raise BrokerError(
            ErrorCode.INVALID_PARTITIONS,
            f"a topic has at most {nodes.MAX_PARTITIONS} partitions",
        )
    return chosen


def _new_partitions(
    state: ClusterState, topic_id: bytes, assignment: placement.Assignment, first_partition: int
) -> list[Create]:
    """Each with its first leader: nothing has been written, so every replica is in sync."""
    made = []
    for index, replicas in enumerate(assignment, first_partition):
        partition = PartitionState(
            replicas=replicas,
            isr=replicas,
            leader=replicas[0],
            leader_incarnation=state.brokers[replicas[0]].incarnation,
            controller_epoch=state.controller_epoch,
        )
        path = nodes.partition_path(topic_id, index)
        made.append(Create(path, nodes.encode_partition(partition)))
    return made


def _chunks(operations: Sequence[Change]) -> Iterator[Sequence[Change]]:
    for start in range(0, len(operations), _CHUNK):
        yield operations[start : start + _CHUNK]


def _exists(name: str) -> BrokerError:
    return BrokerError(ErrorCode.TOPIC_ALREADY_EXISTS, f"there is a topic {name!r} already")


def _unknown(name: str) -> BrokerError:
    return BrokerError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"there is no topic {name!r}")
