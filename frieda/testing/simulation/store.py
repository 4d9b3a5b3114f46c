"""The metadata store as the simulation has it: one place where everything happens in one order. PURE.

Sessions end when nothing was heard of them for their timeout. Watches are delivered late, each on its own, so out of
order too. Everything asked of it is an operation that happens at one moment, between two trips over the network; either
trip may fail, so that the asker does not know whether it happened.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from frieda.cluster.election import Reason, Tail
from frieda.cluster.state import BrokerRegistration, PartitionState
from frieda.replication.effects import Propose
from frieda.testing.simulation.network import Network
from frieda.testing.simulation.world import World

STORE: Final = "store"


@dataclass(frozen=True, slots=True)
class View:
    """What a controller sees at one moment. `tails`: where the logs of a broker end that is not certain of them."""

    controller_epoch: int
    brokers: dict[int, BrokerRegistration]
    states: tuple[PartitionState, ...]
    tails: dict[int, dict[int, Tail]]


PartitionWatcher = Callable[[int, PartitionState], None]
BrokersWatcher = Callable[[int, dict[int, BrokerRegistration]], None]


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
        self._watchers: dict[int, tuple[PartitionWatcher, BrokersWatcher]] = {}
        self._registered: dict[int, tuple[int, BrokerRegistration]] = {}  # broker -> session
        self._changes = 0
        self._numbers: dict[int, int] = {}
        self.tails: dict[int, dict[int, Tail]] = {}
        self._controller_session = -1
        self.controller_epoch = 0
        self.states = partitions
        self.elected: Callable[[int, PartitionState, PartitionState, Reason], None] = lambda *_: (
            None
        )
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
        self._network.send_in_order(
            broker_id, STORE, self._do, broker_id, operation, arguments, answered
        )

    def _do(
        self,
        broker_id: int,
        operation: Callable[..., Any],
        arguments: tuple[Any, ...],
        answered: Callable[..., None],
    ) -> None:
        if self.up:
            result = operation(*arguments)
            self._network.send_in_order(STORE, broker_id, answered, result)

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
            self._brokers_changed()
        if self._controller_session == session:
            self._controller_session = -1

    def register(
        self,
        session: int,
        registration: BrokerRegistration,
        tails: dict[int, Tail],
        watchers: tuple[PartitionWatcher, BrokersWatcher],
    ) -> list[PartitionState] | None:
        """Be there; an older registration of this broker goes. Returns all states; None when the session is over."""
        if session not in self._sessions:
            return None
        broker_id = registration.broker_id
        older, known = self._registered.get(broker_id, (session, None))
        if older == session and known is not None:
            return list(self.states)
        if older != session:
            self.end_session(older)
        number = self._numbers[broker_id] = self._numbers.get(broker_id, -1) + 1
        self._registered[broker_id] = (session, replace(registration, number=number))
        self._watchers[broker_id] = watchers
        self.tails[broker_id] = {} if registration.tail_certain else tails
        self._world.note("store: broker", broker_id, "registers as", registration.incarnation)
        self._brokers_changed()
        return list(self.states)

    def announce_stop(self, session: int) -> None:
        """A broker says that it wants to hand over what it leads."""
        for broker_id, (owner, registration) in self._registered.items():
            if owner == session:
                self._registered[broker_id] = (session, replace(registration, stopping=True))
                self._brokers_changed()
                return

    @property
    def registered(self) -> frozenset[int]:
        """The brokers that are there."""
        return frozenset(self._registered)

    # --- writes -----------------------------------------------------------------------------------------------

    def change_isr(
        self, partition: int, leader_epoch: int, proposal: Propose
    ) -> tuple[bool, PartitionState]:
        """A leader's proposal. Returns whether it was written, and the state as it is then."""
        state = self.states[partition]
        if state.version != proposal.expected_version or state.leader_epoch != leader_epoch:
            return False, state
        if self._checks_incarnations:
            for member, incarnation in proposal.incarnations:
                registered = self._registered.get(member)
                if registered is None or registered[1].incarnation != incarnation:
                    return False, state
        self._write(partition, replace(state, isr=proposal.isr))
        return True, self.states[partition]

    def view(self, session: int) -> View | None:
        """What the controller sees. None: another one is it. When there is none, the first who asks becomes it."""
        if session not in self._sessions:
            return None
        if self._controller_session == -1:
            self._controller_session = session
            self.controller_epoch += 1
        if self._controller_session != session:
            return None
        brokers = {broker: entry[1] for broker, entry in self._registered.items()}
        return View(self.controller_epoch, brokers, tuple(self.states), dict(self.tails))

    def elect(
        self, controller_epoch: int, partition: int, state: PartitionState, reason: Reason
    ) -> None:
        """A controller's decision; `state.version` is the one it was made upon. Nothing, if that is another now."""
        if (
            controller_epoch != self.controller_epoch
            or state.version != self.states[partition].version
        ):
            return
        before = self.states[partition]
        self._world.note("store: partition", partition, "by its controller:", reason.name)
        self._write(partition, state)
        if state.leader_epoch > before.leader_epoch:
            self.elected(partition, before, state, reason)

    def confirm_tails(self, controller_epoch: int, broker_id: int, number: int) -> None:
        """The controller finds that the doubtful logs of a broker play no part any more."""
        session, registration = self._registered.get(broker_id, (-1, None))
        if (
            controller_epoch == self.controller_epoch
            and registration is not None
            and registration.number == number
        ):
            certain = replace(registration, tail_certain=True)
            self._registered[broker_id] = (session, certain)
            self._brokers_changed()

    def _write(self, partition: int, state: PartitionState) -> None:
        written = replace(state, version=self.states[partition].version + 1)
        self.states[partition] = written
        self._world.note("store: partition", partition, _brief(written))
        for broker_id, (watcher, _) in self._watchers.items():
            self._network.send_surely(STORE, broker_id, watcher, partition, written)

    def _brokers_changed(self) -> None:
        self._changes += 1
        brokers = {broker: entry[1] for broker, entry in self._registered.items()}
        for broker_id, (_, watcher) in self._watchers.items():
            self._network.send_surely(STORE, broker_id, watcher, self._changes, brokers)


def _brief(state: PartitionState) -> str:
    return f"v{state.version} leader {state.leader} epoch {state.leader_epoch} isr {state.isr}"
