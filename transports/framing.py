"""Whole messages out of a stream of bytes: a 4-byte big-endian size, then that many bytes.

PURE: no socket and no event loop. A stream transport reads into `FrameAssembler.get_buffer()` and says how
much came with `advance`; whole messages leave by the `deliver` callback. The rules:

1. A connection at rest owns no buffer. It reads into one receive buffer that all connections of the
   transport share, which is safe because asking for the buffer, reading into it and `advance` happen
   without anything in between.
2. Messages that lie whole in the shared buffer are delivered from there (lease None).
3. A message that does not gets a lease of its own size; the rest of it is read straight into that.
4. A size is checked before any memory is taken for it.
5. Nothing is lost: where delivery is held or no lease is free, what was read already is parked, and the
   owner must not read on until `can_read` is true again.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import TYPE_CHECKING, Final

from frieda.errors import RemoteProtocolError

if TYPE_CHECKING:
    from frieda.transports.buffers import BufferPool, Lease

SIZE_BYTES: Final = 4

_SIZE: Final = Struct(">i")
pack_size: Final = Struct(">I").pack
"""The four bytes in front of a message of this size."""


def announced_size(buffer: memoryview, position: int, max_message_bytes: int) -> int:
    """The size at `position` (four bytes must be there). Raises RemoteProtocolError when it is not legal."""
    size: int = _SIZE.unpack_from(buffer, position)[0]
    if 0 < size <= max_message_bytes:
        return size
    if size > 0:
        raise RemoteProtocolError(
            f"a message of {size} bytes is announced; at most {max_message_bytes} are allowed here"
        )
    raise RemoteProtocolError(
        f"a message size of {size} is announced; it must be from 1 to {max_message_bytes} "
        "(does the peer speak this protocol?)"
    )


class FrameAssembler:
    """The receiving half of one connection.

    Owner: the connection. It calls `discard` at the end, which releases every lease held here.
    `deliver` may call `hold` and `discard`; its exceptions leave through `advance` and `resume`.
    """

    __slots__ = (
        "_discarded",
        "_granted",
        "_held",
        "_lease",
        "_parked",
        "_parked_lease",
        "_pool",
        "_prefix",
        "_rest",
        "_shared",
        "begun",
        "deliver",
        "max_message_bytes",
        "wanted_bytes",
    )

    def __init__(
        self,
        shared: memoryview,
        pool: BufferPool,
        max_message_bytes: int,
        deliver: Callable[[memoryview, Lease | None], None],
    ) -> None:
        self.deliver = deliver
        self.max_message_bytes = max_message_bytes
        self.begun = 0
        """How many messages did not come whole; a new number means that another one is under way."""
        self.wanted_bytes = 0
        """Above 0: no lease of this size was free; `grant` one, then `resume`."""
        self._shared = shared
        self._pool = pool
        self._prefix = b""  # the first 1 to 3 bytes of a size
        self._lease: Lease | None = None  # the message that has begun, and
        self._rest: memoryview | None = None  # the part of it that has not come
        self._parked: memoryview | None = None
        self._parked_lease: Lease | None = None
        self._granted: Lease | None = None
        self._held = False
        self._discarded = False

    @property
    def can_read(self) -> bool:
        """May more bytes be read now?"""
        return not self._held and self._parked is None

    @property
    def mid_message(self) -> bool:
        """Has a message begun to arrive that is not whole?"""
        return self._rest is not None or bool(self._prefix) or self.wanted_bytes > 0

    @property
    def holds_buffer(self) -> bool:
        """Does the message that is under way have a buffer of its own?"""
        return self._rest is not None

    def get_buffer(self, _size_hint: int = -1) -> memoryview:
        """Where the next bytes go. Valid until `advance`, or the next call of any connection's."""
        if self._rest is not None:
            return self._rest
        if self._prefix:
            known = len(self._prefix)
            self._shared[:known] = self._prefix
            return self._shared[known:]
        return self._shared

    def advance(self, count: int) -> bool:
        """`count` bytes have come into the buffer that `get_buffer` gave.

        True: all of it was delivered and more may be read. False: look at `mid_message` and `can_read`.
        Raises RemoteProtocolError for an illegal size, and what `deliver` raises.
        """
        shared = self._shared
        rest = self._rest
        if rest is None:
            if self._prefix:
                count += len(self._prefix)
                self._prefix = b""
                self._consume(shared[:count], continued=True)
                return self._at_rest()
            if count > SIZE_BYTES and not self._held:
                # One whole message and nothing else: nearly every read of a request-response load.
                size = _SIZE.unpack_from(shared)[0]
                if size + SIZE_BYTES == count and size <= self.max_message_bytes:
                    self.deliver(shared[SIZE_BYTES:count], None)
                    return not self._held
            self._consume(shared[:count])
            return self._at_rest()
        if count < len(rest):
            self._rest = rest[count:]
        else:
            lease = self._lease
            assert lease is not None
            self._rest = self._lease = None
            self._pool.arriving_bytes -= len(lease.view)
            try:
                self.deliver(lease.view, lease)
            finally:
                lease.release()
        return self._at_rest()

    def hold(self) -> None:
        """Deliver nothing more until `unhold` and `resume`."""
        self._held = True

    def unhold(self) -> None:
        """Delivery may go on; `resume` delivers what was parked."""
        self._held = self._discarded

    def grant(self, lease: Lease) -> None:
        """The lease of `wanted_bytes` that the message in front waits for; it now belongs here."""
        if self._discarded:
            lease.release()
            return
        self._granted = lease
        self.wanted_bytes = 0

    def resume(self) -> None:
        """Deliver what was parked, as far as it goes. Does nothing while held or short of a lease."""
        parked, owner = self._parked, self._parked_lease
        if parked is None or self._held or self.wanted_bytes:
            return
        self._parked = self._parked_lease = None
        try:
            self._consume(parked, owned=True, owner=owner)
        finally:
            if owner is not None:
                owner.release()
            granted, self._granted = self._granted, None
            if granted is not None:  # delivery was held again before the message got it
                granted.release()

    def discard(self) -> None:
        """The end: nothing more is delivered and every lease held here is released. May be repeated."""
        self._held = self._discarded = True
        if self._lease is not None:
            self._pool.arriving_bytes -= len(self._lease.view)
        leases = (self._lease, self._parked_lease, self._granted)
        self._lease = self._parked_lease = self._granted = None
        self._rest = self._parked = None
        self._prefix = b""
        self.wanted_bytes = 0
        for lease in leases:
            if lease is not None:
                lease.release()

    def _at_rest(self) -> bool:
        return self._rest is None and not self._prefix and not self._held and self._parked is None

    def _consume(
        self,
        view: memoryview,
        *,
        continued: bool = False,
        owned: bool = False,
        owner: Lease | None = None,
    ) -> None:
        """Deliver every whole message in `view` and keep the rest.

        `continued`: the first message began before. `owned`: the view is ours already, in the lease `owner`
        or outside the pool.
        """
        position, end = 0, len(view)
        while position < end and not self._held:
            if end - position < SIZE_BYTES:
                self._prefix = bytes(view[position:end])
                self.begun += position > 0 or not continued
                return
            size = announced_size(view, position, self.max_message_bytes)
            start = position + SIZE_BYTES
            stop = start + size
            if stop > end:
                self.begun += position > 0 or not continued
                lease = self._granted or self._pool.lease(size)
                self._granted = None
                if lease is None:
                    self.wanted_bytes = size
                    break
                known = end - start
                lease.view[:known] = view[start:end]
                self._lease = lease
                self._rest = lease.view[known:]
                self._pool.arriving_bytes += size
                return
            position = stop
            self.deliver(view[start:stop], None)
        if position < end and not self._discarded:
            self._park(view[position:], owned, owner)

    def _park(self, view: memoryview, owned: bool, owner: Lease | None) -> None:
        if owned:
            if owner is not None:
                owner.retain()
            self._parked, self._parked_lease = view, owner
            return
        lease = self._pool.lease(len(view))
        if lease is not None:
            lease.view[:] = view
            self._parked, self._parked_lease = lease.view, lease
        else:
            # Bounded by the shared buffer's size for each connection, and only while the pool is empty.
            self._pool.overflows += 1
            self._parked, self._parked_lease = memoryview(bytearray(view)), None
