"""A stand-in for pyverbs: devices of this process, connected to each other, that really move the bytes.

`FakeVerbs()` has what `frieda.transports.verbs.binding.Verbs` has. Work requests are carried out when they are posted;
completions wait in the queue until polled. It keeps the rules that the provider must keep (an error says which was
broken), and counts what exists, so that a test can see what is left.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections import Counter, deque
from ipaddress import IPv6Address
from types import SimpleNamespace

RESET, INIT, RTR, RTS, ERR = 0, 1, 2, 3, 6
SEND, READ, INVALIDATE, BIND = "send", "read", "invalidate", "bind"


class FakeError(Exception):
    """PyverbsRDMAError."""

    def __init__(self, message: str, error_code: int = -1) -> None:
        super().__init__(message)
        self.error_code = error_code


class Owned:
    """Counted from its making to its close; also usable as a context manager."""

    def __init__(self, verbs: FakeVerbs) -> None:
        self.verbs = verbs
        self.open = True
        verbs.alive[type(self).__name__] += 1

    def close(self) -> None:
        if self.open:
            self.open = False
            self.verbs.alive[type(self).__name__] -= 1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Context(Owned):
    def __init__(self, verbs, name):
        if name in verbs.broken:
            raise FakeError("cannot open", errno.EACCES)
        super().__init__(verbs)
        self.name = name

    def query_device(self):
        return SimpleNamespace(phys_port_cnt=1, **self.verbs.attributes)

    def query_port(self, number):
        assert number == 1
        return SimpleNamespace(state=4, link_layer=2, lid=0, active_mtu=4)

    def query_gid_table(self, _most):
        return [
            SimpleNamespace(gid_index=i, port_num=1, gid_type=kind, gid_str=lambda g=gid: g)
            for i, (gid, kind) in enumerate(self.verbs.gids[self.name])
        ]


class PD(Owned):
    def __init__(self, verbs, context):
        super().__init__(verbs)
        self.context = context


class MR(Owned):
    def __init__(self, verbs, domain, size, access, address):
        if verbs.registrations_left <= 0:
            raise FakeError("cannot register", verbs.registration_errno)
        verbs.registrations_left -= 1
        super().__init__(verbs)
        self.address, self.size, self.access, self.domain = address, size, access, domain
        self.lkey = self.rkey = verbs.new_key()
        verbs.regions[self.lkey] = self

    def close(self):
        if self.open:
            assert not any(w.region is self for w in self.verbs.windows.values()), (
                "MR under a window"
            )
            del self.verbs.regions[self.lkey]
        super().close()


class MW(Owned):
    def __init__(self, verbs, _domain, _kind):
        super().__init__(verbs)
        self.rkey = verbs.new_key()
        self.region = self.pair = None
        self.address = self.size = 0
        verbs.windows[self.rkey] = self

    def close(self):
        self.verbs.windows.pop(self.rkey, None)
        super().close()


class CompChannel(Owned):
    def __init__(self, verbs, _context):
        super().__init__(verbs)
        self.fd = os.eventfd(0, os.EFD_NONBLOCK)

    def get_cq_event(self, queue):
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            raise FakeError("no event", errno.EAGAIN) from None
        queue.unacknowledged += 1

    def close(self):
        if self.open:
            os.close(self.fd)
        super().close()


class CQ(Owned):
    def __init__(self, verbs, _context, capacity, _cq_context, channel, _vector):
        super().__init__(verbs)
        self.capacity, self.channel = capacity, channel
        self.completions = deque()
        self.armed = False
        self.unacknowledged = 0
        self.pairs = 0

    def poll(self, most):
        found = [self.completions.popleft() for _ in range(min(most, len(self.completions)))]
        return len(found), found

    def req_notify(self):
        self.armed = True

    def ack_events(self, count):
        assert 0 < count <= self.unacknowledged
        self.unacknowledged -= count

    def resize(self, capacity):
        if capacity > self.verbs.largest_queue:
            raise FakeError("too large", errno.EINVAL)
        self.capacity = capacity

    def add(self, number, status, size=0):
        assert len(self.completions) < self.capacity, "the completion queue overran"
        self.completions.append(SimpleNamespace(wr_id=number, status=status, byte_len=size))
        if self.armed:
            self.armed = False
            os.eventfd_write(self.channel.fd, 1)

    def close(self):
        assert not self.pairs, "a queue pair outlives its completion queue"
        super().close()


class QP(Owned):
    """Both QP and QPEx."""

    def __init__(self, verbs, _creator, attributes):
        extended = hasattr(attributes, "send_ops_flags")
        if extended and verbs.refuse_windows:
            raise FakeError("no extended queue pairs", errno.EOPNOTSUPP)
        if attributes.cap.max_inline_data > verbs.most_inline:
            raise FakeError("so much inline", errno.EINVAL)
        super().__init__(verbs)
        assert not attributes.sq_sig_all
        self.cap, self.queue = attributes.cap, attributes.scq
        self.queue.pairs += 1
        self.state = RESET
        self.receives = deque()
        self.outstanding = []  # (number, signaled) of what the send queue holds
        self.qp_num = verbs.new_key()
        verbs.pairs[self.qp_num] = self
        self.peer = 0
        self.wr_id = self.wr_flags = 0

    # ---- states

    def to_init(self, attributes):
        assert (attributes.port_num, self.state) == (1, RESET)
        self.state = INIT

    def to_rtr(self, attributes):
        if self.verbs.refuse_route:
            raise FakeError("no route", errno.ENETUNREACH)
        assert self.state == INIT
        assert attributes.ah_attr.gr.hop_limit > 1
        assert attributes.rnr_retry < 7
        self.state, self.peer = RTR, attributes.dest_qp_num

    def to_rts(self, _attributes):
        assert self.state == RTR
        self.state = RTS

    def fail(self, number=None, status=0):
        """The cause, if it is this side's, and then everything is flushed."""
        if self.state == ERR:
            return
        self.state = ERR
        if number is not None:
            self.queue.add(number, status)
        while self.receives:
            self.queue.add(self.receives.popleft()[0], 5)

    def close(self):
        if self.open:
            self.queue.pairs -= 1
            self.receives.clear()
            assert not any(w.pair is self for w in self.verbs.windows.values()), "a window is bound"
            del self.verbs.pairs[self.qp_num]
        super().close()

    # ---- work

    def post_recv(self, request):
        if self.verbs.refuse_posts:
            raise FakeError("full", errno.ENOMEM)
        assert self.state != RESET
        assert len(self.receives) < self.cap.max_recv_wr
        self._local(request.element, writable=True)
        self.receives.append((request.number, request.element))
        if self.state == ERR:
            self.queue.add(self.receives.popleft()[0], 5)

    def post_send(self, request):
        if self.verbs.refuse_posts:
            raise FakeError("full", errno.ENOMEM)
        self._enter(request.wr_id, bool(request.send_flags & 2))
        if self.state == ERR:
            self.queue.add(request.wr_id, 5)
            return
        assert self.state == RTS
        element = request.sg_list
        inline = bool(request.send_flags & 8)
        assert not inline or element.length <= self.cap.max_inline_data
        self._local(element, writable=request.opcode == READ, inline=inline)
        peer = self.verbs.pairs.get(self.peer)
        if peer is None or peer.state in (RESET, INIT, ERR):
            self.fail(request.wr_id, 12)
        elif request.opcode == SEND:
            self._send(request, element, peer)
        else:
            self._read(request, element, peer)

    def _send(self, request, element, peer):
        if not peer.receives:
            self.fail(request.wr_id, 13)
            return
        number, room = peer.receives.popleft()
        if element.length > room.length:
            peer.fail(number, 1)
            self.fail(request.wr_id, 9)
            return
        ctypes.memmove(room.addr, element.addr, element.length)
        peer.queue.add(number, 0, element.length)
        self._done(request.wr_id, bool(request.send_flags & 2))

    def _read(self, request, element, peer):
        source = self.verbs.readable(peer, request.rkey, request.remote, element.length)
        if not source:
            peer.fail()
            self.fail(request.wr_id, 10)
            return
        ctypes.memmove(element.addr, request.remote, element.length)
        self._done(request.wr_id, True)

    def _local(self, element, writable, inline=False):
        region = self.verbs.regions.get(element.lkey)
        if inline:
            return
        assert region is not None, f"no region of key {element.lkey}"
        assert region.address <= element.addr
        assert element.addr + element.length <= region.address + region.size
        assert not writable or region.access & self.verbs.constants.IBV_ACCESS_LOCAL_WRITE

    def _enter(self, number, signaled):
        assert len(self.outstanding) < self.cap.max_send_wr, "the send queue overran"
        self.outstanding.append((number, signaled))

    def _done(self, number, signaled):
        if signaled:
            # A completion frees its own entry and every one before it.
            place = self.outstanding.index((number, True))
            del self.outstanding[: place + 1]
            self.queue.add(number, 0)

    # ---- QPEx

    def wr_start(self):
        if self.verbs.refuse_posts:
            raise FakeError("full", errno.ENOMEM)

    def wr_complete(self):
        pass

    def wr_bind_mw(self, window, key, info):
        self._enter(self.wr_id, bool(self.wr_flags & 2))
        assert key == window.rkey
        assert window.region is None
        assert info.region.access & self.verbs.constants.IBV_ACCESS_MW_BIND
        window.region, window.pair = info.region, self
        window.address, window.size = info.address, info.size
        self._done(self.wr_id, bool(self.wr_flags & 2))

    def wr_local_inv(self, key):
        self._enter(self.wr_id, bool(self.wr_flags & 2))
        if self.state == ERR:
            self.queue.add(self.wr_id, 5)
            return
        window = self.verbs.windows[key]
        window.region = window.pair = None
        self._done(self.wr_id, bool(self.wr_flags & 2))


class SGE:
    def __init__(self, addr, length, lkey):
        self.addr, self.length, self.lkey = addr, length, lkey
        self.closed = False

    def close(self):
        self.closed = True


class SendWR:
    def __init__(self, _number, opcode, count, _imm, elements, flags):
        assert (count, len(elements)) == (1, 1)
        self.wr_id, self.opcode, self.send_flags = 0, opcode, flags
        self.sg_list = SimpleNamespace(**vars(elements[0]))  # a copy, as pyverbs makes one
        self.rkey = self.remote = 0

    def set_wr_rdma(self, rkey, address):
        self.rkey, self.remote = rkey, address

    def close(self):
        self.sg_list = None


class RecvWR:
    def __init__(self, number, count, elements):
        assert count == 1
        self.number = number
        self.element = SimpleNamespace(**vars(elements[0]))

    def close(self):
        self.element = None


class FakeVerbs:
    """The module's classes with this instance's state. Knobs are plain attributes."""

    error = FakeError
    constants = SimpleNamespace(
        IBV_ACCESS_LOCAL_WRITE=1, IBV_ACCESS_REMOTE_READ=4, IBV_ACCESS_MW_BIND=16,
        IBV_DEVICE_MEM_WINDOW_TYPE_2A=1 << 23, IBV_DEVICE_MEM_WINDOW_TYPE_2B=1 << 24,
        IBV_GID_TYPE_IB=0, IBV_GID_TYPE_ROCE_V1=1, IBV_GID_TYPE_ROCE_V2=2, IBV_MW_TYPE_2=2,
        IBV_QPT_RC=2, IBV_QP_EX_WITH_SEND=4, IBV_QP_EX_WITH_RDMA_READ=16, IBV_QP_EX_WITH_BIND_MW=512,
        IBV_QP_EX_WITH_LOCAL_INV=256, IBV_QP_INIT_ATTR_PD=1, IBV_QP_INIT_ATTR_SEND_OPS_FLAGS=64,
        IBV_SEND_SIGNALED=2, IBV_WR_SEND=SEND, IBV_WR_RDMA_READ=READ,
    )  # fmt: skip

    def __init__(self, *, windows: bool = True, inline_bytes: int = 1024) -> None:
        flags = self.constants.IBV_DEVICE_MEM_WINDOW_TYPE_2B if windows else 0
        self.largest_queue = 32767
        self.attributes = {
            "device_cap_flags": flags,
            "max_cqe": self.largest_queue,
            "max_qp_rd_atom": 16,
            "max_qp_init_rd_atom": 16,
        }
        self.gids = {
            "fake0": [("fe80::1", 2), ("::ffff:127.0.0.1", 1), ("::ffff:127.0.0.1", 2)],
            "fake1": [("::ffff:10.9.9.9", 2)],
        }
        self.broken: set[str] = set()
        self.most_inline = inline_bytes
        self.refuse_windows = False
        self.refuse_route = False
        self.refuse_posts = False
        self.registrations_left = 10**9
        self.registration_errno = errno.ENOMEM
        self.alive: Counter[str] = Counter()
        self.regions: dict[int, MR] = {}
        self.windows: dict[int, MW] = {}
        self.pairs: dict[int, QP] = {}
        self._keys = iter(range(17, 2**24))

    def new_key(self) -> int:
        return next(self._keys)

    def left(self) -> dict[str, int]:
        """What was not closed."""
        return {name: count for name, count in self.alive.items() if count}

    def readable(self, pair: QP, key: int, address: int, size: int) -> bool:
        """May the peer of `pair` READ this?"""
        window = self.windows.get(key)
        if window is not None and window.pair is pair:
            return window.address <= address and address + size <= window.address + window.size
        region = self.regions.get(key)
        return (
            region is not None
            and bool(region.access & self.constants.IBV_ACCESS_REMOTE_READ)
            and region.address <= address
            and address + size <= region.address + region.size
        )

    def get_device_list(self):
        return [SimpleNamespace(name=name.encode(), transport_type=0) for name in self.gids]

    def Context(self, name):
        return Context(self, name)

    def PD(self, context):
        return PD(self, context)

    def MR(self, domain, size, access, address):
        return MR(self, domain, size, access, address)

    def MW(self, domain, kind):
        return MW(self, domain, kind)

    def MWBindInfo(self, region, address, size, access):
        assert access == self.constants.IBV_ACCESS_REMOTE_READ
        return SimpleNamespace(region=region, address=address, size=size)

    def CompChannel(self, context):
        return CompChannel(self, context)

    def CQ(self, *arguments):
        return CQ(self, *arguments)

    def QP(self, creator, attributes):
        return QP(self, creator, attributes)

    QPEx = QP

    def QPCap(self, sends, receives, send_elements, receive_elements, inline):
        assert (send_elements, receive_elements) == (1, 1)
        return SimpleNamespace(max_send_wr=sends, max_recv_wr=receives, max_inline_data=inline)

    def QPInitAttr(self, **values):
        return SimpleNamespace(**values, max_inline_data=values["cap"].max_inline_data)

    QPInitAttrEx = QPInitAttr

    def QPAttr(self, **values):
        return SimpleNamespace(**values)

    def GID(self, text):
        return IPv6Address(text)

    def GlobalRoute(self, **values):
        return SimpleNamespace(**values)

    AHAttr = GlobalRoute
    SGE = staticmethod(SGE)
    SendWR = staticmethod(SendWR)
    RecvWR = staticmethod(RecvWR)
