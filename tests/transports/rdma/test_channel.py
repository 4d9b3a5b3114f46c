"""What a channel sends and when, and what is left when a device fails at any step."""

from dataclasses import replace

import pytest

from frieda.errors import BrokenError, ConfigError
from frieda.testing.fake_device import FakePlan
from frieda.testing.two_channels import LIMITS, TwoChannels
from frieda.transports.rdma.channel import check_limits
from frieda.transports.rdma.frames import BATCH, CREDIT, EAGER, FIN, RTS

KINDS = {EAGER: "EAGER", BATCH: "BATCH", RTS: "RTS", FIN: "FIN", CREDIT: "CREDIT"}


@pytest.fixture
def both():
    made = TwoChannels()
    yield made
    made.end()


def frames_of(side):
    """A list that grows with the name of each frame this side sends, and whether it is signaled."""
    frames = []
    post = side.queue_pair.post_send

    def spy(pieces, signaled):
        frames.append((KINDS[b"".join(pieces)[0]], signaled))
        post(pieces, signaled)

    side.channel.sender._post_send = spy
    return frames


def test_a_message_leaves_at_once_and_its_lease_with_it(both):
    frames = frames_of(both.left)
    both.left.send(b"h" + b"body" * 20, cut=1)
    assert [kind for kind, _ in frames] == ["EAGER"]
    assert both.left.lent.in_use == 0
    assert both.left.channel.sender.queued_bytes == 0


def test_messages_that_found_no_credit_leave_together_once_there_are_some(both):
    frames = frames_of(both.left)
    for number in range(20):
        both.left.send(b"message %d" % number, cut=3)
    assert [kind for kind, _ in frames] == ["EAGER"] * 5  # of 8 credits 3 are for control
    assert both.left.lent.in_use == 15
    both.settle()
    assert [kind for kind, _ in frames if kind != "CREDIT"] == ["EAGER"] * 5 + ["BATCH"]
    both.check_delivered()


def test_every_quarter_of_the_window_a_send_is_signaled(both):
    frames = frames_of(both.left)
    for number in range(12):
        both.left.send(b"%d" % number)
        both.settle()
    assert [signaled for _, signaled in frames] == [False, True] * 6


def test_a_small_message_overtakes_a_large_one(both):
    large = bytes(range(256)) * 100
    both.left.send(large, cut=10)
    both.left.send(b"small")
    both.settle()
    assert both.right.received == [b"small", large]


def test_a_message_larger_than_all_sources_flows_in_chunks_with_several_under_way(both):
    frames = frames_of(both.left)
    message = bytes(range(250)) * 160
    both.left.send(message, cut=3000)
    assert len(both.left.queue_pair.sources) == LIMITS.max_reads
    assert both.left.lent.in_use == 1
    both.settle()
    assert both.right.received == [message]
    assert len(frames) == 20  # 40,000 bytes in chunks of a quarter of 8,192
    both.check_delivered()


def test_an_empty_pool_delays_large_messages_and_lets_small_ones_pass(both):
    taken = [both.right.pool.lease(5000) for _ in range(2)]
    both.left.send(bytes(5000))
    both.left.send(b"small")
    both.settle()
    assert both.right.received == [b"small"]
    taken.pop().release()
    both.settle()
    assert both.right.received == [b"small", bytes(5000)]
    taken.pop().release()


def test_a_channel_under_load_in_both_directions_sends_no_credit_frames(both):
    frames = frames_of(both.left)
    both.right.on_message = lambda here: here.send(b"answer")
    for _ in range(100):
        both.left.send(b"question")
        both.settle()
    assert [kind for kind, _ in frames] == ["EAGER"] * 100


def test_messages_that_still_lie_in_slots_are_delivered_after_the_peer_is_gone(both):
    both.right.channel.pause()
    both.left.send(b"last words")
    both.settle()
    both.left.close()
    both.settle()
    assert both.right.alive
    both.right.channel.resume()
    both.settle()
    assert both.right.received == [b"last words"]
    assert both.right.ends == [False]


def test_close_waits_until_all_is_read_and_then_says_so(both):
    both.right.channel.pause()
    for number in range(3):
        both.left.send(bytes([number]) * 9000)
    both.left.channel.sender.close_output()
    both.settle()
    assert not both.left.output_has_ended
    both.right.channel.resume()
    both.settle()
    assert both.left.output_has_ended
    assert len(both.right.received) == 3
    assert both.right.ends == [False]


def test_what_is_offered_to_a_side_that_throws_away_is_freed_unread(both):
    both.right.channel.throw_away()
    for number in range(9):
        both.left.send(bytes([number]) * 9000, cut=5)
        both.left.send(b"small")
    both.settle()
    assert both.right.received == []
    assert both.left.lent.in_use == both.right.pool.in_use == 0
    assert both.left.queue_pair.sources == {}


def conversation(plan):
    """Some of everything, in both directions; how many steps the devices took."""
    both = TwoChannels(plan)
    both.right.on_message = lambda here: here.alive and here.send(b"answer")
    for number, size in enumerate((10, 300, 9000, 20, 40_000, 500, 1, 3000)):
        for side in both.sides:
            if side.alive:
                side.send(bytes([number]) * size, cut=min(5, size))
            side.turn()
        if number == 3:
            both.right.channel.pause()
        if number == 6 and both.right.alive:
            both.right.channel.resume()
    for _ in range(200):
        for side in both.sides:
            side.turn()
            if not side.alive:
                side.close()
    steps = max(side.device.steps for side in both.sides)
    failed = not all(side.alive for side in both.sides)
    if not failed:
        both.check_delivered()
    both.end()
    return steps, failed


@pytest.mark.parametrize("failure", [BrokenError("as planned"), None])
def test_a_device_that_fails_at_any_step_leaves_nothing_leaked(failure):
    steps, failed = conversation(FakePlan(seed=1, lateness=0.3, per_poll=2))
    assert not failed
    assert steps > 100
    for step in range(steps):
        plan = FakePlan(seed=1, lateness=0.3, per_poll=2, fail_at_step=step, failure=failure)
        assert conversation(plan)[1], f"nobody noticed the failure at step {step}"


@pytest.mark.parametrize(
    ("name", "value"),
    [("slot_bytes", 259), ("window", 7), ("max_reads", 0), ("source_bytes", 0)],
)
def test_limits_that_no_channel_works_with_are_refused(name, value):
    with pytest.raises(ConfigError, match=f"{name} = {value}"):
        check_limits(replace(LIMITS, **{name: value}))
