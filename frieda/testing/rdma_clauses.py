"""Conformance of the RDMA transports: the suite, and in place of a byte stream's clauses those of a queue pair.

A test class says also how to bring up a bare queue pair, which then sends what no channel would:

    class TestMyDevice(RdmaConformance):
        def make_url(self) -> str: ...

        async def raw_queue_pair(self, pair: TransportPair) -> QueuePair:
            return await pair.client.connect_queue_pair(pair.listener.url)
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from frieda.errors import BrokenError, TransportError
from frieda.testing.transport_clauses import MAX, pattern
from frieda.testing.transport_pair import Recorder, TransportPair, eventually, turns
from frieda.testing.transports import TransportConformance
from frieda.transports.base import Connection
from frieda.transports.rdma.frames import (
    BATCH,
    CLOSE,
    CREDIT,
    EAGER,
    HEADER,
    Chunk,
    pack_fin,
    pack_rts,
)
from frieda.transports.rdma.provider import QueuePair, RemoteMemory, Source


class RawChannel:
    """The far end of a connection without any rules: a queue pair, and what it was told."""

    def __init__(self, queue_pair: QueuePair) -> None:
        self.queue_pair = queue_pair
        self.frames: list[bytes] = []
        self.failures: list[TransportError | None] = []
        queue_pair.start(self)

    def send(self, frame: bytes) -> None:
        """Send these bytes as they are."""
        self.queue_pair.post_send((frame,), True)

    def offer(self, data: bytes, total: int, position: int = 0, id_: int = 0) -> Source:
        """Offer `data` for READ as the bytes at `position` of a message of `total`, all true but perhaps that."""
        source = self.queue_pair.take_source(len(data))
        assert source is not None
        assert len(source.view) >= len(data)
        source.view[: len(data)] = data
        address, key, _ = source.remote
        self.send(pack_rts(0, Chunk(id_, total, position, RemoteMemory(address, key, len(data)))))
        return source

    def received(self, slot: int, size_bytes: int) -> None:
        self.frames.append(bytes(self.queue_pair.receive_slots[slot][:size_bytes]))
        self.queue_pair.post_receive(slot)

    def sent(self, count: int) -> None: ...

    def read_finished(self, work_id: int) -> None: ...

    def failed(self, error: TransportError | None) -> None:
        self.failures.append(error)


class RdmaConformance(TransportConformance):
    """The suite for a transport made of queue pairs."""

    async def raw_queue_pair(self, pair: TransportPair) -> QueuePair:
        """A new connection from the pair's client to its listener: the queue pair, without a channel."""
        raise NotImplementedError

    @asynccontextmanager
    async def raw_channel(self, pair: TransportPair) -> AsyncIterator[tuple[RawChannel, Recorder]]:
        """A raw peer and the receiver of the connection that it is the far end of."""
        count = len(pair.accepted)
        raw = RawChannel(await self.raw_queue_pair(pair))
        try:
            await eventually(lambda: len(pair.accepted) > count, "the raw connection")
            yield raw, pair.accepted[-1]
        finally:
            raw.queue_pair.close()

    async def breaks(self, pair: TransportPair, *frames: bytes) -> str:
        """Send `frames`; what the connection at the other end breaks with."""
        async with self.raw_channel(pair) as (raw, server):
            for frame in frames:
                raw.send(frame)
            error = await server.lost()
            assert isinstance(error, BrokenError)
            return str(error)

    # ---- in place of a byte stream's clauses

    @pytest.mark.parametrize("announced", [0, MAX + 1, 2**31, 2**32 - 1])
    async def test_an_illegal_announced_size_breaks_only_that_connection(  # type: ignore[override]
        self, announced: int
    ) -> None:
        async with self.pair() as pair:
            client, server = await pair.connect()
            error = await self.breaks(
                pair, pack_rts(0, Chunk(0, announced, 0, RemoteMemory(0, 0, 1)))
            )
            assert str(announced) in error
            assert str(MAX) in error
            assert pair.server_pool.in_use == 0
            client.connection.send(b"fine")
            assert await server.received(1) == [b"fine"]

    async def test_a_message_must_be_complete_within_its_time(self) -> None:
        async with self.pair(message_timeout_s=0.1) as pair:
            async with self.raw_channel(pair) as (raw, server):
                raw.offer(b"the first half only", 38)
                error = await server.lost()
                assert isinstance(error, BrokenError)
                assert "0.1 s" in str(error)
            assert pair.server_pool.in_use == 0

    async def test_a_peer_that_ends_inside_a_message_has_broken_the_connection(self) -> None:
        async with self.pair() as pair:
            for data, total in ((b"half", 8), (pattern(70_000), MAX)):
                async with self.raw_channel(pair) as (raw, server):
                    raw.offer(data, total)
                    await eventually(lambda: pair.server_pool.in_use == 1, "the message begun")
                    raw.queue_pair.close()
                    assert isinstance(await server.lost(), BrokenError)
                assert pair.server_pool.in_use == 0

    # ---- what a queue pair's peer can do wrong besides

    @pytest.mark.parametrize(
        ("frames", "named"),
        [
            pytest.param([b"\0"], "1 bytes", id="less than a header"),
            pytest.param([HEADER.pack(99, 0)], "kind 99", id="an unknown kind"),
            pytest.param([HEADER.pack(EAGER, 0)], "0 bytes", id="an empty message"),
            pytest.param([HEADER.pack(CREDIT, 1)], "credits", id="a credit that was not spent"),
            pytest.param([HEADER.pack(EAGER, 65_535) + b"x"], "credits", id="many of them"),
            pytest.param([HEADER.pack(BATCH, 0)], "0 messages", id="an empty batch"),
            pytest.param([HEADER.pack(BATCH, 0) + bytes(4)], "0 bytes", id="of an empty message"),
            pytest.param([HEADER.pack(BATCH, 0) + b"\1"], "inside a size", id="a torn size"),
            pytest.param(
                [HEADER.pack(BATCH, 0) + b"\5\0\0\0abcd"], "4 bytes left", id="a torn message"
            ),
            pytest.param(
                [HEADER.pack(BATCH, 0) + b"\1\0\0\0a" * 200], "messages", id="too large a batch"
            ),
            pytest.param([pack_fin(0, [7])], "chunk 7", id="a FIN for nothing"),
            pytest.param([pack_fin(0, [])], "FIN", id="an empty FIN"),
            pytest.param([HEADER.pack(CLOSE, 0) + b"x"], "5 bytes", id="a CLOSE with a tail"),
            pytest.param(
                [pack_rts(0, Chunk(0, 10, 0, RemoteMemory(0, 0, 11)))], "11", id="too large a chunk"
            ),
            pytest.param(
                [pack_rts(0, Chunk(0, 10, 5, RemoteMemory(0, 0, 5)))], "position", id="the middle"
            ),
            pytest.param(
                [pack_rts(0, Chunk(0, 10, 0, RemoteMemory(0, 0, 0)))],
                "0 bytes",
                id="an empty chunk",
            ),
            pytest.param(
                [pack_rts(0, Chunk(0, 10, 0, RemoteMemory(0, 0, 1)))[:-1]], "RTS", id="a torn RTS"
            ),
        ],
    )
    async def test_a_frame_that_breaks_the_rules_breaks_its_connection(
        self, frames: list[bytes], named: str
    ) -> None:
        async with self.pair() as pair:
            assert named in await self.breaks(pair, *frames)
            assert pair.server_pool.in_use == 0

    async def test_memory_that_was_not_offered_is_never_read(self) -> None:
        async with self.pair() as pair:
            for address, key in ((0, 0), (2**64 - 1, 1), (1, 2**32 - 1), (0xDEAD0000, 2**64 - 1)):
                rts = pack_rts(0, Chunk(0, 64, 0, RemoteMemory(address, key, 64)))
                await self.breaks(pair, rts)
            assert [each.messages for each in pair.accepted] == [[]] * 4
            assert pair.server_pool.in_use == 0

    async def test_more_chunks_than_agreed_are_refused(self) -> None:
        def pause(connection: Connection) -> Recorder:
            connection.pause_receiving()
            pair.accepted.append(Recorder(connection))
            return pair.accepted[-1]

        async with self.pair() as pair:
            await pair.listener.close()
            pair.listener = await pair.server.listen(self.make_url(), pause)
            async with self.raw_channel(pair) as (raw, server):
                source = raw.queue_pair.take_source(1)
                assert source is not None
                allowed = raw.queue_pair.limits.max_reads
                for number in range(allowed):
                    raw.send(pack_rts(0, Chunk(number, 1, 0, source.remote)))
                await turns(50)
                assert not server.losses
                raw.send(pack_rts(0, Chunk(99, 1, 0, source.remote)))
                assert f"more than {allowed}" in str(await server.lost())

    async def test_a_message_that_follows_close_is_refused(self) -> None:
        async with self.pair() as pair, self.raw_channel(pair) as (raw, server):
            server.connection.pause_receiving()
            for frame in (b"before", None, b"after"):
                header = HEADER.pack(EAGER if frame else CLOSE, 0)
                raw.send(header + (frame or b""))
            assert "after CLOSE" in str(await server.lost())
            assert server.messages == []

    async def test_a_receiver_that_holds_everything_keeps_its_peer_within_the_window(self) -> None:
        async with self.pair() as pair, self.raw_channel(pair) as (raw, server):
            server.connection.pause_receiving()
            data = raw.queue_pair.limits.window - 3
            for number in range(data):
                raw.send(HEADER.pack(EAGER, 0) + struct.pack("<I", number))
            await turns(50)
            assert raw.frames == []  # not one credit came back
            server.connection.resume_receiving()
            await server.received(data)
            await eventually(lambda: bool(raw.frames), "credits")
            assert sum(HEADER.unpack_from(frame)[1] for frame in raw.frames) >= data // 2
