"""A simulated cluster under a schedule of faults: put together from a seed, run, made whole, and looked at. PURE."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final

from frieda.cluster.state import PartitionState
from frieda.replication.settings import ReplicationSettings
from frieda.testing.simulation.broker import SimulatedBroker
from frieda.testing.simulation.clients import Directory, SimulatedProducer, SimulatedReader
from frieda.testing.simulation.disk import SimulatedLog
from frieda.testing.simulation.faults import FAULTS, Fault, begin, draw_faults
from frieda.testing.simulation.history import AnomalyError, History
from frieda.testing.simulation.network import Network, Weather
from frieda.testing.simulation.replica import ProduceAnswer
from frieda.testing.simulation.rules import REAL, Rules
from frieda.testing.simulation.store import MetadataStore
from frieda.testing.simulation.world import MS, SECOND, World

WARM_UP_NS: Final = 1 * SECOND
HEAL_WITHIN_NS: Final = 40 * SECOND
LOOK_EVERY_NS: Final = 250 * MS


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that a schedule is made of; `draw_plan` makes one from a seed, a test may write its own."""

    seed: int
    brokers: int = 3
    partitions: int = 1
    replication_factor: int = 3
    min_insync: int = 2
    flush_batch: bool = False
    unclean: bool = False
    ordered_network: bool = False
    session_timeout_ms: int = 1000
    replica_lag_ms: int = 600
    window_batches: int = 8
    acks: tuple[int, ...] = (-1, -1, 1)
    """One producer for each partition and entry."""
    period_ms: int = 50
    lasts_ms: int = 8000
    faults: tuple[Fault, ...] = ()

    def __str__(self) -> str:
        return (
            f"seed {self.seed}: {self.brokers} brokers, {self.partitions} partitions x {self.replication_factor}, "
            f"min_insync {self.min_insync}, flush {'batch' if self.flush_batch else 'never'}, "
            f"unclean {'on' if self.unclean else 'off'}, acks {self.acks}; "
            + "; ".join(map(str, self.faults))
        )


def draw_plan(seed: int) -> Plan:
    """The plan of a seed."""
    random = Random(seed)
    brokers = random.choice((3, 3, 4, 5))
    replication_factor = random.randint(2, min(brokers, 4))
    lasts_ms = random.choice((4000, 6000, 8000))
    names = tuple(random.sample(sorted(FAULTS), random.randint(2, 6)))
    count = random.randint(2, 10)
    return Plan(
        seed=seed,
        brokers=brokers,
        partitions=random.choice((1, 1, 2)),
        replication_factor=replication_factor,
        min_insync=random.randint(1, min(replication_factor, 2)),
        flush_batch=random.random() < 0.3,
        unclean=random.random() < 0.15,
        ordered_network=random.random() < 0.5,
        session_timeout_ms=random.choice((600, 1000, 1500)),
        replica_lag_ms=random.choice((300, 600, 1500)),
        window_batches=random.choice((1, 4, 64)),
        acks=random.choice(((-1,), (-1, 1), (-1, -1), (-1, 1, 0))),
        period_ms=random.choice((25, 60, 120)),
        lasts_ms=lasts_ms,
        faults=tuple(draw_faults(random, count, WARM_UP_NS, lasts_ms * MS, names)),
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run was. `anomaly` is None when all was well; `last_steps` lead to it."""

    plan: Plan
    anomaly: AnomalyError | None
    last_steps: tuple[str, ...]
    events: int
    counts: dict[str, int]

    def report(self) -> str:
        """For people: the seed, what went wrong, and the steps before it."""
        if self.anomaly is None:
            return f"{self.plan}: sound, {self.counts}"
        return "\n".join((str(self.plan), *self.last_steps, str(self.anomaly)))


class Cluster:
    """Made for one run."""

    def __init__(self, plan: Plan, rules: Rules) -> None:
        self.plan = plan
        self.world = world = World(plan.seed)
        self.network = network = Network(world)
        self.calm = Weather(ordered=plan.ordered_network)
        network.weather = self.calm
        self.is_whole = False
        self.session_timeout_ns = plan.session_timeout_ms * MS
        ids = list(range(1, plan.brokers + 1))
        states = []
        for partition in range(plan.partitions):
            turned = ids[partition % len(ids) :] + ids[: partition % len(ids)]
            replicas = tuple(turned[: plan.replication_factor])
            states.append(PartitionState(replicas=replicas, isr=replicas))
        self.store = MetadataStore(
            world,
            network,
            states,
            self.session_timeout_ns,
            checks_incarnations=rules.checks_incarnations,
        )
        self.logs = [
            {replica: SimulatedLog(flush_batch=plan.flush_batch) for replica in state.replicas}
            for state in states
        ]
        self.history = History(world, self.store, plan.min_insync, self.logs)
        settings = ReplicationSettings(
            min_insync_replicas=plan.min_insync,
            replica_lag_ms=plan.replica_lag_ms,
            answer_timeout_ms=250,
            heartbeat_ms=100,
            window_batches=plan.window_batches,
            window_bytes=20_000,
            read_bytes=2_000,
            request_timeout_ms=1_500,
            max_parked=16,
        )
        self.brokers = {
            broker_id: SimulatedBroker(
                broker_id,
                world,
                network,
                self.store,
                self.history,
                rules,
                settings,
                plan.session_timeout_ms,
                {p: logs[broker_id] for p, logs in enumerate(self.logs) if broker_id in logs},
                plan.unclean,
            )
            for broker_id in ids
        }
        for broker in self.brokers.values():
            broker.peers = {i: other for i, other in self.brokers.items() if other is not broker}
            broker.answer_client = self._answer_client
        directory = Directory(world, network, self.store, self.brokers)
        kinds = [(p, acks) for p in range(plan.partitions) for acks in plan.acks]
        self.producers = {
            f"producer {number}": SimulatedProducer(
                directory, number, partition, acks, plan.period_ms * MS
            )
            for number, (partition, acks) in enumerate(kinds)
        }
        self.history.unnumbered = {n for n, (_, acks) in enumerate(kinds) if acks == 0}
        self.readers = [
            SimulatedReader(directory, self.history, partition, partition)
            for partition in range(plan.partitions)
        ]

    def _answer_client(self, client: str, answer: ProduceAnswer) -> None:
        self.producers[client].answered(answer)

    def run(self) -> None:
        """The whole schedule. Raises AnomalyError."""
        world = self.world
        for broker in self.brokers.values():
            world.after(int(world.random.random() * 100 * MS), broker.start)
        for producer in self.producers.values():
            world.after(300 * MS, producer.run)
        for reader in self.readers:
            world.after(300 * MS, reader.run)
        for fault in self.plan.faults:
            world.after(fault.at_ns, begin, self, fault)
        world.run_until(self.plan.lasts_ms * MS)
        self._make_whole()
        for _ in range(HEAL_WITHIN_NS // LOOK_EVERY_NS):
            world.run_until(world.now_ns + LOOK_EVERY_NS)
            if self._unfinished() is None:
                break
        unfinished = self._unfinished()
        if unfinished is not None:
            raise AnomalyError("no-progress", unfinished)
        self.history.finish({r: reader.position for r, reader in enumerate(self.readers)})

    def _make_whole(self) -> None:
        self.world.note("all is made whole")
        self.is_whole = True
        self.network.mend_all()
        self.network.weather = self.calm
        self.store.start()
        for broker in self.brokers.values():
            broker.thaw()
            if broker.is_stopping:
                broker.kill()
            broker.start()
            for log in broker.logs.values():
                log.full = False
        for producer in self.producers.values():
            producer.stopped = True

    def _unfinished(self) -> str | None:
        """What has not come to its end yet."""
        for producer in self.producers.values():
            if not producer.idle:
                return f"{producer.name} waits for acknowledgements"
        for partition, state in enumerate(self.store.states):
            if set(state.isr) != set(state.replicas):
                return f"of the replicas {state.replicas} of partition {partition}, {state.isr} are in sync"
            ends = {log.log_end_offset for log in self.logs[partition].values()}
            if len(ends) != 1 or ends != {len(self.history.partitions[partition].committed)}:
                return f"the logs of partition {partition} end at {sorted(ends)}"
            if self.readers[partition].position not in ends:
                return f"{self.readers[partition].name} is at {self.readers[partition].position}"
        return None


def simulate(plan: Plan, rules: Rules = REAL) -> Outcome:
    """Run a plan."""
    cluster = Cluster(plan, rules)
    anomaly = None
    try:
        cluster.run()
    except AnomalyError as error:
        anomaly = error
    steps = tuple(cluster.world.last_steps(60)) if anomaly is not None else ()
    new_epochs = sum(producer.new_epochs for producer in cluster.producers.values())
    counts = cluster.history.counts | {"new producer epochs": new_epochs}
    return Outcome(plan, anomaly, steps, cluster.world.events, counts)
