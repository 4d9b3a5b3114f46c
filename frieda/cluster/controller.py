"""The controller: elects leaders when brokers come, go or stop, and carries reassignments and orders on.

Every broker runs one; the one that holds the mandate acts. It looks at the partitions that a change touches, decides
by the pure rules of `election` and `reassignment`, and writes what follows by compare-and-set under its mandate. It
sends no messages: brokers learn of everything by their own watch. It remembers nothing but what is still to be looked
at, so that another controller can go on from the state alone.

Taking leadership from a broker whose registration is gone checks, in the same step, that it has not registered again:
its lease begins anew with that, and must not find that something was given away behind its back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final, NamedTuple

from frieda.cluster import election, nodes, reassignment
from frieda.cluster.candidacy import Candidacy
from frieda.cluster.changes import ClusterWriter
from frieda.cluster.election import Decision, Reason, Tail
from frieda.cluster.following import TreeFollower
from frieda.cluster.session import Check, Delete, SessionState, Write, ZooKeeperSession
from frieda.cluster.state import NO_LEADER, BrokerRegistration, PartitionState, TopicState
from frieda.cluster.store import ClusterChange
from frieda.errors import ConflictError, CoordinationError, FencedError
from frieda.model import TopicPartition

logger = logging.getLogger(__name__)

UNCLEAN_SETTING: Final = "unclean.leader.election.enable"
_BATCH: Final = 1000
_CHUNK: Final = 50
_RETRY_S: Final = 0.2
_FAULT_PAUSE_S: Final = 5.0
_CATCH_UP_S: Final = 30.0
_RESIGN_TIMEOUT_S: Final = 2.0
_ALARMING: Final = frozenset(
    {Reason.LONGEST_LOG, Reason.UNCLEAN, Reason.AWAITING_ISR, Reason.AWAITING_TAILS}
)


class _Change(NamedTuple):
    partition: TopicPartition
    path: str
    after: PartitionState
    departed: int = NO_LEADER
    """The leader until now, if it goes because its registration is gone."""


class Controller:
    """Owned by the store; `start` once the broker is registered, `close` before the session ends."""

    def __init__(
        self,
        session: ZooKeeperSession,
        follower: TreeFollower,
        writer: ClusterWriter,
        broker_id: int,
        *,
        unclean_default: bool = False,
    ) -> None:
        self.broker_id = broker_id
        self._session = session
        self._follower = follower
        self._writer = writer
        self._unclean_default = unclean_default
        self._candidacy = Candidacy(session, broker_id)
        self._scanned = False
        self._tidied = False
        self._pending: dict[TopicPartition, None] = {}
        self._tails: dict[tuple[int, int], dict[tuple[bytes, int], Tail]] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def epoch(self) -> int | None:
        """The epoch of its mandate; None while another is controller."""
        mandate = self._candidacy.mandate
        return None if mandate is None else mandate.epoch

    def start(self) -> None:
        """Stand for controller, now and whenever there is none."""
        self._follower.on_change(self._note_change)
        self._session.on_state(self._note_state)
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._wake.set()

    async def close(self) -> None:
        """Stop, and let another take over at once."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        with contextlib.suppress(
            CoordinationError, TimeoutError
        ):  # the end of the session does it too
            async with asyncio.timeout(_RESIGN_TIMEOUT_S):
                await self._candidacy.resign()

    def _note_state(self, state: SessionState) -> None:
        if state is SessionState.LOST:
            self._candidacy.mandate = None
        self._wake.set()

    def _note_change(self, change: ClusterChange) -> None:
        mandate = self._candidacy.mandate
        if mandate is not None and change.after.controller_epoch > mandate.epoch:
            self._candidacy.mandate = mandate = None
        if mandate is not None:
            self._pending.update(dict.fromkeys(change.partitions))
            for broker in change.brokers:
                self._pending.update(dict.fromkeys(self._follower.view.replicas_on(broker)))
        if mandate is not None or change.controller:
            self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._session.state is not SessionState.CONNECTED:
                continue  # the connection wakes us again
            try:
                if self._candidacy.mandate is not None or await self._take_over():
                    await self._work()
            except FencedError as error:
                logger.info("%s", error)
                self._wake.set()  # perhaps nobody is
            except CoordinationError as error:
                logger.warning("the controller could not go on, and tries again: %s", error)
                await asyncio.sleep(_RETRY_S)
                self._wake.set()
            except Exception:
                # A fault of ours: others may do better, and doing nothing for good would be the worst.
                logger.exception("the controller failed; another may take over")
                with contextlib.suppress(CoordinationError):
                    await self._candidacy.resign()
                await asyncio.sleep(_FAULT_PAUSE_S)
                self._wake.set()

    async def _take_over(self) -> bool:
        if self._follower.view.state.controller_id not in (NO_LEADER, self.broker_id):
            return False
        self._scanned = self._tidied = False
        if not await self._candidacy.claim():
            return False
        logger.info("broker %d is the controller now, epoch %s", self.broker_id, self.epoch)
        return True

    async def _scan(self) -> None:
        """What every new controller begins with: everything is pending."""
        await self._follower.catch_up(_CATCH_UP_S)
        state = self._follower.view.state
        self._tails.clear()
        self._pending = {partition: None for partition, _, _ in _partitions(state.topics.values())}
        self._scanned = True

    async def _work(self) -> None:
        """Until nothing is pending. What comes meanwhile is done too, or wakes us again."""
        if not self._scanned:
            await self._scan()
        while self._pending:
            await self._follower.catch_up(_CATCH_UP_S)
            batch = list(self._pending)[:_BATCH]
            for partition in batch:
                del self._pending[partition]
            try:
                await self._settle(batch)
            except BaseException:
                self._pending.update(dict.fromkeys(batch))
                raise
        await self._confirm_tails()
        await self._follow_orders()
        if not self._tidied:
            self._tidied = (
                True  # once: what is left over harms nobody, and the next controller tries too
            )
            await self._writer.remove_leftovers(self._follower.view.state)

    async def _settle(self, batch: list[TopicPartition]) -> None:
        """Decide and write for these partitions; those that changed meanwhile are looked at again."""
        changes: list[_Change] = []
        decisions: dict[TopicPartition, Decision] = {}
        for partition in batch:
            topic = self._follower.view.state.topics.get(partition.topic)
            if topic is None or partition.partition >= len(topic.partitions):
                continue
            decision = await self._decision(partition, topic)
            after = decision.state
            if after is not None:
                decisions[partition] = decision
            elif decision.reason is Reason.IN_ORDER:
                after = self._step(topic.partitions[partition.partition])
            if after is not None:
                changes.append(self._change(partition, topic, after))
        # Partitions that wait for a leader go before those that only lose a member of their ISR.
        urgent = {
            p for p, decision in decisions.items() if decision.reason is not Reason.ISR_SHRUNK
        }
        changes.sort(key=lambda change: change.partition not in urgent)
        await self._write(changes)
        _log_elections(decisions)

    def _change(
        self, partition: TopicPartition, topic: TopicState, after: PartitionState
    ) -> _Change:
        path = nodes.partition_path(topic.topic_id, partition.partition)
        leader = topic.partitions[partition.partition].leader
        stays = leader == after.leader or leader in self._follower.view.state.brokers
        return _Change(partition, path, after, NO_LEADER if stays else leader)

    async def _decision(self, partition: TopicPartition, topic: TopicState) -> Decision:
        state = topic.partitions[partition.partition]
        decision = self._decide(partition, topic, state, {})
        if decision.reason is Reason.AWAITING_TAILS or (
            decision.reason is Reason.UNCLEAN and len(state.isr) > 1
        ):
            key = (topic.topic_id, partition.partition)
            tails: dict[int, Tail] = {}
            for broker in state.isr:
                registration = self._follower.view.state.brokers.get(broker)
                if registration is not None and not registration.tail_certain:
                    known = await self._tails_of(registration)
                    if known is not None:
                        # A log that the broker does not have ends at 0.
                        tails[broker] = known.get(key, Tail(-1, 0))
            decision = self._decide(partition, topic, state, tails)
        return decision

    def _step(self, state: PartitionState) -> PartitionState | None:
        brokers = self._follower.view.state.brokers
        return reassignment.step(state, brokers, controller_epoch=self._epoch()).state

    def _decide(
        self,
        partition: TopicPartition,
        topic: TopicState,
        state: PartitionState,
        tails: dict[int, Tail],
    ) -> Decision:
        configured = topic.configs.get(UNCLEAN_SETTING)
        unclean = self._unclean_default if configured is None else configured == "true"
        return election.decide(
            state,
            self._follower.view.state.brokers,
            controller_epoch=self._epoch(),
            unclean=unclean,
            tails=tails,
        )

    async def _tails_of(
        self, registration: BrokerRegistration
    ) -> dict[tuple[bytes, int], Tail] | None:
        """Where the logs of an uncertain broker end; None when it is on its way out again."""
        key = registration.broker_id, registration.number
        if key not in self._tails:
            path = nodes.tails_path(registration.broker_id)
            node = await self._session.get(path)
            if node is None:
                return None
            self._tails[key] = nodes.decode_tails(path, node.data)
        return self._tails[key]

    async def _write(self, changes: list[_Change]) -> None:
        absences = await self._absences({change.departed for change in changes} - {NO_LEADER})
        back = [change for change in changes if change.departed not in absences]
        self._pending.update((change.partition, None) for change in back)
        changes = [change for change in changes if change.departed in absences]
        chunks = [changes[at : at + _CHUNK] for at in range(0, len(changes), _CHUNK)]
        results = await asyncio.gather(
            *(self._write_chunk(chunk, absences) for chunk in chunks), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _absences(self, brokers: set[int]) -> dict[int, Check | None]:
        """Of those that are not registered now: what holds until they are (for NO_LEADER nothing has to)."""
        absences: dict[int, Check | None] = {NO_LEADER: None}
        for broker in brokers:
            # In this order: a registration that comes after the first reading raises the number that was read.
            count, there = await self._session.get_all(
                [nodes.incarnation_path(broker), nodes.broker_path(broker)]
            )
            if there is None:
                path = nodes.incarnation_path(broker)
                absences[broker] = None if count is None else Check(path, count.version)
        return absences

    async def _write_chunk(
        self, chunk: list[_Change], absences: Mapping[int, Check | None]
    ) -> None:
        """All of these but those that somebody else has changed meanwhile; they are pending again."""
        left = list(chunk)
        while left:
            departed = {change.departed for change in left}
            checks = [check for broker in departed if (check := absences[broker]) is not None]
            writes = [
                Write(change.path, nodes.encode_partition(change.after), change.after.version)
                for change in left
            ]
            try:
                await self._candidacy.write([*checks, *writes])
            except ConflictError as error:
                if error.position >= len(checks):
                    conflicting = [left[error.position - len(checks)]]
                else:
                    returned = checks[error.position]
                    conflicting = [c for c in left if absences[c.departed] == returned]
                self._pending.update((change.partition, None) for change in conflicting)
                left = [change for change in left if change not in conflicting]
                continue
            return

    async def _confirm_tails(self) -> None:
        """Note of brokers whose doubtful logs play no part any more that they are certain from now on."""
        view = self._follower.view
        for registration in tuple(view.state.brokers.values()):
            if registration.tail_certain:
                continue
            broker = registration.broker_id
            if any(self._is_doubtful(partition, broker) for partition in view.replicas_on(broker)):
                continue
            path = nodes.broker_path(broker)
            node = await self._session.get(path)
            if node is None:
                continue
            found = nodes.decode_registration(path, node.data)
            if found.number != registration.number or found.tail_certain:
                continue
            certain = nodes.encode_registration(replace(found, tail_certain=True))
            # Another change of the node, its owner's, wakes us again.
            with contextlib.suppress(ConflictError):
                await self._candidacy.write([Write(path, certain, node.version)])

    def _is_doubtful(self, partition: TopicPartition, broker: int) -> bool:
        cluster = self._follower.view.state
        state = cluster.topics[partition.topic].partitions[partition.partition]
        elected = state.leader == broker and election.leads(state, cluster.brokers)
        return broker in state.isr and not elected

    async def _follow_orders(self) -> None:
        """Move leadership back to preferred leaders, if that was asked for."""
        view = self._follower.view
        wanted = view.wanted_leaders
        if wanted is None:
            return
        cluster = view.state
        changes: list[_Change] = []
        for partition, topic, state in _partitions(cluster.topics.values()):
            if wanted and partition not in wanted:
                continue
            decision = election.prefer(state, cluster.brokers, controller_epoch=self._epoch())
            if decision.state is not None:
                changes.append(self._change(partition, topic, decision.state))
        await self._write(changes)
        with contextlib.suppress(ConflictError):  # it is gone already
            await self._candidacy.write([Delete(nodes.PREFERRED_LEADERS)])
        logger.info("leadership of %d partitions goes back to preferred leaders", len(changes))

    def _epoch(self) -> int:
        epoch = self.epoch
        if epoch is None:
            raise FencedError(f"broker {self.broker_id} is not the controller any more")
        return epoch


def _partitions(
    topics: Iterable[TopicState],
) -> Iterable[tuple[TopicPartition, TopicState, PartitionState]]:
    for topic in topics:
        for index, state in enumerate(topic.partitions):
            yield TopicPartition(topic.name, index), topic, state


def _log_elections(decisions: Mapping[TopicPartition, Decision]) -> None:
    """One line for each reason, however many partitions there are; all of them on level DEBUG."""
    by_reason: dict[Reason, list[TopicPartition]] = {}
    for partition, decision in decisions.items():
        by_reason.setdefault(decision.reason, []).append(partition)
        logger.debug("%s becomes %s", partition, decision.state)
    for reason, partitions in by_reason.items():
        state = decisions[partitions[0]].state
        assert state is not None
        others = f" and {len(partitions) - 1} more" if len(partitions) > 1 else ""
        leader = "nobody" if state.leader == NO_LEADER else f"broker {state.leader}"
        awaited = decisions[partitions[0]].awaited
        logger.log(
            logging.WARNING if reason in _ALARMING else logging.INFO,
            "%s%s: %s; %s is led by %s now, ISR %s%s",
            partitions[0],
            others,
            reason.value,
            partitions[0],
            leader,
            list(state.isr),
            f", awaited: {list(awaited)}" if awaited else "",
        )
