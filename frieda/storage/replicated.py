"""What a follower checks of batches before they go into its log as they are. PURE.

Their leader has checked what a producer sent; here only the way in between is looked at, and that they go on where
the log ends. Base offset and leader epoch lie outside the checksum of a batch, so each is held against what
it must be: all later reconciliation of replicas rests on them (KIP-101).
"""

from __future__ import annotations

from typing import Final

from frieda.errors import BrokerError, ErrorCode
from frieda.wire.batch import BatchHeader, crc_matches, read_header

LENGTH_STARTS_AT: Final = 12
"""A batch's length counts what lies behind base offset and length."""


def check_replicated(
    batches: memoryview, end_offset: int, latest_epoch: int, leader_epoch: int
) -> list[tuple[BatchHeader, memoryview]]:
    """The batches that fill `batches`, each with its header.

    end_offset, latest_epoch: of the log they are for; leader_epoch: of the leadership that they come from. Raises
    BrokerError: CORRUPT_MESSAGE (damaged on the way, or not whole), OFFSET_OUT_OF_RANGE (they don't begin where the
    log ends, or leave a gap), FENCED_LEADER_EPOCH (older than the log's latest), INVALID_RECORD (of a leader epoch
    that is still to come).
    """
    found = []
    position, size = 0, len(batches)
    while position < size:
        header = read_header(batches, position)
        last_delta = header.last_offset_delta
        end = position + LENGTH_STARTS_AT + header.batch_length
        batch = batches[position:end]
        if end > size or last_delta < 0 or not crc_matches(batch, header):
            raise BrokerError(
                ErrorCode.CORRUPT_MESSAGE,
                f"a replicated batch that should begin with offset {end_offset} is damaged or not whole",
            )
        if header.base_offset != end_offset:
            raise BrokerError(
                ErrorCode.OFFSET_OUT_OF_RANGE,
                f"a replicated batch begins with offset {header.base_offset} where {end_offset} is next",
            )
        epoch = header.leader_epoch
        if epoch < latest_epoch:
            raise BrokerError(
                ErrorCode.FENCED_LEADER_EPOCH,
                f"the replicated batch at offset {end_offset} has leader epoch {epoch}; "
                f"the log has {latest_epoch} already",
            )
        if epoch > leader_epoch:
            raise BrokerError(
                ErrorCode.INVALID_RECORD,
                f"the replicated batch at offset {end_offset} has leader epoch {epoch}, "
                f"and comes from the leader of epoch {leader_epoch}",
            )
        found.append((header, batch))
        end_offset, latest_epoch, position = end_offset + last_delta + 1, epoch, end
    return found
