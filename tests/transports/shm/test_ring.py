"""Every test runs on the compiled rings and on the plain ones, those as on machines that order stores and others."""

import importlib.util
import mmap
import os
from collections import deque
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    precondition,
    rule,
    run_state_machine_as_test,
)

import frieda.transports.shm
from frieda.errors import BusyError, LocalProtocolError, RemoteProtocolError
from frieda.transports.rdma.provider import ChannelLimits
from frieda.transports.shm import ring as installed_ring
from frieda.transports.shm.layout import LAPS, PAYLOAD_AT, WORD, Layout

LIMITS = ChannelLimits(slot_bytes=300, window=8, source_bytes=64 * 1024)
LAYOUT = Layout.of(LIMITS)
THERE = LAYOUT.directions[0]
SLOT = LIMITS.slot_bytes
WINDOW = LIMITS.window
MODULUS = LAPS * WINDOW
SOURCE = Path(frieda.transports.shm.__path__[0]) / "ring.py"


def load_plain(*, strong):
    """A module of its own from ring.py, whether or not a compiled one lies beside it."""
    spec = importlib.util.spec_from_file_location("frieda.transports.shm.ring", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.STRONG = strong
    return module


@pytest.fixture(scope="module", params=["compiled", "plain, strong", "plain, weak"])
def rings(request):
    """The module of the rings in one of its forms. Compiled it is the same on all machines, whatever STRONG says."""
    if request.param != "compiled":
        return load_plain(strong=request.param == "plain, strong")
    if not installed_ring.COMPILED:
        message = "the ring is not compiled; run: python setup.py build_ext --inplace"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return installed_ring


class Ends:
    """Both ends of one direction, in ordinary memory with a guard around it."""

    GUARD = b"\xa5" * 256

    def __init__(self, rings):
        self.memory = bytearray(self.GUARD + bytes(LAYOUT.size_bytes) + self.GUARD)
        self.region = memoryview(self.memory)[len(self.GUARD) : -len(self.GUARD)]
        self.slots = [memoryview(bytearray(SLOT)) for _ in range(WINDOW)]
        self.sender = rings.SendRing(self.region, LAYOUT, THERE)
        self.receiver = rings.ReceiveRing(self.region, LAYOUT, THERE, self.slots)

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


@pytest.fixture
def ends(rings):
    return Ends(rings)


def test_what_is_compiled_is_not_older_than_its_source(rings):
    if not rings.COMPILED:
        assert Path(rings.__file__) == SOURCE
        return
    for source in (SOURCE, SOURCE.with_suffix(".pxd")):
        assert source.stat().st_mtime <= Path(rings.__file__).stat().st_mtime, (
            f"{source} is newer than {rings.__file__}; run: python setup.py build_ext --inplace"
        )


def test_messages_arrive_in_order_through_every_lap_and_back_to_the_first(ends):
    for number in range(2 * WINDOW * LAPS + 5):
        ends.pass_on(number.to_bytes(4, "big") * (1 + number % 70))
    assert ends.take() == b""


def test_pieces_are_joined(ends):
    ends.sender.put((b"a", bytearray(b"bc"), memoryview(b"def"), b""))
    assert ends.take() == b"abcdef"
    ends.sender.put([memoryview(b"a-b-c-")[::2], memoryview(b"xdefx")[1:4]])
    assert ends.take() == b"abcdef"
    ends.sender.put(piece for piece in (b"abc", b"def"))
    assert ends.take() == b"abcdef"


class Liar(bytes):
    def __len__(self):
        return 2


@pytest.mark.parametrize(
    "piece", ["text", memoryview(b"fourfour").cast("I"), Liar(b"longer"), Liar(b"s"), 7]
)
def test_a_piece_that_is_no_bytes_or_not_of_its_length_is_refused_and_the_ring_goes_on(ends, piece):
    with pytest.raises((TypeError, ValueError)):
        ends.sender.put((b"before", piece))
    assert ends.take() == b""
    ends.pass_on()


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


def test_each_shared_word_is_read_once_so_a_change_after_the_check_does_nothing():
    """The plain form only: nothing but memory can be the words of the compiled one, which is the same source."""
    ends = Ends(load_plain(strong=True))
    ends.sender.put((b"checked",))
    ends.receiver._words = spy = Spy(ends.receiver._words)
    assert ends.take() == b"checked"
    assert len(spy.reads) == 1
    ends.sender._words = spy = Spy(ends.sender._words)
    ends.sender._room = 0
    assert ends.sender.room == WINDOW
    assert len(spy.reads) == 1


def test_a_slot_that_does_not_exist_cannot_be_posted(ends):
    for slot in (-1, WINDOW, 2**31):
        with pytest.raises(LocalProtocolError, match="no receive slot"):
            ends.receiver.post(slot)


def uses(ends):
    """Whatever touches the shared memory."""
    return (
        lambda: ends.sender.put((b"x",)),
        lambda: ends.sender.room,
        ends.receiver.take,
        ends.receiver.sleep,
        ends.receiver.wake,
    )


def test_after_release_the_memory_is_free_and_every_use_an_error(rings):
    memory = mmap.mmap(-1, LAYOUT.size_bytes)
    ends = Ends(rings)
    with memoryview(memory) as region:
        ends.sender = rings.SendRing(region, LAYOUT, THERE)
        ends.receiver = rings.ReceiveRing(region, LAYOUT, THERE, ends.slots)
        ends.pass_on()
        for _ in range(2):
            ends.sender.release()
            ends.receiver.release()
    memory.close()  # a BufferError if anything still held it
    for slot in ends.slots:
        slot.release()
    for use in uses(ends):
        with pytest.raises(IndexError):
            use()


def test_a_ring_released_while_it_is_used_touches_nothing_any_more(ends):
    def pieces():
        yield b"before"
        ends.sender.release()
        yield b"after"

    with pytest.raises(ValueError, match="released"):
        ends.sender.put(pieces())
    assert ends.take() == b""


def test_a_receive_slot_that_was_released_or_is_too_small_is_never_written(rings):
    ends = Ends(rings)
    ends.slots[-1].release()
    ends.sender.put((b"x",))
    with pytest.raises(ValueError, match="released"):
        ends.receiver.take()
    small = memoryview(bytearray(b"guarded"))
    ends.receiver = rings.ReceiveRing(ends.region, LAYOUT, THERE, (small[1:6],))
    ends.region[THERE.ring_at : THERE.ring_at + WORD] = (1 << 24 | 6).to_bytes(4, "little")
    with pytest.raises(ValueError):  # noqa: PT011 - each form says it in its own words
        ends.receiver.take()
    assert small == b"guarded"


@pytest.mark.parametrize("size", [0, THERE.consumed_at + WORD, THERE.ring_at, THERE.ring_at + 20])
def test_nothing_outside_of_a_region_that_is_too_small_is_touched(rings, size):
    ends = Ends(rings)
    before = bytes(ends.memory)
    region = ends.region[:size]
    ends.sender = rings.SendRing(region, LAYOUT, THERE)
    with pytest.raises((IndexError, ValueError)):
        ends.sender.put((b"a" * SLOT,))
    if size <= THERE.ring_at:
        ends.receiver = rings.ReceiveRing(region, LAYOUT, THERE, ends.slots)
        with pytest.raises(IndexError):
            ends.receiver.take()
    assert ends.memory == before


def test_memory_that_must_not_be_written_is_not(rings):
    memory = bytes(LAYOUT.size_bytes)
    ends = Ends(rings)
    ends.sender = rings.SendRing(memoryview(memory), LAYOUT, THERE)
    ends.receiver = rings.ReceiveRing(memoryview(memory), LAYOUT, THERE, ends.slots)
    for use in (lambda: ends.sender.put((b"x",)), ends.receiver.sleep, ends.receiver.wake):
        with pytest.raises((TypeError, BufferError)):
            use()
    assert memory == bytes(LAYOUT.size_bytes)


@given(word=st.integers(0, 2**32 - 1), before=st.integers(0, 3 * WINDOW))
def test_any_word_in_a_slot_is_a_message_that_fits_or_nothing_or_an_error(rings, word, before):
    ends = Ends(rings)
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


@given(
    consumed=st.integers(0, 2**32 - 1) | st.integers(0, MODULUS + 2),
    laps=st.integers(1, 3) | st.integers(LAPS - 1, LAPS + 1),
    unconsumed=st.integers(0, WINDOW),
)
@example(consumed=MODULUS - 1, laps=LAPS, unconsumed=0)
@example(consumed=0, laps=LAPS, unconsumed=0)
@example(consumed=MODULUS, laps=LAPS, unconsumed=0)
def test_a_consumed_count_is_room_if_it_is_within_a_window_of_what_was_sent_else_an_error(
    rings, consumed, laps, unconsumed
):
    ends = Ends(rings)
    sent = laps * WINDOW  # whole laps, so that the sender has to look again
    for number in range(sent):
        if number < sent - unconsumed:
            ends.pass_on(b"x")
        else:
            ends.sender.put((b"x",))
    ends.region[THERE.consumed_at : THERE.consumed_at + WORD] = consumed.to_bytes(4, "little")
    # Counts wrap: one just below the wrap is as good as one that many behind what was sent.
    rooms = {(sent - behind) % MODULUS: WINDOW - behind for behind in range(WINDOW + 1)}
    if consumed in rooms:
        assert ends.sender.room == rooms[consumed]
    else:
        with pytest.raises(RemoteProtocolError, match=f"says it is at {consumed},"):
            assert ends.sender.room


class HonestTraffic(RuleBasedStateMachine):
    """Both ends at work, in any order: what one put in, the other takes out, and nobody sleeps through it."""

    def __init__(self, rings):
        super().__init__()
        self.ends = Ends(rings)
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

    def __init__(self, rings):
        super().__init__()
        self.ends = Ends(rings)
        self.posted = set(range(WINDOW))
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
        try:
            size = self.ends.receiver.take()
        except RemoteProtocolError:
            self.dead = True
            return
        assert 0 <= size <= SLOT
        if size:
            self.posted.remove(self.ends.receiver.slot)

    @precondition(lambda self: len(self.posted) < WINDOW)
    @rule(choice=st.integers(0, 100))
    def post(self, choice):
        taken = sorted(set(range(WINDOW)) - self.posted)
        slot = taken[choice % len(taken)]
        self.ends.receiver.post(slot)
        self.posted.add(slot)

    @precondition(lambda self: not self.dead)
    @rule()
    def sleep(self):
        assert self.ends.receiver.sleep() in (True, False)

    def teardown(self):
        self.ends.check_guard()


def test_honest_traffic(rings):
    run_state_machine_as_test(
        lambda: HonestTraffic(rings), settings=settings(stateful_step_count=80)
    )


def test_a_hostile_peer(rings):
    run_state_machine_as_test(lambda: HostilePeer(rings), settings=settings(stateful_step_count=60))
