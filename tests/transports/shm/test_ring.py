from collections import deque

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from frieda.errors import BusyError, LocalProtocolError, RemoteProtocolError
from frieda.transports.rdma.provider import ChannelLimits
from frieda.transports.shm import ring as ring_module
from frieda.transports.shm.layout import LAPS, PAYLOAD_AT, WORD, Layout
from frieda.transports.shm.ring import ReceiveRing, SendRing

LIMITS = ChannelLimits(slot_bytes=300, window=8, source_bytes=64 * 1024)
LAYOUT = Layout.of(LIMITS)
THERE = LAYOUT.directions[0]
SLOT = LIMITS.slot_bytes
WINDOW = LIMITS.window


class Ends:
    """Both ends of one direction, in ordinary memory with a guard around it."""

    GUARD = b"\xa5" * 256

    def __init__(self):
        self.memory = bytearray(self.GUARD + bytes(LAYOUT.size_bytes) + self.GUARD)
        self.region = memoryview(self.memory)[len(self.GUARD) : -len(self.GUARD)]
        self.slots = [memoryview(bytearray(SLOT)) for _ in range(WINDOW)]
        self.sender = SendRing(self.region, LAYOUT, THERE)
        self.receiver = ReceiveRing(self.region, LAYOUT, THERE, self.slots)

    def take(self):
        size = self.receiver.take()
        return bytes(self.slots[self.receiver.slot][:size]) if size else b""

    def pass_on(self, message=b"message"):
        self.sender.put((message,))
        assert self.take() == message
        self.receiver.post(self.receiver.slot)

    def check_guard(self):
        assert self.memory.startswith(self.GUARD)
        assert self.memory.endswith(self.GUARD)


@pytest.fixture(params=[True, False], ids=["strong", "weak"])
def ends(request, monkeypatch):
    """The same on machines that order stores and on those that do not."""
    monkeypatch.setattr(ring_module, "STRONG", request.param)
    return Ends()


def test_messages_arrive_in_order_through_every_lap_and_back_to_the_first(ends):
    for number in range(2 * WINDOW * LAPS + 5):
        ends.pass_on(number.to_bytes(4, "big") * (1 + number % 70))
    assert ends.take() == b""


def test_pieces_are_joined(ends):
    ends.sender.put((b"a", bytearray(b"bc"), memoryview(b"def"), b""))
    assert ends.take() == b"abcdef"


def test_nothing_and_too_much_are_refused_and_the_ring_goes_on(ends):
    for pieces in ((), (b"",), (bytes(SLOT), b"x"), (bytes(SLOT + 1),)):
        with pytest.raises(LocalProtocolError, match=f"1 to {SLOT}"):
            ends.sender.put(pieces)
    assert ends.take() == b""
    ends.pass_on(b"x" * SLOT)


def test_a_full_ring_is_busy_until_the_consumer_has_taken_one(ends):
    for _ in range(WINDOW):
        ends.sender.put((b"x",))
    assert ends.sender.room == 0
    with pytest.raises(BusyError):
        ends.sender.put((b"x",))
    assert ends.take() == b"x"
    assert ends.sender.room == 1
    ends.sender.put((b"y",))


def test_the_slot_posted_last_is_filled_first(ends):
    ends.pass_on()
    first = ends.receiver.slot
    for _ in range(20):
        ends.pass_on()
        assert ends.receiver.slot == first


def test_a_message_without_a_posted_receive_is_nonsense_of_the_peer(ends):
    for _ in range(WINDOW):
        ends.sender.put((b"x",))
        ends.take()
    ends.sender.put((b"x",))
    with pytest.raises(RemoteProtocolError, match="no receive is posted"):
        ends.take()


def test_a_slot_cannot_be_posted_twice(ends):
    with pytest.raises(LocalProtocolError, match="posted already"):
        ends.receiver.post(0)


def test_the_bell_is_rung_once_for_a_burst_and_only_for_a_sleeper(ends):
    assert ends.sender.put((b"1",)) is False
    assert ends.receiver.sleep() is False  # it is there already
    assert ends.sender.put((b"2",)) is False
    ends.take(), ends.take()
    assert ends.receiver.sleep() is True
    assert ends.sender.put((b"3",)) is True
    assert ends.sender.put((b"4",)) is False
    ends.take(), ends.take()
    assert ends.receiver.sleep() is True
    ends.receiver.wake()
    assert ends.sender.put((b"5",)) is False


class Spy:
    """The shared words, with a peer who changes each the moment after it was read."""

    def __init__(self, words):
        self.words = words
        self.reads = []

    def __getitem__(self, index):
        value = self.words[index]
        self.reads.append(index)
        self.words[index] = 0xFFFFFFFF
        return value

    def __setitem__(self, index, value):
        self.words[index] = value


def test_each_shared_word_is_read_once_so_a_change_after_the_check_does_nothing(ends):
    ends.sender.put((b"checked",))
    ends.receiver._words = spy = Spy(ends.receiver._words)
    assert ends.take() == b"checked"
    assert len(spy.reads) == 1
    ends.sender._words = spy = Spy(ends.sender._words)
    ends.sender._room = 0
    assert ends.sender.room == WINDOW
    assert len(spy.reads) == 1


@given(st.integers(0, 2**32 - 1), st.integers(0, 3 * WINDOW))
def test_any_word_in_a_slot_is_a_message_that_fits_or_nothing_or_an_error(word, before):
    ends = Ends()
    for _ in range(before):
        ends.pass_on()
    index = THERE.ring_at + (before % WINDOW) * LAYOUT.stride
    ends.region[index : index + WORD] = word.to_bytes(4, "little")
    lap = 1 + before // WINDOW
    try:
        size = ends.receiver.take()
    except RemoteProtocolError:
        assert not (word >> 24 == lap and 1 <= word & 0xFFFFFF <= SLOT)
    else:
        assert 0 <= size <= SLOT
        assert size in (0, word & 0xFFFFFF)


@given(st.integers(0, 2**32 - 1) | st.integers(0, 1000), st.integers(0, WINDOW))
@example(496, 0)
def test_any_consumed_count_is_room_that_there_is_or_an_error(consumed, sent):
    ends = Ends()
    for _ in range(sent):
        ends.sender.put((b"x",))
    ends.sender._room = 0
    ends.region[THERE.consumed_at : THERE.consumed_at + WORD] = consumed.to_bytes(4, "little")
    try:
        room = ends.sender.room
    except RemoteProtocolError:
        assert consumed > sent
    else:
        assert 0 <= room <= WINDOW
        # Counts wrap: one just below the wrap is as good as one that many behind what was sent.
        assert (sent - consumed - (WINDOW - room)) % ends.sender._modulus == 0


class HonestTraffic(RuleBasedStateMachine):
    """Both ends at work, in any order: what one put in, the other takes out, and nobody sleeps through it."""

    def __init__(self):
        super().__init__()
        self.ends = Ends()
        self.under_way = deque()
        self.held = []
        self.asleep = False
        self.rung = False
        self.count = 0

    @precondition(lambda self: len(self.under_way) + len(self.held) < WINDOW)
    @rule(size=st.integers(1, SLOT))
    def put(self, size):
        self.count += 1
        message = bytes((self.count + n) % 251 for n in range(size))
        rings = self.ends.sender.put((message[: size // 2], message[size // 2 :]))
        assert rings == (self.asleep and not self.rung)
        self.rung |= rings
        self.under_way.append(message)

    @precondition(lambda self: not self.asleep)
    @rule()
    def take(self):
        expected = self.under_way.popleft() if self.under_way else b""
        assert self.ends.take() == expected
        if expected:
            self.held.append(self.ends.receiver.slot)

    @precondition(lambda self: self.held)
    @rule(choice=st.integers(0, 100))
    def post(self, choice):
        self.ends.receiver.post(self.held.pop(choice % len(self.held)))

    @precondition(lambda self: not self.asleep)
    @rule()
    def sleep(self):
        self.asleep = self.ends.receiver.sleep()
        self.rung = False
        assert self.asleep == (not self.under_way)

    @precondition(lambda self: self.rung)
    @rule()
    def hear_the_bell(self):
        assert self.under_way
        self.asleep = self.rung = False

    def teardown(self):
        if self.asleep and self.under_way:
            assert self.rung
        while self.under_way:
            assert self.ends.take() == self.under_way.popleft()


class HostilePeer(RuleBasedStateMachine):
    """Each end against one who writes anything anywhere: bytes of the right size, or an error, nothing else."""

    def __init__(self):
        super().__init__()
        self.ends = Ends()
        self.dead = False

    places = st.one_of(
        st.sampled_from(
            [each for d in LAYOUT.directions for each in (d.consumed_at, d.sleeping_at)]
        ),
        st.builds(lambda slot: THERE.ring_at + slot * LAYOUT.stride, st.integers(0, WINDOW - 1)),
        st.builds(
            lambda slot, at: THERE.ring_at + slot * LAYOUT.stride + PAYLOAD_AT + at // WORD * WORD,
            st.integers(0, WINDOW - 1),
            st.integers(0, SLOT - WORD),
        ),
    )
    numbers = st.one_of(
        st.integers(0, 2**32 - 1),
        st.builds(
            lambda lap, size: lap << 24 | size, st.integers(0, LAPS + 2), st.integers(0, SLOT + 2)
        ),
        st.integers(0, LAPS * WINDOW + 1),
    )

    @rule(at=places, number=numbers)
    def write_anything(self, at, number):
        self.ends.region[at : at + WORD] = number.to_bytes(4, "little")

    @precondition(lambda self: not self.dead)
    @rule(size=st.integers(1, SLOT))
    def put(self, size):
        try:
            assert self.ends.sender.put((bytes(size),)) in (True, False)
        except BusyError:
            assert self.ends.sender.room == 0
        except RemoteProtocolError:
            self.dead = True

    @precondition(lambda self: not self.dead)
    @rule()
    def take(self):
        posted = list(self.ends.receiver._posted)
        try:
            size = self.ends.receiver.take()
        except RemoteProtocolError:
            self.dead = True
            return
        assert 0 <= size <= SLOT
        if size:
            assert self.ends.receiver.slot in posted
            self.ends.receiver.post(self.ends.receiver.slot)

    @precondition(lambda self: not self.dead)
    @rule()
    def sleep(self):
        assert self.ends.receiver.sleep() in (True, False)

    def teardown(self):
        self.ends.check_guard()


TestHonestTraffic = HonestTraffic.TestCase
TestHostilePeer = HostilePeer.TestCase
TestHonestTraffic.settings = settings(stateful_step_count=80)
TestHostilePeer.settings = settings(stateful_step_count=60)
