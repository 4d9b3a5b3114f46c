"""The faults of a schedule: what is done to a simulated cluster, and when it is made good again. PURE."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Final, NamedTuple

from frieda.testing.simulation.network import Weather
from frieda.testing.simulation.store import STORE
from frieda.testing.simulation.world import MS, SECOND

if TYPE_CHECKING:
    from frieda.testing.simulation.cluster import Cluster


class Fault(NamedTuple):
    """At `at_ns` something breaks, for `lasts_ns`. `choice` in [0, 1) picks whom it meets at that moment."""

    at_ns: int
    lasts_ns: int
    name: str
    choice: float

    def __str__(self) -> str:
        return f"{self.at_ns / SECOND:.3f} s {self.name} for {self.lasts_ns / SECOND:.3f} s"


def draw_faults(
    random: Random, count: int, from_ns: int, until_ns: int, names: tuple[str, ...]
) -> list[Fault]:
    """`count` faults of these kinds, spread over the time given."""
    faults = []
    for _ in range(count):
        at_ns = random.randrange(from_ns, until_ns)
        lasts_ns = int(random.choice((0.1, 0.4, 1.0, 2.5)) * random.uniform(0.3, 1.5) * SECOND)
        faults.append(Fault(at_ns, lasts_ns, random.choice(names), random.random()))
    return sorted(faults)


def begin(cluster: Cluster, fault: Fault) -> None:
    """Do it, and see to its end."""
    cluster.world.note("fault:", fault)
    undo = FAULTS[fault.name](cluster, fault)

    def end() -> None:
        if undo is not None and not cluster.is_whole:
            undo()

    cluster.world.after(fault.lasts_ns, end)


Undo = Callable[[], None] | None


def _some(cluster: Cluster, fault: Fault) -> int:
    ids = sorted(cluster.brokers)
    return ids[int(fault.choice * len(ids))]


def _leader(cluster: Cluster, fault: Fault) -> int:
    """The leader of some partition, if there is one."""
    states = cluster.store.states
    state = states[int(fault.choice * len(states))]
    return state.leader if state.leader in cluster.brokers else _some(cluster, fault)


def _kill_leader(cluster: Cluster, fault: Fault) -> Undo:
    broker = cluster.brokers[_leader(cluster, fault)]
    broker.kill()
    return broker.start


def _kill_some(cluster: Cluster, fault: Fault) -> Undo:
    broker = cluster.brokers[_some(cluster, fault)]
    broker.kill()
    return broker.start


def _restart_some(cluster: Cluster, fault: Fault) -> Undo:
    """Down and up again before anybody has noticed."""
    broker = cluster.brokers[_some(cluster, fault)]
    broker.kill()
    cluster.world.after(int(fault.choice * 10 % 1 * 200 * MS), broker.start)
    return None


def _power_leader(cluster: Cluster, fault: Fault) -> Undo:
    broker = cluster.brokers[_leader(cluster, fault)]
    broker.lose_power()
    return broker.start


def _power_some(cluster: Cluster, fault: Fault) -> Undo:
    broker = cluster.brokers[_some(cluster, fault)]
    broker.lose_power()
    return broker.start


def _power_blink(cluster: Cluster, fault: Fault) -> Undo:
    """Down and up again before its session is over."""
    broker = cluster.brokers[_some(cluster, fault)]
    broker.lose_power()
    cluster.world.after(int(fault.choice * 300 * MS), broker.start)
    return None


def _power_all(cluster: Cluster, fault: Fault) -> Undo:
    for broker in cluster.brokers.values():
        broker.lose_power()

    def start() -> None:
        for broker in cluster.brokers.values():
            cluster.world.after(int(cluster.world.random.random() * SECOND), broker.start)

    return start


def _freeze_leader(cluster: Cluster, fault: Fault) -> Undo:
    broker = cluster.brokers[_leader(cluster, fault)]
    broker.freeze()
    return broker.thaw


def _freeze_some(cluster: Cluster, fault: Fault) -> Undo:
    broker = cluster.brokers[_some(cluster, fault)]
    broker.freeze()
    return broker.thaw


def _isolate(
    cluster: Cluster, victim: int, *, into: bool, out: bool, store: bool, brokers: bool
) -> Undo:
    others: list[int | str] = [b for b in cluster.brokers if b != victim] if brokers else []
    if store:
        others.append(STORE)
    cuts = [(victim, other) for other in others if out] + [(o, victim) for o in others if into]
    network = cluster.network
    for source, target in cuts:
        network.cut(source, target)

    def mend() -> None:
        for source, target in cuts:
            network.mend(source, target)

    return mend


def _cut_leader(cluster: Cluster, fault: Fault) -> Undo:
    """The leader cannot reach the other brokers, nor they it; clients can, and perhaps the metadata store."""
    store = fault.choice * 10 % 1 < 0.6
    return _isolate(
        cluster, _leader(cluster, fault), into=True, out=True, store=store, brokers=True
    )


def _cut_leader_from_store(cluster: Cluster, fault: Fault) -> Undo:
    """It still reaches its followers, and its clients it."""
    return _isolate(
        cluster, _leader(cluster, fault), into=True, out=True, store=True, brokers=False
    )


def _cut_one_way(cluster: Cluster, fault: Fault) -> Undo:
    into = fault.choice * 10 % 1 < 0.5
    store = fault.choice * 100 % 1 < 0.5
    return _isolate(
        cluster, _some(cluster, fault), into=into, out=not into, store=store, brokers=True
    )


def _stop_store(cluster: Cluster, fault: Fault) -> Undo:
    cluster.store.stop()
    return cluster.store.start


def _expire_session(cluster: Cluster, fault: Fault) -> Undo:
    """Of a broker that is frozen or cut off for long enough: only so does a session end beneath a living lease."""
    broker = cluster.brokers[_leader(cluster, fault)]
    mend = _isolate(cluster, broker.broker_id, into=True, out=True, store=True, brokers=False)
    cluster.world.after(int(cluster.session_timeout_ns * 1.3), mend or _nothing)
    return None


def _storm(cluster: Cluster, fault: Fault) -> Undo:
    """The links lose, double, delay and reorder."""
    cluster.network.weather = Weather(
        delay_ms=1 + 20 * fault.choice,
        loss=0.1 * (fault.choice * 10 % 1),
        duplication=0.2 * (fault.choice * 100 % 1),
        late=0.05 * (fault.choice * 1000 % 1),
    )

    def end() -> None:
        cluster.network.weather = cluster.calm

    return end


def _slow_follower(cluster: Cluster, fault: Fault) -> Undo:
    victim = _some(cluster, fault)
    cluster.network.slow_down(victim, 200)
    return lambda: cluster.network.slow_down(victim, 1)


def _slow_store(cluster: Cluster, fault: Fault) -> Undo:
    """What is asked of it comes late."""
    cluster.network.slow_down(STORE, 100 + 500 * fault.choice)
    return lambda: cluster.network.slow_down(STORE, 1)


def _jump_clock(cluster: Cluster, fault: Fault) -> Undo:
    cluster.brokers[_some(cluster, fault)].clock.jump(fault.lasts_ns)
    return None


def _fill_disk(cluster: Cluster, fault: Fault) -> Undo:
    logs = cluster.brokers[_some(cluster, fault)].logs.values()
    for log in logs:
        log.full = True

    def free() -> None:
        for log in logs:
            log.full = False

    return free


def _stop_gracefully(cluster: Cluster, fault: Fault) -> Undo:
    """It hands over, ends half a second later at the latest, and is started again."""
    broker = cluster.brokers[_leader(cluster, fault)]
    broker.hand_over()

    def end() -> None:
        if not cluster.is_whole:
            broker.kill()

    def start() -> None:
        broker.kill()
        broker.start()

    cluster.world.after(500 * MS, end)
    return start


def _nothing() -> None:
    """There is nothing to undo."""


FAULTS: Final[dict[str, Callable[[Cluster, Fault], Undo]]] = {
    "kill the leader": _kill_leader,
    "kill a broker": _kill_some,
    "restart a broker": _restart_some,
    "power lost at the leader": _power_leader,
    "power lost at a broker": _power_some,
    "power blinks at a broker": _power_blink,
    "power lost everywhere": _power_all,
    "freeze the leader": _freeze_leader,
    "freeze a broker": _freeze_some,
    "cut the leader off": _cut_leader,
    "cut the leader off from the store": _cut_leader_from_store,
    "cut one way": _cut_one_way,
    "stop the store": _stop_store,
    "expire the leader's session": _expire_session,
    "storm": _storm,
    "slow store": _slow_store,
    "slow broker": _slow_follower,
    "jump of a clock": _jump_clock,
    "disk full": _fill_disk,
    "graceful stop": _stop_gracefully,
}
