from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frieda.errors import RemoteProtocolError
from frieda.transports.rdma.credits import MIN_WINDOW, RESERVED, Credits


class TwoAccounts:
    """The credits of two sides, and the frames between them, each with what it returns and whether it is data."""

    def __init__(self, window):
        self.sides = Credits(window), Credits(window)
        self.wires = deque(), deque()  # by who receives
        self.kept = [0, 0]

    def send(self, side, data):
        credits = self.sides[side]
        if credits.may_send_data() if data else credits.may_send_control():
            self.wires[1 - side].append((credits.spend(), data))

    def receive(self, side, hold):
        if self.wires[side]:
            returned, data = self.wires[side].popleft()
            credits = self.sides[side]
            credits.returned(returned)
            credits.hold() if data else self.post_again(credits)
            if data and not hold:
                credits.unhold()
        self.return_due(side)

    def post_again(self, credits):
        credits.owed += 1

    def return_due(self, side):
        credits = self.sides[side]
        if credits.owed >= credits.return_at:
            self.send(side, data=False)

    def release(self, side):
        if self.sides[side].held:
            self.sides[side].unhold()
        self.return_due(side)

    def settle(self):
        for _ in range(100):
            if not any(self.wires):
                return
            for side in (0, 1):
                self.receive(side, hold=False)
        raise AssertionError("the two sides answer each other for ever")


ACTIONS = st.tuples(
    st.sampled_from(("data", "control", "exhaust", "receive", "hold", "release")), st.integers(0, 1)
)


@settings(max_examples=300, deadline=None)
@given(st.integers(MIN_WINDOW, 12), st.lists(ACTIONS, max_size=150))
def test_credits_always_come_back_and_never_run_out_for_control(window, actions):
    both = TwoAccounts(window)
    for action, side in actions:
        match action:
            case "data" | "control":
                both.send(side, action == "data")
            case "exhaust":
                for _ in range(window):
                    both.send(side, data=False)
            case "receive" | "hold":
                both.receive(side, action == "hold")
            case "release":
                both.release(side)
        for here, there in ((0, 1), (1, 0)):
            mine, theirs = both.sides[here], both.sides[there]
            under_way = len(both.wires[there])
            coming_back = sum(returned for returned, _ in both.wires[here])
            assert mine.available + under_way + theirs.held + theirs.owed + coming_back == window
            assert mine.held <= window - RESERVED
    both.settle()
    for side in both.sides:  # also while receives are held
        assert side.may_send_control()
    while any(side.held for side in both.sides):
        both.release(0)
        both.release(1)
    both.settle()
    for side in both.sides:
        assert side.may_send_data()


def test_both_sides_may_not_spend_their_last_credit_on_frames_that_return_nothing():
    credits = Credits(MIN_WINDOW)
    credits.available = 1
    assert not credits.may_send_control()
    credits.owed = 1
    assert credits.may_send_control()
    assert credits.spend() == 1
    assert (credits.available, credits.owed) == (0, 0)


def test_a_peer_cannot_return_more_than_was_spent():
    credits = Credits(16)
    credits.spend()
    credits.returned(1)
    with pytest.raises(RemoteProtocolError, match="17 of 16"):
        credits.returned(1)
