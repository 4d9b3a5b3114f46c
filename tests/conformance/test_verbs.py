"""Over real verbs: on a host with an RDMA device, and in the virtual machine of `make test-rdma`."""

import pytest

from frieda.errors import ConfigError, MissingDependencyError
from frieda.testing.rdma_clauses import RdmaConformance
from frieda.transports.sockets import connected_socket
from frieda.transports.verbs import handshake
from frieda.transports.verbs.binding import load
from frieda.transports.verbs.choice import Route, Wish, choose, parse_url
from frieda.transports.verbs.devices import read_devices


def usable_route() -> Route:
    try:
        return choose(read_devices(load()), Wish(), None, "verbs://")
    except (MissingDependencyError, ConfigError) as error:
        pytest.skip(
            f"no RDMA here, `make test-rdma` runs these in a virtual machine ({error})",
            allow_module_level=True,
        )


ROUTE = usable_route()


class TestVerbs(RdmaConformance):
    # With slots of the default size each takes a third of a second in the emulated machine; there the three
    # hundred of tests/rdma_vm have small ones.
    connections = 30

    def make_url(self) -> str:
        mapped = ROUTE.gid.address.ipv4_mapped if ROUTE.gid is not None else None
        # In the virtual machine the other end of the wire: the client comes from veth0.
        host = "10.77.0.2" if str(mapped) == "10.77.0.1" else mapped or "127.0.0.1"
        return f"verbs://{host}:0"

    async def raw_queue_pair(self, pair):
        url = pair.listener.url
        (host, port), wish = parse_url(url)
        sock = await connected_socket(url, host, port)
        return await pair.client._shake_hands(handshake.connect, sock, wish, url)
