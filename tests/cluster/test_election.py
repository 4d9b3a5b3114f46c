from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from frieda.cluster.election import Reason, Tail, decide, hand_to, leads, prefer
from frieda.cluster.state import NO_LEADER, BrokerRegistration, PartitionState


def broker(
    broker_id: int, life: str = "a", *, certain: bool = True, stopping: bool = False
) -> BrokerRegistration:
    return BrokerRegistration(
        broker_id=broker_id,
        incarnation=f"{broker_id}{life}",
        listeners=(),
        tail_certain=certain,
        stopping=stopping,
    )


def there(*brokers: BrokerRegistration) -> dict[int, BrokerRegistration]:
    return {each.broker_id: each for each in brokers}


def led_by(leader: int, isr: tuple[int, ...] = (1, 2, 3), epoch: int = 5) -> PartitionState:
    return PartitionState(
        replicas=(1, 2, 3),
        isr=isr,
        leader=leader,
        leader_incarnation=f"{leader}a",
        leader_epoch=epoch,
        controller_epoch=1,
    )


ALL = there(broker(1), broker(2), broker(3))
WITHOUT_1 = there(broker(2), broker(3))


def test_nothing_happens_while_leader_and_isr_are_there() -> None:
    decision = decide(led_by(2), ALL, controller_epoch=7)
    assert decision.reason is Reason.IN_ORDER
    assert decision.state is None


def test_when_the_leader_is_gone_the_first_replica_in_sync_leads_under_the_next_epoch() -> None:
    after = decide(led_by(1), WITHOUT_1, controller_epoch=7).state
    assert after is not None
    assert (after.leader, after.leader_incarnation, after.leader_epoch) == (2, "2a", 6)
    assert after.isr == (2, 3)
    assert after.controller_epoch == 7


def test_a_follower_that_is_gone_leaves_the_isr_and_the_leader_keeps_its_epoch() -> None:
    decision = decide(led_by(2), WITHOUT_1, controller_epoch=7)
    assert decision.reason is Reason.ISR_SHRUNK
    assert decision.state == replace(led_by(2), isr=(2, 3), controller_epoch=7)


def test_a_leader_that_was_started_anew_is_elected_anew() -> None:
    brokers = there(broker(1, "b"), broker(2), broker(3))
    after = decide(led_by(1), brokers, controller_epoch=1).state
    assert after is not None
    # Before the others, since it alone may have what acks=1 promised.
    assert (after.leader, after.leader_incarnation, after.leader_epoch) == (1, "1b", 6)
    assert after.isr == (1, 2, 3)


def test_a_leader_that_lost_its_tail_is_not_elected_while_another_is_certain() -> None:
    brokers = there(broker(1, "b", certain=False), broker(2))
    after = decide(led_by(1), brokers, controller_epoch=1).state
    assert after is not None
    assert after.leader == 2
    assert after.isr == (2,)


def test_a_follower_that_lost_its_tail_leaves_the_isr() -> None:
    brokers = there(broker(1), broker(2), broker(3, "b", certain=False))
    after = decide(led_by(1), brokers, controller_epoch=1).state
    assert after is not None
    assert after.isr == (1, 2)
    assert after.leader_epoch == 5


def test_a_stopping_leader_hands_over_and_leaves_the_isr() -> None:
    brokers = there(broker(1, stopping=True), broker(2), broker(3))
    decision = decide(led_by(1), brokers, controller_epoch=1)
    assert decision.reason is Reason.HANDED_OVER
    assert decision.state is not None
    assert decision.state.leader == 2
    assert decision.state.isr == (2, 3)


def test_a_stopping_leader_without_another_in_sync_stays_as_long_as_it_can() -> None:
    brokers = there(broker(1, stopping=True), broker(2), broker(3))
    assert decide(led_by(1, isr=(1,)), brokers, controller_epoch=1).reason is Reason.IN_ORDER


def test_a_stopping_follower_leaves_the_isr() -> None:
    brokers = there(broker(1), broker(2, stopping=True), broker(3))
    after = decide(led_by(1), brokers, controller_epoch=1).state
    assert after is not None
    assert after.isr == (1, 3)


def test_without_a_member_of_the_isr_nobody_leads_and_the_isr_is_kept() -> None:
    decision = decide(led_by(1, isr=(1,)), WITHOUT_1, controller_epoch=1)
    assert decision.reason is Reason.AWAITING_ISR
    assert decision.awaited == (1,)
    assert decision.state is not None
    assert decision.state.leader == NO_LEADER
    assert decision.state.isr == (1,)
    again = decide(decision.state, WITHOUT_1, controller_epoch=1)
    assert again.state is None
    assert again.reason is Reason.AWAITING_ISR


def test_unclean_election_takes_another_replica_when_it_is_allowed() -> None:
    decision = decide(led_by(1, isr=(1,)), WITHOUT_1, controller_epoch=1, unclean=True)
    assert decision.reason is Reason.UNCLEAN
    assert decision.state is not None
    assert (decision.state.leader, decision.state.isr) == (2, (2,))


def test_unclean_election_is_not_used_while_a_replica_in_sync_is_there() -> None:
    brokers = there(broker(2), broker(3))
    decision = decide(led_by(1, isr=(1, 3)), brokers, controller_epoch=1, unclean=True)
    assert decision.reason is Reason.CLEAN
    assert decision.state is not None
    assert decision.state.leader == 3


def test_when_all_lost_their_tail_the_last_isr_is_awaited() -> None:
    brokers = there(broker(1, "b", certain=False), broker(2, "b", certain=False))
    decision = decide(led_by(1), brokers, controller_epoch=1, tails={1: Tail(5, 9), 2: Tail(5, 7)})
    assert decision.reason is Reason.AWAITING_ISR
    assert decision.awaited == (3,)


@pytest.mark.parametrize(
    ("tails", "winner"),
    [
        ({1: Tail(5, 10), 2: Tail(5, 12), 3: Tail(5, 11)}, 2),
        ({1: Tail(4, 99), 2: Tail(5, 12), 3: Tail(5, 13)}, 3),
        ({1: Tail(5, 10), 2: Tail(5, 10), 3: Tail(5, 10)}, 1),
    ],
)
def test_when_all_lost_their_tail_the_longest_log_of_the_latest_epoch_leads(
    tails: dict[int, Tail], winner: int
) -> None:
    brokers = there(*(broker(number, "b", certain=False) for number in (1, 2, 3)))
    decision = decide(led_by(1), brokers, controller_epoch=1, tails=tails)
    assert decision.reason is Reason.LONGEST_LOG
    assert decision.state is not None
    assert (decision.state.leader, decision.state.isr) == (winner, (winner,))
    assert decision.state.leader_epoch == 6


def test_when_all_lost_their_tail_nothing_is_decided_before_the_tails_are_known() -> None:
    brokers = there(*(broker(number, "b", certain=False) for number in (1, 2, 3)))
    decision = decide(led_by(1), brokers, controller_epoch=1, tails={1: Tail(5, 1)})
    assert decision.reason is Reason.AWAITING_TAILS
    assert decision.awaited == (2, 3)


def test_a_single_replica_leads_with_whatever_it_has_kept() -> None:
    state = replace(led_by(1), replicas=(1,), isr=(1,))
    decision = decide(state, there(broker(1, "b", certain=False)), controller_epoch=1)
    assert decision.reason is Reason.LONGEST_LOG
    assert decision.state is not None
    assert decision.state.leader == 1


def test_leadership_goes_back_to_the_preferred_leader_when_that_is_in_sync() -> None:
    after = prefer(led_by(3), ALL, controller_epoch=2).state
    assert after is not None
    assert (after.leader, after.leader_epoch, after.isr) == (1, 6, (1, 2, 3))
    assert prefer(led_by(1), ALL, controller_epoch=2).reason is Reason.IN_ORDER
    assert prefer(led_by(3, isr=(2, 3)), ALL, controller_epoch=2).reason is Reason.NOT_IN_SYNC
    stopping = ALL | there(broker(1, stopping=True))
    assert prefer(led_by(3), stopping, controller_epoch=2).state is None


def test_leadership_is_handed_only_to_a_replica_in_sync() -> None:
    assert hand_to(led_by(1, isr=(1, 3)), (2,), ALL, controller_epoch=1) is None
    handed = hand_to(led_by(1, isr=(1, 3)), (2, 3), ALL, controller_epoch=1)
    assert handed is not None
    assert (handed.leader, handed.isr) == (3, (1, 3))


registrations = st.builds(
    broker,
    st.just(0),
    st.sampled_from("ab"),
    certain=st.booleans(),
    stopping=st.booleans(),
)
clusters = st.dictionaries(st.integers(0, 4), registrations, max_size=5).map(
    lambda found: {
        number: replace(each, broker_id=number, incarnation=f"{number}{each.incarnation[1:]}")
        for number, each in found.items()
    }
)


@st.composite
def partitions(draw: st.DrawFn) -> PartitionState:
    replicas = tuple(draw(st.permutations(range(5)))[: draw(st.integers(1, 5))])
    isr = tuple(draw(st.lists(st.sampled_from(replicas), unique=True, min_size=1)))
    leader = draw(st.sampled_from([NO_LEADER, *isr]))
    return PartitionState(
        replicas=replicas,
        isr=isr,
        leader=leader,
        leader_incarnation="" if leader == NO_LEADER else f"{leader}a",
        leader_epoch=draw(st.integers(0, 3)),
    )


@given(partitions(), clusters, st.booleans(), st.booleans())
def test_a_decision_keeps_the_rules_whoever_is_there(
    state: PartitionState,
    brokers: dict[int, BrokerRegistration],
    unclean: bool,
    tails_known: bool,
) -> None:
    tails = {number: Tail(1, 10 * number) for number in range(5)} if tails_known else {}
    decision = decide(state, brokers, controller_epoch=9, unclean=unclean, tails=tails)
    after = decision.state or state
    assert after.isr
    assert set(after.isr) <= set(state.isr) or decision.reason is Reason.UNCLEAN
    elected = after.leader_epoch != state.leader_epoch
    assert after.leader_epoch == state.leader_epoch + elected
    if after.leader != state.leader:
        assert elected or after.leader == NO_LEADER
    if after.leader != NO_LEADER:
        assert after.leader in after.isr
        assert leads(after, brokers)
    lossy = {Reason.UNCLEAN, Reason.LONGEST_LOG}
    if elected and decision.reason not in lossy:
        assert after.leader in state.isr
        assert brokers[after.leader].tail_certain
    if decision.reason in lossy:
        assert after.isr == (after.leader,)
        for member in state.isr:
            assert member not in brokers or not brokers[member].tail_certain
    if decision.reason is Reason.UNCLEAN:
        assert unclean
    if after.leader != NO_LEADER:
        for member in after.isr:
            assert member == after.leader or brokers[member].tail_certain
    again = decide(after, brokers, controller_epoch=9, unclean=unclean, tails=tails)
    assert again.state is None, "a decision is final until something happens"


class PromisedRecords(RuleBasedStateMachine):
    """Brokers that die, lose power and come back, one partition, and how many records were acknowledged by all.

    A log is its length. What an elected leader lacks of what was promised is lost, which may only happen when every
    member of the last ISR lost its tail.
    """

    @initialize()
    def begin(self) -> None:
        self.brokers = there(broker(0), broker(1), broker(2))
        self.lives = dict.fromkeys(range(3), 0)
        self.logs = dict.fromkeys(range(3), 0)
        self.synced = dict.fromkeys(range(3), 0)
        self.doubtful: set[int] = set()
        self.promised = 0
        self.state = PartitionState(
            replicas=(0, 1, 2), isr=(0, 1, 2), leader=0, leader_incarnation="0a"
        )

    def elect(self) -> None:
        before = self.state
        tails = {
            number: Tail(0, self.logs[number])
            for number, each in self.brokers.items()
            if not each.tail_certain
        }
        decision = decide(before, self.brokers, controller_epoch=1, tails=tails)
        if decision.state is None:
            return
        self.state = decision.state
        if self.state.leader_epoch == before.leader_epoch:
            return
        if decision.reason is Reason.LONGEST_LOG:
            assert self.logs[self.state.leader] == max(self.logs[each] for each in before.isr)
            self.promised = min(self.promised, self.logs[self.state.leader])
        for number in self.state.isr:  # they truncate to what the new leader has
            self.logs[number] = min(self.logs[number], self.logs[self.state.leader])

    def is_led(self) -> bool:
        return leads(self.state, self.brokers)

    @precondition(is_led)
    @rule(count=st.integers(1, 3))
    def records_are_acknowledged_by_the_whole_isr(self, count: int) -> None:
        if not all(number in self.brokers for number in self.state.isr):
            return
        end = self.logs[self.state.leader] + count
        for number in self.state.isr:
            self.logs[number] = end
        self.promised = end

    @rule(number=st.integers(0, 2))
    def a_disk_is_synced(self, number: int) -> None:
        self.synced[number] = self.logs[number]

    @rule(number=st.integers(0, 2))
    def a_broker_is_killed(self, number: int) -> None:
        if self.brokers.pop(number, None) is not None:
            self.elect()

    @rule(number=st.integers(0, 2))
    def a_broker_loses_power(self, number: int) -> None:
        self.brokers.pop(number, None)
        self.logs[number] = min(self.logs[number], self.synced[number])
        self.doubtful.add(number)
        self.elect()

    @rule(number=st.integers(0, 2))
    def a_broker_comes_back(self, number: int) -> None:
        if number not in self.brokers:
            self.lives[number] += 1
            life = f"-{self.lives[number]}"
            self.brokers[number] = broker(number, life, certain=number not in self.doubtful)
            self.elect()

    @precondition(is_led)
    @rule(number=st.integers(0, 2))
    def a_follower_catches_up(self, number: int) -> None:
        if number in self.brokers and number not in self.state.isr:
            self.logs[number] = self.logs[self.state.leader]
            self.synced[number] = min(self.synced[number], self.logs[number])
            self.state = replace(self.state, isr=(*self.state.isr, number))
            self.elect()

    @rule(number=st.integers(0, 2))
    def the_controller_notes_that_a_doubt_plays_no_part(self, number: int) -> None:
        registration = self.brokers.get(number)
        elected = self.state.leader == number and self.is_led()
        if registration is not None and (number not in self.state.isr or elected):
            self.brokers[number] = replace(registration, tail_certain=True)
            self.doubtful.discard(number)

    @invariant()
    def a_leader_has_every_promised_record(self) -> None:
        if self.is_led():
            assert self.logs[self.state.leader] >= self.promised


def test_no_promised_record_is_lost_unless_the_whole_isr_lost_its_tail() -> None:
    run_state_machine_as_test(PromisedRecords)  # type: ignore[no-untyped-call]


def test_the_check_of_promised_records_finds_a_broker_that_hides_its_doubt() -> None:
    class Careless(PromisedRecords):
        """Every broker that returns says that it is certain."""

        def elect(self) -> None:
            self.brokers = {
                number: replace(each, tail_certain=True) for number, each in self.brokers.items()
            }
            super().elect()

    with pytest.raises(AssertionError):
        run_state_machine_as_test(Careless)  # type: ignore[no-untyped-call]
