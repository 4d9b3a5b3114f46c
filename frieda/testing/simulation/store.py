"""The metadata store as the simulation has it: one place where everything happens in one order. PURE.

Sessions end when nothing was heard of them for their timeout. Watches are delivered late, each on its own, so out of
order too. Everything asked of it is an operation that happens at one moment, between two trips over the network; either
trip may fail, so that the asker does not know whether it happened.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Final

from frieda.cluster.state import NO_LEADER, BrokerRegistration, PartitionState
from frieda.replication.effects import Propose
from frieda.replication.messages import EpochEnd
from frieda.testing.simulation.network import Network
from frieda.testing.simulation.world import World

STORE: Final = "store"


class Written(Enum):
    """What became of a compare-and-set."""

    DONE = "done"
    CONFLICT = "conflict"
    """The version is another."""
    REFUSED = "refused"
    """The version fits, but the change must not be made."""


class Election(Enum):
    """How a leader came to be."""

    CLEAN = "clean"
    UNCLEAN = "unclean"
    """From outside the ISR, as the topic allows."""
    LAST_RESORT = "last resort"
    """All in sync may have lost their tail; the longest log was taken."""


@dataclass(slots=True)
class StoredPartition:
    """A partition's state, and what an election needs when machines went down.

    uncertain: members of the ISR that were started anew and may lack a tail, with what their logs hold.
    positions: what the logs of the replicas hold while there is no leader and all of the ISR are uncertain.
    """

    state: PartitionState
    uncertain: dict[int, EpochEnd] = field(default_factory=dict)
    positions: dict[int, EpochEnd] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class View:
    """What a controller sees at one moment."""

    controller_epoch: int
    registrations: dict[int, BrokerRegistration]
    partitions: tuple[StoredPartition, ...]


class MetadataStore:
    """See the module. `checks_incarnations`: a change of the ISR names those of the members it adds (KIP-903)."""

    def __init__(
        self,
        world: World,
        network: Network,
        partitions: list[PartitionState],
        session_timeout_ns: int,
        *,
        checks_incarnations: bool,
    ) -> None:
        self._world = world
        self._network = network
        self._session_timeout_ns = session_timeout_ns
        self._checks_incarnations = checks_incarnations
        self._sessions: dict[int, tuple[int, int]] = {}  # session -> broker, when it ends
        self._last_session = 0
        self._watchers: dict[int, Callable[[int, StoredPartition], None]] = {}
        self._registered: dict[int, tuple[int, BrokerRegistration]] = {}  # broker -> session
        self._controller_session = -1
        self.controller_epoch = 0
        self.partitions = [StoredPartition(state) for state in partitions]
        self.elected: Callable[[int, PartitionState, Election], None] = lambda *_: None
        """For the observer: an election happened."""
        self.up = True

    # --- the way there and back ---------------------------------------------------------------------------

    def ask(
        self,
        broker_id: int,
        operation: Callable[..., Any],
        arguments: tuple[Any, ...],
        answered: Callable[..., None],
    ) -> None:
        """`operation` happens here some time; `answered` gets its result, unless a message is lost."""
        self._network.send(broker_id, STORE, self._do, broker_id, operation, arguments, answered)

    def _do(
        self,
        broker_id: int,
        operation: Callable[..., Any],
        arguments: tuple[Any, ...],
        answered: Callable[..., None],
    ) -> None:
        if self.up:
            result = operation(*arguments)
            self._network.send(STORE, broker_id, answered, result)

    def stop(self) -> None:
        """The whole service is down; sessions do not end meanwhile."""
        self.up = False

    def start(self) -> None:
        """It is back. Every session gets its whole timeout again (as ZooKeeper's new leader does)."""
        self.up = True
        ends_ns = self._world.now_ns + self._session_timeout_ns
        for session, (broker_id, _) in self._sessions.items():
            self._sessions[session] = (broker_id, ends_ns)

    # --- sessions and registrations -------------------------------------------------------------------------

    def open_session(self, broker_id: int) -> int:
        self._last_session += 1
        session = self._last_session
        self._sessions[session] = (broker_id, self._world.now_ns + self._session_timeout_ns)
        self._world.after(self._session_timeout_ns, self._expire, session)
        return session

    def heartbeat(self, session: int) -> bool:
        """Whether the session lives."""
        if session not in self._sessions:
            return False
        broker_id, _ = self._sessions[session]
        self._sessions[session] = (broker_id, self._world.now_ns + self._session_timeout_ns)
        return True

    def _expire(self, session: int) -> None:
        entry = self._sessions.get(session)
        if entry is None:
            return
        left_ns = entry[1] - self._world.now_ns
        if left_ns > 0 or not self.up:
            self._world.after(max(left_ns, self._session_timeout_ns // 4), self._expire, session)
        else:
            self.end_session(session)

    def end_session(self, session: int) -> None:
        """It ended, or its owner ends it: what it registered is gone."""
        entry = self._sessions.pop(session, None)
        if entry is None:
            return
        broker_id = entry[0]
        self._world.note("store: session", session, "of broker", broker_id, "ends")
        if self._registered.get(broker_id, (-1, None))[0] == session:
            del self._registered[broker_id]
            self._watchers.pop(broker_id, None)
        if self._controller_session == session:
            self._controller_session = -1

    def session_of(self, broker_id: int) -> int:
        """The session under which a broker is registered, or -1."""
        return self._registered.get(broker_id, (-1, None))[0]

    def resign(
        self, broker_id: int, *, tail_certain: bool, positions: dict[int, EpochEnd]
    ) -> list[StoredPartition]:
        """The first step of a start: nobody leads who does not know it, and a tail that may be lost is told.

        Returns the states as they are then.
        """
        for partition, position in positions.items():
            stored = self.partitions[partition]
            state = stored.state
            if not tail_certain and (broker_id in state.isr or state.leader == NO_LEADER):
                if broker_id in state.isr:
                    stored.uncertain[broker_id] = position
                self._write(partition, state)  # what was decided upon the state before is void
            if stored.state.leader == broker_id:
                resigned = replace(stored.state, leader=NO_LEADER, leader_epoch=state.leader_epoch + 1)
                self._write(partition, resigned)
        return self.states()

    def register(
        self,
        session: int,
        registration: BrokerRegistration,
        watcher: Callable[[int, StoredPartition], None],
    ) -> list[StoredPartition] | None:
        """The second step: be there. None when the session is over. An older life's registration goes."""
        if session not in self._sessions:
            return None
        broker_id = registration.broker_id
        older = self.session_of(broker_id)
        if older not in (-1, session):
            self.end_session(older)
        self._registered[broker_id] = (session, registration)
        self._watchers[broker_id] = watcher
        self._world.note("store: broker", broker_id, "registers as", registration.incarnation)
        return self.states()

    def view_of_registered(self) -> frozenset[int]:
        """The brokers that are there."""
        return frozenset(self._registered)

    def states(self) -> list[StoredPartition]:
        """All, as they are now."""
        return [
            StoredPartition(stored.state, dict(stored.uncertain), dict(stored.positions))
            for stored in self.partitions
        ]

    def put_position(self, partition: int, broker_id: int, version: int, position: EpochEnd) -> None:
        """A replica says what it holds, for an election of the last resort."""
        if self.partitions[partition].state.version == version:
            self.partitions[partition].positions[broker_id] = position

    # --- writes -----------------------------------------------------------------------------------------------

    def change_isr(
        self, partition: int, leader: int, leader_epoch: int, proposal: Propose
    ) -> tuple[Written, PartitionState]:
        """A leader's proposal."""
        stored = self.partitions[partition]
        state = stored.state
        if (
            state.version != proposal.expected_version
            or state.leader != leader
            or state.leader_epoch != leader_epoch
        ):
            return Written.CONFLICT, state
        if self._checks_incarnations:
            for member, incarnation in proposal.incarnations:
                registered = self._registered.get(member)
                if registered is None or registered[1].incarnation != incarnation:
                    return Written.REFUSED, state
        for member, _ in proposal.incarnations:
            stored.uncertain.pop(member, None)
        self._write(partition, replace(state, isr=proposal.isr))
        return Written.DONE, stored.state

    def view(self, session: int) -> View | None:
        """What the controller sees. None: another one is it. When there is none, the first who asks becomes it."""
        if session not in self._sessions:
            return None
        if self._controller_session == -1:
            self._controller_session = session
            self.controller_epoch += 1
        if self._controller_session != session:
            return None
        partitions = tuple(self.states())
        registrations = {broker: entry[1] for broker, entry in self._registered.items()}
        return View(self.controller_epoch, registrations, partitions)

    def elect(
        self, controller_epoch: int, partition: int, state: PartitionState, how: Election
    ) -> None:
        """A controller's decision; `state.version` is the one it was made upon. Nothing, if that is another now."""
        stored = self.partitions[partition]
        if controller_epoch != self.controller_epoch or state.version != stored.state.version:
            return
        for broker_id in set(stored.uncertain) - set(state.isr):
            del stored.uncertain[broker_id]
        if state.leader != NO_LEADER:
            stored.uncertain.pop(state.leader, None)
        self._world.note("store: partition", partition, how.value, "election:", _brief(state))
        self._write(partition, state)
        self.elected(partition, stored.state, how)

    def hand_over(self, partition: int, leader: int) -> None:
        """A leader that is sealed gives its leadership to another of the ISR, if there is one."""
        stored = self.partitions[partition]
        state = stored.state
        others = [
            member
            for member in state.isr
            if member != leader and member in self._registered and member not in stored.uncertain
        ]
        if state.leader == leader and others:
            epoch = state.leader_epoch + 1
            self._write(partition, replace(state, leader=others[0], leader_epoch=epoch))
            self.elected(partition, stored.state, Election.CLEAN)

    def _write(self, partition: int, state: PartitionState) -> None:
        stored = self.partitions[partition]
        stored.state = replace(state, version=stored.state.version + 1)
        stored.positions.clear()
        self._world.note("store: partition", partition, _brief(stored.state), "uncertain", list(stored.uncertain))
        seen = StoredPartition(stored.state, dict(stored.uncertain), {})
        for broker_id, watcher in self._watchers.items():
            self._network.send_surely(STORE, broker_id, watcher, partition, seen)


def _brief(state: PartitionState) -> str:
    return f"v{state.version} leader {state.leader} epoch {state.leader_epoch} isr {state.isr}"
