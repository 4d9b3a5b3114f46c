"""What a channel needs of a device: queue pairs, registered memory and completions, and nothing else.

Two providers keep this contract: `verbs` (a real HCA or soft-RoCE) and `shm` (the same work-queue semantics
over shared memory); tests have a third that delivers completions late, out of order and with errors.

    who        owns                                                        closed by
    Transport  the provider (device context, completion queue, poll source) its listener and connections gone
    Channel    one QueuePair, from connect or accept until `close`          Channel, exactly once

Work requests
    A SEND carries at most `limits.slot_bytes` and lands in the peer's oldest (or any) posted receive, in the
    order of sending. A provider never sends where the peer has no receive posted: that is the channel's duty,
    by credits, and a SEND without one is an error of the queue pair. A READ copies from the peer's source
    memory into a lease of this side's pool; READs finish in any order, and nothing is said about a READ and
    the SENDs posted after it.

Completions
    They reach the `CompletionHandler` from within the provider's `PollSource.poll`, on the event loop, never
    from inside a `post_*` call. Their number in one poll is bounded. After `failed` nothing more comes.
    A source, a lease under a READ and a receive slot belong to the device until their completion or `close`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from frieda.transports.base import Bytes

if TYPE_CHECKING:
    from frieda.errors import TransportError
    from frieda.transports.buffers import Lease


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelLimits:
    """What both sides agreed in the bootstrap: of each figure the smaller one. Checked before memory is taken."""

    slot_bytes: int = 32 * 1024
    """The largest SEND, and the size of every receive slot."""
    window: int = 32
    """How many receives each side posts, so how many SENDs may be unconsumed in each direction."""
    max_reads: int = 8
    """How many READs each side may have in flight, so how many sources the peer may offer at once."""
    source_bytes: int = 4 * 1024 * 1024
    """How much memory each side has for the sources of READs on one connection."""
    max_message_bytes: int = 17 * 1024 * 1024
    """The largest message of the transport."""


class RemoteMemory(NamedTuple):
    """A range of the peer's memory that may be READ, as the peer announced it."""

    address: int
    key: int
    size_bytes: int


class Source(Protocol):
    """Memory of this side that the peer may READ while it is held, under a key of its own."""

    @property
    def view(self) -> memoryview:
        """Where to put what the peer shall READ: writable, of the granted size."""
        ...

    @property
    def remote(self) -> RemoteMemory:
        """What to tell the peer."""
        ...

    def release(self) -> None:
        """The peer has said that it is done. Exactly once; `QueuePair.close` does it for what is left."""
        ...


class CompletionHandler(Protocol):
    """Who is told what has finished on one queue pair. Nothing here may raise."""

    def received(self, slot: int, size_bytes: int) -> None:
        """A SEND of the peer fills the first `size_bytes` of this slot, which is ours until posted again."""
        ...

    def sent(self, count: int) -> None:
        """The oldest `count` SENDs that were not reported yet are with the peer (selective signalling)."""
        ...

    def read_finished(self, work_id: int) -> None:
        """The READ with this `work_id` is complete in its lease."""
        ...

    def failed(self, error: TransportError | None) -> None:
        """The queue pair is dead: the first cause, or None when the peer's process ended the link. Called once."""
        ...


class QueuePair(Protocol):
    """One reliable connection. Nothing blocks; nothing is delivered before `start` nor after `close`.

    Every `post_*` raises TransportError when the queue pair is in the error state; `failed` follows from a poll
    when it was not called yet. That error should name the first cause: the connection is told of no other.
    """

    @property
    def peer(self) -> str:
        """Who is on the other side, for people to read."""
        ...

    @property
    def limits(self) -> ChannelLimits:
        """What was agreed."""
        ...

    @property
    def receive_slots(self) -> Sequence[memoryview]:
        """`limits.window` writable views of `limits.slot_bytes` in registered memory; all posted at the start."""
        ...

    @property
    def send_room(self) -> int:
        """How many SENDs may be posted before a completion must be waited for. Read once, before the first."""
        ...

    def start(self, handler: CompletionHandler) -> None:
        """Completions go to `handler` from the next poll on. The peer is ready (the bootstrap has seen to it)."""
        ...

    def post_send(self, pieces: Sequence[Bytes], signaled: bool) -> None:
        """SEND the joined `pieces`; their bytes are taken before this returns. `signaled`: report with `sent`."""
        ...

    def post_receive(self, slot: int) -> None:
        """The slot may be filled again."""
        ...

    def post_read(self, work_id: int, lease: Lease, position: int, remote: RemoteMemory) -> None:
        """READ `remote` into `lease.view[position:]`. Raises TransportError for a range that cannot be the peer's."""
        ...

    def take_source(self, size_bytes: int) -> Source | None:
        """Memory for a READ of the peer: `size_bytes`, or less (at least one byte), or None when all is in use.

        Raises TransportError in the error state, as a post does.
        """
        ...

    def close(self) -> None:
        """Give back the queue pair, its slots, sources and link; the peer sees `failed`. May be repeated."""
        ...
