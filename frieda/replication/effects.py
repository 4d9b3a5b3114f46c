"""What the replication state machines want done: values for the driver, in the order in which to do them. PURE."""

from __future__ import annotations

from typing import NamedTuple

from frieda.errors import ErrorCode
from frieda.replication.messages import ReplicationMessage


class Send(NamedTuple):
    """Send a message to another broker. To lose it is no error."""

    to: int
    message: ReplicationMessage


class Read(NamedTuple):
    """Read whole batches from the log's `offset` on, at most `max_bytes` but at least one; then `Leader.read_done`."""

    follower: int
    stream: int
    offset: int
    max_bytes: int


class Cut(NamedTuple):
    """Cut the log to `offset` (`reset`: drop all of it and start there); then `Follower.cut_done`.

    below_high_watermark: committed records go, which only an unclean election or lost disks explain: say so loudly.
    """

    offset: int
    reset: bool
    below_high_watermark: bool


class Acknowledge(NamedTuple):
    """Answer a produce. `token` is the caller's; `error` None says that its promise holds."""

    token: object
    error: ErrorCode | None


class Advanced(NamedTuple):
    """Readers may see up to here now."""

    high_watermark: int


class Propose(NamedTuple):
    """Write this ISR by compare-and-set, then `Leader.state_changed` or `Leader.proposal_refused`.

    While the outcome is not known the same proposal is sent again, never another. incarnations: of the members that
    are added: the write must fail when one of them has been registered anew since (KIP-903).
    """

    expected_version: int
    isr: tuple[int, ...]
    incarnations: tuple[tuple[int, str], ...]


class Sealed(NamedTuple):
    """A leadership that is to be handed over takes no more, and all in sync have everything."""

    end_offset: int


class Deposed(NamedTuple):
    """There is a younger leadership, or none: this one has stopped. Look at the metadata."""

    leader_epoch: int


class AppendFailed(NamedTuple):
    """A follower's log took no append; the leader will come again."""

    code: ErrorCode
    detail: str


Effect = (
    Send | Read | Cut | Acknowledge | Advanced | Propose | Sealed | Deposed | AppendFailed
)  # fmt: skip
