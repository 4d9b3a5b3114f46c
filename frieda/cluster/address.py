"""The address of a ZooKeeper ensemble: zk://host:2181,host2:2181/frieda. PURE."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from frieda.errors import ConfigError

SCHEME: Final = "zk"
DEFAULT_PORT: Final = 2181
DEFAULT_ROOT: Final = "/frieda"
_EXAMPLE: Final = "zk://host:2181,host2:2181/frieda"
_HOST = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>\d{1,5}))?")
_STEP = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class EnsembleAddress:
    """Where the servers are, and below which node everything of this cluster lies.

    Several clusters, and other programs (Kafka has nodes of the same names), share an ensemble by their roots.
    """

    hosts: tuple[tuple[str, int], ...]
    root: str

    def __str__(self) -> str:
        return f"{SCHEME}://{self.host_list}{self.root}"

    @property
    def host_list(self) -> str:
        """host:port with commas between."""
        return ",".join(f"{host}:{port}" for host, port in self.hosts)


def parse_address(text: str) -> EnsembleAddress:
    """Read a zk:// address; the port is 2181 and the root /frieda where it does not say. Raises ConfigError."""
    scheme, separator, rest = text.partition("://")
    if not separator or scheme != SCHEME:
        raise ConfigError(f"{text!r} is no address of a ZooKeeper; write it as {_EXAMPLE}")
    hosts_text, _, root_text = rest.partition("/")
    hosts = tuple(_host(part, text) for part in hosts_text.split(","))
    if len(set(hosts)) != len(hosts):
        raise ConfigError(f"{text!r} names a server twice")
    steps = [step for step in root_text.split("/") if step]
    for step in steps:
        if not _STEP.fullmatch(step) or step in (".", ".."):
            raise ConfigError(
                f"{text!r}: the part {step!r} of the root may hold only letters, digits, '.', '_' and '-'"
            )
    return EnsembleAddress(hosts, "/" + "/".join(steps) if steps else DEFAULT_ROOT)


def _host(part: str, text: str) -> tuple[str, int]:
    found = _HOST.fullmatch(part)
    if found is None:
        raise ConfigError(f"{text!r}: {part!r} is no host:port; write it as {_EXAMPLE}")
    port = int(found["port"] or DEFAULT_PORT)
    if not 1 <= port <= 65535:
        raise ConfigError(f"{text!r}: the port of {part!r} must be from 1 to 65535")
    return found["host"], port
