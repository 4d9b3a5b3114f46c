"""The in-sync replicas of a led partition: the set agreed on, and the change that is proposed. PURE.

    state      meaning                                        what moves it on
    --------   ---------------------------------------------  -----------------------------------------------------
    AGREED     the set in the metadata, as far as is known     propose -> PROPOSED
    PROPOSED   a compare-and-set on its version is under way   a state of a higher version, or a refusal -> AGREED

While a proposal is under way nobody here knows which of the two sets holds, so a record is committed only when all of
both have it: the maximal ISR of KIP-497. Only a higher version ends that, or the refusal of the store; a lost answer
does not, since the write may still come. One proposal at a time.
"""

from __future__ import annotations

from frieda.cluster.state import PartitionState


class InSync:
    """agreed: as in the metadata, of `version`.  proposed: what was asked for, or None.  maximal: both."""

    __slots__ = ("agreed", "maximal", "proposed", "version")

    def __init__(self, state: PartitionState) -> None:
        self.version = state.version
        self.agreed = state.isr
        self.proposed: tuple[int, ...] | None = None
        self.maximal = state.isr

    def propose(self, isr: tuple[int, ...]) -> None:
        """A compare-and-set is about to be sent."""
        self.proposed = isr
        self.maximal = self._maximal_with(isr)

    def _maximal_with(self, isr: tuple[int, ...]) -> tuple[int, ...]:
        return self.agreed + tuple(member for member in isr if member not in self.agreed)

    def learned(self, state: PartitionState) -> bool:
        """The metadata say so. False when it is nothing new."""
        if state.version <= self.version:
            return False
        self.version = state.version
        self.agreed = self.maximal = state.isr
        self.proposed = None
        return True

    def refused(self, expected_version: int) -> None:
        """The store will not make the change that was proposed at this version."""
        if expected_version == self.version:
            self.proposed = None
            self.maximal = self.agreed
