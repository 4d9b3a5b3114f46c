"""The delivery state machine against a model of brokers and networks: late, lost, reordered, failing."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frieda.clients.batch import Batch
from frieda.clients.delivery import (
    SEQUENCE_MASK,
    Identity,
    IdentityState,
    PartitionDelivery,
    Verdict,
)
from frieda.errors import ErrorCode
from frieda.testing.effort import examples

MAX_IN_FLIGHT = 4


def make_batch(first_ordinal: int, record_count: int = 1, deadline_ns: int = 10**18) -> Batch:
    batch = Batch(first_ordinal, deadline_ns)
    batch.record_count = record_count
    return batch


def ready_identity() -> Identity:
    identity = Identity(idempotent=True)
    identity.assigned(7, 0)
    return identity


class ModelBroker:
    """One partition at a broker: stores what is next in sequence, and knows what it stored."""

    def __init__(self) -> None:
        self.log: list[int] = []
        self.epoch = -1
        self.next_sequence = 0
        self.sent: dict[tuple[int, int], int] = {}

    def produce(
        self, epoch: int, sequence: int, ordinals: tuple[int, ...], numbered: bool
    ) -> int | ErrorCode:
        if numbered:
            if epoch < self.epoch:
                return ErrorCode.INVALID_PRODUCER_EPOCH
            if epoch > self.epoch:
                if sequence != 0:
                    return ErrorCode.OUT_OF_ORDER_SEQUENCE
                self.epoch, self.next_sequence, self.sent = epoch, 0, {}
            if (sequence, len(ordinals)) in self.sent:
                return self.sent[sequence, len(ordinals)]
            if sequence != self.next_sequence:
                return ErrorCode.OUT_OF_ORDER_SEQUENCE
            self.next_sequence = (sequence + len(ordinals)) & SEQUENCE_MASK
            self.sent[sequence, len(ordinals)] = len(self.log)
        base_offset = len(self.log)
        self.log.extend(ordinals)
        return base_offset


class Model:
    """A producer with one partition, the wire, and a broker, driven one event at a time."""

    def __init__(self, *, idempotent: bool = True) -> None:
        self.identity = Identity(idempotent=idempotent)
        self.delivery = PartitionDelivery(self.identity, MAX_IN_FLIGHT)
        self.broker = ModelBroker()
        self.now_ns = 0
        self.next_ordinal = 0
        self.epoch = -1
        self.on_wire: list[tuple[Batch, int, int, tuple[int, ...]]] = []
        self.answers: list[tuple[Batch, int | ErrorCode]] = []
        self.acknowledged: list[int] = []
        self.failed: set[int] = set()

    def ordinals(self, batch: Batch) -> tuple[int, ...]:
        return tuple(range(batch.first_ordinal, batch.first_ordinal + batch.record_count))

    def add(self, record_count: int, lifetime_ns: int) -> None:
        self.delivery.add(make_batch(self.next_ordinal, record_count, self.now_ns + lifetime_ns))
        self.next_ordinal += record_count

    def add_alone(self, lifetime_ns: int) -> None:
        """A batch that leaves past the queue when nothing waits in it, as a single record may."""
        self.assign()
        if not self.delivery.is_free:
            self.add(1, lifetime_ns)
            return
        batch = make_batch(self.next_ordinal, 1, self.now_ns + lifetime_ns)
        self.next_ordinal += 1
        sequence = self.delivery.next_sequence()
        self.delivery.launch(batch)
        assert batch.sequence == sequence, "it was built under the number that it got"
        epoch = self.identity.producer_epoch
        self.on_wire.append((batch, epoch, batch.sequence, self.ordinals(batch)))

    def send(self) -> None:
        self.assign()
        while (batch := self.delivery.take(self.now_ns)) is not None:
            epoch, sequence = self.identity.producer_epoch, batch.sequence
            self.on_wire.append((batch, epoch, sequence, self.ordinals(batch)))

    def assign(self) -> None:
        if self.identity.needs_assignment:
            assert not self.delivery.in_flight or not self.identity.idempotent
            self.epoch += 1
            self.identity.assigned(7, self.epoch)

    def process(self, refusal: ErrorCode | None = None) -> None:
        """The broker takes up the next request of the connection, in order; or refuses it."""
        if not self.on_wire:
            return
        batch, epoch, sequence, ordinals = self.on_wire.pop(0)
        if refusal is not None:
            self.answers.append((batch, refusal))
            return
        numbered = self.identity.idempotent
        self.answers.append((batch, self.broker.produce(epoch, sequence, ordinals, numbered)))

    def store_and_fail(self, refusal: ErrorCode) -> None:
        """The broker stores the next request and then says that it failed, as after a lost replica."""
        if self.on_wire:
            self.process()
            batch, outcome = self.answers.pop()
            self.answers.append((batch, outcome if isinstance(outcome, ErrorCode) else refusal))

    def answer(self, which: int) -> None:
        """One answer arrives, in whatever order."""
        if not self.answers:
            return
        batch, outcome = self.answers.pop(which % len(self.answers))
        if isinstance(outcome, ErrorCode):
            verdict = self.delivery.refused(batch, outcome)
            if verdict is Verdict.FAILED:
                self.failed.update(self.ordinals(batch))
            elif verdict is Verdict.SPLIT:
                cut = batch.record_count // 2
                first = make_batch(batch.first_ordinal, cut, batch.deadline_ns)
                rest = make_batch(
                    batch.first_ordinal + cut, batch.record_count - cut, batch.deadline_ns
                )
                self.delivery.replace(batch, [first, rest])
        elif self.delivery.acknowledged(batch):
            self.acknowledged.extend(self.ordinals(batch))

    def cut(self, processed: int) -> None:
        """The connection ends: the broker still did some of the requests, and no answer comes."""
        for _ in range(min(processed, len(self.on_wire))):
            self.process()
        lost = [batch for batch, *_ in self.on_wire] + [batch for batch, _ in self.answers]
        self.on_wire.clear()
        self.answers.clear()
        for batch in sorted(lost, key=lambda each: each.first_ordinal):
            self.delivery.lost(batch)

    def pass_time(self, duration_ns: int) -> None:
        self.now_ns += duration_ns
        for batch in self.delivery.expire(self.now_ns):
            self.failed.update(self.ordinals(batch))

    def finish(self) -> None:
        """From now on all is well: every batch comes to its end."""
        for _ in range(200):
            if self.delivery.is_idle:
                return
            self.send()
            while self.on_wire:
                self.process()
            while self.answers:
                self.answer(0)
            self.assign()
        raise AssertionError("batches are stuck")


events = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 4), st.integers(1, 400)),
        st.tuples(st.just("burst"), st.integers(1, 5), st.integers(50, 400)),
        st.tuples(st.just("alone"), st.integers(1, 400)),
        st.tuples(st.just("send")),
        st.tuples(st.just("process")),
        st.tuples(st.just("process")),
        st.tuples(
            st.just("refuse"),
            st.sampled_from(
                [
                    ErrorCode.BUSY,
                    ErrorCode.NOT_LEADER_OR_FOLLOWER,
                    ErrorCode.INVALID_RECORD,
                    ErrorCode.MESSAGE_TOO_LARGE,
                    ErrorCode.OUT_OF_ORDER_SEQUENCE,
                ]
            ),
        ),
        st.tuples(
            st.just("store_and_fail"),
            st.sampled_from([ErrorCode.REQUEST_TIMED_OUT, ErrorCode.LOG_FAILED]),
        ),
        st.tuples(st.just("answer"), st.integers(0, 7)),
        st.tuples(st.just("cut"), st.integers(0, 5)),
        st.tuples(st.just("time"), st.integers(1, 100)),
    ),
    # Without a least size Hypothesis keeps to about five events, which is too few to get into trouble.
    min_size=25,
    max_size=60,
)


def drive(model: Model, script: list[tuple[object, ...]]) -> None:
    for name, *arguments in script:
        match name, arguments:
            case "add", [int(count), int(lifetime)]:
                model.add(count, lifetime)
            case "burst", [int(count), int(lifetime)]:
                for _ in range(count):
                    model.add(1, lifetime)
                model.send()
            case "alone", [int(lifetime)]:
                model.add_alone(lifetime)
            case "send", []:
                model.send()
            case "process", []:
                model.process()
            case "refuse", [ErrorCode() as code]:
                model.process(code)
            case "store_and_fail", [ErrorCode() as code]:
                model.store_and_fail(code)
            case "answer", [int(which)]:
                model.answer(which)
            case "cut", [int(processed)]:
                model.cut(processed)
            case "time", [int(duration)]:
                model.pass_time(duration)
    # What is still uncertain may need its deadline to come to an end.
    for _ in range(3):
        try:
            model.finish()
            return
        except AssertionError:
            model.pass_time(1000)
    model.finish()


@settings(max_examples=examples(300), deadline=None)
@given(events)
def test_with_idempotence_no_record_is_lost_doubled_or_reordered(
    script: list[tuple[object, ...]],
) -> None:
    model = Model()
    drive(model, script)
    log = model.broker.log
    assert all(count == 1 for count in Counter(log).values()), "doubled"
    assert log == sorted(log), "reordered"
    assert set(model.acknowledged) <= set(log), "acknowledged and not stored"
    assert set(model.acknowledged) | model.failed == set(range(model.next_ordinal)), "lost"
    assert not set(model.acknowledged) & model.failed
    assert model.identity.numbered == 0


@settings(max_examples=examples(100), deadline=None)
@given(events)
def test_without_idempotence_every_record_comes_to_an_end_and_none_is_lost(
    script: list[tuple[object, ...]],
) -> None:
    model = Model(idempotent=False)
    drive(model, script)
    assert set(model.acknowledged) <= set(model.broker.log)
    assert set(model.acknowledged) | model.failed == set(range(model.next_ordinal))


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(st.integers(1, 3), max_size=20), st.lists(st.integers(0, 7), max_size=60))
def test_without_idempotence_order_is_kept_while_nothing_is_retried(
    counts: list[int], answers: list[int]
) -> None:
    model = Model(idempotent=False)
    for count in counts:
        model.add(count, 10**15)
    for which in answers:
        model.send()
        model.process()
        model.answer(which)
    model.finish()
    assert model.broker.log == list(range(model.next_ordinal))


def test_at_most_max_in_flight_batches_are_under_way() -> None:
    delivery = PartitionDelivery(ready_identity(), 2)
    batches = [make_batch(number) for number in range(3)]
    for batch in batches:
        delivery.add(batch)
    assert delivery.take(0) is batches[0]
    assert delivery.take(0) is batches[1]
    assert delivery.take(0) is None
    assert delivery.acknowledged(batches[0])
    assert delivery.take(0) is batches[2]


def test_sequence_numbers_wrap_to_zero_after_the_largest() -> None:
    delivery = PartitionDelivery(ready_identity(), 5, next_sequence=SEQUENCE_MASK - 1)
    for ordinal, count in ((0, 2), (2, 3), (5, 1)):
        delivery.add(make_batch(ordinal, count))
    sequences = [batch.sequence for _ in range(3) if (batch := delivery.take(0)) is not None]
    assert sequences == [SEQUENCE_MASK - 1, 0, 3]


def test_a_retry_keeps_its_sequence_number_and_goes_first() -> None:
    delivery = PartitionDelivery(ready_identity(), 5)
    first, second, third = (make_batch(number) for number in range(3))
    for batch in (first, second, third):
        delivery.add(batch)
    delivery.take(0)
    delivery.take(0)
    assert delivery.refused(first, ErrorCode.BUSY, retry_at_ns=50) is Verdict.RETRY
    assert delivery.take(0) is None, "what comes later waits for the retry"
    assert delivery.take(50) is first
    assert first.sequence == 0
    assert first.attempts == 2
    assert delivery.take(50) is third


def test_lost_batches_are_sent_again_in_order_whatever_the_order_they_were_lost_in() -> None:
    delivery = PartitionDelivery(ready_identity(), 5)
    batches = [make_batch(number) for number in range(4)]
    for batch in batches:
        delivery.add(batch)
        delivery.take(0)
    for batch in (batches[2], batches[0], batches[3], batches[1]):
        delivery.lost(batch)
    assert [delivery.take(0) for _ in range(4)] == batches


def test_an_expired_batch_of_unknown_outcome_leads_to_the_next_epoch() -> None:
    identity = ready_identity()
    delivery = PartitionDelivery(identity, 5)
    expiring, behind = make_batch(0, deadline_ns=10), make_batch(1, deadline_ns=1000)
    delivery.add(expiring)
    delivery.take(0)
    delivery.add(behind)
    assert delivery.expire(10) == [expiring]
    assert identity.needs_assignment
    assert delivery.take(10) is None, "nothing is numbered before the epoch rises"
    identity.assigned(7, 1)
    assert delivery.take(10) is behind
    assert behind.sequence == 0


def test_a_batch_that_expires_before_it_was_sent_costs_no_epoch() -> None:
    identity = ready_identity()
    delivery = PartitionDelivery(identity, 5)
    delivery.add(make_batch(0, deadline_ns=10))
    assert len(delivery.expire(10)) == 1
    assert identity.state is IdentityState.READY


def test_an_answer_to_an_expired_batch_changes_nothing() -> None:
    delivery = PartitionDelivery(ready_identity(), 5)
    batch = make_batch(0, deadline_ns=10)
    delivery.add(batch)
    delivery.take(0)
    delivery.expire(10)
    assert not delivery.acknowledged(batch)
    assert delivery.refused(batch, ErrorCode.BUSY) is Verdict.LATE
    assert delivery.lost(batch) is Verdict.LATE


def test_a_refused_batch_with_nothing_behind_it_gives_its_number_back() -> None:
    identity = ready_identity()
    delivery = PartitionDelivery(identity, 5)
    refused, following = make_batch(0, 3), make_batch(3)
    delivery.add(refused)
    delivery.take(0)
    assert delivery.refused(refused, ErrorCode.INVALID_RECORD) is Verdict.FAILED
    delivery.add(following)
    assert delivery.take(0) is following
    assert following.sequence == 0
    assert identity.state is IdentityState.READY


def test_batches_behind_a_refused_one_are_renumbered_once_they_are_refused_too() -> None:
    identity = ready_identity()
    delivery = PartitionDelivery(identity, 5)
    refused, behind = make_batch(0), make_batch(1)
    for batch in (refused, behind):
        delivery.add(batch)
        delivery.take(0)
    delivery.refused(refused, ErrorCode.INVALID_RECORD)
    assert identity.state is IdentityState.DRAINING
    assert delivery.refused(behind, ErrorCode.OUT_OF_ORDER_SEQUENCE) is Verdict.RENUMBER
    assert identity.needs_assignment
    identity.assigned(7, 1)
    assert delivery.take(0) is behind
    assert behind.sequence == 0


def test_a_batch_that_may_be_stored_keeps_its_number_when_the_broker_wants_another() -> None:
    identity = ready_identity()
    delivery = PartitionDelivery(identity, 5)
    batch = make_batch(0)
    delivery.add(batch)
    delivery.take(0)
    delivery.lost(batch)
    delivery.take(0)
    assert delivery.refused(batch, ErrorCode.OUT_OF_ORDER_SEQUENCE) is Verdict.RETRY
    assert batch.sequence == 0
    assert not identity.needs_assignment


def test_a_producer_that_the_broker_forgot_starts_again_under_the_next_epoch() -> None:
    identity = ready_identity()
    delivery = PartitionDelivery(identity, 5, next_sequence=12)
    batch = make_batch(0)
    delivery.add(batch)
    delivery.take(0)
    assert delivery.refused(batch, ErrorCode.UNKNOWN_PRODUCER_ID) is Verdict.RENUMBER
    assert identity.needs_assignment


def test_a_batch_too_large_is_split_under_the_same_numbers() -> None:
    delivery = PartitionDelivery(ready_identity(), 5)
    large, behind = make_batch(0, 5), make_batch(5)
    for batch in (large, behind):
        delivery.add(batch)
        delivery.take(0)
    assert delivery.refused(large, ErrorCode.MESSAGE_TOO_LARGE) is Verdict.SPLIT
    parts = [make_batch(0, 2), make_batch(2, 3)]
    delivery.replace(large, parts)
    assert [delivery.take(0) for _ in range(2)] == parts
    assert [part.sequence for part in parts] == [0, 2]
    assert behind.sequence == 5


def test_a_producer_that_was_fenced_sends_nothing_more() -> None:
    identity = ready_identity()
    delivery = PartitionDelivery(identity, 5)
    batch = make_batch(0)
    delivery.add(batch)
    delivery.take(0)
    assert delivery.refused(batch, ErrorCode.INVALID_PRODUCER_EPOCH) is Verdict.FAILED
    assert identity.state is IdentityState.FAILED
    delivery.add(make_batch(1))
    assert delivery.take(0) is None


@pytest.mark.parametrize("idempotent", [True, False])
def test_giving_up_everything_empties_the_queue_in_order(idempotent: bool) -> None:
    identity = Identity(idempotent=idempotent)
    identity.assigned(7, 0)
    delivery = PartitionDelivery(identity, 2)
    batches = [make_batch(number) for number in range(4)]
    for batch in batches:
        delivery.add(batch)
        delivery.take(0)
    assert delivery.fail_all() == batches
    assert delivery.is_idle
    assert identity.numbered == 0
