"""Which leader epoch began at which offset: what a follower needs to find where it and a leader part. PURE.

The file is Kafka's `leader-epoch-checkpoint`: a line `0` (the version), the number of entries, then one
line `epoch start_offset` each. Source: KIP-101.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

_VERSION: Final = "0"


class EpochsDamagedError(ValueError):
    """The bytes are not a whole checkpoint; build it again from the log."""


class LeaderEpochs:
    """Epochs and their first offsets, both increasing."""

    __slots__ = ("_epochs", "_starts")

    def __init__(self) -> None:
        self._epochs: list[int] = []
        self._starts: list[int] = []

    def __len__(self) -> int:
        return len(self._epochs)

    @property
    def latest(self) -> int:
        """The highest epoch, or -1."""
        return self._epochs[-1] if self._epochs else -1

    def entries(self) -> list[tuple[int, int]]:
        """All as (epoch, start offset)."""
        return list(zip(self._epochs, self._starts, strict=True))

    def note(self, epoch: int, offset: int) -> None:
        """A batch of `epoch` lies at `offset`. Says nothing new unless the epoch is higher than the latest."""
        if epoch > self.latest:
            # What begins there or later had no batch, or belongs to a part of the log that is no more.
            self.cut_end(offset)
            self._epochs.append(epoch)
            self._starts.append(offset)

    def end_offset(self, epoch: int, log_end_offset: int) -> tuple[int, int]:
        """The highest known epoch at or below `epoch`, and the offset at which it ends; (-1, -1) when none is."""
        at = bisect_right(self._epochs, epoch) - 1
        if at < 0:
            return -1, -1
        last = at + 1 == len(self._epochs)
        return self._epochs[at], log_end_offset if last else self._starts[at + 1]

    def cut_end(self, offset: int) -> None:
        """Forget epochs that begin at or after `offset`: the log ends there now."""
        while self._starts and self._starts[-1] >= offset:
            self._starts.pop()
            self._epochs.pop()

    def cut_start(self, offset: int) -> None:
        """Forget epochs that end at or before `offset`: the log begins there now."""
        while len(self._starts) > 1 and self._starts[1] <= offset:
            del self._starts[0], self._epochs[0]
        if self._starts and self._starts[0] < offset:
            self._starts[0] = offset

    def encode(self) -> bytes:
        """The content of the file."""
        lines = [_VERSION, str(len(self._epochs))]
        lines += [f"{epoch} {start}" for epoch, start in self.entries()]
        return ("\n".join(lines) + "\n").encode()

    @classmethod
    def decode(cls, data: bytes) -> LeaderEpochs:
        """Read the file. Raises EpochsDamagedError."""
        epochs = cls()
        try:
            lines = data.decode("ascii").splitlines()
            if lines[0] != _VERSION or int(lines[1]) != len(lines) - 2 or not data.endswith(b"\n"):
                raise EpochsDamagedError("the leader epoch checkpoint is cut short")
            for line in lines[2:]:
                epoch, start = (int(word) for word in line.split())
                if epoch <= epochs.latest or (epochs._starts and start < epochs._starts[-1]):
                    raise EpochsDamagedError("the leader epochs are out of order")
                epochs.note(epoch, start)
        except (ValueError, IndexError) as error:
            raise EpochsDamagedError(f"the leader epoch checkpoint is damaged: {error}") from None
        return epochs
