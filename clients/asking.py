"""Who waits for the answer to a request, and how the answer is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from frieda.errors import FriedaError
from frieda.protocol.client import Answer

if TYPE_CHECKING:
    from frieda.transports.base import Bytes
    from frieda.transports.buffers import Lease

OnAnswer = Callable[["Answer | FriedaError", "Lease | None"], None]
OnProduced = Callable[[Any, int, "FriedaError | None"], None]


class Asker(NamedTuple):
    """Who waits: on_answer is an OnAnswer, or with a `subject` the OnProduced of a produce.

    It is None once the asker was told that the time was over. `sent_ns` is when the request was handed in.
    """

    on_answer: Callable[..., None] | None
    subject: Any
    deadline_ns: int
    sent_ns: int

    def fail(self, error: FriedaError) -> None:
        """Tell the error, unless something was told already."""
        if self.on_answer is None:
            return
        if self.subject is not None:
            self.on_answer(self.subject, -1, error)
        else:
            self.on_answer(error, None)


class Queued(NamedTuple):
    """A request that waits for the broker's credit; of a produce its prefix."""

    request: Any
    asker: Asker
    body: Bytes | None
    lease: Lease | None

    def fail(self, error: FriedaError) -> None:
        """Give up: the lease goes back and the asker is told."""
        if self.lease is not None:
            self.lease.release()
        self.asker.fail(error)
