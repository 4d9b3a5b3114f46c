# cython: binding=False
# ruff: noqa: F821  (what is filled in below)
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

This file is plain Python that Cython also compiles, typed by ring.pxd; `COMPILED` says which one is running
(measured for a message of 112 B: put 0.07 us compiled and 0.52 plain, take 0.05 and 0.30, a look that finds nothing
0.02 and 0.07). Compiled, memory is touched through `_load`, `_store`, `_copy_in` and `_copy_out` only, which check
that the access lies in the region, as Python does in the plain form: an index or a size that does not fit, or memory
that was released, is an IndexError or ValueError, never an access.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
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

COMPILED: Final = not __file__.endswith(".py")

# The rings' own copies, which are C numbers when compiled.
_COMPILED: Final = COMPILED
_SIZE_BITS: Final = SIZE_BITS
_LAP: Final = 1 << SIZE_BITS
_LAST_LAP: Final = LAPS << SIZE_BITS

# Compiled, ring.pxd defines these in C: a load acquires, a store releases, and each checks its bounds. In plain Python
# a load and a store are those of a memoryview; the others are compiled only, for a call would cost more there than
# what it does.
_load: Callable[[memoryview, int], int]
_store: Callable[[memoryview, int, int], None]
_copy_in: Callable[[memoryview, int, int, Bytes], None]
_copy_out: Callable[[memoryview, memoryview, int], None]
_fence: Callable[[], None]


class SendRing:
    """The producer's end of one direction."""

    __slots__ = (
        "_acquire",
        "_consumed_index",
        "_first_word",
        "_index",
        "_lap",
        "_modulus",
        "_payloads",
        "_release",
        "_room",
        "_sleeping_index",
        "_slot_bytes",
        "_window",
        "_word",
        "_words",
        "_words_apart",
    )

    def __init__(self, region: memoryview, layout: Layout, direction: DirectionLayout) -> None:
        self._words = region.cast("I")
        self._payloads = _payloads(region, layout, direction)
        self._first_word = self._word = direction.ring_at // WORD
        self._words_apart = layout.stride // WORD
        self._consumed_index = direction.consumed_at // WORD
        self._sleeping_index = direction.sleeping_at // WORD
        self._slot_bytes = layout.slot_bytes
        self._window = layout.window
        self._modulus = LAPS * layout.window
        self._room = layout.window
        self._index = 0
        self._lap = _LAP
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
            if _COMPILED:
                _copy_in(payload, start, size, piece)
            else:
                payload[start:size] = piece
        if not 0 < size <= self._slot_bytes:
            raise LocalProtocolError(
                f"a SEND has at least {size} bytes; it must have 1 to {self._slot_bytes}"
            )
        self._room -= 1
        words = self._words
        if not (_COMPILED or STRONG):
            self._release()
            self._acquire()
        _store(words, self._word, self._lap | size)
        index += 1
        self._word += self._words_apart
        if index == self._window:
            index = 0
            self._word = self._first_word
            self._lap = self._lap + _LAP if self._lap < _LAST_LAP else _LAP
        self._index = index
        if _COMPILED:
            _fence()
        else:
            self._release()
            self._acquire()
        if _load(words, self._sleeping_index):
            # Whoever takes the flag down rings, so that a burst rings once. The consumer puts it up again.
            _store(words, self._sleeping_index, 0)
            return True
        return False

    def release(self) -> None:
        """Let go of the memory. What is called afterwards raises."""
        for each in self._payloads:
            each.release()
        self._words.release()
        self._words = _no_words()
        self._room = 0

    def _look_for_room(self) -> int:
        consumed = _load(self._words, self._consumed_index)
        produced = ((self._lap >> _SIZE_BITS) - 1) * self._window + self._index
        # The modulus is added so that C, too, divides nothing negative.
        unconsumed = (produced + self._modulus - consumed) % self._modulus
        if consumed >= self._modulus or unconsumed > self._window:
            raise RemoteProtocolError(
                f"the consumer of the ring says it is at {consumed}, where the producer is at {produced}"
            )
        if not (_COMPILED or STRONG):  # what is stored into the slots comes after the look
            self._release()
            self._acquire()
        self._room = self._window - unconsumed
        return self._room


class ReceiveRing:
    """The consumer's end of one direction, and the private slots that its messages are copied into."""

    __slots__ = (
        "_acquire",
        "_consumed_index",
        "_first_word",
        "_index",
        "_is_posted",
        "_lap",
        "_payloads",
        "_position",
        "_posted",
        "_release",
        "_seen",
        "_sleeping_index",
        "_slot_bytes",
        "_window",
        "_word",
        "_words",
        "_words_apart",
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
        self.receive_slots = tuple(receive_slots)
        self.slot = -1
        """Where the message lies that `take` found last."""
        self._words = region.cast("I")
        self._payloads = _payloads(region, layout, direction)
        self._first_word = self._word = direction.ring_at // WORD
        self._words_apart = layout.stride // WORD
        self._consumed_index = direction.consumed_at // WORD
        self._sleeping_index = direction.sleeping_at // WORD
        self._slot_bytes = layout.slot_bytes
        self._window = layout.window
        self._seen = [0] * layout.window
        self._index = 0
        self._position = 0
        self._lap = _LAP
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
        word = _load(self._words, self._word)
        seen = self._seen[index]
        if word == seen:
            return 0
        size = word - self._lap
        if not 0 < size <= self._slot_bytes:
            raise RemoteProtocolError(
                f"the ring's slot {index} says {word:#x}, which is no message of up to {self._slot_bytes} bytes "
                f"in lap {self._lap >> _SIZE_BITS}"
            )
        if not self._posted:
            raise RemoteProtocolError(
                "a message came where no receive is posted: the peer keeps no credits"
            )
        self.slot = slot = self._posted.pop()
        self._is_posted[slot] = False
        if _COMPILED:
            _copy_out(self.receive_slots[slot], self._payloads[index], size)
        elif STRONG:
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
        self._word += self._words_apart
        if index == self._window:
            index = 0
            self._word = self._first_word
            if self._lap < _LAST_LAP:
                self._lap += _LAP
            else:
                self._lap = _LAP
                position = 0
        self._index = index
        self._position = position
        _store(self._words, self._consumed_index, position)
        return size

    def post(self, slot: int) -> None:
        """This private slot may be filled again. Raises LocalProtocolError when it is posted or there is none."""
        if not 0 <= slot < len(self._is_posted):
            raise LocalProtocolError(f"there is no receive slot {slot}")
        if self._is_posted[slot]:
            raise LocalProtocolError(f"receive slot {slot} is posted already")
        self._is_posted[slot] = True
        self._posted.append(slot)

    def sleep(self) -> bool:
        """Ask for a ring of the bell at the next message; False when one is there already."""
        words = self._words
        _store(words, self._sleeping_index, 1)
        if _COMPILED:
            _fence()
        else:
            self._release()
            self._acquire()
        seen = self._seen[self._index]
        if _load(words, self._word) == seen:
            return True
        _store(words, self._sleeping_index, 0)
        return False

    def wake(self) -> None:
        """The ring is looked at from now on: no bell."""
        _store(self._words, self._sleeping_index, 0)

    def release(self) -> None:
        """Let go of the shared memory. What is called afterwards raises."""
        for each in self._payloads:
            each.release()
        self._words.release()
        self._words = _no_words()


def _payloads(
    region: memoryview, layout: Layout, direction: DirectionLayout
) -> tuple[memoryview, ...]:
    starts = range(
        direction.ring_at + PAYLOAD_AT,
        direction.ring_at + PAYLOAD_AT + layout.window * layout.stride,
        layout.stride,
    )
    return tuple([region[start : start + layout.slot_bytes] for start in starts])


def _no_words() -> memoryview:
    """What a ring that was released has in place of the shared words: every access to it is an IndexError."""
    return memoryview(bytearray()).cast("I")


# Through globals(), because Cython would refuse an assignment to a C function.
if not COMPILED:
    globals()["_load"] = operator.getitem
    globals()["_store"] = operator.setitem
