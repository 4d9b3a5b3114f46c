from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from frieda.cluster.election import decide, leads
from frieda.cluster.reassignment import (
    Stage,
    begin,
    cancel,
    is_under_way,
    origin_of,
    step,
    target_of,
)
from frieda.cluster.state import BrokerRegistration, PartitionState


def brokers(*numbers: int) -> dict[int, BrokerRegistration]:
    return {
        number: BrokerRegistration(broker_id=number, incarnation=f"life {number}", listeners=())
        for number in numbers
    }


ALL = brokers(1, 2, 3, 4, 5)
START = PartitionState(
    replicas=(1, 2), isr=(1, 2), leader=1, leader_incarnation="life 1", leader_epoch=4
)


def under_way(target: tuple[int, ...], state: PartitionState = START) -> PartitionState:
    after = begin(state, target)
    assert after is not None
    return after


def test_it_begins_with_the_new_replicas_beside_the_old_ones() -> None:
    after = under_way((3, 2))
    assert after.replicas == (3, 2, 1)
    assert (after.adding, after.removing) == ((3,), (1,))
    assert (after.leader, after.isr) == (1, (1, 2))
    assert (target_of(after), origin_of(after)) == ((3, 2), (2, 1))


def test_it_waits_until_every_new_replica_is_in_sync() -> None:
    after = under_way((3, 4))
    assert step(after, ALL, controller_epoch=1).stage is Stage.CATCHING_UP
    half = replace(after, isr=(1, 2, 3))
    waiting = step(half, ALL, controller_epoch=1)
    assert (waiting.state, waiting.awaited) == (None, (4,))


def test_it_ends_with_the_leader_and_the_isr_among_the_new_replicas() -> None:
    ready = replace(under_way((3, 4)), isr=(1, 2, 3, 4))
    done = step(ready, ALL, controller_epoch=9)
    assert done.stage is Stage.READY
    assert done.state is not None
    assert (done.state.replicas, done.state.isr) == ((3, 4), (3, 4))
    assert (done.state.leader, done.state.leader_epoch) == (3, 5)
    assert not is_under_way(done.state)


def test_a_leader_that_stays_keeps_its_epoch() -> None:
    ready = replace(under_way((3, 1)), isr=(1, 2, 3))
    done = step(ready, ALL, controller_epoch=9).state
    assert done is not None
    assert (done.leader, done.leader_epoch, done.isr) == (1, 4, (1, 3))


def test_it_waits_for_a_new_replica_that_can_lead() -> None:
    ready = replace(under_way((3,)), isr=(1, 2, 3))
    assert step(ready, brokers(1, 2), controller_epoch=1).stage is Stage.AWAITING_LEADER


def test_another_order_of_the_same_replicas_is_done_at_once() -> None:
    turned = under_way((2, 1))
    assert turned.replicas == (2, 1)
    assert not is_under_way(turned)
    assert begin(START, (1, 2)) is None


def test_cancelled_it_goes_back_and_the_added_replicas_leave() -> None:
    after = cancel(replace(under_way((3, 4)), isr=(1, 2, 3)))
    assert after is not None
    assert (after.replicas, after.isr, after.leader) == ((1, 2), (1, 2), 1)
    assert not is_under_way(after)
    assert cancel(START) is None


def test_cancelled_under_an_added_leader_it_keeps_that_until_an_old_one_can_lead() -> None:
    moved = replace(
        under_way((3, 4)), isr=(3, 2), leader=3, leader_incarnation="life 3", leader_epoch=6
    )
    back = cancel(moved)
    assert back is not None
    assert back.leader == 3
    assert 3 in back.removing
    done = step(back, ALL, controller_epoch=1).state
    assert done is not None
    assert (done.replicas, done.leader, done.leader_epoch) == ((1, 2), 2, 7)


replica_lists = st.lists(st.integers(1, 5), min_size=1, max_size=3, unique=True).map(tuple)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("target"), replica_lists),
            st.tuples(st.just("cancel"), st.none()),
            st.tuples(st.just("joins"), st.integers(1, 5)),
            st.tuples(st.just("dies"), st.integers(1, 5)),
            st.tuples(st.just("returns"), st.integers(1, 5)),
            st.tuples(st.just("controller"), st.none()),
        ),
        max_size=30,
    )
)
def test_whatever_happens_a_partition_keeps_a_replica_in_sync_and_arrives(
    events: list[tuple[str, object]],
) -> None:
    state, alive = START, dict(ALL)
    wanted: tuple[int, ...] = START.replicas
    for event, value in events:
        match event, value:
            case "target", tuple(target):
                state, wanted = begin(state, target) or state, target
            case "cancel", _:
                wanted = origin_of(state) if is_under_way(state) else wanted
                state = cancel(state) or state
            case "joins", int(number) if leads(state, alive) and number in alive:
                if number in state.replicas and number not in state.isr:
                    state = replace(state, isr=(*state.isr, number))
            case "dies", int(number):
                alive.pop(number, None)
            case "returns", int(number):
                alive[number] = ALL[number]
            case "controller", _:
                state = decide(state, alive, controller_epoch=1).state or state
                state = step(state, alive, controller_epoch=1).state or state
        assert state.isr
        assert set(state.isr) <= set(state.replicas)
        assert len(set(state.replicas)) == len(state.replicas)
        assert set(state.adding) | set(state.removing) <= set(state.replicas)
        assert target_of(state) == wanted
    # Everybody is back, and who may join the ISR does: then it arrives.
    state = decide(state, ALL, controller_epoch=1).state or state
    state = replace(state, isr=(*state.isr, *(set(state.replicas) - set(state.isr))))
    state = step(state, ALL, controller_epoch=1).state or state
    assert state.replicas == wanted
    assert not is_under_way(state)
    assert leads(state, ALL)
    assert state.leader in state.isr
