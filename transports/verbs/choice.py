"""Which device, port and address a queue pair uses: by rules, or by URL.

PURE: what there is comes in as values, what to use goes out, with a reason for everything that is not used.

    verbs://10.0.0.1:9501                               by the rules
    verbs://10.0.0.1:9501?device=mlx5_0&port=1&gid=3    by URL, in part or whole

The rules. Only active ports count. On Ethernet (RoCE) an address is one of the port's GIDs: zero and link-local ones
are skipped. First comes the GID that is the bootstrap connection's own IP address, since what reaches the one
reaches the other; then IPv4-mapped RoCE v2, then an InfiniBand port (addressed by LID), then other RoCE v2, and
last RoCE v1, which no router forwards. Among equals the first device, port and index win. iWARP is left out: its
queue pairs need a connection manager. (Source of the order: the same skips as NCCL's ncclIbGetGidIndex; link-local
addresses need a scope that a GID does not carry.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, NoReturn
from urllib.parse import parse_qsl

from frieda.config import nearest
from frieda.errors import ConfigError
from frieda.transports.address import HostPort, parse_host_port

ETHERNET: Final = "Ethernet"
INFINIBAND: Final = "InfiniBand"
ROCE_V1: Final = "RoCE v1"
ROCE_V2: Final = "RoCE v2"

_WISHES: Final = ("device", "port", "gid")
_LAST: Final = 9


@dataclass(frozen=True, slots=True)
class Gid:
    """One address of a port."""

    index: int
    address: IPv6Address
    kind: str
    """RoCE v1, RoCE v2 or InfiniBand."""


@dataclass(frozen=True, slots=True)
class Port:
    """One port of a device."""

    number: int
    state: str
    """"active", or another word."""
    link_layer: str
    """Ethernet, InfiniBand or another word."""
    lid: int
    mtu: int
    """The active MTU as verbs count it: 1 to 5 for 256 to 4096 bytes."""
    gids: tuple[Gid, ...]


@dataclass(frozen=True, slots=True)
class Device:
    """A device. `problem`: why it cannot be used at all (it cannot be opened, it is iWARP), or None."""

    name: str
    ports: tuple[Port, ...]
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Wish:
    """What a URL asks for."""

    device: str | None = None
    port: int | None = None
    gid: int | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """What a queue pair uses. `gid` is None on InfiniBand without a global route."""

    device: str
    port: Port
    gid: Gid | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """One candidate and what becomes of it: its rank (lower is better), or None and why it is not used."""

    device: str
    port: Port | None
    gid: Gid | None
    rank: int | None
    why: str


def parse_url(url: str) -> tuple[HostPort, Wish]:
    """The bootstrap address and the wish in `verbs://host:port?device=..&port=..&gid=..`. Raises ConfigError."""
    address, _, query = url.partition("?")
    wish: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in _WISHES:
            raise ConfigError(
                f"{url!r}: there is no setting {name!r}{nearest(name, list(_WISHES))} "
                f"(known: {', '.join(_WISHES)})"
            )
        if name in wish:
            raise ConfigError(f"{url!r} says {name} twice")
        if not value:
            raise ConfigError(f"{url!r}: {name} has no value")
        wish[name] = value
    return parse_host_port(address), Wish(
        device=wish.get("device"),
        port=_small_number(url, "port", wish.get("port"), least=1),
        gid=_small_number(url, "gid", wish.get("gid"), least=0),
    )


def choose(devices: Sequence[Device], wish: Wish, local_address: str | None, url: str) -> Route:
    """The best route. Raises ConfigError with what there is and why it is not used, when there is none."""
    verdicts = survey(devices, wish, local_address)
    if not verdicts:
        raise ConfigError(
            f"{url}: this host has no RDMA device; load one (soft-RoCE:  rdma link add rxe0 type rxe netdev "
            "eth0), or use tcp://, or shm:// for processes of one host, instead"
        )
    best = verdicts[0]
    if best.rank is None or best.port is None:
        _refuse(url, wish, verdicts)
    return Route(best.device, best.port, best.gid)


def fits(route: Route, wish: Wish, local_address: str | None) -> bool:
    """Is this route surely the one that `choose` would find, without a look at the devices?"""
    if wish.device is not None and wish.gid is not None:
        found = (route.device, route.port.number, route.gid.index if route.gid else None)
        return found == (wish.device, wish.port or route.port.number, wish.gid)
    return (
        wish == Wish()
        and local_address is not None
        and route.gid is not None
        and route.gid.kind == ROCE_V2
        and route.gid.address == _as_gid(local_address)
    )


def survey(
    devices: Sequence[Device], wish: Wish = Wish(), local_address: str | None = None
) -> list[Verdict]:
    """Every candidate: first what can be used, best first; then the rest, as listed."""
    local = None if local_address is None else _as_gid(local_address)
    found = [verdict for device in devices for verdict in _device_verdicts(device, wish, local)]
    return sorted(found, key=lambda each: _LAST if each.rank is None else each.rank)


def _device_verdicts(device: Device, wish: Wish, local: IPv6Address | None) -> Iterator[Verdict]:
    if wish.device is not None and device.name != wish.device:
        yield Verdict(device.name, None, None, None, f"not the device asked for, {wish.device}")
    elif device.problem is not None:
        yield Verdict(device.name, None, None, None, device.problem)
    elif not device.ports:
        yield Verdict(device.name, None, None, None, "it has no port")
    else:
        for port in device.ports:
            yield from _port_verdicts(device.name, port, wish, local)


def _port_verdicts(
    device: str, port: Port, wish: Wish, local: IPv6Address | None
) -> Iterator[Verdict]:
    def refused(why: str, gid: Gid | None = None) -> Verdict:
        return Verdict(device, port, gid, None, why)

    if wish.port is not None and port.number != wish.port:
        yield refused(f"not the port asked for, {wish.port}")
        return
    if port.state != "active":
        yield refused(f"the port is {port.state}")
        return
    if port.link_layer == INFINIBAND and wish.gid is None:
        if port.lid:
            yield Verdict(device, port, None, 2, "InfiniBand, addressed by LID")
        else:
            yield refused("the port has no LID: is a subnet manager running?")
        return
    if port.link_layer not in (ETHERNET, INFINIBAND):
        yield refused(f"the link layer is {port.link_layer}")
        return
    if not any(wish.gid is None or gid.index == wish.gid for gid in port.gids):
        missing = "it has no GID" if wish.gid is None else f"it has no GID {wish.gid}"
        yield refused(f"{missing}; has its network interface an address?")
    for gid in port.gids:
        if wish.gid is not None and gid.index != wish.gid:
            yield refused(f"not the GID asked for, {wish.gid}", gid)
        elif int(gid.address) == 0:
            yield refused("the GID is zero", gid)
        elif wish.gid is not None:
            yield Verdict(device, port, gid, 0, "asked for")
        elif gid.address.is_link_local:
            yield refused("the GID is link-local", gid)
        elif gid.kind == ROCE_V2 and gid.address == local:
            yield Verdict(device, port, gid, 0, "RoCE v2, the connection's own address")
        elif gid.kind == ROCE_V2 and gid.address.ipv4_mapped is not None:
            yield Verdict(device, port, gid, 1, "RoCE v2, IPv4")
        elif gid.kind == ROCE_V2:
            yield Verdict(device, port, gid, 3, "RoCE v2, IPv6")
        else:
            yield Verdict(device, port, gid, 4, f"{gid.kind}, which is not routed")


def _as_gid(address: str) -> IPv6Address:
    plain = ip_address(address.partition("%")[0])
    if isinstance(plain, IPv4Address):
        return IPv6Address(b"\0" * 10 + b"\xff\xff" + plain.packed)
    return plain


def _small_number(url: str, name: str, text: str | None, least: int) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and least <= int(text) <= 65535):
        raise ConfigError(f"{url!r}: {name} must be a number from {least} to 65535")
    return int(text)


def _refuse(url: str, wish: Wish, verdicts: Sequence[Verdict]) -> NoReturn:
    reasons = dict.fromkeys(
        f"{each.device}"
        + (f" port {each.port.number}" if each.port else "")
        + (f" GID {each.gid.index}" if each.gid else "")
        + f": {each.why}"
        for each in verdicts
    )
    asked = "".join(
        f" {name}={value}" for name in _WISHES if (value := getattr(wish, name)) is not None
    )
    what = f"no RDMA device fits{asked}" if asked else "no RDMA device can be used"
    raise ConfigError(
        f"{url}: {what} ({'; '.join(reasons)}); see  frieda rdma devices , or use tcp:// or shm:// instead"
    )
