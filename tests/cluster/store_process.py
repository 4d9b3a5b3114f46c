"""A broker's store in a process of its own, which a test can stop and go on with: store_process.py MODE URL FILE."""

from __future__ import annotations

import asyncio
import mmap
import struct
import sys
from typing import Any, Final

from frieda.cluster import heartbeats
from frieda.cluster.address import parse_address
from frieda.cluster.session import Write, ZooKeeperSession
from frieda.cluster.zookeeper import ZooKeeperStore
from frieda.errors import CoordinationError, FencedError
from frieda.testing.stores import GUARD_S, registration, until

SESSION_TIMEOUT_S: Final = 1.5
SESSIONS: Final = 5
HEARTBEAT: Final = struct.Struct("<QQQ")


def say(*words: object) -> None:
    print(*words, flush=True)


async def hold_sessions(url: str, file: str) -> None:
    """Keep several sessions, and each one's last answered heartbeat in a file that outlives a stopped process.

    It is written where kazoo's thread learns of it, so that at no moment the file knows less than the process.
    """
    with open(file, "w+b") as opened:  # noqa: ASYNC230  (there is nothing else to do)
        opened.truncate(SESSIONS * HEARTBEAT.size)
        shared = mmap.mmap(opened.fileno(), 0)
    with shared:
        slots: dict[int, int] = {}

        class Recorded(heartbeats.HeartbeatClient):
            def __setattr__(self, name: str, value: Any) -> None:
                if name == "heartbeat" and value.session_id:
                    slot = slots.setdefault(value.session_id, len(slots))
                    if slot < SESSIONS:
                        HEARTBEAT.pack_into(shared, slot * HEARTBEAT.size, *value)
                super().__setattr__(name, value)

        heartbeats.HeartbeatClient = Recorded  # type: ignore[misc]
        for _ in range(SESSIONS):
            session = ZooKeeperSession(parse_address(url), session_timeout_s=SESSION_TIMEOUT_S)
            await session.open(GUARD_S)
            await asyncio.sleep(0.17)  # so that their heartbeats fall on different moments
        say("ready")
        await asyncio.Event().wait()


async def write_as_controller(url: str) -> None:
    """Become controller and write all the time, until somebody else is."""
    store = ZooKeeperStore(url, session_timeout_s=SESSION_TIMEOUT_S)
    await store.open(GUARD_S)
    await store.register(registration(1))
    await until(store, lambda state: state.controller_id == 1)
    assert store._controller is not None
    candidacy = store._controller._candidacy
    say("controller", candidacy.mandate)
    while True:
        try:
            await candidacy.write([Write("/probe", b"the first", -1)])
        except FencedError as error:
            say("fenced:", error)
            break
        except CoordinationError as error:
            say("error:", error)
    await store.close()


if __name__ == "__main__":
    mode, url, file = sys.argv[1:]
    asyncio.run(hold_sessions(url, file) if mode == "sessions" else write_as_controller(url))
