"""A real ZooKeeper for tests: the jars of the Debian package, run with a configuration of our own on loopback.

    with ZooKeeper(folder, nodes=3) as ensemble:
        connect(ensemble.url)
        ensemble.nodes[0].kill()
        ensemble.nodes[0].start()

The servers live as long as the context, and end with this process however that ends.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Final, Self

from frieda.bench.systems.processes import ChildProcess
from frieda.errors import ConfigError, FriedaError, MissingDependencyError

JARS_VARIABLE: Final = "FRIEDA_ZOOKEEPER_JARS"
_JAR_FOLDER: Final = Path("/usr/share/java")
_JARS: Final = ("zookeeper.jar", "slf4j-simple.jar")
_MAIN: Final = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
_START_TIMEOUT_S: Final = 120.0
_ANSWER_TIMEOUT_S: Final = 10.0
_START_ATTEMPTS: Final = 5
# Below the range from which the kernel takes the ports of outgoing connections (ip_local_port_range).
_FIRST_PORT, _LAST_PORT = 20_000, 32_000
_EXPIRING: Final = re.compile(r"^(\S+) .*Expiring session 0x([0-9a-f]+), ")
_MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024


def missing() -> str | None:
    """None when a ZooKeeper can be started here, else what to install."""
    lacking = [str(jar) for jar in _jars() if not jar.is_file()]
    if lacking:
        return (
            f"ZooKeeper is not installed ({', '.join(lacking)}): run 'apt install zookeeper', "
            f"or name the folder of its jars in {JARS_VARIABLE}"
        )
    if shutil.which("java") is None:
        return "there is no java to run ZooKeeper: run 'apt install default-jre-headless'"
    return None


class ZooKeeperNode:
    """One server of an ensemble. Owned by `ZooKeeper`, which starts and ends it."""

    def __init__(self, number: int, folder: Path, ports: tuple[int, ...]) -> None:
        self.number = number
        self.folder = folder
        self.port, *self.peer_ports = ports
        self._process: ChildProcess | None = None
        self._starts = 0

    @property
    def running(self) -> bool:
        return self._process is not None and not self._process.ended

    @property
    def pid(self) -> int:
        return self._child().pid

    def start(self) -> None:
        """Start the server; it may not serve yet when this returns. Raises FriedaError."""
        if self.running:
            raise FriedaError(f"ZooKeeper {self.number} runs already")
        self._starts += 1
        # Tests do not ask whether ZooKeeper survives a power cut, and a noisy disk must not slow them down.
        child = ChildProcess(
            f"zookeeper-{self.number}-{self._starts}",
            [
                "java",
                "-Xmx256m",
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
                "-Xshare:auto",
                "-XX:-UsePerfData",
                "-Djava.net.preferIPv4Stack=true",
                "-Dzookeeper.forceSync=no",
                "-Dzookeeper.admin.enableServer=false",
                "-Dorg.slf4j.simpleLogger.showDateTime=true",
                "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
                "-cp",
                ":".join(map(str, _jars())),
                _MAIN,
                self.folder / "zoo.cfg",
            ],
            self.folder,
        )
        child.__enter__()
        self._process = child

    def stop(self) -> None:
        """SIGTERM, and wait for its end."""
        process, self._process = self._child(), None
        process.stop()

    def kill(self) -> None:
        """SIGKILL, as a crash. Nothing happens when it is not running."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()

    def pause(self) -> None:
        """SIGSTOP: alive, and silent."""
        self._child().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._child().send_signal(signal.SIGCONT)

    def wait_until_serving(self, timeout_s: float = _START_TIMEOUT_S) -> None:
        """Until it answers clients, which a node does only within a quorum. Raises FriedaError."""
        # A connection that is taken while the server comes up may never be answered: ask again soon.
        self._child().wait_until(lambda: "\nMode: " in self.ask("srvr", 0.5), timeout_s)

    def ask(self, word: str, timeout_s: float = _ANSWER_TIMEOUT_S) -> str:
        """The answer to one of ZooKeeper's four letter words (`srvr`, `dump`, `mntr`...). Raises OSError."""
        with socket.create_connection(("127.0.0.1", self.port), timeout_s) as connection:
            connection.sendall(word.encode())
            answer = bytearray()
            while some := connection.recv(64 * 1024):
                answer += some
                if len(answer) > _MAX_ANSWER_BYTES:
                    raise FriedaError(
                        f"ZooKeeper answers {word} with more than {_MAX_ANSWER_BYTES} bytes"
                    )
        return answer.decode(errors="replace")

    @property
    def mode(self) -> str:
        """standalone, leader or follower. Raises OSError, FriedaError."""
        found = re.search(r"^Mode: (\w+)", self.ask("srvr"), re.MULTILINE)
        if found is None:
            raise FriedaError(f"ZooKeeper {self.number} does not serve yet")
        return found.group(1)

    def expirations(self) -> Iterator[tuple[int, float]]:
        """Each session that this server let expire, with the time of its own clock (Unix seconds), from its log."""
        for log in sorted(self.folder.glob("*.log")):
            for line in log.read_text(errors="replace").splitlines():
                if (found := _EXPIRING.match(line)) is not None:
                    expired_at = datetime.fromisoformat(found.group(1)).timestamp()
                    yield int(found.group(2), 16), expired_at

    def log_tail(self) -> str:
        """The end of what it wrote."""
        return self._child().log_tail()

    def _child(self) -> ChildProcess:
        if self._process is None:
            raise FriedaError(f"ZooKeeper {self.number} is not running")
        return self._process


class ZooKeeper:
    """An ensemble of 1, 3 or more servers. Entering starts it; leaving ends it and removes its folder.

    `tick_ms`: ZooKeeper's unit of time; sessions end at a multiple of it. A session timeout that a client asks
    for is kept between `min_session_timeout_ms` and `max_session_timeout_ms`.
    """

    def __init__(
        self,
        *,
        nodes: int = 1,
        tick_ms: int = 200,
        min_session_timeout_ms: int | None = None,
        max_session_timeout_ms: int = 120_000,
        sync_limit_ticks: int = 10,
    ) -> None:
        """Raises ConfigError for a number that makes no sense."""
        if not 1 <= nodes <= 9 or tick_ms < 10:
            raise ConfigError(
                f"nodes = {nodes}, tick_ms = {tick_ms}: must be 1 to 9 and at least 10"
            )
        self.nodes: tuple[ZooKeeperNode, ...] = ()
        self.tick_ms = tick_ms
        self._count = nodes
        self._settings = {
            "tickTime": tick_ms,
            "minSessionTimeout": min_session_timeout_ms or 2 * tick_ms,
            "maxSessionTimeout": max_session_timeout_ms,
            "initLimit": max(10, 10_000 // tick_ms),
            "syncLimit": sync_limit_ticks,
            "maxClientCnxns": 0,
            "autopurge.purgeInterval": 0,
            "clientPortAddress": "127.0.0.1",
            "4lw.commands.whitelist": "*",
        }
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @property
    def hosts(self) -> str:
        """host:port of each node, with commas between."""
        return ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    @property
    def url(self) -> str:
        """Where clients find it: zk://127.0.0.1:port,..."""
        return f"zk://{self.hosts}"

    def __enter__(self) -> Self:
        if (sentence := missing()) is not None:
            raise MissingDependencyError(sentence)
        for attempt in range(1, _START_ATTEMPTS + 1):
            try:
                self._start()
                return self
            except FriedaError:
                # Somebody may have taken a port between our look and ZooKeeper's.
                taken = any("Address already in use" in _log(node) for node in self.nodes)
                self._end()
                if not taken or attempt == _START_ATTEMPTS:
                    raise
            except BaseException:
                self._end()
                raise
        raise AssertionError("unreachable")

    def __exit__(self, *_: object) -> None:
        self._end()

    def node_of(self, mode: str) -> ZooKeeperNode:
        """The first running node of this mode. Raises FriedaError when there is none."""
        for node in self.nodes:
            with contextlib.suppress(OSError, FriedaError):
                if node.running and node.mode == mode:
                    return node
        raise FriedaError(f"no running ZooKeeper of this ensemble is {mode}")

    def expirations(self) -> dict[int, float]:
        """Sessions that ended for silence, with the server's time of it (Unix seconds)."""
        return {session: at for node in self.nodes for session, at in node.expirations()}

    def _start(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="frieda-zookeeper-")
        ports = iter(_free_ports(3 * self._count))
        self.nodes = tuple(
            ZooKeeperNode(
                number,
                Path(self._folder.name) / str(number),
                (next(ports), next(ports), next(ports)),
            )
            for number in range(1, self._count + 1)
        )
        for node in self.nodes:
            self._write_settings(node)
            node.start()
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        for node in self.nodes:
            node.wait_until_serving(max(1.0, deadline_s - time.monotonic()))

    def _write_settings(self, node: ZooKeeperNode) -> None:
        data = node.folder / "data"
        data.mkdir(parents=True)
        (data / "myid").write_text(f"{node.number}\n")
        settings = self._settings | {"dataDir": data, "clientPort": node.port}
        lines = [f"{key}={value}" for key, value in settings.items()]
        if self._count > 1:
            for peer in self.nodes:
                quorum, election = peer.peer_ports
                lines.append(f"server.{peer.number}=127.0.0.1:{quorum}:{election}")
        (node.folder / "zoo.cfg").write_text("\n".join(lines) + "\n")

    def _end(self) -> None:
        for node in self.nodes:
            node.kill()
        folder, self._folder = self._folder, None
        if folder is not None:
            folder.cleanup()


def _jars() -> list[Path]:
    folder = Path(os.environ.get(JARS_VARIABLE) or _JAR_FOLDER)
    return [folder / name for name in _JARS]


def _log(node: ZooKeeperNode) -> str:
    return "\n".join(log.read_text(errors="replace") for log in node.folder.glob("*.log"))


def _free_ports(count: int) -> list[int]:
    """Loopback ports that nobody has now and that no outgoing connection takes later: a restart finds its own again."""
    found: list[int] = []
    for port in random.sample(range(_FIRST_PORT, _LAST_PORT), _LAST_PORT - _FIRST_PORT):
        with (
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe,
            contextlib.suppress(OSError),
        ):
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise FriedaError(f"there are no {count} free ports from {_FIRST_PORT} to {_LAST_PORT}")
