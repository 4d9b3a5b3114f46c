"""A simulated broker: a process that can be killed, frozen or lose its machine, on a clock of its own. PURE."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any

from frieda.cluster.election import Tail
from frieda.cluster.state import BrokerRegistration, PartitionState
from frieda.replication.lease import Lease
from frieda.replication.link import Link, LinkChange
from frieda.replication.messages import ReplicationMessage
from frieda.replication.settings import ReplicationSettings
from frieda.testing.simulation.controller import certain_by_now, elections
from frieda.testing.simulation.disk import SimulatedLog
from frieda.testing.simulation.network import Network
from frieda.testing.simulation.replica import (
    FetchAnswer,
    ProduceAnswer,
    ProduceRequest,
    Replica,
)
from frieda.testing.simulation.rules import Rules
from frieda.testing.simulation.store import MetadataStore, View
from frieda.testing.simulation.world import MS, DriftingClock, World

if TYPE_CHECKING:
    from frieda.testing.simulation.history import History

LINK_INTERVAL_MS = 150
LINK_TIMEOUT_MS = 500
CONTROL_NS = 200 * MS
CONNECT_AGAIN_NS = 400 * MS
CHECKPOINT_NS = 700 * MS


class Process(Enum):
    """What the broker's process does."""

    RUNNING = 1
    FROZEN = 2
    DEAD = 3


class SimulatedBroker:
    """Its logs outlive its process. Whatever waits for a moment or an answer belongs to one life of the process."""

    def __init__(
        self,
        broker_id: int,
        world: World,
        network: Network,
        store: MetadataStore,
        history: History,
        rules: Rules,
        settings: ReplicationSettings,
        session_timeout_ms: int,
        logs: dict[int, SimulatedLog],
        unclean_allowed: bool,
    ) -> None:
        self.broker_id = broker_id
        self.world = world
        self.network = network
        self.store = store
        self.history = history
        self.rules = rules
        self.settings = settings
        self.logs = logs
        self.peers: dict[int, SimulatedBroker] = {}
        self.answer_client: Callable[[str, ProduceAnswer], None] = lambda *_: None
        self._session_timeout_ms = session_timeout_ms
        self._unclean_allowed = unclean_allowed
        self.process = Process.DEAD
        self.clock = DriftingClock(
            world, world.random.uniform(0.99, 1.01), world.random.randrange(10**12)
        )
        self._life = 0
        self.incarnation = ""
        self._attempt = 0
        self._tail_certain = True
        self._inbox: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self.replicas: dict[int, Replica] = {}
        self.session: int | None = None
        self.lease = self._new_lease()
        self._links: dict[int, Link] = {}
        self._to_be_sealed: set[int] = set()
        self.is_stopping = False
        self._brokers_change = -1
        self.barred: frozenset[int] = frozenset()

    def note(self, *what: Any) -> None:
        self.world.note("broker", self.broker_id, *what)

    def disk_delay_ns(self) -> int:
        return int(self.world.random.expovariate(1.0) * MS)

    # --- life and death -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the process."""
        if self.process is not Process.DEAD:
            return
        self._life += 1
        self.process = Process.RUNNING
        self.incarnation = ""
        self.note("starts, tail certain:", self._tail_certain)
        self.replicas = {p: Replica(self, p, log) for p, log in self.logs.items()}
        self._links = {peer: Link(LINK_INTERVAL_MS, LINK_TIMEOUT_MS) for peer in self.peers}
        self.session = None
        self.lease = self._new_lease()
        self._connect()
        stagger_ns = int(self.world.random.random() * CONTROL_NS)
        self.later(stagger_ns, self._watch_links)
        self.later(stagger_ns, self._control)
        self.later(stagger_ns, self._checkpoint)

    def kill(self) -> None:
        """kill -9: the page cache stays."""
        if self.process is not Process.DEAD:
            self.note("is killed")
            self.process = Process.DEAD
            self.is_stopping = False
            self._life += 1
            self._inbox.clear()

    def lose_power(self) -> None:
        """The machine goes down: what was not synced may be gone."""
        self.kill()
        for partition, log in self.logs.items():
            if log.lose_power(self.world.random):
                self.note("loses the tail of", partition, "and keeps", log.position)
        if not all(log.flush_batch for log in self.logs.values()):
            self._tail_certain = False

    def freeze(self) -> None:
        """SIGSTOP."""
        if self.process is Process.RUNNING:
            self.note("is frozen")
            self.process = Process.FROZEN

    def thaw(self) -> None:
        """SIGCONT: it goes on where it was, and finds what came meanwhile."""
        if self.process is Process.FROZEN:
            self.note("is thawed")
            self.process = Process.RUNNING
            while self._inbox and self.process is Process.RUNNING:
                action, arguments = self._inbox.popleft()
                action(*arguments)

    # --- what a life is made of -----------------------------------------------------------------------------

    def receive(self, action: str, *arguments: Any) -> None:
        """A message came in over the network; whichever life is there takes it."""
        self._run(self._life, getattr(self, action), *arguments)

    def later(self, delay_ns: int, action: Callable[..., None], *arguments: Any) -> None:
        """`action` happens in `delay_ns` of this machine's clock, in this life."""
        self.world.after(delay_ns, self._run, self._life, action, *arguments)

    def at(self, moment_ns: int, action: Callable[..., None], *arguments: Any) -> None:
        """`action` happens when this machine's clock reads `moment_ns`, in this life."""
        delay_ns = self.clock.true_delay_ns(moment_ns)
        self.world.after(delay_ns, self._run, self._life, action, *arguments)

    def ask(
        self,
        operation: Callable[..., Any],
        arguments: tuple[Any, ...],
        answered: Callable[[Any], None],
    ) -> None:
        """Ask the metadata store; the answer reaches this life or none."""
        self.store.ask(
            self.broker_id, operation, arguments, partial(self._run, self._life, answered)
        )

    def _run(self, life: int, action: Callable[..., None], *arguments: Any) -> None:
        if life != self._life or self.process is Process.DEAD:
            return
        if self.process is Process.FROZEN:
            self._inbox.append((partial(self._run, life, action), arguments))
        else:
            action(*arguments)

    # --- the session with the metadata store ------------------------------------------------------------------

    def _new_lease(self) -> Lease:
        return self.rules.lease(self._session_timeout_ms, self._session_timeout_ms // 5)

    def _connect(self) -> None:
        """A session and a registration in it; from the start when an answer is missing."""
        self._attempt += 1
        attempt = self._attempt
        sent_ns = self.clock.now_ns()
        registration = BrokerRegistration(
            broker_id=self.broker_id,
            incarnation=self._next_incarnation(),
            listeners=(),
            tail_certain=self._tail_certain,
        )
        tails = {p: Tail(*log.position) for p, log in self.logs.items()}

        def again() -> None:
            if self.session is None and attempt == self._attempt:
                self._connect()

        def opened(session: int) -> None:
            if attempt == self._attempt:
                watchers = tuple(
                    partial(self.receive, name) for name in ("state_changed", "brokers_changed")
                )
                arguments = (session, registration, tails, watchers)
                self.ask(self.store.register, arguments, partial(registered, session))

        def registered(session: int, states: list[PartitionState] | None) -> None:
            if attempt != self._attempt or self.session is not None or states is None:
                return
            self.session = session
            self.incarnation = registration.incarnation
            for partition in self.replicas:
                self.state_changed(partition, states[partition])
            # Only now: what is known here is no older than the registration.
            self._lease_answered(sent_ns)
            self._heartbeat(session)

        self.ask(self.store.open_session, (self.broker_id,), opened)
        self.later(CONNECT_AGAIN_NS, again)

    def _next_incarnation(self) -> str:
        """Another for each session: a controller may have seen the last one end, and elects somebody else by and by.

        To go on leading as the same one would be to acknowledge beside that one.
        """
        if not self.rules.sessions_are_lives and self.incarnation:
            return self.incarnation
        return f"{self.broker_id}.{self._life}.{self._attempt}"

    def _lease_answered(self, sent_ns: int) -> None:
        had_run_out = not self.lease.holds(self.clock.now_ns())
        self.lease.answered(sent_ns)
        if had_run_out:
            for replica in self.replicas.values():
                replica.lease_renewed()

    def _heartbeat(self, session: int) -> None:
        if self.session != session:
            return
        sent_ns = self.clock.now_ns()

        def answered(lives: bool) -> None:
            if self.session != session:
                return
            if lives:
                self._lease_answered(sent_ns)
            else:
                self.note("has lost its session", session)
                self.session = None
                self.lease.give_up()
                for replica in self.replicas.values():
                    replica.session_lost()
                self._connect()

        self.ask(self.store.heartbeat, (session,), answered)
        self.later(self._session_timeout_ms * MS // 5, self._heartbeat, session)

    def state_changed(self, partition: int, state: PartitionState) -> None:
        """A watch fired."""
        if partition in self.replicas:
            self.replicas[partition].on_state(state)

    def brokers_changed(self, change: int, brokers: dict[int, BrokerRegistration]) -> None:
        """A watch fired; they may come out of order."""
        if change < self._brokers_change:
            return
        self._brokers_change = change
        own = brokers.get(self.broker_id)
        if own is not None and own.incarnation == self.incarnation and own.tail_certain:
            # Only now, and for the next life too: before, another start would hide what was lost.
            self._tail_certain = True
        self.barred = frozenset(
            broker_id for broker_id, b in brokers.items() if b.stopping or not b.tail_certain
        )
        for replica in self.replicas.values():
            replica.barred_changed()

    def _control(self) -> None:
        """Be the controller, if there is no other."""
        if self.session is not None:
            self.ask(self.store.view, (self.session,), self._decide)
        self.later(CONTROL_NS, self._control)

    def _decide(self, view: View | None) -> None:
        if view is None:
            return
        epoch = view.controller_epoch
        for election in elections(view, self._unclean_allowed, self.rules.decide):
            self.ask(self.store.elect, (epoch, *election), lambda _: None)
        for broker_id, number in certain_by_now(view):
            self.ask(self.store.confirm_tails, (epoch, broker_id, number), lambda _: None)

    # --- other brokers ----------------------------------------------------------------------------------------

    def connected(self) -> frozenset[int]:
        """The brokers that answer."""
        return frozenset(peer for peer, link in self._links.items() if link.is_up)

    def send(self, to: int, partition: int, message: ReplicationMessage) -> None:
        self.network.send(
            self.broker_id,
            to,
            self.peers[to].receive,
            "replicate",
            self.broker_id,
            partition,
            message,
        )

    def replicate(self, sender: int, partition: int, message: ReplicationMessage) -> None:
        """A message of replication."""
        replica = self.replicas.get(partition)
        if replica is not None and replica.seen is not None:
            replica.received(sender, message)

    def _watch_links(self) -> None:
        for peer, link in self._links.items():
            now_ns = self.clock.now_ns()
            self._link_changed(peer, link.tick(now_ns))
            if link.ping_due(now_ns):
                receive = self.peers[peer].receive
                self.network.send(self.broker_id, peer, receive, "ping", self.broker_id, now_ns)
        self.later(LINK_INTERVAL_MS * MS, self._watch_links)

    def ping(self, sender: int, sent_ns: int) -> None:
        receive = self.peers[sender].receive
        self.network.send(
            self.broker_id, sender, receive, "pong", self.broker_id, sent_ns, self.incarnation
        )

    def pong(self, sender: int, sent_ns: int, incarnation: str) -> None:
        change = self._links[sender].answered(sent_ns, incarnation, self.clock.now_ns())
        self._link_changed(sender, change)

    def _link_changed(self, peer: int, change: LinkChange) -> None:
        if change is LinkChange.NONE:
            return
        for replica in self.replicas.values():
            if change is not LinkChange.UP:
                replica.link_changed(peer, is_up=False)
            if change is not LinkChange.DOWN:
                replica.link_changed(peer, is_up=True)

    # --- clients ------------------------------------------------------------------------------------------------

    def produce(self, request: ProduceRequest) -> None:
        self.replicas[request.partition].produce(request)

    def answer(self, client: str, answer: ProduceAnswer) -> None:
        self.network.send(self.broker_id, client, self.answer_client, client, answer)

    def fetch(
        self,
        client: str,
        partition: int,
        offset: int,
        max_bytes: int,
        answered: Callable[[FetchAnswer], None],
    ) -> None:
        replica = self.replicas.get(partition)
        if replica is not None:
            answer = replica.fetch(offset, max_bytes)
            self.network.send(self.broker_id, client, answered, answer)

    # --- the disk -------------------------------------------------------------------------------------------------

    def appended(self, replica: Replica) -> None:
        """Something was appended: with flush=batch a sync follows."""
        if replica.log.flush_batch:
            self.later(self.disk_delay_ns(), replica.synced, replica.log.log_end_offset)

    def _checkpoint(self) -> None:
        """Now and then the kernel writes back what is dirty, and the high watermarks are saved."""
        for replica in self.replicas.values():
            replica.checkpoint()
            if self.world.random.random() < 0.3:
                replica.synced(replica.log.log_end_offset)
        self.later(CHECKPOINT_NS, self._checkpoint)

    def hand_over(self) -> None:
        """Give away what it leads, as a graceful stop does: seal all of it, then say so."""
        if self.process is Process.RUNNING and self.session is not None:
            self.note("stops gracefully")
            self.is_stopping = True
            self._to_be_sealed = {p for p, r in self.replicas.items() if r.leader is not None}
            for replica in self.replicas.values():
                replica.seal()
            self._announce_when_sealed()

    def sealed(self, replica: Replica) -> None:
        """All in sync have all of this partition."""
        self._to_be_sealed.discard(replica.partition)
        self._announce_when_sealed()

    def _announce_when_sealed(self) -> None:
        if self.session is not None and (not self._to_be_sealed or not self.rules.seals):
            self.ask(self.store.announce_stop, (self.session,), lambda _: None)
