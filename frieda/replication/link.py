"""Whether another broker is there: one link for each pair, whatever the number of partitions. PURE.

    state   meaning                                      what moves it on
    -----   -------------------------------------------  -------------------------------------------------
    DOWN    nothing was answered lately                  an answer -> UP
    UP      a ping that was sent lately was answered     none for timeout_ms, `broken` -> DOWN

A ping that is answered proves both directions, as of the moment it was sent. When the answer comes from another
incarnation than the last, the link was down in between, even if nobody noticed: what ran over it begins anew.
"""

from __future__ import annotations

from enum import IntEnum

from frieda.replication.lease import Lease

_NS_PER_MS = 1_000_000


class LinkChange(IntEnum):
    """What became of a link."""

    NONE = 0
    UP = 1
    DOWN = 2
    RENEWED = 3
    """Down and up again: the peer was started anew."""


class Link:
    """From this broker to one other. `is_up`: see the module. `incarnation`: the peer's, of its last answer."""

    __slots__ = ("_heard", "_interval_ns", "incarnation", "is_up", "next_ping_ns")

    def __init__(self, interval_ms: int, timeout_ms: int) -> None:
        """A ping every `interval_ms`. Raises ConfigError unless 0 < interval_ms < timeout_ms."""
        self._heard = Lease(timeout_ms, interval_ms)
        self._interval_ns = interval_ms * _NS_PER_MS
        self.incarnation = ""
        self.is_up = False
        self.next_ping_ns = 0

    def ping_due(self, now_ns: int) -> bool:
        """Whether to send a ping now, which carries `now_ns`; the next is due an interval later."""
        if now_ns < self.next_ping_ns:
            return False
        self.next_ping_ns = now_ns + self._interval_ns
        return True

    def answered(self, sent_ns: int, incarnation: str, now_ns: int) -> LinkChange:
        """The ping that was sent at `sent_ns` was answered."""
        self._heard.answered(sent_ns)
        if not self._heard.holds(now_ns):
            return LinkChange.NONE
        renewed = self.is_up and incarnation != self.incarnation
        change = LinkChange.RENEWED if renewed else LinkChange.NONE if self.is_up else LinkChange.UP
        self.incarnation = incarnation
        self.is_up = True
        return change

    def tick(self, now_ns: int) -> LinkChange:
        """Look whether it has been silent for too long."""
        if self.is_up and not self._heard.holds(now_ns):
            return self.broken()
        return LinkChange.NONE

    def broken(self) -> LinkChange:
        """The connection under it ended."""
        self._heard.give_up()
        if not self.is_up:
            return LinkChange.NONE
        self.is_up = False
        return LinkChange.DOWN
