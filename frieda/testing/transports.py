"""The conformance suite of `frieda.transports.base`: what every transport must do, clause by clause.

Subclass it in a test module, say where to listen, and let pytest (with pytest-asyncio in auto mode) collect it:

    class TestMyTransport(TransportConformance):
        def make_url(self) -> str:
            return "mine://127.0.0.1:0"

Each test uses a pair of its own (`transport_pair`), which checks at the end that nothing leaked: no lease, no
descriptor, and connection_lost exactly once for every connection.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from random import Random
from typing import Protocol

import pytest

from frieda.errors import (
    AddressInUseError,
    BrokenError,
    ClosedError,
    ConnectError,
    LocalProtocolError,
)
from frieda.testing.transport_pair import (
    KIB,
    TEST_LIMITS,
    Recorder,
    TransportPair,
    eventually,
    open_descriptors,
    transport_pair,
    turns,
)
from frieda.transports.base import Connection, Transport, TransportRuntime
from frieda.transports.buffers import Lease
from frieda.transports.registry import open_transport

MAX = TEST_LIMITS.max_message_bytes


class RawPeer(Protocol):
    """The far end of a connection without any framing, for tests of bad input."""

    def write(self, data: bytes) -> None:
        """Send these bytes as they are."""
        ...

    def close(self) -> None:
        """End the connection."""
        ...


def pattern(size: int, seed: int = 0) -> bytes:
    """`size` bytes that differ from place to place and from seed to seed."""
    return Random(seed * 1_000_003 + size).randbytes(size)


async def clog(client: Recorder, until_bytes: int = 1) -> int:
    """Send to a peer that does not read until that many bytes are queued; how many messages it took."""
    body = pattern(64 * KIB)
    for sent in range(1, 2000):
        client.connection.send(b"head", body)
        if client.connection.queued_bytes >= until_bytes:
            return sent
        await asyncio.sleep(0)
    raise AssertionError("the peer took everything")


class TransportConformance:
    """The suite. Every method is one clause of the contract."""

    def make_url(self) -> str:
        """Where to listen: a new address at each call."""
        raise NotImplementedError

    def open_transport(self, url: str, runtime: TransportRuntime) -> Transport:
        """The transport under test."""
        return open_transport(url, runtime)

    async def raw_peer(self, url: str) -> RawPeer:
        """A connection to `url` that writes raw bytes. Only stream transports have one."""
        pytest.skip("this transport has no byte stream, so there is no raw peer to misbehave")

    def pair(
        self, *, buffers: dict[int, int] | None = None, **limits: float
    ) -> AbstractAsyncContextManager[TransportPair]:
        """A listening pair; `limits` are fields of TransportLimits."""
        return transport_pair(
            self.make_url(), open_with=self.open_transport, buffers=buffers, **limits
        )

    async def _raw(self, pair: TransportPair) -> RawPeer:
        count = len(pair.accepted)
        raw = await self.raw_peer(pair.listener.url)
        await eventually(lambda: len(pair.accepted) > count, "the raw connection")
        return raw

    # ---- messages

    async def test_messages_of_every_size_arrive_whole_and_in_order(self) -> None:
        near = [128 * KIB - 4 + step for step in range(-2, 6)]
        sizes = [
            1,
            2,
            3,
            4,
            5,
            100,
            4091,
            4092,
            4093,
            4096,
            4097,
            65_531,
            65_536,
            *near,
            MAX - 1,
            MAX,
        ]
        messages = [pattern(size, seed) for seed, size in enumerate(sizes)]
        async with self.pair() as pair:
            client, server = await pair.connect()
            for message in messages:
                client.connection.send(message)
                middle = len(message) // 3
                client.connection.send(message[: middle + 1], message[middle + 1 :] or None)
                await server.received(len(server.messages) + 1)
            await server.received(2 * len(messages))
            assert server.messages == [message for message in messages for _ in range(2)]

    async def test_many_messages_both_ways_at_once_keep_their_order(self) -> None:
        chance = Random(7)
        there = [pattern(chance.randint(1, 3000), n) for n in range(2000)]
        back = [pattern(chance.choice((1, 50, 9000, 150_000)), n) for n in range(300)]
        async with self.pair(hard_limit_bytes=64 * 1024 * KIB) as pair:
            client, server = await pair.connect()
            for number, message in enumerate(there):
                client.connection.send(message)
                if number < len(back):
                    server.connection.send(back[number][:1], back[number][1:] or None)
                if number % 50 == 0:
                    await asyncio.sleep(0)
            assert await server.received(len(there)) == there
            assert await client.received(len(back)) == back

    async def test_a_message_may_be_changed_in_place_without_harm_to_its_neighbours(self) -> None:
        def wipe(_: Recorder, message: memoryview, lease: Lease | None) -> None:
            message[:] = bytes(len(message))

        messages = [pattern(size, 3) for size in (10, 5000, 20, 200_000, 30)] * 10
        async with self.pair() as pair:
            pair.on_message = wipe
            client, server = await pair.connect()
            for message in messages:
                client.connection.send(message)
            assert await server.received(len(messages)) == messages

    async def test_a_kept_message_outlives_its_delivery(self) -> None:
        kept: list[Lease] = []

        def keep(recorder: Recorder, message: memoryview, lease: Lease | None) -> None:
            held = pair.server_pool.keep(message, lease)
            assert held is not None
            kept.append(held)

        messages = [pattern(size, n) for n, size in enumerate((5, 3000, 90_000, 200_000) * 3)]
        async with self.pair() as pair:
            pair.on_message = keep
            client, server = await pair.connect()
            for message in messages:
                client.connection.send(message)
                await server.received(len(kept) + 1)
            assert [bytes(lease.view) for lease in kept] == messages
            assert pair.server_pool.in_use == len(kept)
            for lease in kept:
                lease.release()
            assert pair.server_pool.in_use == 0

    async def test_a_lease_that_is_sent_goes_back_once_it_was_taken(self) -> None:
        async with self.pair() as pair:
            client, server = await pair.connect()
            for size in (10, 5000, 300_000):
                lease = pair.client_pool.lease(size)
                assert lease is not None
                lease.view[:] = pattern(size)
                client.connection.send(b"h", lease.view, lease)
                await server.received(1)
                assert server.messages.pop() == b"h" + pattern(size)
                await eventually(lambda: pair.client_pool.in_use == 0, "the lease is back")

    async def test_leases_that_are_queued_go_back_when_the_connection_ends(self) -> None:
        async with self.pair() as pair:
            client, server = await pair.connect()
            server.connection.pause_receiving()
            await clog(client)
            for _ in range(3):
                lease = pair.client_pool.lease(9000)
                assert lease is not None
                client.connection.send(b"h", lease.view, lease)
            assert pair.client_pool.in_use == 3
            client.connection.abort()
            await client.lost()
            assert pair.client_pool.in_use == 0

    # ---- flow

    async def test_pause_stops_delivery_and_resume_brings_everything(self) -> None:
        def pause(recorder: Recorder, message: memoryview, lease: Lease | None) -> None:
            if len(recorder.messages) == 1:
                recorder.connection.pause_receiving()
                recorder.connection.pause_receiving()

        messages = [pattern(size, n) for n, size in enumerate((100, 3000, 100_000) * 10)]
        async with self.pair() as pair:
            pair.on_message = pause
            client, server = await pair.connect()
            for message in messages[:10]:
                client.connection.send(message)
            await server.received(1)
            await turns()
            seen = len(server.messages)
            for message in messages[10:]:
                client.connection.send(message)
            await turns(50)
            assert len(server.messages) == seen
            server.connection.resume_receiving()
            server.connection.resume_receiving()
            assert await server.received(len(messages)) == messages

    async def test_pausing_and_resuming_at_every_message_loses_nothing(self) -> None:
        def blink(recorder: Recorder, message: memoryview, lease: Lease | None) -> None:
            recorder.connection.pause_receiving()
            if len(recorder.messages) % 2:
                recorder.connection.resume_receiving()
            else:
                asyncio.get_running_loop().call_soon(recorder.connection.resume_receiving)

        messages = [pattern(size, n) for n, size in enumerate((1, 4000, 90_000, 7) * 20)]
        async with self.pair() as pair:
            pair.on_message = blink
            client, server = await pair.connect()
            for message in messages:
                client.connection.send(message)
            assert await server.received(len(messages)) == messages

    async def test_a_peer_that_does_not_read_pauses_sending_and_one_that_reads_resumes_it(
        self,
    ) -> None:
        async with self.pair() as pair:
            client, server = await pair.connect()
            server.connection.pause_receiving()
            await clog(client, until_bytes=TEST_LIMITS.high_water_bytes + 1)
            assert (client.paused, client.resumed) == (1, 0)
            server.connection.resume_receiving()
            await eventually(lambda: client.resumed == 1, "sending_resumed")
            assert client.connection.queued_bytes == 0
            assert client.paused == 1

    async def test_beyond_the_hard_limit_the_connection_breaks(self) -> None:
        async with self.pair() as pair:
            client, server = await pair.connect()
            server.connection.pause_receiving()
            with pytest.raises(BrokenError):
                await clog(client, until_bytes=2 * TEST_LIMITS.hard_limit_bytes)
            error = await client.lost()
            assert isinstance(error, BrokenError)
            assert str(TEST_LIMITS.hard_limit_bytes) in str(error)

    async def test_queued_bytes_that_make_no_progress_break_the_connection(self) -> None:
        async with self.pair(write_timeout_s=0.1) as pair:
            client, server = await pair.connect()
            server.connection.pause_receiving()
            await clog(client)
            error = await client.lost()
            assert isinstance(error, BrokenError)
            assert "0.1 s" in str(error)

    async def test_an_empty_pool_is_backpressure_and_recovers(self) -> None:
        kept: list[Lease] = []

        def keep(recorder: Recorder, message: memoryview, lease: Lease | None) -> None:
            held = pair.server_pool.keep(message, lease)
            if held is not None:
                kept.append(held)

        messages = [pattern(300_000, n) for n in range(20)]
        async with self.pair(
            buffers={4 * KIB: 1, 1024 * KIB: 2}, hard_limit_bytes=64 * 1024 * KIB
        ) as pair:
            pair.on_message = keep
            client, server = await pair.connect()
            for message in messages:
                client.connection.send(message)
            await eventually(lambda: len(kept) >= 2, "an empty pool")
            await turns(100)
            assert len(server.messages) < len(messages)
            assert not server.losses
            while len(server.messages) < len(messages):
                while kept:
                    kept.pop().release()
                await asyncio.sleep(0)
            assert server.messages == messages
            while kept:
                kept.pop().release()

    # ---- what is refused

    @pytest.mark.parametrize("size", [0, MAX + 1])
    async def test_an_illegal_size_is_refused_here_and_its_lease_released(self, size: int) -> None:
        async with self.pair() as pair:
            client, server = await pair.connect()
            lease = pair.client_pool.lease(1)
            assert lease is not None
            with pytest.raises(LocalProtocolError):
                client.connection.send(bytes(size), None, lease)
            assert pair.client_pool.in_use == 0
            client.connection.send(b"still alive")
            assert await server.received(1) == [b"still alive"]

    @pytest.mark.parametrize(
        ("announced", "named"),
        [(0, "0"), (MAX + 1, str(MAX + 1)), (2**31, "-2147483648"), (2**32 - 1, "-1")],
    )
    async def test_an_illegal_announced_size_breaks_only_that_connection(
        self, announced: int, named: str
    ) -> None:
        async with self.pair() as pair:
            client, server = await pair.connect()
            raw = await self._raw(pair)
            raw.write(announced.to_bytes(4, "big") + b"x")
            error = await pair.accepted[1].lost()
            assert isinstance(error, BrokenError)
            assert named in str(error)
            assert str(MAX) in str(error)
            raw.close()
            client.connection.send(b"fine")
            assert await server.received(1) == [b"fine"]

    async def test_a_message_must_be_complete_within_its_time(self) -> None:
        async with self.pair(message_timeout_s=0.1) as pair:
            for beginning in (b"\0", b"\0\0\0\5abc", b"\0\1\0\0" + bytes(1000)):
                raw = await self._raw(pair)
                raw.write(beginning)
                error = await pair.accepted[-1].lost()
                assert isinstance(error, BrokenError)
                assert "0.1 s" in str(error)
                raw.close()

    async def test_a_peer_that_ends_inside_a_message_has_broken_the_connection(self) -> None:
        async with self.pair() as pair:
            for ending in (b"\0\0", b"\0\0\0\5abc", b"\0\0\0\1a\0\3\0\0" + bytes(9)):
                raw = await self._raw(pair)
                raw.write(ending)
                raw.close()
                assert isinstance(await pair.accepted[-1].lost(), BrokenError)

    # ---- connecting and listening

    async def test_nobody_listening_is_a_connect_error_that_names_the_url(self) -> None:
        async with self.pair() as pair:
            await pair.listener.close()
            await turns()
            with pytest.raises(ConnectError) as caught:
                await pair.client.connect(pair.listener.url, pair.make_client)
            assert pair.listener.url in str(caught.value)
            assert pair.connected == []

    async def test_a_cancelled_connect_leaves_nothing_behind(self) -> None:
        async with self.pair() as pair:
            await pair.connect()
            descriptors = open_descriptors()
            for turn in range(8):
                task = asyncio.ensure_future(pair.client.connect(pair.listener.url, Recorder))
                await turns(turn)
                task.cancel()
                done, _ = await asyncio.wait([task])
                if not task.cancelled():
                    done.pop().result().abort()
            await eventually(lambda: open_descriptors() <= descriptors, "descriptors closed")

    async def test_an_address_that_is_taken_is_refused(self) -> None:
        async with self.pair() as pair:
            with pytest.raises(AddressInUseError) as caught:
                await pair.client.listen(pair.listener.url, pair.make_client)
            assert pair.listener.url in str(caught.value)

    async def test_a_closed_listener_lets_its_connections_live(self) -> None:
        async with self.pair() as pair:
            client, server = await pair.connect()
            await pair.listener.close()
            await pair.listener.close()
            client.connection.send(b"alive")
            assert await server.received(1) == [b"alive"]

    async def test_a_receiver_that_cannot_be_made_fails_its_connect(self) -> None:
        def refuse(connection: Connection) -> Recorder:
            raise RuntimeError("no receiver today")

        async with self.pair() as pair:
            with pytest.raises(RuntimeError, match="no receiver today"):
                await pair.client.connect(pair.listener.url, refuse)
            await eventually(lambda: len(pair.accepted) == 1, "the other end")
            await pair.accepted[0].lost()

    async def test_a_connection_may_be_aborted_while_its_receiver_is_made(self) -> None:
        def abort(connection: Connection) -> Recorder:
            connection.abort()
            recorders.append(Recorder(connection))
            return recorders[-1]

        recorders: list[Recorder] = []
        async with self.pair() as pair:
            await pair.client.connect(pair.listener.url, abort)
            assert await recorders[0].lost() is None

    async def test_pausing_while_the_receiver_is_made_holds_the_first_message(self) -> None:
        def pause(connection: Connection) -> Recorder:
            connection.pause_receiving()
            recorders.append(Recorder(connection))
            return recorders[-1]

        recorders: list[Recorder] = []
        async with self.pair() as pair:
            listener = await pair.server.listen(self.make_url(), pause)
            connection = await pair.client.connect(listener.url, pair.make_client)
            messages = [pattern(n * 1000 + 1) for n in range(5)]
            for message in messages:
                connection.send(message)
            await eventually(lambda: bool(recorders), "the accepted connection")
            await turns(50)
            assert recorders[0].messages == []
            recorders[0].connection.resume_receiving()
            assert await recorders[0].received(5) == messages
            await listener.close()
            recorders[0].connection.abort()
            await recorders[0].lost()

    # ---- the end

    async def test_close_sends_what_is_queued_and_both_sides_end_cleanly(self) -> None:
        messages = [pattern(200_000, n) for n in range(16)]
        async with self.pair() as pair:
            client, server = await pair.connect()
            server.connection.send(b"perhaps not read by the side that closes")
            server.connection.pause_receiving()
            before = await clog(client)
            for message in messages:
                client.connection.send(message)
            closing = asyncio.ensure_future(client.connection.close())
            await turns()
            assert client.connection.queued_bytes > 0
            server.connection.resume_receiving()
            assert (await server.received(before + len(messages)))[before:] == messages
            await closing
            assert client.losses == [None]
            assert await server.lost() is None

    async def test_close_gives_up_on_a_peer_that_does_not_read(self) -> None:
        async with self.pair() as pair:
            client, server = await pair.connect()
            server.connection.pause_receiving()
            await clog(client)
            await client.connection.close(timeout_s=0.05)
            assert client.losses == [None]

    async def test_a_cancelled_close_aborts(self) -> None:
        async with self.pair() as pair:
            client, server = await pair.connect()
            server.connection.pause_receiving()
            await clog(client)
            task = asyncio.ensure_future(client.connection.close(timeout_s=60))
            await turns()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await client.lost() is None

    async def test_abort_tells_its_own_side_later_and_the_peer_too(self) -> None:
        async with self.pair() as pair:
            client, server = await pair.connect()
            client.connection.abort()
            client.connection.abort()
            assert client.losses == []
            assert await client.lost() is None
            assert not isinstance(await server.lost(), ClosedError)

    async def test_nothing_is_delivered_after_an_abort_inside_a_delivery(self) -> None:
        def abort(recorder: Recorder, message: memoryview, lease: Lease | None) -> None:
            recorder.connection.abort()

        async with self.pair() as pair:
            pair.on_message = abort
            client, server = await pair.connect()
            for _ in range(5):
                client.connection.send(b"message")
            assert await server.lost() is None
            assert server.messages == [b"message"]

    async def test_use_after_our_close_is_a_closed_error_and_releases_the_lease(self) -> None:
        async with self.pair() as pair:
            client, _ = await pair.connect()
            await asyncio.gather(client.connection.close(), client.connection.close())
            lease = pair.client_pool.lease(10)
            assert lease is not None
            with pytest.raises(ClosedError):
                client.connection.send(b"x", lease.view, lease)
            assert pair.client_pool.in_use == 0
            client.connection.pause_receiving()
            client.connection.resume_receiving()

    async def test_use_after_the_peers_end_is_a_broken_error(self) -> None:
        async with self.pair() as pair:
            client, server = await pair.connect()
            await server.connection.close()
            assert await client.lost() is None
            with pytest.raises(BrokenError):
                client.connection.send(b"x")

    async def test_an_exception_in_a_receiver_breaks_only_its_connection(self) -> None:
        def fail(recorder: Recorder, message: memoryview, lease: Lease | None) -> None:
            if bytes(message) == b"bad":
                raise ValueError("cannot stand this message")

        async with self.pair() as pair:
            pair.on_message = fail
            first, first_server = await pair.connect()
            second, second_server = await pair.connect()
            for message in (b"good", b"bad", b"unseen"):
                first.connection.send(message)
            error = await first_server.lost()
            assert isinstance(error, BrokenError)
            assert "cannot stand this message" in str(error)
            assert first_server.messages == [b"good", b"bad"]
            second.connection.send(b"good")
            assert await second_server.received(1) == [b"good"]

    async def test_five_hundred_connections_come_and_go(self) -> None:
        async with self.pair() as pair:
            for number in range(500):
                client, server = await pair.connect()
                client.connection.send(number.to_bytes(2, "big"))
                assert await server.received(1) == [number.to_bytes(2, "big")]
                await client.connection.close()
                assert await server.lost() is None
