"""What RDMA devices this host has, read through pyverbs as the values of `choice`.

Reading opens each device for a moment, which takes the loop a few milliseconds, so it is done when a connection
or a listener needs a route, not for each message.
"""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import Any, Final

from frieda.transports.verbs.binding import Verbs, reason_of
from frieda.transports.verbs.choice import ETHERNET, INFINIBAND, ROCE_V1, ROCE_V2, Device, Gid, Port

_STATES: Final = {
    0: "missing",
    1: "down",
    2: "initializing",
    3: "armed",
    4: "active",
    5: "deferred",
}
_LINK_LAYERS: Final = {0: INFINIBAND, 1: INFINIBAND, 2: ETHERNET}  # 0: older than RoCE
_IWARP_TRANSPORT: Final = 1
_MAX_GIDS: Final = 1024


def read_devices(verbs: Verbs) -> tuple[Device, ...]:
    """Every device, in the order of the library; none where the kernel has no RDMA at all."""
    try:
        listed = verbs.get_device_list()
    except verbs.error:  # the kernel's part is not loaded
        return ()
    return tuple(_read_device(verbs, each) for each in listed)


def _read_device(verbs: Verbs, listed: Any) -> Device:
    name = listed.name.decode()
    if listed.transport_type == _IWARP_TRANSPORT:
        return Device(name, (), "iWARP, whose queue pairs need a connection manager")
    try:
        with verbs.Context(name=name) as context:
            count = context.query_device().phys_port_cnt
            attributes = {number: context.query_port(number) for number in range(1, count + 1)}
            entries = context.query_gid_table(_MAX_GIDS)
    except verbs.error as error:
        return Device(name, (), f"it cannot be opened: {reason_of(error)}")
    kinds = {
        verbs.constants.IBV_GID_TYPE_IB: INFINIBAND,
        verbs.constants.IBV_GID_TYPE_ROCE_V1: ROCE_V1,
        verbs.constants.IBV_GID_TYPE_ROCE_V2: ROCE_V2,
    }
    ports = tuple(
        Port(
            number=number,
            state=_STATES.get(each.state, f"in state {each.state}"),
            link_layer=_LINK_LAYERS.get(each.link_layer, f"unknown ({each.link_layer})"),
            lid=each.lid,
            mtu=each.active_mtu,
            gids=tuple(
                Gid(entry.gid_index, IPv6Address(entry.gid_str()), kinds.get(entry.gid_type, "?"))
                for entry in entries
                if entry.port_num == number
            ),
        )
        for number, each in attributes.items()
    )
    return Device(name, ports)
