import itertools

from hypothesis import given
from hypothesis import strategies as st

from frieda.transports.rdma.bootstrap import LIMIT_RANGES
from frieda.transports.rdma.provider import ChannelLimits
from frieda.transports.shm.layout import (
    LAPS,
    LINE,
    LINE_PAIR,
    PAGE,
    PAYLOAD_AT,
    SIZE_BITS,
    Layout,
)

limits = st.builds(
    ChannelLimits, **{name: st.integers(low, high) for name, (low, high) in LIMIT_RANGES.items()}
)


@given(limits)
def test_nothing_overlaps_and_all_lies_inside(limits):
    layout = Layout.of(limits)
    words, areas = [], []
    for each in layout.directions:
        words += [each.consumed_at, each.sleeping_at]
        areas.append((each.ring_at, each.ring_at + layout.window * layout.stride))
        areas.append((each.sources_at, each.sources_at + layout.source_bytes))
    words.sort()
    assert all(after - before >= LINE_PAIR for before, after in itertools.pairwise(words))
    areas.sort()
    assert words[-1] + LINE_PAIR <= PAGE <= areas[0][0]
    for (_, end), (begin, _) in itertools.pairwise(areas):
        assert end <= begin
    assert areas[-1][1] <= layout.size_bytes


@given(limits)
def test_a_slot_holds_its_largest_payload_and_slots_fall_on_different_cache_lines(limits):
    layout = Layout.of(limits)
    assert layout.stride >= PAYLOAD_AT + limits.slot_bytes
    assert layout.stride % LINE == 0
    assert layout.stride % PAGE != 0
    assert layout.source_bytes >= limits.source_bytes


def test_every_size_and_lap_fits_a_word_that_python_adds_quickly():
    assert LIMIT_RANGES["slot_bytes"][1] < 1 << SIZE_BITS
    assert (LAPS << SIZE_BITS) + (1 << SIZE_BITS) <= 1 << 30
