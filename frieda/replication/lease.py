"""How long a broker may act for the cluster without hearing from it. PURE.

A session of the metadata store ends `session_timeout` after the store last heard from the broker. The broker cannot
know that moment, but it knows one that lies before it: when it *sent* the last heartbeat that was answered. From
there it counts, on its own monotonic clock, and stops a margin earlier, for clocks that do not run at one speed.
So no other leader can exist while the lease holds, as long as the rates of two clocks differ by less than
margin / session_timeout and a monotonic clock does not stand still while its machine does.

The same value judges a connection: the peer was there when it got the last ping that it answered.
"""

from __future__ import annotations

from frieda.errors import ConfigError

_NS_PER_MS = 1_000_000


class Lease:
    """One for each session, shared by all partitions that the broker leads.

    until_ns: it holds before this moment of the monotonic clock.
    """

    __slots__ = ("_duration_ns", "until_ns")

    def __init__(self, session_timeout_ms: int, margin_ms: int) -> None:
        """Raises ConfigError unless 0 < margin_ms < session_timeout_ms."""
        if not 0 < margin_ms < session_timeout_ms:
            raise ConfigError(
                f"the lease's margin of {margin_ms} ms must lie between 0 and the session timeout, "
                f"{session_timeout_ms} ms"
            )
        self._duration_ns = (session_timeout_ms - margin_ms) * _NS_PER_MS
        self.until_ns = -1

    def answered(self, sent_ns: int) -> None:
        """A heartbeat that was sent at `sent_ns` was answered. Answers may come in any order."""
        until_ns = sent_ns + self._duration_ns
        self.until_ns = max(self.until_ns, until_ns)

    def holds(self, now_ns: int) -> bool:
        """Asked before every acknowledgement."""
        return now_ns < self.until_ns

    def give_up(self) -> None:
        """The session is over, or the broker wants it to be."""
        self.until_ns = -1
