"""From nothing to a connected queue pair: made, INIT, and with the peer's address RTR and RTS.

Deadlines of the device: what is not acknowledged is repeated after ACK_TIMEOUT, RETRIES times, so a peer that is gone
without a word is given up after about 3.8 s. A receive that is missing is an error after RNR_RETRIES short pauses:
credits make sure that there is one. (Of either, 7 means for ever: RNR_RETRIES by the specification, RETRIES to rxe.)
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Any, Final, NamedTuple

from frieda.errors import RemoteProtocolError, TransportError
from frieda.transports.rdma.bootstrap import Fields, number_field, text_field
from frieda.transports.rdma.provider import ChannelLimits
from frieda.transports.verbs.binding import reason_of
from frieda.transports.verbs.choice import INFINIBAND
from frieda.transports.verbs.completion import VerbsProvider

ACK_TIMEOUT: Final = 17  # 4.096 us * 2**17 = 0.54 s
RETRIES: Final = 6
RNR_RETRIES: Final = 3
RNR_TIMER: Final = 12  # 0.64 ms
HOP_LIMIT: Final = 64
INLINE_BYTES: Final = 220
"""What is asked for; a device may give less. (mlx5 gives so much without larger queue entries.)"""


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """Where the other queue pair is: what the bootstrap's fields say, checked."""

    queue_pair: int
    first_sequence: int
    link_layer: str
    lid: int
    gid: IPv6Address
    mtu: int

    @classmethod
    def from_fields(cls, fields: Fields) -> PeerAddress:
        """Raises RemoteProtocolError for what no device can have."""
        try:
            gid = IPv6Address(text_field(fields, "gid"))
        except ValueError:
            raise RemoteProtocolError(
                "the peer's handshake is wrong: its GID is no address"
            ) from None
        mtu = number_field(fields, "mtu", 5)
        if mtu == 0:
            raise RemoteProtocolError("the peer's handshake is wrong: its MTU is 0")
        return cls(
            number_field(fields, "queue_pair", 2**24 - 1),
            number_field(fields, "first_sequence", 2**24 - 1),
            text_field(fields, "link_layer"),
            number_field(fields, "lid", 2**16 - 1),
            gid,
            mtu,
        )


class MadePair(NamedTuple):
    """A queue pair, how much it sends inline, and whether it has memory windows."""

    pair: Any
    inline_bytes: int
    windows: bool


def make_pair(provider: VerbsProvider, sends: int, offered: ChannelLimits) -> MadePair:
    """A reliable connected queue pair, with as much as the device can do. Raises TransportError."""
    constants = provider.verbs.constants
    type_2 = constants.IBV_DEVICE_MEM_WINDOW_TYPE_2A | constants.IBV_DEVICE_MEM_WINDOW_TYPE_2B
    windows = bool(provider.attributes.device_cap_flags & type_2)
    # A source takes two entries beside the READs: to open its window and to close it.
    depth = sends + 3 * offered.max_reads
    problem: Exception | None = None
    for with_windows in (True, False) if windows else (False,):
        for inline_bytes in (INLINE_BYTES, 0):
            caps = provider.verbs.QPCap(depth, offered.window, 1, 1, inline_bytes)
            try:
                pair, granted_bytes = _make(provider, caps, with_windows)
            except provider.verbs.error as error:
                problem = error
            else:
                return MadePair(pair, min(granted_bytes, inline_bytes), with_windows)
    assert problem is not None
    raise TransportError(
        f"the device {provider.route.device} makes no queue pair with {depth} sends and {offered.window} "
        f"receives: {reason_of(problem)}; a smaller window may help"
    ) from problem


def initialize_pair(provider: VerbsProvider, pair: Any) -> None:
    """RESET to INIT: receives may be posted. Raises TransportError."""
    attributes = provider.verbs.QPAttr(port_num=provider.route.port.number)
    attributes.pkey_index = 0
    attributes.qp_access_flags = provider.verbs.constants.IBV_ACCESS_REMOTE_READ
    try:
        pair.to_init(attributes)
    except provider.verbs.error as error:
        raise TransportError(f"the queue pair cannot be set up: {reason_of(error)}") from error


def connect_pair(
    provider: VerbsProvider, pair: Any, first_sequence: int, reads: int, peer: PeerAddress
) -> None:
    """INIT to RTR to RTS, with `reads` at once each way. Raises TransportError."""
    route = provider.route
    if peer.link_layer != route.port.link_layer:
        raise TransportError(
            f"the peer's port is {peer.link_layer} and ours ({route.device}) is {route.port.link_layer}: "
            "name a device of the same network in the URL, ?device=..."
        )
    attributes = provider.verbs.QPAttr(port_num=route.port.number)
    attributes.path_mtu = min(peer.mtu, route.port.mtu)
    attributes.dest_qp_num = peer.queue_pair
    attributes.rq_psn = peer.first_sequence
    attributes.sq_psn = first_sequence
    attributes.max_dest_rd_atomic = attributes.max_rd_atomic = reads
    attributes.min_rnr_timer = RNR_TIMER
    attributes.timeout = ACK_TIMEOUT
    attributes.retry_cnt = RETRIES
    attributes.rnr_retry = RNR_RETRIES
    try:
        attributes.ah_attr = _path(provider, peer)
        pair.to_rtr(attributes)
        pair.to_rts(attributes)
    except provider.verbs.error as error:
        raise TransportError(
            f"the queue pair on {route.device} cannot reach the peer at {peer.gid}: {reason_of(error)}"
        ) from error


def _make(provider: VerbsProvider, caps: Any, with_windows: bool) -> tuple[Any, int]:
    verbs, constants = provider.verbs, provider.verbs.constants
    kind, queue = constants.IBV_QPT_RC, provider.queue
    # pyverbs would report every send (sq_sig_all=1) if not told otherwise.
    if not with_windows:
        attributes = verbs.QPInitAttr(qp_type=kind, scq=queue, rcq=queue, cap=caps, sq_sig_all=0)
        return verbs.QP(provider.domain, attributes), attributes.max_inline_data
    attributes = verbs.QPInitAttrEx(
        qp_type=kind,
        scq=queue,
        rcq=queue,
        cap=caps,
        sq_sig_all=0,
        comp_mask=constants.IBV_QP_INIT_ATTR_PD | constants.IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
        pd=provider.domain,
        send_ops_flags=constants.IBV_QP_EX_WITH_SEND
        | constants.IBV_QP_EX_WITH_RDMA_READ
        | constants.IBV_QP_EX_WITH_BIND_MW
        | constants.IBV_QP_EX_WITH_LOCAL_INV,
    )
    return verbs.QPEx(provider.context, attributes), attributes.max_inline_data


def _path(provider: VerbsProvider, peer: PeerAddress) -> Any:
    verbs, route = provider.verbs, provider.route
    path: dict[str, Any] = {"port_num": route.port.number}
    if route.port.link_layer == INFINIBAND:
        path["dlid"] = peer.lid
    if route.gid is not None:
        path["is_global"] = 1
        path["gr"] = verbs.GlobalRoute(
            dgid=verbs.GID(peer.gid.exploded), sgid_index=route.gid.index, hop_limit=HOP_LIMIT
        )
    return verbs.AHAttr(**path)
