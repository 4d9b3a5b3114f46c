"""Credits: how many SENDs the peer has posted receives for. Why receiver-not-ready and deadlock cannot happen.

A SEND spends one credit. The peer owes it back once it has posted that receive again, and returns what it owes
with its next frame, whatever that is, or with a CREDIT frame when nothing else leaves.

Never not ready: at any time and in each direction

    available here + frames under way + held there + owed there + credits under way back = window

so while a side spends only what it has, each frame meets a posted receive.

Never a deadlock, although receives may be *held* (by a paused receiver) for as long as it likes:
 1. Data (EAGER, BATCH, RTS) leave RESERVED credits alone, and only data can be held. So at most
    window - RESERVED receives are held, and control frames (FIN, CREDIT, CLOSE) always find some that are not.
 2. The last credit is spent only by a frame that returns at least one. So when nothing is under way, not both
    sides are at zero: take each side's last frame; whichever of the two arrived after the other side had sent
    its own left a credit there that was never spent.
 3. A side sends CREDIT when it owes at least half of what it does not hold, and at least two. When nothing is
    under way and a side has but one credit, the peer owes window - held - 1, which is at least that: the peer
    must send, and by 2 it can, or it has none itself and then 3 holds with the sides exchanged.
 4. CREDIT frames do not answer each other for ever: each answers two frames or more, so a chain of them halves.
One reserved credit would do for 2, but not for 3 and 4 while the rest is held: hence three.

PURE. The channel reads and writes the fields directly where every message passes.
"""

from __future__ import annotations

from typing import Final

from frieda.errors import RemoteProtocolError

RESERVED: Final = 3
"""Credits that only control frames may spend."""
MIN_WINDOW: Final = 8
"""With fewer receives hardly any data could be under way."""


class Credits:
    """Both directions of one channel, as one side sees them."""

    __slots__ = ("available", "held", "owed", "return_at", "window")

    def __init__(self, window: int) -> None:
        self.window = window
        self.available = window
        """How many frames may be sent."""
        self.owed = 0
        """How many receives have been posted again and not returned."""
        self.held = 0
        """How many receives hold messages that cannot be delivered yet."""
        self.return_at = max(2, window // 2)
        """When so many are owed, a CREDIT frame is due."""

    def returned(self, count: int) -> None:
        """The peer returns `count`. Raises RemoteProtocolError for more than were spent."""
        self.available += count
        if self.available > self.window:
            raise RemoteProtocolError(
                f"the peer returned {count} credits; then there are {self.available} of {self.window}"
            )

    def may_send_data(self) -> bool:
        """Is there a credit for EAGER, BATCH or RTS?"""
        return self.available > RESERVED

    def may_send_control(self) -> bool:
        """Is there a credit for FIN, CREDIT or CLOSE?"""
        return self.available > 1 or (self.available == 1 and self.owed > 0)

    def spend(self) -> int:
        """A frame leaves: how many credits it carries back."""
        self.available -= 1
        owed, self.owed = self.owed, 0
        return owed

    def hold(self) -> None:
        """A receive that came is not posted again for now."""
        self.held += 1
        self._set_return_at()

    def unhold(self) -> None:
        """A receive that was held is posted again."""
        self.held -= 1
        self.owed += 1
        self._set_return_at()

    def _set_return_at(self) -> None:
        self.return_at = max(2, (self.window - self.held) // 2)
