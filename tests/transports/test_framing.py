import pytest
from hypothesis import given
from hypothesis import strategies as st

from frieda.errors import RemoteProtocolError
from frieda.transports.buffers import BufferPool
from frieda.transports.framing import FrameAssembler, announced_size, pack_size

MAX = 3000
CLASSES = {64: 4, 512: 4, MAX: 4}


class Receiving:
    """An assembler fed from bytes, in pieces, into a small shared buffer."""

    def __init__(self, shared_bytes=256, classes=CLASSES):
        self.pool = BufferPool(classes)
        self.messages = []
        self.leases = []
        self.on_message = lambda message, lease: None
        self.assembler = FrameAssembler(
            memoryview(bytearray(shared_bytes)), self.pool, MAX, self._deliver
        )

    def _deliver(self, message, lease):
        self.messages.append(bytes(message))
        self.leases.append(lease is not None)
        message[:] = bytes(len(message))
        self.on_message(message, lease)

    def read(self, data, piece=10**9):
        """One read of at most `piece` bytes, as a kernel would; the rest of `data`."""
        buffer = self.assembler.get_buffer()
        count = min(len(buffer), len(data), piece)
        buffer[:count] = data[:count]
        at_rest = self.assembler.advance(count)
        assembler = self.assembler
        assert at_rest == (assembler.can_read and not assembler.mid_message)
        return data[count:]


def framed(messages):
    return b"".join(pack_size(len(message)) + message for message in messages)


messages_of_all_sizes = st.lists(
    st.builds(
        lambda size, seed: bytes((seed + at) % 256 for at in range(size)),
        st.one_of(st.integers(1, 8), st.integers(240, 270), st.integers(1, MAX)),
        st.integers(0, 255),
    ),
    max_size=12,
)


@given(messages_of_all_sizes, st.lists(st.integers(1, 700), min_size=1))
def test_messages_come_out_whole_however_the_bytes_are_torn(messages, pieces):
    receiving = Receiving()
    data = framed(messages)
    turn = 0
    while data:
        data = receiving.read(data, pieces[turn % len(pieces)])
        turn += 1
    assert receiving.messages == messages
    assert (receiving.pool.in_use, receiving.pool.arriving_bytes) == (0, 0)
    assert not receiving.assembler.mid_message


@given(messages_of_all_sizes, st.randoms(use_true_random=False))
def test_holds_and_an_empty_pool_lose_nothing(messages, chance):
    receiving = Receiving(classes={64: 1, MAX: 1})
    assembler, pool = receiving.assembler, receiving.pool
    taken = []

    def maybe_hold(message, lease):
        if chance.random() < 0.5:
            assembler.hold()

    receiving.on_message = maybe_hold
    rest = framed(messages)
    while rest or not assembler.can_read:
        if chance.random() < 0.25 and not taken:
            lease = pool.lease(MAX)
            if lease is not None:
                taken.append(lease)
        if assembler.can_read:
            rest = receiving.read(rest, chance.randint(1, 400))
            continue
        if assembler.wanted_bytes:
            granted = []
            waiter = pool.when_free(assembler.wanted_bytes, granted.append)
            while taken:
                taken.pop().release()
            waiter.cancel()
            assembler.grant(granted[0] if granted else pool.lease(assembler.wanted_bytes))
        assembler.unhold()
        assembler.resume()
    while taken:
        taken.pop().release()
    assert receiving.messages == messages
    assert pool.in_use == 0


@given(st.binary(max_size=2000), st.lists(st.integers(1, 300), min_size=1))
def test_garbage_parses_or_is_a_remote_protocol_error_and_nothing_else(garbage, pieces):
    receiving = Receiving()
    turn = 0
    try:
        while garbage:
            garbage = receiving.read(garbage, pieces[turn % len(pieces)])
            turn += 1
    except RemoteProtocolError:
        pass
    receiving.assembler.discard()
    assert (receiving.pool.in_use, receiving.pool.arriving_bytes) == (0, 0)


@pytest.mark.parametrize("size", [0, -1, -(2**31), MAX + 1, 2**31 - 1])
def test_an_illegal_size_is_refused_by_name_before_memory_is_taken(size):
    receiving = Receiving()
    with pytest.raises(RemoteProtocolError) as caught:
        receiving.read(size.to_bytes(4, "big", signed=True) + b"x")
    assert str(size) in str(caught.value)
    assert str(MAX) in str(caught.value)
    assert [each.hits for each in receiving.pool.statistics] == [0, 0, 0]


def test_the_largest_size_is_legal():
    assert announced_size(memoryview(pack_size(MAX)), 0, MAX) == MAX


def test_whole_messages_are_borrowed_and_partial_ones_have_a_lease_of_their_size():
    receiving = Receiving()
    rest = receiving.read(framed([b"a" * 100, b"b" * 100, b"c" * 100]))
    assert receiving.messages == [b"a" * 100, b"b" * 100]
    assert [each.in_use for each in receiving.pool.statistics] == [0, 1, 0]
    assert len(receiving.assembler.get_buffer()) == len(rest)
    receiving.read(rest)
    assert receiving.messages[2] == b"c" * 100
    assert receiving.leases == [False, False, True]
    assert receiving.pool.in_use == 0


def test_a_connection_at_rest_owns_no_buffer():
    receiving = Receiving()
    receiving.read(framed([b"x" * 50]))
    assert receiving.pool.in_use == 0
    assert not receiving.assembler.mid_message


def test_parked_bytes_that_find_no_lease_are_kept_and_counted():
    receiving = Receiving(classes={MAX: 1})
    taken = receiving.pool.lease(1)
    receiving.assembler.hold()
    receiving.read(framed([b"one", b"two"]))
    assert receiving.messages == []
    assert receiving.pool.overflows == 1
    assert not receiving.assembler.can_read
    receiving.assembler.unhold()
    receiving.assembler.resume()
    assert receiving.messages == [b"one", b"two"]
    taken.release()


def test_an_exception_of_the_receiver_leaves_the_lease_released():
    receiving = Receiving()
    rest = receiving.read(framed([b"x" * 300]))

    def fail(message, lease):
        raise ValueError("no")

    receiving.on_message = fail
    with pytest.raises(ValueError, match="no"):
        receiving.read(rest)
    receiving.assembler.discard()
    assert (receiving.pool.in_use, receiving.pool.arriving_bytes) == (0, 0)


def test_each_message_under_way_is_told_from_the_one_before():
    receiving = Receiving()
    data = framed([b"x" * 300, b"y" * 300])
    data = receiving.read(data, 2)
    assert receiving.assembler.begun == 1
    data = receiving.read(data, 1)
    data = receiving.read(data, 50)
    assert receiving.assembler.begun == 1  # still the first
    while data:
        data = receiving.read(data, 200)
    assert receiving.assembler.begun == 2


def test_nothing_is_delivered_after_discard_and_a_late_lease_is_given_back():
    receiving = Receiving(classes={MAX: 1})
    taken = receiving.pool.lease(1)
    receiving.read(framed([b"x" * 1000]))
    assert receiving.assembler.wanted_bytes == 1000
    receiving.pool.when_free(1000, receiving.assembler.grant)
    receiving.assembler.discard()
    receiving.assembler.discard()
    taken.release()
    receiving.assembler.unhold()
    receiving.assembler.resume()
    receiving.read(framed([b"late"]))
    assert receiving.messages == []
    assert receiving.pool.in_use == 0
