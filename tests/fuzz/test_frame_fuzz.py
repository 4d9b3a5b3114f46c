"""Fuzzing the broker: whatever bytes a client sends, the broker answers, refuses or closes, and still serves others.

Shortly under pytest (each run has a new seed, which a failure prints), and by hand for as long as wanted:

    python -m tests.fuzz.test_frame_fuzz --seconds 600 [--seed N]

A failure by hand stops and prints seed, round and what was sent, in hex.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from struct import pack
from typing import Any, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

import msgpack

from frieda.broker.server import Server
from frieda.config import TopicConfig
from frieda.event_loop import new_event_loop
from frieda.testing.batches import make_batch
from frieda.testing.brokers import running_server
from frieda.testing.conversation import (
    create_topic,
    eventually,
    fetch_values,
    health_of,
    produce,
)
from frieda.testing.raw_client import raw_client
from frieda.wire.envelope import encode_request
from frieda.wire.messages import APIS, PROTOCOL_VERSION, ApiKey, HelloRequest, ProduceRequest
from frieda.wire.produce import encode_produce

ROUNDS_BETWEEN_CHECKS = 50
MAX_FRAME_BYTES = 1 << 20
NASTY_NUMBERS = (-1, 0, 1, 2, 7, 2**15, 2**31 - 1, 2**31, 2**63 - 1, 2**63, 2**64 - 1, -(2**63))
NASTY_BYTES = (0x00, 0x01, 0x7F, 0x80, 0x90, 0x9F, 0xC0, 0xC1, 0xDD, 0xDF, 0xFE, 0xFF)
SETTINGS = ("retention.ms", "segment.bytes", "flush", "validate", "max.message.bytes")


class Talker:
    """Makes up what a client might say: sound requests first, which are then spoiled."""

    def __init__(self, rng: random.Random, topic_ids: list[bytes]) -> None:
        self._rng = rng
        self._topic_ids = topic_ids

    def conversation(self) -> bytes:
        """Several frames, spoiled in most cases."""
        rng = self._rng
        if rng.random() < 0.05:
            return rng.randbytes(rng.randrange(300))
        hello = HelloRequest(PROTOCOL_VERSION, PROTOCOL_VERSION, "fuzz", "fuzz", MAX_FRAME_BYTES)
        messages = [encode_request(ApiKey.HELLO, 0, 0, hello)] if rng.random() < 0.95 else []
        messages += [self._request(number) for number in range(1, rng.randrange(2, 8))]
        if rng.random() < 0.5:  # spoil one message, and frame it rightly
            which = rng.randrange(len(messages))
            messages[which] = self._spoiled(messages[which])
        stream = b"".join(pack(">I", len(message)) + message for message in messages)
        return self._spoiled(stream) if rng.random() < 0.3 else stream

    def _request(self, correlation_id: int) -> bytes:
        rng = self._rng
        api = APIS[rng.choice(list(APIS))]
        if api.key == ApiKey.PRODUCE and rng.random() < 0.9:
            return self._produce(correlation_id)
        fields = list(self._value(api.request))
        if rng.random() < 0.2 and fields:  # one field of another kind, missing or too many
            match rng.randrange(3):
                case 0:
                    fields[rng.randrange(len(fields))] = rng.choice((None, [], {}, "x", 1.5, True))
                case 1:
                    fields.pop()
                case _:
                    fields.append(7)
        version = 0 if rng.random() < 0.97 else rng.choice(NASTY_NUMBERS)
        head = msgpack.packb([int(api.key), version, correlation_id, *fields])
        body = self._batch() if api.key == ApiKey.PRODUCE or rng.random() < 0.05 else b""
        return pack(">I", len(head)) + head + body

    def _produce(self, correlation_id: int) -> bytes:
        rng = self._rng
        topic_id = rng.choice((*self._topic_ids, rng.randbytes(16)))
        acks = rng.choice((0, 1, 1, 1, -1, 2, -128))
        request = ProduceRequest(topic_id, rng.choice((0, 0, 1, 2**31 - 1, -1)), acks, 1000)
        version = 0 if rng.random() < 0.97 else rng.randrange(256)
        return encode_produce(correlation_id, request, version) + self._batch()

    def _value(self, kind: Any) -> Any:
        rng = self._rng
        origin, arguments = get_origin(kind), get_args(kind)
        if kind is int:
            return rng.choice((0, 0, 0, 1, 100, rng.randrange(1000), rng.choice(NASTY_NUMBERS)))
        if kind is str:
            return rng.choice(("", "fuzz-a", "fuzz-b", "fuzz/a", "x" * rng.randrange(300), "\0"))
        if kind is bytes:
            return rng.choice((*self._topic_ids, rng.randbytes(16), b""))
        if kind is bool:
            return rng.random() < 0.5
        if origin is tuple:
            return [self._value(arguments[0]) for _ in range(rng.choice((0, 1, 1, 3)))]
        if origin is dict:
            return (
                {rng.choice(SETTINGS): str(rng.choice(NASTY_NUMBERS))} if rng.random() < 0.5 else {}
            )
        if hasattr(kind, "_fields"):
            hints = get_type_hints(kind)
            return [self._value(hints[name]) for name in kind._fields]
        return None if rng.random() < 0.3 else self._value(arguments[0])

    def _batch(self) -> bytes:
        rng = self._rng
        numbered = rng.random() < 0.5
        batch = make_batch(
            [rng.randbytes(rng.randrange(200)) for _ in range(rng.randrange(1, 6))],
            producer_id=rng.randrange(3) if numbered else -1,
            producer_epoch=rng.randrange(2) if numbered else -1,
            base_sequence=rng.randrange(30) if numbered else -1,
            compression=rng.choice(("none", "none", "gzip")),
        )
        return self._spoiled(bytes(batch)) if rng.random() < 0.3 else bytes(batch)

    def _spoiled(self, data: bytes) -> bytes:
        rng = self._rng
        spoiled = bytearray(data)
        for _ in range(rng.randrange(1, 4)):
            position = rng.randrange(len(spoiled) + 1)
            match rng.randrange(5):
                case 0 if position < len(spoiled):
                    spoiled[position] ^= 1 << rng.randrange(8)
                case 1 if position < len(spoiled):
                    spoiled[position] = rng.choice(NASTY_BYTES)
                case 2:
                    del spoiled[position : position + rng.randrange(1, 9)]
                case 3:
                    spoiled[position:position] = rng.randbytes(rng.randrange(1, 9))
                case _:
                    del spoiled[position:]
        return bytes(spoiled)


class Witness:
    """A client that does nothing wrong, on a topic of its own, and must never notice anything."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._values: list[bytes] = []
        self._topic_id = b""

    async def begin(self) -> list[bytes]:
        """Make the topics; the ids of those that are there to be spoiled."""
        async with raw_client(self._server.urls[0]) as client:
            self._topic_id = await create_topic(client, f"witness-{random.random()}")
            return [await create_topic(client, f"fuzz-{name}", 2) for name in "ab"]

    async def check(self) -> None:
        """Everything is as it should be."""
        server = self._server
        async with asyncio.timeout(60), raw_client(server.urls[0]) as client:
            self._values.append(b"%d" % len(self._values))
            await produce(client, self._topic_id, self._values[-1])
            assert await fetch_values(client, self._topic_id) == self._values
            health = await health_of(client)
            assert health.facts["faults"] == 0, "the broker met a fault of its own"
            assert health.status == "ok", health.problems
        await eventually(lambda: server.connections == 0, "every session is forgotten")
        await eventually(lambda: server.runtime.pool.in_use == 0, "every buffer is given back")


async def talk(server: Server, rng: random.Random, data: bytes) -> str:
    """Send `data` in pieces, then leave in one way or another; what the broker did."""
    address = urlsplit(server.urls[0])
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    heard = b""
    try:
        with suppress(OSError):
            position = 0
            while position < len(data) and not writer.transport.is_closing():
                end = len(data) if rng.random() < 0.5 else position + rng.randrange(1, 100)
                writer.write(data[position:end])
                position = end
                await asyncio.sleep(0)
            match rng.randrange(3):
                case 0:
                    writer.transport.abort()
                    return "left"
                case 1:
                    # Perhaps something comes: a long poll or half a message has no answer yet.
                    with suppress(TimeoutError):
                        async with asyncio.timeout(0.01):
                            heard = await reader.read(1 << 16)
                case _:
                    pass
            if not writer.transport.is_closing():
                writer.write_eof()
            async with asyncio.timeout(60):
                while more := await reader.read(1 << 16):
                    heard += more
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    return "answered" if heard else "closed"


async def fuzz(folder: Path, seed: int, seconds: float, rounds: int | None = None) -> Counter[str]:
    """Run until the time or the rounds are over: how often the broker did what."""
    escaped: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: escaped.append(context))
    end = time.monotonic() + seconds
    did: Counter[str] = Counter()
    settings = {
        "max_frame_bytes": MAX_FRAME_BYTES,
        "buffers": {4096: 16, 65536: 8, MAX_FRAME_BYTES: 2},
        "park_timeout_ms": 50,
        "topic": TopicConfig(max_message_bytes=MAX_FRAME_BYTES // 2),
    }
    async with running_server(folder, limits={"message_timeout_s": 0.5}, **settings) as server:
        witness = Witness(server)
        topic_ids = await witness.begin()
        number = 0
        while (rounds is None or number < rounds) and time.monotonic() < end:
            rng = random.Random(f"{seed}/{number}")
            data = Talker(rng, topic_ids).conversation()
            try:
                async with asyncio.timeout(60):
                    did[await talk(server, rng, data)] += 1
                if number % ROUNDS_BETWEEN_CHECKS == 0:
                    await witness.check()
                assert escaped == [], escaped
            except BaseException as error:
                error.add_note(f"seed {seed}, round {number}: {data.hex()}")
                raise
            number += 1
        await witness.check()
    assert escaped == []
    return did


async def test_whatever_a_client_sends_others_are_served(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    did = await fuzz(tmp_path, seed, seconds=30, rounds=600)
    assert sum(did.values()) > 50
    assert did["answered"] > 10, "what is sent no longer reaches the handlers"
    assert did["closed"] + did["left"] > 10, "what is sent is no longer spoiled"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        asyncio.Runner(loop_factory=new_event_loop) as runner,
    ):
        did = runner.run(fuzz(Path(folder), options.seed, options.seconds))
    print(f"{sum(did.values())} conversations, no failure: {dict(did)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
