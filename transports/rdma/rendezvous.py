"""Large messages: the receiver READs them out of the sender's memory.

    sender                                         receiver
    copy chunk 1 into a source     -- RTS 1 -->    lease a buffer of the message's size
    copy chunk 2 into a source     -- RTS 2 -->    READ 1 into it            (the copy of 2 overlaps the READ of 1)
    source 1 is free               <-- FIN 1 --    READ 1 complete
    ...                                            all chunks complete: the message is delivered in its lease

PURE: it takes sources and posts READs through what it is given, and says what has to be sent; frames and
credits are the channel's. A message is cut into chunks of at most CHUNK_BYTES, or less where a connection has little
memory for sources, so that large ones need no memory of their own size and flow as a pipeline.

What a peer announces is bounded: at most `max_reads` chunks without their FIN, and a message only begins when the
one before has been announced to its end, so incomplete messages are bounded too, before memory is taken.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from frieda.errors import LocalProtocolError, RemoteProtocolError
from frieda.transports.base import Bytes
from frieda.transports.rdma.frames import MAX_FINS, Chunk
from frieda.transports.rdma.provider import ChannelLimits, RemoteMemory, Source

if TYPE_CHECKING:
    from frieda.transports.buffers import BufferPool, BufferWaiter, Lease

CHUNK_BYTES: Final = 512 * 1024
"""The largest chunk: small enough that copying one does not hold the loop for long."""
LEAST_GRANT_BYTES: Final = 16 * 1024
"""A source smaller than this (and than what is needed) is not worth a READ while others will come free."""
COPY_AT_ONCE_BYTES: Final = 2 * CHUNK_BYTES
"""About so much is copied before the loop has its turn; a FIN for any of it brings the next."""


class _LargeMessage:
    """A message that is being offered. `position`: so much of it lies in sources or has been READ."""

    __slots__ = ("body", "chunk_bytes", "head", "lease", "position", "size_bytes")

    def __init__(
        self,
        head: memoryview,
        body: memoryview | None,
        lease: Lease | None,
        size_bytes: int,
        chunk_bytes: int,
    ) -> None:
        self.head = head
        self.body = body
        self.lease = lease
        self.size_bytes = size_bytes
        self.position = 0
        self.chunk_bytes = -(-size_bytes // -(-size_bytes // chunk_bytes))  # equal ones

    def copy(self, into: memoryview) -> None:
        """Fill `into` with the bytes from `position` on."""
        start, end = self.position, self.position + len(into)
        cut = len(self.head)
        done = 0
        if start < cut:
            done = min(end, cut) - start
            into[:done] = self.head[start : start + done]
        if done < len(into) and self.body is not None:
            into[done:] = self.body[max(start - cut, 0) : end - cut]


class OutgoingLarge:
    """What this side offers. Owner: the channel, which calls `discard` at the end, after the queue pair's close."""

    __slots__ = (
        "_chunk_bytes",
        "_max_reads",
        "_messages",
        "_next_id",
        "_take_source",
        "queued_bytes",
        "sources",
    )

    def __init__(self, take_source: Callable[[int], Source | None], limits: ChannelLimits) -> None:
        self.queued_bytes = 0
        """What has been sent and does not lie in a source yet."""
        self.sources: dict[int, Source] = {}
        """By the id of its chunk, what the peer has not said FIN to."""
        self._messages: deque[_LargeMessage] = deque()
        self._take_source = take_source
        self._max_reads = limits.max_reads
        self._chunk_bytes = max(1, min(CHUNK_BYTES, limits.source_bytes // 4))
        self._next_id = 0

    def __bool__(self) -> bool:
        return bool(self._messages)

    def append(self, head: Bytes, body: Bytes | None, lease: Lease | None, size_bytes: int) -> None:
        """Queue a message of any size."""
        self._messages.append(
            _LargeMessage(
                memoryview(head),
                None if body is None else memoryview(body),
                lease,
                size_bytes,
                self._chunk_bytes,
            )
        )
        self.queued_bytes += size_bytes

    def next_chunk(self) -> Chunk | None:
        """Copy the next chunk into a source; None when there is no message or no source for it."""
        if not self._messages or len(self.sources) >= self._max_reads:
            return None
        message = self._messages[0]
        wanted = min(message.chunk_bytes, message.size_bytes - message.position)
        source = self._take_source(wanted)
        if source is None:
            return None
        view = source.view[:wanted]
        size = len(view)
        if size < min(wanted, LEAST_GRANT_BYTES) and self.sources:
            source.release()
            return None
        message.copy(view)
        address, key, _ = source.remote
        id_ = self._next_id
        self._next_id = (id_ + 1) & 0xFFFFFFFF
        self.sources[id_] = source
        chunk = Chunk(id_, message.size_bytes, message.position, RemoteMemory(address, key, size))
        message.position += size
        self.queued_bytes -= size
        if message.position == message.size_bytes:
            self._messages.popleft()
            if message.lease is not None:
                message.lease.release()
        return chunk

    def finished(self, id_: int) -> None:
        """The peer said FIN. Raises RemoteProtocolError for a chunk that is not offered."""
        source = self.sources.pop(id_, None)
        if source is None:
            raise RemoteProtocolError(f"a FIN for chunk {id_}, which is not offered")
        source.release()

    def discard(self) -> None:
        """Forget everything that is queued and release every lease. May be repeated."""
        messages, self._messages = self._messages, deque()
        self.queued_bytes = 0
        for message in messages:
            if message.lease is not None:
                message.lease.release()


class ArrivingMessage:
    """A message that the peer has announced, wholly or in part."""

    __slots__ = (
        "announced",
        "arrived",
        "lease",
        "reads",
        "since",
        "total_bytes",
        "unread",
        "waiter",
    )

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self.announced = 0
        self.arrived = 0
        self.reads = 0
        """How many READs into its lease are in flight."""
        self.unread: list[Chunk] = []
        """Announced and without a READ yet."""
        self.lease: Lease | None = None
        self.waiter: BufferWaiter | None = None
        self.since = 0
        """For the deadline: the sweep before it began; 0: it has not."""


class PostRead(Protocol):
    """As `QueuePair.post_read`."""

    def __call__(
        self, work_id: int, lease: Lease, position: int, remote: RemoteMemory, /
    ) -> None: ...


class IncomingLarge:
    """What the peer offers. Owner: the channel, which calls `discard` at the end, after the queue pair's close."""

    __slots__ = (
        "_current",
        "_granted",
        "_max_message_bytes",
        "_max_reads",
        "_next_work_id",
        "_pool",
        "_post_read",
        "_reads",
        "_throwing_away",
        "_unfinished",
        "fins",
        "messages",
    )

    def __init__(
        self,
        pool: BufferPool,
        post_read: PostRead,
        limits: ChannelLimits,
        granted: Callable[[], None],
    ) -> None:
        self.messages: dict[ArrivingMessage, None] = {}
        """Those that are not complete."""
        self.fins: list[int] = []
        """Chunks that are done; the channel sends what `take_fins` gives."""
        self._pool = pool
        self._post_read = post_read
        self._granted = granted
        self._max_reads = limits.max_reads
        self._max_message_bytes = limits.max_message_bytes
        self._current: ArrivingMessage | None = None
        self._unfinished = 0  # chunks whose FIN the peer cannot have seen
        self._reads: dict[int, tuple[ArrivingMessage, Chunk]] = {}
        self._next_work_id = 0
        self._throwing_away = False

    def announced(self, chunk: Chunk) -> ArrivingMessage | None:
        """The peer offers a chunk: its message, which `start` reads; None when it is thrown away.

        Raises RemoteProtocolError when it may not offer this now.
        """
        id_, total, position, memory = chunk
        if self._unfinished >= self._max_reads:
            raise RemoteProtocolError(
                f"the peer offers more than {self._max_reads} chunks at once for READ"
            )
        message = self._current
        if message is None:
            message = ArrivingMessage(total)
        if (total, position) != (message.total_bytes, message.announced):
            raise RemoteProtocolError(
                f"an RTS announces position {position} of a message of {total} bytes; expected was "
                f"position {message.announced}"
                + (f" of one of {message.total_bytes}" if message.announced else "")
            )
        self._unfinished += 1
        message.announced = position + memory.size_bytes
        self._current = None if message.announced == total else message
        if self._throwing_away:
            self.fins.append(id_)
            return None
        message.unread.append(chunk)
        self.messages[message] = None
        return message

    def start(self, message: ArrivingMessage) -> bool:
        """Post the READs of `message`, once it has a buffer: False while it has none.

        Raises TransportError when the device refuses. `granted` is called when a buffer came free: then
        call `start_granted`, but not from within that call.
        """
        lease = message.lease
        if lease is None:
            if message.waiter is None:
                message.lease = lease = self._pool.lease(message.total_bytes)
            if lease is None:
                if message.waiter is None:
                    message.waiter = self._pool.when_free(
                        message.total_bytes, lambda granted: self._grant(message, granted)
                    )
                return False
        unread, message.unread = message.unread, []
        for chunk in unread:
            work_id = self._next_work_id
            self._next_work_id = work_id + 1
            self._reads[work_id] = (message, chunk)
            message.reads += 1
            self._post_read(work_id, lease, chunk.position, chunk.memory)
        return True

    def start_granted(self) -> None:
        """Post the READs of all messages that have a buffer. Raises TransportError."""
        for message in list(self.messages):
            if message.lease is not None and message.unread:
                self.start(message)

    def start_all(self) -> None:
        """Begin with those that have not begun. Raises TransportError."""
        for message in list(self.messages):
            if message.unread:
                self.start(message)

    def read_finished(self, work_id: int) -> Lease | None:
        """A READ is complete: the lease of its message when that is complete too. It is the caller's."""
        found = self._reads.pop(work_id, None)
        if found is None:
            raise LocalProtocolError(f"the device finished a READ {work_id} that was not posted")
        message, chunk = found
        message.reads -= 1
        message.arrived += chunk.memory.size_bytes
        self.fins.append(chunk.id)
        if self._throwing_away:
            self._drop_if_idle(message)
        elif message.arrived == message.total_bytes:
            del self.messages[message]
            lease, message.lease = message.lease, None
            return lease
        return None

    def take_fins(self) -> list[int]:
        """The next of `fins`, to be sent now."""
        taken = self.fins[:MAX_FINS]
        del self.fins[:MAX_FINS]
        self._unfinished -= len(taken)
        return taken

    def throw_away(self) -> None:
        """From now on nothing is delivered: what is offered is answered with FIN, unread."""
        self._throwing_away = True
        for message in list(self.messages):
            self._stop_waiting(message)
            self.fins += [chunk.id for chunk in message.unread]
            message.unread.clear()
            self._drop_if_idle(message)

    def discard(self) -> None:
        """The device is closed: release every lease. May be repeated."""
        messages, self.messages = self.messages, {}
        self._reads.clear()
        self._current = None
        for message in messages:
            self._stop_waiting(message)
            if message.lease is not None:
                message.lease.release()
                message.lease = None

    def _grant(self, message: ArrivingMessage, lease: Lease) -> None:
        message.waiter = None
        message.lease = lease
        self._granted()

    def _stop_waiting(self, message: ArrivingMessage) -> None:
        if message.waiter is not None:
            message.waiter.cancel()
            message.waiter = None

    def _drop_if_idle(self, message: ArrivingMessage) -> None:
        """A lease belongs to the device as long as a READ into it is in flight."""
        if message.reads == 0:
            self.messages.pop(message, None)
            if message.lease is not None:
                message.lease.release()
                message.lease = None
