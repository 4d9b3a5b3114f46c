"""Apache Kafka of our own: one combined node, or up to four brokers of which the first is the controller too (KRaft).

With Kafka's own defaults and the Java options of its start script, so that what is measured is Kafka as it comes.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import socket
import struct
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from frieda.bench.systems.base import Durability
from frieda.bench.systems.processes import (
    ChildProcess,
    find_program,
    free_ports,
    peers_folder,
    version_line,
)
from frieda.errors import ConfigError, FriedaError

MAX_BROKERS: Final = 4
LEAST_JAVA: Final = 17
START_TIMEOUT_S: Final = 180.0
FORMAT_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 30.0
PROPERTIES_FILE: Final = "server.properties"

DURABILITY: Final[Mapping[Durability, Mapping[str, object]]] = {
    "cache": {},
    "disk": {"log.flush.interval.messages": 1},
}
"""Nothing is flushed by Kafka's defaults: the page cache is written when the kernel thinks fit."""

JAVA_OPTIONS: Final = (
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-XX:MaxInlineLevel=15",
    "-Djava.awt.headless=true",
)
"""KAFKA_JVM_PERFORMANCE_OPTS of Kafka's bin/kafka-run-class.sh."""

_PROBE_TIMEOUT_S: Final = 5.0
_MAX_PROBE_BYTES: Final = 64 * 1024
_LOGGING: Final = """\
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d{HH:mm:ss,SSS} %p %c{1}: %m%n
rootLogger.level=INFO
rootLogger.appenderRef.console.ref=console
"""


def libraries() -> Path:
    """The folder with Kafka's jars, where `make peers` puts them; it may be missing."""
    return peers_folder() / "kafka" / "libs"


def find_java() -> Path | None:
    """$JAVA_HOME's Java, else the one that is found as other programs are."""
    home = os.environ.get("JAVA_HOME")
    if home and (Path(home) / "bin" / "java").exists():
        return Path(home) / "bin" / "java"
    return find_program("java")


def missing_kafka() -> str | None:
    """None when Java and Kafka's jars are there, else a sentence that says how to get them."""
    java = find_java()
    if java is None:
        return f"Java {LEAST_JAVA} is not installed, which Kafka needs: run 'make peers'"
    version = java_version(java)
    if version < LEAST_JAVA:
        return f"{java} is Java {version}, and Kafka needs {LEAST_JAVA}: run 'make peers', or set JAVA_HOME"
    if kafka_version() is None:
        return f"Apache Kafka is not in {libraries()}: run 'make peers'"
    return None


def java_version(java: Path) -> int:
    """The number before the first dot of `java -version`. Raises FriedaError when it does not tell."""
    line = version_line(java, "-version")
    found = re.search(r'version "(\d+)', line)
    if found is None:
        raise FriedaError(f"{java} does not tell its version but {line!r}")
    return int(found[1])


def kafka_version() -> str | None:
    """The version of the jars in `libraries()`, None when there are none."""
    for jar in sorted(libraries().glob("kafka_2.13-*.jar"), reverse=True):
        return jar.stem.removeprefix("kafka_2.13-")
    return None


def java_command(main_class: str, *arguments: str | Path, options: Sequence[str] = ()) -> list[str]:
    """The command line of a program among Kafka's jars. Raises FriedaError when it cannot be had."""
    missing = missing_kafka()
    java = find_java()
    if missing is not None or java is None:
        raise FriedaError(missing or "Java was there a moment ago and is not any more")
    return [str(java), *options, "-cp", f"{libraries()}/*", main_class, *map(str, arguments)]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningKafka:
    """RunningSystem: all brokers of one cluster."""

    processes: tuple[ChildProcess, ...]
    address: str
    """host:port of every broker, with commas: Kafka's bootstrap servers."""
    version: str
    settings: Mapping[str, object]

    def cpu_seconds(self) -> float:
        """Processor time so far, of all brokers."""
        return sum(process.cpu_seconds() for process in self.processes)

    def memory_bytes(self) -> int:
        """Resident memory of all brokers."""
        return sum(process.memory_bytes() for process in self.processes)

    def require_alive(self) -> None:
        """Raise FriedaError, with the end of its log, when a broker has ended."""
        for process in self.processes:
            process.require_alive()


class KafkaSystem:
    """Apache Kafka: acknowledged from the page cache ("cache", its default) or after fsync of each record ("disk")."""

    name = "kafka"

    def missing(self) -> str | None:
        """None when Java and Kafka are there, else how to get them."""
        return missing_kafka()

    @contextlib.contextmanager
    def running(
        self, folder: Path, durability: Durability, brokers: int = 1
    ) -> Iterator[RunningKafka]:
        """A cluster on `folder`. Raises FriedaError; ConfigError for more than four brokers."""
        if not 1 <= brokers <= MAX_BROKERS:
            raise ConfigError(f"brokers = {brokers}: Kafka is run with 1 to {MAX_BROKERS} here")
        heap = "1g" if brokers == 1 else "512m"
        options = (f"-Xmx{heap}", f"-Xms{heap}", *JAVA_OPTIONS)
        folder = folder.absolute()
        logging = folder / "log4j2.properties"
        logging.write_text(_LOGGING, encoding="ascii")
        controller_port, *ports = free_ports(1 + brokers)
        cluster_id = new_cluster_id()
        shared = cluster_properties(controller_port, brokers)
        shared.update(DURABILITY[durability])
        homes = []
        for number, port in enumerate(ports, 1):
            home = folder / f"broker-{number}"
            home.mkdir()
            properties = node_properties(number, port, controller_port, home) | shared
            (home / PROPERTIES_FILE).write_text(
                "".join(f"{name}={value}\n" for name, value in properties.items()), encoding="utf-8"
            )
            homes.append(home)
        _format(homes, cluster_id)
        command = java_command(
            "kafka.Kafka",
            PROPERTIES_FILE,
            options=(*options, f"-Dlog4j2.configurationFile={logging}"),
        )
        with contextlib.ExitStack() as stack:
            processes = tuple(
                stack.enter_context(
                    ChildProcess(f"kafka-{number}", command, home, stop_timeout_s=STOP_TIMEOUT_S)
                )
                for number, home in enumerate(homes, 1)
            )
            for process, port in zip(processes, ports, strict=True):
                process.wait_until(_knows(port, brokers), START_TIMEOUT_S)
            yield RunningKafka(
                processes=processes,
                address=",".join(f"127.0.0.1:{port}" for port in ports),
                version=kafka_version() or "unknown",
                settings={
                    "brokers": brokers,
                    "java": java_version(Path(command[0])),
                    "java_options": " ".join(options),
                    "log.flush.interval.messages": "Kafka's default: never",
                    **{name: shared[name] for name in shared if name not in _PLACED},
                },
            )


_PLACED: Final = frozenset(
    {"controller.quorum.voters", "controller.listener.names", "listener.security.protocol.map"}
)


def cluster_properties(controller_port: int, brokers: int) -> dict[str, object]:
    """What the server.properties of all brokers say alike."""
    internal = min(3, brokers)  # Kafka's default, as far as there are brokers
    return {
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "auto.create.topics.enable": "false",
        "offsets.topic.replication.factor": internal,
        "transaction.state.log.replication.factor": internal,
        "transaction.state.log.min.isr": min(2, brokers),
        "group.initial.rebalance.delay.ms": 0,
    }


def node_properties(number: int, port: int, controller_port: int, home: Path) -> dict[str, object]:
    """What the server.properties of broker `number` alone says; number 1 is the controller too."""
    here = f"PLAINTEXT://127.0.0.1:{port}"
    if number == 1:
        roles, listeners = "broker,controller", f"{here},CONTROLLER://127.0.0.1:{controller_port}"
    else:
        roles, listeners = "broker", here
    return {
        "process.roles": roles,
        "node.id": number,
        "listeners": listeners,
        "advertised.listeners": here,
        "log.dirs": home / "data",
    }


def new_cluster_id() -> str:
    """A random id as Kafka's own tool makes it: 22 characters of base64, the first no "-", which would be a flag."""
    while True:
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not cluster_id.startswith("-"):
            return cluster_id


def _format(homes: Sequence[Path], cluster_id: str) -> None:
    """Make the log folders of all brokers, at the same time: each takes a second of Java's own start."""
    command = java_command(
        "kafka.tools.StorageTool",
        *("format", "--cluster-id", cluster_id, "--config", PROPERTIES_FILE),
        options=("-XX:TieredStopAtLevel=1",),
    )
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(ChildProcess("kafka-format", command, home)) for home in homes
        ]
        for process in processes:
            code = process.wait(FORMAT_TIMEOUT_S)
            if code != 0:
                raise FriedaError(
                    f"Kafka's log folder cannot be formatted (exit code {code}); {process.log_tail()}"
                )


def _knows(port: int, brokers: int) -> Callable[[], bool]:
    """Whether the broker at this port answers a metadata request with that many brokers."""
    return lambda: brokers_known_to(port) == brokers


def brokers_known_to(port: int) -> int:
    """How many brokers a broker names in its metadata. Raises OSError when it does not answer.

    A Metadata request of version 1 for no topic, which all of Kafka 4 take (source: the Kafka protocol guide).
    """
    client = b"frieda"
    request = struct.pack(">hhih", 3, 1, 1, len(client)) + client + struct.pack(">i", 0)
    with socket.create_connection(("127.0.0.1", port), _PROBE_TIMEOUT_S) as probe:
        probe.settimeout(_PROBE_TIMEOUT_S)
        probe.sendall(struct.pack(">i", len(request)) + request)
        (size_bytes,) = struct.unpack(">i", _receive(probe, 4))
        if not 12 <= size_bytes <= _MAX_PROBE_BYTES:
            raise OSError(f"an answer of {size_bytes} bytes is none of Kafka's")
        answer = _receive(probe, size_bytes)
    count: int = struct.unpack_from(">i", answer, 4)[0]
    return count


def _receive(probe: socket.socket, size_bytes: int) -> bytes:
    received = bytearray()
    while len(received) < size_bytes:
        part = probe.recv(size_bytes - len(received))
        if not part:
            raise ConnectionResetError("the connection was closed in the middle of an answer")
        received += part
    return bytes(received)
