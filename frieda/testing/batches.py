"""Record batches for tests, as a producer would have sent them."""

from __future__ import annotations

from collections.abc import Sequence

from frieda.model import NO_PRODUCER_ID, NO_SEQUENCE
from frieda.wire.batch import BatchBuilder


def make_batch(
    values: Sequence[bytes],
    timestamp_ms: int | Sequence[int] = 1_700_000_000_000,
    *,
    producer_id: int = NO_PRODUCER_ID,
    producer_epoch: int = -1,
    base_sequence: int = NO_SEQUENCE,
    compression: str = "none",
) -> memoryview:
    """A writable batch of keyless records; one timestamp for all, or one for each."""
    builder = BatchBuilder()
    stamps = [timestamp_ms] * len(values) if isinstance(timestamp_ms, int) else timestamp_ms
    for value, stamp in zip(values, stamps, strict=True):
        builder.append(stamp, None, value)
    return memoryview(builder.build(producer_id, producer_epoch, base_sequence, compression))
