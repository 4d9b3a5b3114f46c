"""Fuzzing the batch parser: garbage decodes or raises BrokerError, nothing else.

Shortly under pytest (each run has a new seed, which a failure prints), and by hand for as long as wanted:

    python -m tests.fuzz.test_batch_fuzz --seconds 600 [--seed N]

A failure by hand stops and prints seed, round and the bytes in hex.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from struct import pack_into

from frieda.errors import BrokerError
from frieda.wire import records as record_reader
from frieda.wire.batch import (
    BatchBuilder,
    check_batch,
    check_records,
    decode_batch,
    iterate_batches,
    read_header,
)
from frieda.wire.compression import COMPRESSIONS
from frieda.wire.crc import crc32c

NOW_MS = 1_700_000_000_000
MAX_BYTES = 1 << 20
NASTY_BYTES = (0x00, 0x01, 0x7F, 0x80, 0xFE, 0xFF)


def seed_batch(rng: random.Random) -> bytearray:
    """A sound batch of random shape."""
    builder = BatchBuilder()
    for _ in range(rng.choice((1, 2, 5, 70))):
        key = rng.choice((None, b"", rng.randbytes(5)))
        value = rng.choice((None, b"", rng.randbytes(rng.randrange(90)), b"a" * 200))
        headers = rng.choice(((), [("h", b"v")], [("k" * 70, None), ("", b"")]))
        builder.append(NOW_MS + rng.randrange(-70, 10**6), key, value, headers)
    return builder.build(rng.choice((-1, 9)), 0, 0, rng.choice(COMPRESSIONS))


def mutate(rng: random.Random, batch: bytearray) -> None:
    """Damage `batch` in place in one to four places, as an attacker would: mostly with a right checksum."""
    for _ in range(rng.randrange(1, 5)):
        position = (
            rng.randrange(len(batch))
            if rng.random() < 0.4
            else rng.randrange(min(62, len(batch)), len(batch) + 1)
        )
        match rng.randrange(6):
            case 0 if position < len(batch):
                batch[position] ^= 1 << rng.randrange(8)
            case 1 if position < len(batch):
                batch[position] = rng.choice(NASTY_BYTES)
            case 2:
                del batch[position : position + rng.randrange(1, 9)]
            case 3:
                batch[position:position] = rng.randbytes(rng.randrange(1, 9))
            case 4:
                batch[position:position] = rng.choice((b"\x80", b"\xff")) * rng.randrange(1, 12)
            case _:
                del batch[position:]
        if not batch:
            batch += b"\x00"
    if len(batch) >= 61 and rng.random() < 0.9:
        pack_into(">i", batch, 8, len(batch) - 12)
        if rng.random() < 0.3:
            count = rng.choice((0, 1, 2, 70, 2**31 - 1, -1))
            pack_into(">i", batch, 57, count)
            pack_into(
                ">i",
                batch,
                23,
                max(-1, count - 1 + rng.choice((0, 0, 1, 100)) if count < 2**30 else count - 1),
            )
        if rng.random() < 0.9:
            pack_into(">b", batch, 16, 2)
            pack_into(">I", batch, 17, crc32c(batch, 21))


def parse(data: bytes) -> bool:
    """Give `data` to every reader; whether decode_batch found records. Raises what isn't BrokerError."""
    view = memoryview(data)
    for call in (
        lambda: read_header(view),
        lambda: check_records(view, check_batch(view), MAX_BYTES),
        lambda: list(iterate_batches(view)),
        lambda: decode_batch(view, "t", 0, 3, check_crc=False, max_bytes=MAX_BYTES),
    ):
        try:
            call()
        except BrokerError:
            continue
    try:
        records = decode_batch(view, "t", 0, max_bytes=MAX_BYTES)
    except BrokerError:
        return False
    # What was decoded is made of the input: nothing from outside it, no more than it can hold.
    if not read_header(view).attributes & 0x07:
        held = sum(len(r.key or b"") + len(r.value or b"") for r in records)
        assert held + 7 * len(records) <= len(data), "more was decoded than the batch holds"
        assert all(r.value is None or r.value in data for r in records), (
            "a value is not of the input"
        )
    return True


def fuzz(seed: int, seconds: float, rounds: int | None = None) -> tuple[int, int]:
    """Run until the time or the rounds are over: (rounds, how many still decoded)."""
    end = time.monotonic() + seconds
    done = decoded = 0
    while (rounds is None or done < rounds) and time.monotonic() < end:
        rng = random.Random(f"{seed}/{done}")
        if rng.random() < 0.1:
            batch = bytearray(rng.randbytes(rng.randrange(200)))
        else:
            batch = seed_batch(rng)
            if rng.random() < 0.97:
                mutate(rng, batch)
        try:
            decoded += parse(bytes(batch))
        except BaseException as error:
            error.add_note(f"seed {seed}, round {done}: {batch.hex()}")
            raise
        done += 1
    return done, decoded


def test_garbage_decodes_or_raises_broker_error_and_nothing_else() -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    done, decoded = fuzz(seed, seconds=30, rounds=1500)
    assert done > 100
    assert 0 < decoded < done, "the mutations no longer reach both outcomes"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    options = parser.parse_args()
    print(f"seed {options.seed}, record loops compiled: {record_reader.COMPILED}", flush=True)
    done, decoded = fuzz(options.seed, options.seconds)
    print(f"{done} batches, {decoded} of them decoded, no failure")
    return 0


if __name__ == "__main__":
    sys.exit(main())
