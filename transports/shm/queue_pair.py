"""One shm connection as a queue pair: two rings, two source memories, two bells and the bootstrap socket.

Who looks at the ring, and when:

    state    the peer's messages are seen by            left for
    ASLEEP   the bell, which the peer rings once         HOT when there is traffic while the engine spins
    HOT      the provider, in every poll of the spin     ASLEEP after HOT_FOR_NS without traffic, or when
                                                         the engine stops spinning
    DEAD     nobody: `failed` was called
    CLOSED   nobody: `close` was called, all is given back

A turn of the loop (`_turn`) does in ASLEEP what the provider's poll does in HOT; it also does what was left
over, such as the rest of a READ. The peer's death is the end of its socket. What it had sent before lies in the
ring and is delivered first; `failed` comes after.
"""

from __future__ import annotations

import asyncio
import mmap
import os
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from frieda.errors import (
    BrokenError,
    BusyError,
    ClosedError,
    LocalProtocolError,
    RemoteProtocolError,
    TransportError,
)
from frieda.transports.base import Bytes
from frieda.transports.buffers import Lease
from frieda.transports.rdma.provider import (
    ChannelLimits,
    CompletionHandler,
    RemoteMemory,
    Source,
)
from frieda.transports.shm.layout import Layout
from frieda.transports.shm.ring import ReceiveRing, SendRing
from frieda.transports.shm.sources import Read, SourceAllocator

if TYPE_CHECKING:
    from frieda.transports.rdma.link import Link
    from frieda.transports.shm.provider import ShmProvider

MOST_AT_ONCE: Final = 16
"""How many messages one poll of one queue pair delivers."""
KEPT_SOURCE_BYTES: Final = 512 * 1024
"""How much source memory a connection keeps when it has offered nothing for REST_S; the kernel gets the rest."""
REST_S: Final = 5.0


class ShmSource:
    """A part of this side's source memory."""

    __slots__ = ("_offset", "_pair", "remote", "view")

    def __init__(
        self, pair: ShmQueuePair, offset: int, view: memoryview, remote: RemoteMemory
    ) -> None:
        self.view = view
        self.remote = remote
        self._pair: ShmQueuePair | None = pair
        self._offset = offset

    def release(self) -> None:
        """The peer is done with it. Raises LocalProtocolError when it was released before."""
        pair, self._pair = self._pair, None
        if pair is None:
            raise LocalProtocolError("a source was released twice")
        self.view.release()
        pair._source_released(self._offset)


class ShmQueuePair:
    """Made by the handshake. `side` is 0 for the client's end and 1 for the broker's.

    Owns the mapping, the link, both bells and its private receive slots from the moment it is made.
    """

    def __init__(
        self,
        provider: ShmProvider,
        link: Link,
        region: mmap.mmap,
        limits: ChannelLimits,
        *,
        side: int,
        own_bell: int,
        peer_bell: int,
        key: int,
    ) -> None:
        layout = Layout.of(limits)
        outgoing, incoming = layout.directions[side], layout.directions[1 - side]
        self.hot = False
        self.active = False
        """Was there traffic since the provider last looked?"""
        self.active_ns = 0
        """When the provider last saw it active."""
        self._provider = provider
        self._loop = asyncio.get_running_loop()
        self._link = link
        self._limits = limits
        self._region = region
        self._shared = memoryview(region)
        self._slots_memory = mmap.mmap(-1, limits.window * limits.slot_bytes)
        with memoryview(self._slots_memory) as slots:
            self._receive_slots = tuple(
                slots[start : start + limits.slot_bytes]
                for start in range(0, len(slots), limits.slot_bytes)
            )
        self._send_ring = SendRing(self._shared, layout, outgoing)
        self._receive_ring = ReceiveRing(self._shared, layout, incoming, self._receive_slots)
        self._put = self._send_ring.put
        self._take = self._receive_ring.take
        sources_bytes = layout.source_bytes
        self._own_sources = self._shared[outgoing.sources_at :][:sources_bytes]
        self._peer_sources = self._shared[incoming.sources_at :][:sources_bytes]
        self._allocator = SourceAllocator(sources_bytes, limits.max_reads)
        self._sources: dict[int, ShmSource] = {}  # those that are out, by offset
        self._sources_at = outgoing.sources_at
        self._offered = False  # has there been a source since the trimmer last looked?
        self._trimmer: asyncio.TimerHandle | None = None
        self._own_key, self._peer_key = key + side, key + 1 - side
        self._own_bell = own_bell
        self._peer_bell = peer_bell
        self._handler: CompletionHandler | None = None
        self._reads: deque[Read] = deque()
        self._unreported = 0  # SENDs since the last signaled one
        self._reportable = 0  # SENDs up to the last signaled one, not reported yet
        self._failure: TransportError | None = None
        self._ended = False
        self._after_end = 0  # messages delivered since the peer's end
        self._chores = False  # is there anything to do but receiving?
        self._turn_is_due = False
        self._closed = False

    # ---- QueuePair

    @property
    def peer(self) -> str:
        return self._link.peer

    @property
    def limits(self) -> ChannelLimits:
        return self._limits

    @property
    def receive_slots(self) -> Sequence[memoryview]:
        return self._receive_slots

    @property
    def send_room(self) -> int:
        if self._closed or self._failure is not None:
            return 0
        try:
            return self._send_ring.room
        except RemoteProtocolError as error:
            self._fail(error)
            return 0

    def start(self, handler: CompletionHandler) -> None:
        self._check()
        self._handler = handler
        self._loop.add_reader(self._own_bell, self._bell_rang)
        self._link.watch(self._peer_ended)
        self._schedule()

    def post_send(self, pieces: Sequence[Bytes], signaled: bool) -> None:
        # Flat: every message passes here.
        if self._failure is not None or self._closed:
            self._check()
        try:
            if self._put(pieces):
                self._ring()
        except RemoteProtocolError as error:
            raise self._fail(error) from error
        self.active = True
        self._unreported += 1
        if signaled:
            self._reportable += self._unreported
            self._unreported = 0
            self._chores = True
        if not self.hot and not self._provider.warm(self) and self._chores:
            self._schedule()

    def post_receive(self, slot: int) -> None:
        self._receive_ring.post(slot)

    def post_read(self, work_id: int, lease: Lease, position: int, remote: RemoteMemory) -> None:
        self._check()
        address, key, size = remote
        if (
            key != self._peer_key
            or address < 0
            or size < 1
            or address + size > len(self._peer_sources)
        ):
            raise BrokenError(
                f"{self.peer} announced {size} bytes at {address} under key {key}, which is no memory of its own"
            )
        if not 0 <= position <= len(lease.view) - size:
            raise LocalProtocolError(
                f"a READ of {size} bytes to position {position} does not fit {len(lease.view)} bytes"
            )
        if len(self._reads) >= self._limits.max_reads:
            raise BusyError(f"{self._limits.max_reads} READs are in flight already")
        target = lease.view[position : position + size]
        self._reads.append(Read(work_id, target, self._peer_sources[address : address + size]))
        self._chores = self.active = True
        if not self.hot and not self._provider.warm(self):
            self._schedule()

    def take_source(self, size_bytes: int) -> Source | None:
        self._check()
        taken = self._allocator.take(size_bytes)
        if taken is None:
            return None
        self._offered = True
        offset, size = taken
        view = self._own_sources[offset : offset + size]
        source = ShmSource(self, offset, view, RemoteMemory(offset, self._own_key, size))
        self._sources[offset] = source
        return source

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._stop()
        if self._trimmer is not None:
            self._trimmer.cancel()
        self._link.close()
        os.close(self._own_bell)
        os.close(self._peer_bell)
        for source in list(self._sources.values()):
            source.release()
        self._send_ring.release()
        self._receive_ring.release()
        for view in (self._own_sources, self._peer_sources, self._shared, *self._receive_slots):
            view.release()
        for memory in (self._region, self._slots_memory):
            # Where somebody still has a view of it, the memory goes with the last of those.
            with suppress(BufferError):
                memory.close()
        del self._region, self._slots_memory

    # ---- from the provider and the loop

    def poll(self) -> int:
        """Deliver what is there, bounded; how much that was."""
        # Flat: this is what the engine's inner spin calls.
        found = 0
        take = self._take
        try:
            while found < MOST_AT_ONCE:
                size = take()
                if not size:
                    break
                found += 1
                self.active = True
                self._handler.received(self._receive_ring.slot, size)  # type: ignore[union-attr]
                if self._handler is None:
                    return found
            if self._chores:
                found += self._do_chores(found)
        except RemoteProtocolError as error:
            self._fail(error)
            self._do_chores(found)
        except Exception as error:  # noqa: BLE001 - a handler must not take the other queue pairs with it
            self._loop.call_exception_handler(
                {"message": f"the handler of {self.peer} failed", "exception": error}
            )
            self._fail(BrokenError(f"{self.peer}: the handler failed: {error!r}"))
        return found

    def sleep(self) -> bool:
        """Leave the spin: from now on the peer rings. False when there is something to do already."""
        if self._chores or not self._receive_ring.sleep():
            return False
        self.hot = False
        return True

    def wake(self) -> None:
        """Join the spin."""
        self._receive_ring.wake()
        self.hot = True

    def settle(self) -> None:
        """After a look outside of the spin: join it, or sleep, or look again soon."""
        if self._handler is not None and not self._provider.warm(self) and not self.sleep():
            self._schedule()

    # ---- inside

    def _turn(self) -> None:
        self._turn_is_due = False
        if self._handler is None:
            return
        if self.poll():
            self._provider.note_activity()
        if not self.hot:
            self.settle()

    def _schedule(self) -> None:
        if not self._turn_is_due:
            self._turn_is_due = True
            self._loop.call_soon(self._turn)

    def _bell_rang(self) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self._own_bell)
        self._turn()

    def _ring(self) -> None:
        # It refuses only when it counts to the end, and then it rings already.
        with suppress(BlockingIOError):
            os.eventfd_write(self._peer_bell, 1)

    def _source_released(self, offset: int) -> None:
        del self._sources[offset]
        self._allocator.give_back(offset)
        if (
            self._trimmer is None
            and not self._sources
            and not self._closed
            and self._allocator.touched_bytes > KEPT_SOURCE_BYTES
        ):
            self._trimmer = self._loop.call_later(REST_S, self._trim)

    def _trim(self) -> None:
        """After a rest, give pages back that only large messages needed: the peer reads none without a source."""
        self._trimmer = None
        offered, self._offered = self._offered, False
        if self._sources:
            return  # the release of the last one begins a new rest
        if offered:
            self._trimmer = self._loop.call_later(REST_S, self._trim)
            return
        size = self._allocator.touched_bytes - KEPT_SOURCE_BYTES
        self._region.madvise(mmap.MADV_REMOVE, self._sources_at + KEPT_SOURCE_BYTES, size)
        self._allocator.touched_bytes = KEPT_SOURCE_BYTES

    def _peer_ended(self, error: TransportError | None) -> None:
        if error is not None:
            self._fail(error)
        self._ended = self._chores = True
        self._schedule()

    def _do_chores(self, delivered: int) -> int:
        """What a poll does beside delivering; how much that was. `delivered`: how many messages this poll did."""
        handler = self._handler
        if handler is None:
            return 0
        if self._failure is not None:
            self._stop()
            handler.failed(self._failure)
            return 1
        done = 0
        if self._reportable:
            count, self._reportable = self._reportable, 0
            done += 1
            handler.sent(count)
        if self._reads and self._handler is not None:
            done += 1
            if self._reads[0].step():
                handler.read_finished(self._reads.popleft().work_id)
        if self._handler is None:
            return done
        if self._ended:
            # A ring holds no more than a window, whatever a process that outlives its socket still writes.
            self._after_end += delivered
            if delivered < MOST_AT_ONCE or self._after_end >= self._limits.window:
                self._stop()
                handler.failed(None)
                return done + 1
        self._chores = bool(self._reads or self._reportable or self._ended or self._failure)
        return done

    def _fail(self, error: TransportError | RemoteProtocolError) -> TransportError:
        """The first cause counts; `failed` tells it in a poll."""
        if self._failure is None:
            if isinstance(error, RemoteProtocolError):
                self._failure = BrokenError(f"{self.peer}: {error}")
                self._failure.__cause__ = error
            else:
                self._failure = error
            self._chores = True
            if self._handler is not None:
                self._schedule()
        return self._failure

    def _check(self) -> None:
        if self._closed:
            raise ClosedError(f"the connection to {self.peer} is closed")
        if self._failure is not None:
            raise self._failure

    def _stop(self) -> None:
        """Nothing is looked at and nothing is told any more."""
        if self._handler is not None:
            self._handler = None
            self._loop.remove_reader(self._own_bell)
        self._provider.cool(self)
        self._chores = False
        for read in self._reads:
            read.release()
        self._reads.clear()
