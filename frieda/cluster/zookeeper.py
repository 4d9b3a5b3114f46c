"""The metadata store of a cluster of many: ZooKeeper, and this broker's place in it.

Puts the parts together: the session, the picture that follows the tree, the registration with its lease, what any
broker may change, and the controller, should it fall to this broker.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from frieda.cluster import nodes
from frieda.cluster.address import EnsembleAddress, parse_address
from frieda.cluster.changes import ClusterWriter
from frieda.cluster.controller import Controller
from frieda.cluster.election import Tail
from frieda.cluster.following import TreeFollower
from frieda.cluster.registration import Registrar
from frieda.cluster.session import ZooKeeperSession
from frieda.cluster.state import BrokerRegistration, ClusterState, PartitionState, TopicState
from frieda.cluster.store import ChangeListener, ClusterChange
from frieda.cluster.view import View
from frieda.errors import BrokerError, ConflictError, CoordinationError, ErrorCode
from frieda.model import TopicPartition

if TYPE_CHECKING:
    from frieda.cluster.store import MetadataStore

logger = logging.getLogger(__name__)

_CATCH_UP_S: Final = 30.0
_RETRY_S: Final = 0.1


class ZooKeeperStore:
    """A MetadataStore. `open` first, then `register`; `close` last.

    `session_timeout_s` is asked for, ZooKeeper may allow another. `lease_margin_s`: how much before the end of the
    session the lease ends; None: a quarter of its timeout. `unclean_default`: for topics that do not say.
    """

    def __init__(
        self,
        address: EnsembleAddress | str,
        *,
        session_timeout_s: float = 6.0,
        request_timeout_s: float = 10.0,
        lease_margin_s: float | None = None,
        unclean_default: bool = False,
        work_started: Callable[[], None] = lambda: None,
        work_finished: Callable[[], None] = lambda: None,
    ) -> None:
        """Raises ConfigError for an address that is none."""
        self.address = parse_address(address) if isinstance(address, str) else address
        self.session = ZooKeeperSession(
            self.address,
            session_timeout_s=session_timeout_s,
            request_timeout_s=request_timeout_s,
            work_started=work_started,
            work_finished=work_finished,
        )
        self._writer = ClusterWriter(self.session)
        self._registrar = Registrar(self.session, lease_margin_s)
        self._unclean_default = unclean_default
        self._listeners: list[ChangeListener] = []
        self._follower: TreeFollower | None = None
        self._controller: Controller | None = None

    # --- life -------------------------------------------------------------------------------------------

    async def open(self, timeout_s: float = 15.0) -> None:
        """Connect and know everything. Raises CoordinationError, MissingDependencyError."""
        await self.session.open(timeout_s)
        try:
            cluster_id = await self._make_tree()
            follower = TreeFollower(
                self.session, View(cluster_id), self._register_again, self._registrar.confirm
            )
            follower.on_change(self._note_change)
            for listener in self._listeners:
                follower.on_change(listener)
            await follower.start()
            self._follower = follower
        except BaseException:
            await self.session.close()
            raise

    async def close(self) -> None:
        """Leave the cluster: what is left of it in ZooKeeper vanishes now, the controller's place first."""
        controller, self._controller = self._controller, None
        if controller is not None:
            await controller.close()
        follower, self._follower = self._follower, None
        if follower is not None:
            await follower.close()
        await self.session.close()

    async def register(
        self,
        registration: BrokerRegistration,
        *,
        replaces: str | None = None,
        tails: Mapping[tuple[bytes, int], Tail] | None = None,
        timeout_s: float = 60.0,
    ) -> BrokerRegistration:
        """Join, wait for a node of another life of this broker to vanish, and stand for controller.

        Raises ConfigError when it does not vanish within `timeout_s`; CoordinationError.
        """
        follower = self._known()
        await self._registrar.register(registration, replaces, tails or {}, timeout_s)
        await follower.catch_up(_CATCH_UP_S)
        self._registrar.confirm()
        self._controller = Controller(
            self.session,
            follower,
            self._writer,
            registration.broker_id,
            unclean_default=self._unclean_default,
        )
        self._controller.start()
        registered = self._registrar.registration
        if registered is None:
            raise ConflictError(
                f"broker {registration.broker_id} was registered by another process"
            )
        return registered

    async def hand_over(self, timeout_s: float) -> int:
        """Have what this broker leads given to others, and leave every ISR; how many partitions it leads then.

        Raises CoordinationError when it could not even ask. Those without another replica in sync stay, and are
        not waited for.
        """
        follower = self._known()
        broker_id = self._own().broker_id
        changed = asyncio.Event()
        follower.on_change(lambda _change: changed.set())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._registrar.announce_stop()
                while any(broker_id in isr and len(isr) > 1 for _, isr in self._held(broker_id)):
                    changed.clear()
                    await changed.wait()
        return sum(leader == broker_id for leader, _ in self._held(broker_id))

    # --- what is known ----------------------------------------------------------------------------------

    @property
    def cluster_id(self) -> str:
        return self.state.cluster_id

    @property
    def state(self) -> ClusterState:
        return self._known().view.state

    @property
    def lease_until_ns(self) -> int:
        """Until this moment of the monotonic clock nobody else is given what this broker leads for its silence.

        In nanoseconds; 0 without a registration. What it is told to hand over (a stop that it announced, a preferred
        leader, a reassignment) may go before, as soon as the state says so.
        """
        return self._registrar.lease_until_ns

    @property
    def controller_epoch(self) -> int | None:
        """When this broker is the controller: its epoch."""
        return None if self._controller is None else self._controller.epoch

    def on_change(self, listener: ChangeListener) -> None:
        """Have each change told, on the loop, in order. Listeners of before `open` see the first picture as one."""
        self._listeners.append(listener)
        if self._follower is not None:
            self._follower.on_change(listener)

    async def catch_up(self, timeout_s: float = _CATCH_UP_S) -> None:
        """Until `state` holds what ZooKeeper had when this was called, also through a lost connection.

        Raises CoordinationError when that takes longer than `timeout_s`.
        """
        follower = self._known()
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        while True:
            left_s = max(0.0, deadline_s - loop.time())
            await self.session.wait_connected(left_s)
            try:
                await self.session.sync()
            except CoordinationError:
                if loop.time() >= deadline_s:
                    raise
                await asyncio.sleep(_RETRY_S)
                continue
            await follower.catch_up(max(0.0, deadline_s - loop.time()))
            return

    # --- changes ----------------------------------------------------------------------------------------

    async def create_topic(
        self,
        name: str,
        *,
        partitions: int = 1,
        replication_factor: int = 1,
        configs: Mapping[str, str] | None = None,
        assignment: Sequence[Sequence[int]] | None = None,
    ) -> TopicState:
        """A new topic, its leaders elected. Raises BrokerError; CoordinationError."""
        creator = self._own().incarnation
        await self.catch_up()
        await self._writer.create_topic(
            self.state,
            name,
            partitions,
            replication_factor,
            configs or {},
            assignment,
            creator=creator,
        )
        return await self._topic_now(name)

    async def alter_topic(self, name: str, configs: Mapping[str, str]) -> TopicState:
        """Replace a topic's settings. Raises BrokerError; ConflictError; CoordinationError."""
        await self._writer.alter_topic(name, configs)
        return await self._topic_now(name)

    async def add_partitions(
        self, name: str, partitions: int, assignment: Sequence[Sequence[int]] | None = None
    ) -> TopicState:
        """Let a topic have `partitions` in all. Raises BrokerError; ConflictError; CoordinationError."""
        await self.catch_up()
        await self._writer.add_partitions(self.state, name, partitions, assignment)
        return await self._topic_now(name)

    async def delete_topic(self, name: str) -> None:
        """A topic and all its partitions. Raises BrokerError; ConflictError; CoordinationError."""
        await self._writer.delete_topic(name)
        await self._known().catch_up(_CATCH_UP_S)

    async def change_isr(
        self,
        topic_id: bytes,
        index: int,
        expected: PartitionState,
        isr: Sequence[int],
        *,
        joining: Mapping[int, int] | None = None,
    ) -> PartitionState:
        """Compare and set by the leader. Raises ConflictError; CoordinationError; LocalProtocolError."""
        return await self._writer.change_isr(topic_id, index, expected, isr, joining or {})

    async def allocate_producer_ids(self) -> range:
        """A block of producer ids for this broker alone. Raises CoordinationError."""
        return await self._writer.allocate_producer_ids()

    async def reassign(
        self, partition: TopicPartition, target: Sequence[int] | None
    ) -> PartitionState:
        """Set out to move a partition, or back. Raises BrokerError; ConflictError; CoordinationError."""
        await self.catch_up()
        return await self._writer.reassign(self.state, partition, target)

    async def prefer_leaders(self, partitions: Sequence[TopicPartition] | None = None) -> None:
        """Tell the controller. Raises ConflictError when the last such order is not done yet; CoordinationError."""
        await self._writer.prefer_leaders(partitions)

    # --- inside -----------------------------------------------------------------------------------------

    async def _make_tree(self) -> str:
        for folder in nodes.FOLDERS:
            with contextlib.suppress(ConflictError):
                await self.session.create(folder)
        with contextlib.suppress(ConflictError):
            await self.session.create(nodes.CLUSTER_ID, uuid.uuid4().hex.encode())
        node = await self.session.get(nodes.CLUSTER_ID)
        if node is None or not node.data:
            raise CoordinationError(
                f"the node {nodes.CLUSTER_ID} at {self.address} is gone: restore it"
            )
        return node.data.decode(errors="replace")

    def _note_change(self, change: ClusterChange) -> None:
        self._registrar.note(change)
        if self._follower is not None and self._registrar.is_due:
            self._follower.read_again()  # which registers first

    async def _register_again(self) -> None:
        try:
            await self._registrar.register_again()
        except ConflictError as error:
            # Without a registration there is no lease; the picture shall be right all the same.
            logger.error("%s; this one leads nothing any more", error)

    async def _topic_now(self, name: str) -> TopicState:
        await self._known().catch_up(_CATCH_UP_S)
        topic = self.state.topics.get(name)
        if topic is None:
            raise BrokerError(
                ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"topic {name!r} was deleted meanwhile"
            )
        return topic

    def _held(self, broker_id: int) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Leader and ISR of each partition that this broker has."""
        view = self._known().view
        for partition in view.replicas_on(broker_id):
            state = view.state.topics[partition.topic].partitions[partition.partition]
            yield state.leader, state.isr

    def _own(self) -> BrokerRegistration:
        registration = self._registrar.registration
        if registration is None:
            raise CoordinationError("this broker is not registered in the cluster")
        return registration

    def _known(self) -> TreeFollower:
        if self._follower is None:
            raise CoordinationError(f"the metadata store at {self.address} is not open")
        return self._follower


if TYPE_CHECKING:
    _keeps_the_contract: type[MetadataStore] = ZooKeeperStore
