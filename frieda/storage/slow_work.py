"""The slow work of one log (what follows a roll or a deletion), one piece at a time, in a thread where there is one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

from frieda.errors import BrokerError, ErrorCode, StorageError

Background = Callable[[Callable[[], None]], object]


class SlowWork:
    """Runs pieces of work by `background` (which returns at once), or inline without one.

    error: why the last piece failed, or "". A piece that fails is not tried again: opening makes good what it left.
    """

    def __init__(self, background: Background | None) -> None:
        self.error = ""
        self._background = background
        self._pieces = 0
        self._one_at_a_time = threading.Lock()
        self._done = threading.Condition()

    @property
    def idle(self) -> bool:
        """Is nothing waiting or running?"""
        return self._pieces == 0

    def start(self, piece: Callable[[], None]) -> None:
        """Have `piece` run; it may raise OSError and BrokerError."""
        with self._done:
            self._pieces += 1
        if self._background is None:
            self._run(piece)
            return
        try:
            self._background(partial(self._run, piece))
        except RuntimeError:  # the executor is shut down
            self._run(piece)

    def wait(self, timeout_s: float, what: str) -> None:
        """Return when all is done. Raises StorageError, with `what` in it, when that takes too long."""
        with self._done:
            if not self._done.wait_for(lambda: self._pieces == 0, timeout_s):
                raise StorageError(
                    ErrorCode.STORAGE_ERROR, f"{what}: slow work did not end within {timeout_s} s"
                )

    def _run(self, piece: Callable[[], None]) -> None:
        try:
            with self._one_at_a_time:
                piece()
            self.error = ""
        except (OSError, BrokerError) as error:
            self.error = str(error)
        finally:
            with self._done:
                self._pieces -= 1
                self._done.notify_all()
