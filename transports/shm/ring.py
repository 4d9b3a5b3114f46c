"""The two ends of one direction: a ring of slots in shared memory, written by one process and read by another.

PURE: the memory is given. Why it is right without a lock is argued in `fence`; where things lie, in `layout`.

The other end is not trusted. It may write anything anywhere at any moment, so each shared word is read once,
into a local, and only that local is checked and used; a payload is copied into memory of our own before
anyone looks at it. What is copied while the peer changes it may be any bytes, as might any message be; what can
never happen is an access outside the slot. Whatever cannot be is a RemoteProtocolError, after which the ring
is not used again.

The slot that is looked at next must hold its word of the lap before (nothing new) or a word of this lap with
a size that fits; any other value is nonsense. A producer that writes beyond the slots the consumer has freed is
seen for the same reason: the word is of a later lap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from frieda.errors import BusyError, LocalProtocolError, RemoteProtocolError
from frieda.transports.base import Bytes
from frieda.transports.shm.fence import STRONG, make_fence
from frieda.transports.shm.layout import (
    LAPS,
    PAYLOAD_AT,
    SIZE_BITS,
    WORD,
    DirectionLayout,
    Layout,
)

LAP: Final = 1 << SIZE_BITS
LAST_LAP: Final = LAPS << SIZE_BITS


class SendRing:
    """The producer's end of one direction."""

    __slots__ = (
        "_acquire",
        "_consumed_index",
        "_index",
        "_lap",
        "_modulus",
        "_payloads",
        "_release",
        "_room",
        "_sleeping_index",
        "_slot_bytes",
        "_window",
        "_word_indexes",
        "_words",
    )

    def __init__(self, region: memoryview, layout: Layout, direction: DirectionLayout) -> None:
        self._words = region.cast("I")
        self._payloads = _payloads(region, layout, direction)
        self._word_indexes = _word_indexes(layout, direction)
        self._consumed_index = direction.consumed_at // WORD
        self._sleeping_index = direction.sleeping_at // WORD
        self._slot_bytes = layout.slot_bytes
        self._window = layout.window
        self._modulus = LAPS * layout.window
        self._room = layout.window
        self._index = 0
        self._lap = LAP
        self._release, self._acquire = make_fence()

    @property
    def room(self) -> int:
        """How many slots can be filled before the consumer must free one. Raises RemoteProtocolError."""
        return self._room or self._look_for_room()

    def put(self, pieces: Sequence[Bytes]) -> bool:
        """Fill the next slot with the joined `pieces`; True when the consumer sleeps and its bell must be rung.

        Raises LocalProtocolError for nothing or more than a slot, BusyError when no slot is free,
        RemoteProtocolError when the consumer wrote nonsense; in all cases nothing was sent.
        """
        # Flat: every message passes here.
        if not self._room and not self._look_for_room():
            raise BusyError("all slots of the ring are filled")
        index = self._index
        payload = self._payloads[index]
        size = 0
        for piece in pieces:
            start = size
            size += len(piece)
            if size > self._slot_bytes:
                break
            payload[start:size] = piece
        if not 0 < size <= self._slot_bytes:
            raise LocalProtocolError(
                f"a SEND has at least {size} bytes; it must have 1 to {self._slot_bytes}"
            )
        self._room -= 1
        words = self._words
        if not STRONG:
            self._release()
            self._acquire()
        words[self._word_indexes[index]] = self._lap | size
        index += 1
        if index == self._window:
            index = 0
            self._lap = self._lap + LAP if self._lap < LAST_LAP else LAP
        self._index = index
        self._release()
        self._acquire()
        if words[self._sleeping_index]:
            # Whoever takes the flag down rings, so that a burst rings once. The consumer puts it up again.
            words[self._sleeping_index] = 0
            return True
        return False

    def release(self) -> None:
        """Let go of the memory."""
        for each in self._payloads:
            each.release()
        self._words.release()

    def _look_for_room(self) -> int:
        consumed = self._words[self._consumed_index]
        produced = ((self._lap >> SIZE_BITS) - 1) * self._window + self._index
        unconsumed = (produced - consumed) % self._modulus
        if consumed >= self._modulus or unconsumed > self._window:
            raise RemoteProtocolError(
                f"the consumer of the ring says it is at {consumed}, where the producer is at {produced}"
            )
        if not STRONG:  # what is stored into the slots comes after the look
            self._release()
            self._acquire()
        self._room = self._window - unconsumed
        return self._room


class ReceiveRing:
    """The consumer's end of one direction, and the private slots that its messages are copied into."""

    __slots__ = (
        "_acquire",
        "_consumed_index",
        "_index",
        "_is_posted",
        "_lap",
        "_modulus",
        "_payloads",
        "_position",
        "_posted",
        "_release",
        "_seen",
        "_sleeping_index",
        "_slot_bytes",
        "_window",
        "_word_indexes",
        "_words",
        "receive_slots",
        "slot",
    )

    def __init__(
        self,
        region: memoryview,
        layout: Layout,
        direction: DirectionLayout,
        receive_slots: Sequence[memoryview],
    ) -> None:
        self.receive_slots = receive_slots
        self.slot = -1
        """Where the message lies that `take` found last."""
        self._words = region.cast("I")
        self._payloads = _payloads(region, layout, direction)
        self._word_indexes = _word_indexes(layout, direction)
        self._consumed_index = direction.consumed_at // WORD
        self._sleeping_index = direction.sleeping_at // WORD
        self._slot_bytes = layout.slot_bytes
        self._window = layout.window
        self._modulus = LAPS * layout.window
        self._seen = [0] * layout.window
        self._index = 0
        self._position = 0
        self._lap = LAP
        # The slot that was posted last is filled first: it is the one that is in the cache.
        self._posted = list(range(len(receive_slots)))
        self._is_posted = [True] * len(receive_slots)
        self._release, self._acquire = make_fence()

    def take(self) -> int:
        """Copy the next message into a posted slot (its number is then `slot`); its size, or 0 for none.

        Raises RemoteProtocolError for nonsense, and for a message where no slot is posted.
        """
        # Flat: every message passes here, and every look that finds nothing.
        index = self._index
        word = self._words[self._word_indexes[index]]
        if word == self._seen[index]:
            return 0
        size = word - self._lap
        if not 0 < size <= self._slot_bytes:
            raise RemoteProtocolError(
                f"the ring's slot {index} says {word:#x}, which is no message of up to {self._slot_bytes} bytes "
                f"in lap {self._lap >> SIZE_BITS}"
            )
        if not self._posted:
            raise RemoteProtocolError(
                "a message came where no receive is posted: the peer keeps no credits"
            )
        self.slot = slot = self._posted.pop()
        self._is_posted[slot] = False
        if STRONG:
            self.receive_slots[slot][:size] = self._payloads[index][:size]
        else:
            self._release()
            self._acquire()
            self.receive_slots[slot][:size] = self._payloads[index][:size]
            self._release()
            self._acquire()
        self._seen[index] = word
        position = self._position + 1
        index += 1
        if index == self._window:
            index = 0
            if self._lap < LAST_LAP:
                self._lap += LAP
            else:
                self._lap = LAP
                position = 0
        self._index = index
        self._position = position
        self._words[self._consumed_index] = position
        return size

    def post(self, slot: int) -> None:
        """This private slot may be filled again. Raises LocalProtocolError when it is posted already."""
        if self._is_posted[slot]:
            raise LocalProtocolError(f"receive slot {slot} is posted already")
        self._is_posted[slot] = True
        self._posted.append(slot)

    def sleep(self) -> bool:
        """Ask for a ring of the bell at the next message; False when one is there already."""
        words = self._words
        words[self._sleeping_index] = 1
        self._release()
        self._acquire()
        index = self._index
        if words[self._word_indexes[index]] == self._seen[index]:
            return True
        words[self._sleeping_index] = 0
        return False

    def wake(self) -> None:
        """The ring is looked at from now on: no bell."""
        self._words[self._sleeping_index] = 0

    def release(self) -> None:
        """Let go of the shared memory."""
        for each in self._payloads:
            each.release()
        self._words.release()


def _payloads(
    region: memoryview, layout: Layout, direction: DirectionLayout
) -> tuple[memoryview, ...]:
    starts = range(
        direction.ring_at + PAYLOAD_AT,
        direction.ring_at + PAYLOAD_AT + layout.window * layout.stride,
        layout.stride,
    )
    return tuple(region[start : start + layout.slot_bytes] for start in starts)


def _word_indexes(layout: Layout, direction: DirectionLayout) -> tuple[int, ...]:
    first, step = direction.ring_at // WORD, layout.stride // WORD
    return tuple(range(first, first + layout.window * step, step))
