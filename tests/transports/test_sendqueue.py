from hypothesis import given
from hypothesis import strategies as st

from frieda.transports.buffers import BufferPool
from frieda.transports.sendqueue import MAX_PIECES, SendQueue


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=100), st.data())
def test_bytes_leave_in_order_and_each_lease_with_its_last_byte(bodies, data):
    pool = BufferPool({64: 100})
    queue = SendQueue()
    for body in bodies:
        lease = pool.lease(len(body))
        lease.view[:] = body
        queue.append(lease.view, lease)
    left = b""
    whole = b"".join(bodies)
    while queue.queued_bytes:
        front = queue.front()
        assert 0 < len(front) <= MAX_PIECES
        ahead = b"".join(front)
        count = data.draw(st.integers(1, len(ahead)))
        left += ahead[:count]
        del front
        queue.taken(count)
        assert len(left) + queue.queued_bytes == len(whole)
        complete, ends = 0, 0
        for body in bodies:
            ends += len(body)
            complete += ends <= len(left)
        assert pool.in_use == len(bodies) - complete
    assert left == whole
    assert pool.close() == ()


def test_discard_releases_every_lease_once():
    pool = BufferPool({64: 2})
    queue = SendQueue()
    for _ in range(2):
        lease = pool.lease(10)
        queue.append(lease.view, lease, skip=3)
    assert queue.queued_bytes == 14
    queue.discard()
    queue.discard()
    assert queue.queued_bytes == 0
    assert pool.in_use == 0
