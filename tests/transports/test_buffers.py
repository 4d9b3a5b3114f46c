import asyncio
from pickle import PickleBuffer

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from frieda.errors import BufferExhaustedError, ConfigError, LocalProtocolError
from frieda.testing.effort import examples
from frieda.transports.buffers import BufferPool, Lease


@pytest.mark.parametrize("pooled", [True, False])
def test_a_lease_has_exactly_the_size_asked_for_and_its_buffer_comes_back(pooled):
    pool = BufferPool({64: 1, 256: 1}, pooled=pooled)
    lease = pool.lease(50)
    assert lease.view.nbytes == 50
    lease.view[:] = b"x" * 50
    lease.release()
    assert pool.in_use == 0
    assert pool.lease(64) is not None
    assert pool.close() != ()


def test_a_lease_falls_through_to_the_next_larger_class_and_then_to_none():
    pool = BufferPool({64: 1, 256: 1})
    leases = [pool.lease(10), pool.lease(10)]
    assert pool.lease(10) is None
    small, large = pool.statistics
    assert (small.hits, small.misses, small.exhausted) == (1, 1, 1)
    assert (small.in_use, large.in_use, large.high_water) == (1, 1, 1)
    for lease in leases:
        lease.release()
    assert [each.in_use for each in pool.statistics] == [0, 0]
    assert pool.close() == ()


@pytest.mark.parametrize("size", [0, -1, 257])
def test_a_size_that_no_class_holds_is_an_error_and_not_exhaustion(size):
    with pytest.raises(LocalProtocolError, match=str(size)):
        BufferPool({256: 1}).lease(size)


def test_a_lease_is_given_back_at_its_last_release_and_not_twice():
    pool = BufferPool({64: 1})
    lease = pool.lease(64)
    lease.retain()
    lease.release()
    assert pool.in_use == 1
    lease.release()
    assert pool.in_use == 0
    with pytest.raises(LocalProtocolError, match="more often"):
        lease.release()
    with pytest.raises(LocalProtocolError, match="last release"):
        lease.retain()
    assert pool.statistics[0].in_use == 0


def test_a_view_is_dead_after_the_last_release():
    pool = BufferPool({64: 1})
    lease = pool.lease(4)
    view = lease.view
    lease.release()
    with pytest.raises(ValueError, match="released"):
        view[0] = 1


def test_a_buffer_that_something_else_could_still_write_to_is_not_given_out_again():
    pool = BufferPool({64: 1})
    lease = pool.lease(4)
    holder = PickleBuffer(lease.view)
    with pytest.raises(LocalProtocolError, match="in use"):
        lease.release()
    assert pool.in_use == 1
    holder.release()
    lease.release()
    assert pool.in_use == 0


def test_keep_retains_an_own_lease_and_copies_a_borrowed_view():
    pool = BufferPool({64: 2})
    own = pool.lease(5)
    own.view[:] = b"12345"
    assert pool.keep(own.view, own) is own
    own.release()
    borrowed = memoryview(bytearray(b"abc"))
    copy = pool.keep(borrowed, None)
    borrowed[:] = b"xyz"
    assert bytes(copy.view) == b"abc"
    assert pool.keep(borrowed, None) is None
    with pytest.raises(LocalProtocolError, match="whole message"):
        pool.keep(own.view[:2], own)
    own.release()
    copy.release()
    assert pool.close() == ()


def test_the_leak_report_names_the_lease_and_where_it_was_taken(caplog):
    pool = BufferPool({64: 2}, trace=True)
    forgotten = pool.lease(7)
    (leak,) = pool.close()
    assert "7 bytes" in leak
    assert "test_the_leak_report" in leak
    assert "7 bytes" in caplog.text
    forgotten.view[:] = b"valid!!"  # its memory is still its holder's
    forgotten.release()
    assert pool.close() == ()


def test_a_pool_without_classes_or_with_nonsense_in_them_is_a_config_error():
    for classes in ({}, {0: 1}, {64: 0}):
        with pytest.raises(ConfigError):
            BufferPool(classes)


async def test_lease_wait_serves_those_who_wait_in_their_order():
    pool = BufferPool({64: 1})
    first = pool.lease(64)
    served = []

    async def wait(name):
        lease = await pool.lease_wait(10, 5)
        served.append(name)
        return lease

    tasks = [asyncio.ensure_future(wait(name)) for name in "abc"]
    await asyncio.sleep(0)
    assert pool.lease(1) is None
    lease = first
    for task in tasks:
        lease.release()
        lease = await task
    assert served == ["a", "b", "c"]
    lease.release()
    assert pool.statistics[0].waits == 3
    assert pool.close() == ()


async def test_lease_wait_gives_up_at_its_deadline_and_leaves_no_place_taken():
    pool = BufferPool({64: 1})
    lease = pool.lease(64)
    with pytest.raises(BufferExhaustedError, match=r"0\.01 s"):
        await pool.lease_wait(64, 0.01)
    lease.release()
    assert pool.in_use == 0


@pytest.mark.parametrize("release_first", [True, False])
async def test_a_cancelled_wait_leaks_nothing_even_when_its_lease_had_just_come(release_first):
    pool = BufferPool({64: 1})
    lease = pool.lease(64)
    task = asyncio.ensure_future(pool.lease_wait(64, 5))
    await asyncio.sleep(0)
    if release_first:
        lease.release()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    if not release_first:
        lease.release()
    assert pool.in_use == 0
    assert pool.lease(64) is not None


def test_a_waiter_for_a_large_buffer_is_not_overtaken_by_a_small_one_that_fits_elsewhere():
    pool = BufferPool({64: 1, 256: 1})
    small, large = pool.lease(64), pool.lease(256)
    got: list[tuple[str, Lease]] = []
    pool.when_free(200, lambda lease: got.append(("large", lease)))
    pool.when_free(10, lambda lease: got.append(("small", lease)))
    cancelled = pool.when_free(10, lambda lease: got.append(("cancelled", lease)))
    cancelled.cancel()
    cancelled.cancel()
    large.release()
    small.release()
    assert [(name, lease.view.nbytes) for name, lease in got] == [("large", 200), ("small", 10)]


class PoolAgainstAModel(RuleBasedStateMachine):
    """Leases, releases and waiters in any order: no buffer is lent twice and none is lost."""

    CLASSES = {8: 2, 32: 2, 128: 1}  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.pool = BufferPool(self.CLASSES)
        self.out: list[tuple[Lease, int]] = []
        self.marker = 0
        self.waiting = 0

    def take(self, lease):
        self.marker = self.marker % 255 + 1
        lease.view[:] = bytes([self.marker]) * lease.view.nbytes
        self.out.append((lease, self.marker))

    def served(self, lease):
        self.waiting -= 1
        self.take(lease)

    @rule(size=st.integers(1, 128))
    def lease_or_wait(self, size):
        lease = self.pool.lease(size)
        if lease is not None:
            assert lease.view.nbytes == size
            self.take(lease)
        elif self.waiting < 5:
            self.waiting += 1
            self.pool.when_free(size, self.served)

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def release(self, data):
        lease, marker = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        assert set(lease.view) == {marker}, "somebody else wrote into a leased buffer"
        lease.release()

    @invariant()
    def every_buffer_is_free_or_out(self):
        assert self.pool.in_use == len(self.out) <= 5
        assert sum(each.in_use for each in self.pool.statistics) == len(self.out)


PoolAgainstAModel.TestCase.settings = settings(
    max_examples=examples(60), stateful_step_count=40, deadline=None
)
TestPoolAgainstAModel = PoolAgainstAModel.TestCase
