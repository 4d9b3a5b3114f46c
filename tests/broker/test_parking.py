"""The parking lot keeps early batches within its bounds, gives each out once, and forgets none."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from frieda.broker.parking import Parked, ParkingLot

LIMIT = 3


class ParkingModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.lot: ParkingLot[str] = ParkingLot(LIMIT)
        self.model: dict[tuple[int, int], Parked[str]] = {}

    @rule(producer=st.integers(0, 2), sequence=st.integers(0, 6), deadline=st.integers(0, 10))
    def park(self, producer: int, sequence: int, deadline: int) -> None:
        parked = Parked(producer, 0, sequence, deadline, f"{producer}/{sequence}")
        taken = sum(key[0] == producer for key in self.model)
        expected = taken < LIMIT and (producer, sequence) not in self.model
        assert self.lot.park(parked) is expected
        if expected:
            self.model[(producer, sequence)] = parked

    @rule(producer=st.integers(0, 2), sequence=st.integers(0, 6))
    def take(self, producer: int, sequence: int) -> None:
        assert self.lot.take(producer, sequence) == self.model.pop((producer, sequence), None)

    @rule(now=st.integers(0, 10))
    def expire(self, now: int) -> None:
        late = [self.model[key] for key in sorted(self.model) if self.model[key].deadline_ns <= now]
        assert self.lot.expire(now) == late
        for parked in late:
            del self.model[(parked.producer_id, parked.base_sequence)]

    @rule()
    def clear(self) -> None:
        assert sorted(self.lot.clear()) == sorted(self.model.values())
        self.model.clear()

    @invariant()
    def the_size_is_known(self) -> None:
        assert len(self.lot) == len(self.model)
        assert bool(self.lot.by_producer) == bool(self.model)


TestParking = ParkingModel.TestCase
