"""Conformance, first part: messages and flow. Use it through `frieda.testing.transports`."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from random import Random
from typing import Protocol

import pytest

from frieda.config import PollingMode
from frieda.errors import (
    BrokenError,
)
from frieda.testing.transport_pair import (
    KIB,
    TEST_LIMITS,
    Recorder,
    TransportPair,
    eventually,
    transport_pair,
    turns,
)
from frieda.transports.base import Transport, TransportRuntime
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


class TransportUnderTest:
    """What a test class says about its transport, and how the clauses reach it."""

    polling: PollingMode = "event"
    """The mode of the polling engines."""

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
            self.make_url(),
            open_with=self.open_transport,
            buffers=buffers,
            polling=self.polling,
            **limits,
        )

    async def raw(self, pair: TransportPair) -> RawPeer:
        count = len(pair.accepted)
        raw = await self.raw_peer(pair.listener.url)
        await eventually(lambda: len(pair.accepted) > count, "the raw connection")
        return raw


class MessageClauses(TransportUnderTest):
    """Whole messages, each once, in the order that is promised; buffers; backpressure."""

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
        # A slow reader may leave nearly all of them in the queue.
        async with self.pair(hard_limit_bytes=64 * 1024 * KIB) as pair:
            client, server = await pair.connect()
            for message in messages:
                client.connection.send(message)
                middle = len(message) // 3
                client.connection.send(message[: middle + 1], message[middle + 1 :] or None)
                await server.received(len(server.messages) + 1)
            await server.received(2 * len(messages))
            pair.check_arrival(server.messages, [message for message in messages for _ in range(2)])

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
            pair.check_arrival(await server.received(len(there)), there)
            pair.check_arrival(await client.received(len(back)), back)

    async def test_a_message_may_be_changed_in_place_without_harm_to_its_neighbours(self) -> None:
        def wipe(_: Recorder, message: memoryview, lease: Lease | None) -> None:
            message[:] = bytes(len(message))

        messages = [pattern(size, 3) for size in (10, 5000, 20, 200_000, 30)] * 10
        async with self.pair() as pair:
            pair.on_message = wipe
            client, server = await pair.connect()
            for message in messages:
                client.connection.send(message)
            pair.check_arrival(await server.received(len(messages)), messages)

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
            pair.check_arrival([bytes(lease.view) for lease in kept], messages)
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
            for _ in range(1000):  # small ones may still pass where large ones wait
                lease = pair.client_pool.lease(9000)
                assert lease is not None
                client.connection.send(b"h", lease.view, lease)
                if pair.client_pool.in_use == 3:
                    break
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
            pair.check_arrival(await server.received(len(messages)), messages)

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
            pair.check_arrival(await server.received(len(messages)), messages)

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
            pair.check_arrival(server.messages, messages)
            while kept:
                kept.pop().release()
