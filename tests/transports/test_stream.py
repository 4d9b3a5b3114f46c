"""The stream connection over a wire that does what the test says."""

import pytest

from frieda.errors import BrokenError, ClosedError
from frieda.testing.transport_pair import Recorder, eventually, make_runtime, turns
from frieda.transports.stream import JOIN_BYTES, StreamConnection, StreamShare


class ScriptedWire:
    """Takes `room` bytes, then has none; `failure` is raised instead when it is set."""

    def __init__(self, share):
        self.room = 0
        self.failure = None
        self.watch_failure = None
        self.end_failure = None
        self.sent = b""
        self.callback = None
        self.reading = True
        self.ended = False
        self.aborted = 0
        self.deadlines = share.deadlines
        self.connection = StreamConnection(self, share)
        self.connection.wire_ready("the peer", Recorder)
        self.receiver = self.connection._receiver

    def write(self, data):
        return self.writev([data])

    def writev(self, pieces):
        if self.failure is not None:
            raise self.failure
        if not self.room:
            raise BlockingIOError
        taken = b"".join(pieces)[: self.room]
        self.room -= len(taken)
        self.sent += taken
        return len(taken)

    def watch_writable(self, callback):
        if callback is not None and self.watch_failure is not None:
            raise self.watch_failure
        self.callback = callback

    def set_reading(self, reading):
        self.reading = reading

    def end_output(self):
        if self.end_failure is not None:
            raise self.end_failure
        self.ended = True

    def abort(self):
        self.aborted += 1

    def arrives(self, data):
        buffer = self.connection.assembler.get_buffer()
        buffer[: len(data)] = data
        self.connection.bytes_arrived(len(data))


@pytest.fixture
async def runtime():
    made = make_runtime()
    yield made
    made.engine.close()
    assert made.pool.close() == ()


@pytest.fixture
async def wire(runtime):
    return ScriptedWire(StreamShare(runtime))


def sweep(wire, times):
    for _ in range(times):
        wire.deadlines.sweep()


BIG = bytes(JOIN_BYTES + 1)
RESET = ConnectionResetError(104, "reset by peer")


@pytest.mark.parametrize("body", [b"small", BIG])
async def test_every_way_a_message_can_be_torn_by_the_wire_sends_the_same_bytes(runtime, body):
    whole = (len(body) + 4).to_bytes(4, "big") + b"head" + body
    for first in (0, 1, 3, 4, 5, 8, 9, len(whole) - 1, len(whole)):
        wire = ScriptedWire(StreamShare(runtime))
        lease = runtime.pool.lease(len(body))
        lease.view[:] = body
        wire.room = first
        wire.connection.send(b"head", lease.view, lease)
        assert wire.connection.queued_bytes == len(whole) - first
        assert (wire.callback is None) == (first == len(whole))
        while wire.connection.queued_bytes:
            assert runtime.pool.in_use == (body is BIG)
            wire.room = 3000
            wire.callback()
        assert wire.sent == whole
        assert wire.callback is None
        assert runtime.pool.in_use == 0
        wire.connection.abort()


@pytest.mark.parametrize("body", [b"small", BIG])
@pytest.mark.parametrize("what", ["failure", "watch_failure"])
async def test_a_wire_that_fails_in_send_breaks_the_connection_and_releases_the_lease(
    runtime, wire, body, what
):
    setattr(wire, what, RESET)
    lease = runtime.pool.lease(len(body))
    wire.connection.send(
        b"head", lease.view, lease
    )  # told by connection_lost, as for bytes sent before
    assert runtime.pool.in_use == 0
    assert wire.aborted == 1
    with pytest.raises(BrokenError, match="reset by peer"):
        wire.connection.send(b"more")
    wire.connection.wire_lost(None)
    (error,) = wire.receiver.losses
    assert isinstance(error, BrokenError)
    assert "the peer" in str(error)
    assert error.__cause__ is RESET


async def test_a_wire_that_fails_while_the_queue_leaves_breaks_the_connection(runtime, wire):
    lease = runtime.pool.lease(len(BIG))
    wire.connection.send(b"head", lease.view, lease)
    wire.callback()  # still no room
    assert runtime.pool.in_use == 1
    wire.failure = RESET
    wire.callback()
    assert runtime.pool.in_use == 0
    assert wire.callback is None
    wire.connection.wire_lost(RESET)
    assert isinstance(wire.receiver.losses[0], BrokenError)


async def test_a_receiver_that_fails_when_sending_resumes_breaks_its_connection(runtime, wire):
    def fail():
        raise ValueError("not now")

    wire.receiver.sending_resumed = fail
    wire.connection.send(bytes(runtime.limits.high_water_bytes + 1))
    assert wire.receiver.paused == 1
    wire.room = 10**9
    wire.callback()
    wire.connection.wire_lost(None)
    assert "not now" in str(wire.receiver.losses[0])


async def test_a_wire_that_is_lost_by_itself_is_a_broken_connection(wire):
    wire.connection.wire_lost(RESET)
    wire.connection.wire_lost(RESET)
    (error,) = wire.receiver.losses
    assert isinstance(error, BrokenError)
    assert error.__cause__ is RESET


async def test_a_failure_after_our_close_is_still_a_clean_end(wire):
    wire.connection.send(b"queued")
    wire.connection._begin_close()
    wire.failure = RESET
    wire.callback()
    wire.connection.wire_lost(RESET)
    assert wire.receiver.losses == [None]
    with pytest.raises(ClosedError):
        wire.connection.send(b"more")


async def test_closing_when_the_peer_is_gone_already_ends_at_once(wire):
    wire.end_failure = OSError(107, "not connected")
    wire.connection._begin_close()
    assert wire.aborted == 1


async def test_a_closed_connection_waits_for_the_peers_end_but_not_forever(wire, monkeypatch):
    monkeypatch.setattr("frieda.transports.stream.LINGER_S", 0.01)
    wire.connection._begin_close()
    assert wire.ended
    assert wire.aborted == 0
    wire.arrives(b"\0\0\0\1x")  # thrown away
    await eventually(lambda: wire.aborted == 1, "the end of lingering")
    assert wire.receiver.messages == []


async def test_a_close_waits_only_for_its_own_end(wire):
    wire.connection.peer_ended()
    wire.connection.wire_lost(None)
    await wire.connection.close()
    assert wire.receiver.losses == [None]


async def test_a_message_without_a_buffer_stops_reading_and_goes_on_when_one_is_free(runtime, wire):
    taken = []
    while (lease := runtime.pool.lease(1024 * 1024)) is not None:
        taken.append(lease)
    wire.arrives((1024 * 1024).to_bytes(4, "big") + b"begin")
    assert not wire.reading
    taken.pop().release()
    await turns(2)
    assert wire.reading
    assert wire.connection.assembler.mid_message
    wire.connection.abort()
    for lease in taken:
        lease.release()


async def test_a_connection_that_ends_while_it_waits_for_a_buffer_gives_up_its_place(runtime, wire):
    taken = []
    while (lease := runtime.pool.lease(1024 * 1024)) is not None:
        taken.append(lease)
    wire.arrives((1024 * 1024).to_bytes(4, "big") + b"begin")
    wire.connection.abort()
    for lease in taken:
        lease.release()
    await turns(2)
    assert runtime.pool.in_use == 0


async def test_an_illegal_size_among_parked_messages_breaks_the_connection_on_resume(wire):
    wire.connection.pause_receiving()
    wire.arrives(b"\0\0\0\1a\xff\xff\xff\xff")
    wire.connection.resume_receiving()
    await turns(2)
    wire.connection.wire_lost(None)
    assert wire.receiver.messages == [b"a"]
    assert "-1" in str(wire.receiver.losses[0])


async def test_the_message_clock_starts_anew_with_each_message(runtime, wire):
    in_time = wire.deadlines.sweeps_in(runtime.limits.message_timeout_s) - 1
    wire.arrives(b"\0\0")
    for _ in range(8):  # never at rest for many times the limit, yet no message is late
        sweep(wire, in_time)
        wire.arrives(b"\0\1a\0\0")
    assert wire.receiver.messages == [b"a"] * 8
    sweep(wire, in_time)
    assert wire.aborted == 0
    sweep(wire, 1)
    assert wire.aborted == 1
    wire.connection.wire_lost(None)
    assert "not complete within 5 s" in str(wire.receiver.losses[0])


async def test_time_spent_paused_does_not_count_against_the_peer(runtime, wire):
    in_time = wire.deadlines.sweeps_in(runtime.limits.message_timeout_s) - 1
    wire.arrives(b"\0\0\0\2a")
    sweep(wire, in_time)
    wire.connection.pause_receiving()
    sweep(wire, 3 * in_time)
    wire.connection.resume_receiving()
    await turns(2)
    sweep(wire, in_time)
    wire.arrives(b"b")
    assert wire.receiver.messages == [b"ab"]
    assert wire.aborted == 0
    wire.connection.abort()


async def test_queued_bytes_have_their_whole_time_again_after_each_progress(runtime, wire):
    in_time = wire.deadlines.sweeps_in(runtime.limits.write_timeout_s) - 1
    wire.connection.send(bytes(100))
    for _ in range(8):
        sweep(wire, in_time)
        wire.room = 1
        wire.callback()
    sweep(wire, in_time)
    assert wire.aborted == 0
    sweep(wire, 1)
    assert wire.aborted == 1
    wire.connection.wire_lost(None)
    assert "took none of" in str(wire.receiver.losses[0])
