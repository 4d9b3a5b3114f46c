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

import pytest

from frieda.errors import (
    AddressInUseError,
    BrokenError,
    ClosedError,
    ConnectError,
    LocalProtocolError,
)
from frieda.testing.transport_clauses import MAX, MessageClauses, clog, pattern
from frieda.testing.transport_pair import (
    KIB,
    Recorder,
    eventually,
    open_descriptors,
    turns,
)
from frieda.transports.base import Connection
from frieda.transports.buffers import Lease


class TransportConformance(MessageClauses):
    """The suite. Every method, here and in MessageClauses, is one clause of the contract."""

    connections = 500
    """How many come and go one after another, in the test of that."""

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
            raw = await self.raw(pair)
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
                raw = await self.raw(pair)
                raw.write(beginning)
                error = await pair.accepted[-1].lost()
                assert isinstance(error, BrokenError)
                assert "0.1 s" in str(error)
                raw.close()

    async def test_a_peer_that_ends_inside_a_message_has_broken_the_connection(self) -> None:
        async with self.pair() as pair:
            for ending in (b"\0\0", b"\0\0\0\5abc", b"\0\0\0\1a\0\3\0\0" + bytes(9)):
                raw = await self.raw(pair)
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
            pair.check_arrival(await recorders[0].received(5), messages)
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
            clogging = [b"head" + pattern(64 * KIB)] * before
            arrived = await server.received(before + len(messages))
            pair.check_arrival(arrived, clogging + messages)
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

    async def test_hundreds_of_connections_come_and_go(self) -> None:
        async with self.pair() as pair:
            for number in range(self.connections):
                client, server = await pair.connect()
                client.connection.send(number.to_bytes(2, "big"))
                assert await server.received(1) == [number.to_bytes(2, "big")]
                await client.connection.close()
                assert await server.lost() is None
