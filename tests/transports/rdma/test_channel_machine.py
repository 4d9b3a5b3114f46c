"""Two channels under any sequence of events: no deadlock, no receiver-not-ready, each message once, nothing leaked."""

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from frieda.errors import BrokenError
from frieda.testing.fake_device import FakePlan
from frieda.testing.two_channels import TwoChannels

SIDES = st.sampled_from((0, 1))
SIZES = st.sampled_from((1, 2, 100, 255, 256, 257, 300, 508, 509, 600, 2048, 9000, 40_000))


def numbered(number, size):
    """A message of that size that is no other's, where the size allows it."""
    return (number.to_bytes(4, "little") * (size // 4 + 1))[:size]


class TwoChannelsMachine(RuleBasedStateMachine):
    """What a test may do at any time; at the end all obstacles go and everything must arrive."""

    @initialize(
        seed=st.integers(0, 2**16),
        lateness=st.sampled_from((0.0, 0.3, 0.8)),
        per_poll=st.sampled_from((1, 3, 64)),
        stingy=st.sampled_from((0.0, 0.5)),
        eager_bytes=st.sampled_from((None, 256, 508)),
        left_paused=st.sampled_from((None, 0, 1)),
    )
    def begin(self, seed, lateness, per_poll, stingy, eager_bytes, left_paused):
        self.left_paused = left_paused
        self.plan = FakePlan(seed=seed, lateness=lateness, per_poll=per_poll, stingy=stingy)
        self.both = TwoChannels(self.plan, eager_bytes=eager_bytes)
        self.sides = self.both.sides
        self.count = 0
        self.taken = ([], [])
        self.failing = False

    def send_one(self, side, size, cut=0):
        self.count += 1
        side.send(numbered(self.count, size), cut)

    @rule(side=SIDES, size=SIZES, cut=st.sampled_from((0, 1, 50, 300, 5000)))
    def send(self, side, size, cut):
        if self.sides[side].alive:
            self.send_one(self.sides[side], size, min(cut, size))

    @rule(side=SIDES, size=SIZES, times=st.integers(2, 30))
    def send_a_burst(self, side, size, times):
        for _ in range(min(times, 1 + 20_000 // size)):
            self.send(side, size, 1)

    @rule(side=SIDES, times=st.integers(1, 5))
    def turn(self, side, times):
        for _ in range(times):
            self.sides[side].turn()

    @rule(side=SIDES)
    def pause(self, side):
        if self.sides[side].alive:
            self.sides[side].channel.pause()

    @rule(side=SIDES)
    def resume(self, side):
        if self.sides[side].alive:
            self.sides[side].channel.resume()

    @rule(side=SIDES)
    def take_a_buffer(self, side):
        lease = self.sides[side].pool.lease(5000)
        if lease is not None:
            self.taken[side].append(lease)

    @rule(side=SIDES)
    def give_a_buffer_back(self, side):
        if self.taken[side]:
            self.taken[side].pop().release()

    @rule(side=SIDES, size=SIZES, every=st.integers(1, 3))
    def answer_from_within_a_delivery(self, side, size, every):
        def answer(here):
            if len(here.received) % every == 0 and len(here.sent) < 150:
                self.send_one(here, size)

        self.sides[side].on_message = answer

    @rule(side=SIDES)
    def pause_from_within_a_delivery(self, side):
        self.sides[side].on_message = lambda here: here.channel.pause()

    @rule(side=SIDES, by=st.sampled_from(("raise", "end")))
    def fail_or_end_within_a_delivery(self, side, by):
        def stop(here):
            if by == "raise":
                raise ValueError("cannot stand this message")
            here.ends.append(False)
            here.channel.end()

        if self.sides[side].alive and self.sides[side].on_message is not None:
            self.failing = True
            self.sides[side].on_message = stop

    @precondition(lambda self: self.plan.fail_at_step is None)
    @rule(after=st.integers(0, 20), ended=st.booleans(), side=SIDES)
    def let_the_device_fail(self, after, ended, side):
        self.failing = True
        self.plan.fail_at_step = self.sides[side].device.steps + after
        self.plan.failure = None if ended else BrokenError("as planned")

    @rule(side=SIDES)
    def close_one_that_has_ended(self, side):
        if not self.sides[side].alive:
            self.sides[side].close()

    @invariant()
    def nobody_breaks_the_rules(self):
        if hasattr(self, "both"):
            self.both.check_rules()

    def teardown(self):
        if not hasattr(self, "both"):
            return
        self.plan.lateness, self.plan.per_poll = 0.0, 64
        for side, taken in zip(self.sides, self.taken, strict=True):
            side.on_message = None
            while taken:
                taken.pop().release()
            if side.alive:
                side.channel.resume()
        if not self.failing and self.left_paused is not None:
            # However long one side delivers nothing, what it sends itself arrives.
            paused, other = self.sides[self.left_paused], self.sides[1 - self.left_paused]
            paused.channel.pause()
            self.both.settle()
            assert Counter(other.received) == Counter(paused.sent)
            paused.channel.resume()
        if not self.failing:
            self.both.settle()
            self.both.check_rules()
            self.both.check_delivered()
        else:
            for _ in range(30):
                for side in self.sides:
                    side.turn()
        self.both.end()


class TwoHealthyChannelsMachine(TwoChannelsMachine):
    """Without failures, so that every run proves that all arrives."""

    let_the_device_fail = None
    fail_or_end_within_a_delivery = None
    close_one_that_has_ended = None


LONG = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestTwoHealthyChannels = TwoHealthyChannelsMachine.TestCase
TestTwoHealthyChannels.settings = LONG
TestTwoChannels = TwoChannelsMachine.TestCase
TestTwoChannels.settings = LONG
