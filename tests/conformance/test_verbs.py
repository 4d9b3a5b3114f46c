"""Over real verbs: on a host with an RDMA device, and in the virtual machine of `make test-rdma`."""

import pytest

from frieda.errors import ConfigError, MissingDependencyError
from frieda.testing.transports import TransportConformance
from frieda.transports.verbs.binding import load
from frieda.transports.verbs.choice import Route, Wish, choose
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


class TestVerbs(TransportConformance):
    connections = 300  # the virtual machine is emulated, so each takes its time

    def make_url(self) -> str:
        mapped = ROUTE.gid.address.ipv4_mapped if ROUTE.gid is not None else None
        # In the virtual machine the other end of the wire: the client comes from veth0.
        host = "10.77.0.2" if str(mapped) == "10.77.0.1" else mapped or "127.0.0.1"
        return f"verbs://{host}:0"
