"""Whether the load generator kept its schedule, PURE, and whose fault it was where it did not.

A record leaves late for one of two reasons. The system held it back: as many were under way as may be, or the
client's buffer was full. Or the generator was not there: its process had no processor, or was busy with something
else. Response times count both, so a run in which the second reason is frequent says nothing about the system.

The rule of attribution: the time from when nothing more may be sent until the next record that is sent is the
system's, and as long again after it, in which the generator may catch up with what became due meanwhile. All other
lateness is the generator's own. The rule of validity: a run is invalid when more than 1% of its sends were more than
1 ms late by the generator's own lateness, when it ended more than 2% of its planned time late by it, or when it was
given up.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final, NamedTuple

from frieda.bench.load import LatenessSummary

MAX_LATE_SHARE: Final = 0.01
MAX_BEHIND_SHARE: Final = 0.02
_MAX_STRETCHES: Final = 10_000


class _Stretch(NamedTuple):
    """Excused from `start_ns` to `end_ns`; `before_ns` is the sum of all stretches before it."""

    start_ns: int
    end_ns: int
    before_ns: int


class Punctuality:
    """The lateness of one producer, its causes told apart. Times are of one clock, in ns, and never go back."""

    __slots__ = ("_held_since_ns", "_stretches", "held_ns")

    def __init__(self) -> None:
        self.held_ns = 0
        """How long the system has held the producer back in all."""
        self._held_since_ns: int | None = None
        self._stretches: deque[_Stretch] = deque()

    def refused(self, since_ns: int) -> None:
        """A record is due and cannot be sent, nor could any other since `since_ns`."""
        if self._held_since_ns is None:
            self._held_since_ns = since_ns

    def sent(self, intended_ns: int, now_ns: int) -> int:
        """A record was sent; how many ns of its lateness are the generator's own."""
        if self._held_since_ns is not None:
            self._excuse(self._held_since_ns, now_ns)
            self._held_since_ns = None
        stretches = self._stretches
        while stretches and stretches[0].end_ns <= intended_ns:
            stretches.popleft()
        late_ns = now_ns - intended_ns
        if not stretches:
            return late_ns
        first, last = stretches[0], stretches[-1]
        until_now_ns = last.before_ns + min(now_ns, last.end_ns) - last.start_ns
        until_intended_ns = first.before_ns + max(0, intended_ns - first.start_ns)
        return late_ns - (until_now_ns - until_intended_ns)

    def _excuse(self, since_ns: int, until_ns: int) -> None:
        """From `since_ns` to `until_ns` it was held back; as long again it may catch up."""
        self.held_ns += until_ns - since_ns
        end_ns = until_ns + (until_ns - since_ns)
        stretches = self._stretches
        last = stretches[-1] if stretches else None
        # Beyond the bound what lies between two stretches is excused too, rather than memory taken without end.
        if last is not None and (since_ns <= last.end_ns or len(stretches) >= _MAX_STRETCHES):
            stretches[-1] = last._replace(end_ns=max(last.end_ns, end_ns))
        else:
            before_ns = 0 if last is None else last.before_ns + last.end_ns - last.start_ns
            stretches.append(_Stretch(since_ns, end_ns, before_ns))


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """How many records were due and had not been sent, seen at each send.

    `most` and `mean` are of one producer; `own_most` is the part of `most` that became due while the generator was
    not there; `at_end` of all producers, when the last record became due; `unsent` were never sent.
    """

    most: int = 0
    own_most: int = 0
    mean: float = 0.0
    at_end: int = 0
    unsent: int = 0


def invalid_because(
    own: LatenessSummary, own_behind_at_end_s: float, planned_s: float, unsent: int
) -> str | None:
    """Why a run says nothing about the system; None when the generator kept up.

    `own` is the generator's own lateness, `own_behind_at_end_s` that of the last send, `planned_s` how long the
    schedule was.
    """
    if unsent:
        return (
            f"given up with {unsent} records unsent: they were more than the bound behind their schedule, "
            "which is a rate that this system, or this machine, does not sustain"
        )
    if own.sends and own.late_sends > MAX_LATE_SHARE * own.sends:
        return (
            f"the load generator was late by itself: {own.late_sends} of {own.sends} sends more than 1 ms, "
            f"which is more than {MAX_LATE_SHARE:.0%}"
        )
    if own_behind_at_end_s > MAX_BEHIND_SHARE * planned_s:
        return (
            f"the load generator was {own_behind_at_end_s * 1000:.1f} ms behind at the end by itself, "
            f"more than {MAX_BEHIND_SHARE:.0%} of the {planned_s:.3f} s it should have taken"
        )
    return None
