import itertools

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from frieda.errors import LocalProtocolError
from frieda.transports.shm.layout import PAGE
from frieda.transports.shm.sources import SMALLEST_GRANT_BYTES, SourceAllocator

SIZE = 1024 * 1024
MOST = 5


class Allocating(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.allocator = SourceAllocator(SIZE, MOST)
        self.out = {}

    @rule(size=st.integers(1, 2 * SIZE))
    def take(self, size):
        free = [each for _, each in self.allocator.free]
        taken = self.allocator.take(size)
        if taken is None:
            small = min(size, SMALLEST_GRANT_BYTES)
            assert len(self.out) == MOST or all(each < small for each in free)
            return
        offset, granted = taken
        assert 1 <= granted <= size
        if any(each >= size + PAGE for each in free):
            assert granted == size  # less is granted only where nothing is large enough
        assert offset % PAGE == 0
        assert offset not in self.out
        self.out[offset] = granted

    @rule(choice=st.integers(0, MOST - 1))
    def give_back(self, choice):
        if choice < len(self.out):
            offset = sorted(self.out)[choice]
            del self.out[offset]
            self.allocator.give_back(offset)
            with pytest.raises(LocalProtocolError):
                self.allocator.give_back(offset)

    @invariant()
    def nothing_overlaps_and_nothing_is_lost(self):
        ranges = [(offset, offset + -(-size // PAGE) * PAGE) for offset, size in self.out.items()]
        free = self.allocator.free
        pieces = sorted(ranges + [(offset, offset + size) for offset, size in free])
        assert pieces[0][0] == 0
        assert pieces[-1][1] == SIZE
        assert all(end == begin for (_, end), (begin, _) in itertools.pairwise(pieces))

    @invariant()
    def free_ranges_never_touch_so_there_are_few(self):
        free = self.allocator.free
        assert all(a + size < b for (a, size), (b, _) in itertools.pairwise(free))
        assert len(free) <= len(self.out) + 1
        assert self.allocator.in_use == len(self.out)

    def teardown(self):
        for offset in self.out:
            self.allocator.give_back(offset)
        assert self.allocator.free == ((0, SIZE),)


TestAllocating = Allocating.TestCase


def test_the_low_end_is_used_again_first():
    allocator = SourceAllocator(SIZE, MOST)
    first, _ = allocator.take(PAGE)
    second, _ = allocator.take(PAGE)
    allocator.give_back(first)
    assert allocator.take(PAGE)[0] == first == 0
    assert second == PAGE
    assert allocator.touched_bytes == 2 * PAGE


def test_less_is_granted_when_it_is_nearly_full_but_no_crumbs():
    allocator = SourceAllocator(SIZE, MOST)
    allocator.take(SIZE - SMALLEST_GRANT_BYTES)
    assert allocator.take(SIZE) == (SIZE - SMALLEST_GRANT_BYTES, SMALLEST_GRANT_BYTES)
    assert allocator.take(1) is None
    allocator = SourceAllocator(SIZE, MOST)
    allocator.take(SIZE - PAGE)
    assert allocator.take(SMALLEST_GRANT_BYTES) is None
    assert allocator.take(100) == (SIZE - PAGE, 100)
