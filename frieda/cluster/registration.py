"""A broker's place in the cluster: its ephemeral node, made again for each session, and the lease that follows from it.

Registering is one compare-and-set of three nodes: the number of the registration grows (`/incarnations/ID`), the node
of a last life goes, the new one comes. So whoever holds the number of a registration can have a later change refused
when the broker has been started anew in between.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from frieda.cluster import nodes
from frieda.cluster.election import Tail
from frieda.cluster.session import (
    MAX_REQUEST_BYTES,
    Create,
    Delete,
    Operation,
    Write,
    ZooKeeperSession,
)
from frieda.cluster.state import BrokerRegistration
from frieda.cluster.store import ClusterChange
from frieda.errors import ConfigError, ConflictError

logger = logging.getLogger(__name__)

MARGIN_SHARE: Final = 0.25
"""Of the session timeout. ZooKeeper's tick is at most half a session timeout, and half a tick is what it may lose of a
session's life when the server behind it dies (see `frieda.cluster.heartbeats`)."""
_ATTEMPTS: Final = 20
_LOOK_S: Final = 0.1


class Registrar:
    """Owned by the store. Knows what this broker wants to be registered as, and whether it is."""

    def __init__(self, session: ZooKeeperSession, margin_s: float | None = None) -> None:
        self._session = session
        self._margin_ns = None if margin_s is None else int(margin_s * 1e9)
        self._wanted: BrokerRegistration | None = None
        self._tails: Mapping[tuple[bytes, int], Tail] = {}
        self._registered_session = 0
        self._confirmed_session = 0

    @property
    def registration(self) -> BrokerRegistration | None:
        """As this broker is registered, or was last."""
        return self._wanted

    @property
    def is_due(self) -> bool:
        """It shall be registered, and is not in the session of now."""
        return self._wanted is not None and self._registered_session != self._session.session_id

    @property
    def lease_until_ns(self) -> int:
        """Until then on the monotonic clock the node of this broker is there; 0 without one.

        Counted from the sending of the last answered heartbeat, less the margin. After the loss of a session it
        begins again only when the broker is registered anew and has read everything since (`confirm`).
        """
        heartbeat = self._session.heartbeat
        if heartbeat.session_id == 0 or heartbeat.session_id != self._confirmed_session:
            return 0
        margin_ns = self._margin_ns
        if margin_ns is None:
            margin_ns = int(heartbeat.timeout_ns * MARGIN_SHARE)
        return heartbeat.sent_ns + heartbeat.timeout_ns - margin_ns

    async def register(
        self,
        registration: BrokerRegistration,
        replaces: str | None,
        tails: Mapping[tuple[bytes, int], Tail],
        timeout_s: float,
    ) -> None:
        """Make the node, waiting for that of another life to vanish unless it is the one that is replaced.

        Raises ConfigError when another process has the broker id for longer than `timeout_s`, or when there are
        more tails than a node can hold; CoordinationError.
        """
        size_bytes = len(nodes.encode_tails(tails))
        if size_bytes > MAX_REQUEST_BYTES // 2:
            raise ConfigError(
                f"the ends of {len(tails)} logs take {size_bytes} bytes, more than a node of ZooKeeper holds; "
                "with so many partitions use flush=batch, which leaves no doubt about them"
            )
        self._tails = tails if not registration.tail_certain else {}
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    if await self._try(registration, replaces):
                        return
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            raise ConfigError(
                f"another process is registered as broker {registration.broker_id} at {self._session.address}; "
                "give each broker an id of its own, or wait until its session has ended"
            ) from None

    async def register_again(self) -> None:
        """In a new session, as what it was. Does nothing when it is not due. Raises CoordinationError."""
        wanted = self._wanted
        if wanted is None or not self.is_due:
            return
        for _ in range(_ATTEMPTS):
            if await self._try(wanted, wanted.incarnation):
                return
            await asyncio.sleep(_LOOK_S)
        raise ConflictError(
            f"another process is registered as broker {wanted.broker_id} at {self._session.address}"
        )

    def confirm(self) -> None:
        """Everything was read since the registration: what this broker knows is no older than its node."""
        self._confirmed_session = self._registered_session

    async def announce_stop(self) -> None:
        """Say in the node that this broker wants to hand over. Raises CoordinationError."""
        for _ in range(_ATTEMPTS):
            wanted = self._wanted
            if wanted is None or wanted.stopping:
                return
            path = nodes.broker_path(wanted.broker_id)
            node = await self._session.get(path)
            if node is None:
                await self.register_again()
                continue
            # What stands there may be newer: the controller notes in it that the tail is certain by now.
            found = nodes.decode_registration(path, node.data)
            if found.incarnation != wanted.incarnation:
                break
            stopping = replace(found, stopping=True)
            try:
                await self._session.write(path, nodes.encode_registration(stopping), node.version)
            except ConflictError:
                continue
            self._wanted = stopping
            return
        raise ConflictError("the registration of this broker is another process's by now")

    def note(self, change: ClusterChange) -> None:
        """The picture has changed: take over what was written into our node, or notice that it is not ours any more."""
        wanted = self._wanted
        if wanted is None or wanted.broker_id not in change.brokers:
            return
        found = change.after.brokers.get(wanted.broker_id)
        if found is None:
            # In a session that lives somebody removed our node: it is due again, and until then there is no lease.
            self._registered_session = self._confirmed_session = 0
        elif found.incarnation == wanted.incarnation:
            self._wanted = replace(found, stopping=wanted.stopping or found.stopping)
        else:
            logger.error(
                "another process has registered as broker %d; this one leads nothing any more",
                wanted.broker_id,
            )
            self._confirmed_session = 0
            self._wanted = None

    async def _try(self, registration: BrokerRegistration, replaces: str | None) -> bool:
        """One attempt; False when a node is in the way that is not to be replaced, or things changed meanwhile."""
        session = self._session
        identity = registration.broker_id
        path, counter = nodes.broker_path(identity), nodes.incarnation_path(identity)
        session_id = session.session_id
        there, count, tails = await session.get_all([path, counter, nodes.tails_path(identity)])
        operations: list[Operation] = []
        if there is not None:
            found = nodes.decode_registration(path, there.data)
            if there.owner == session_id and found.incarnation == registration.incarnation:
                self._wanted, self._registered_session = found, session_id
                return True
            if found.incarnation != replaces:
                return False
            operations.append(Delete(path, there.version))
        if tails is not None:
            operations.append(Delete(nodes.tails_path(identity), tails.version))
        incarnation = nodes.encode(registration.incarnation)
        if count is None:
            number = 0
            operations.append(Create(counter, incarnation))
        else:
            number = count.version + 1
            operations.append(Write(counter, incarnation, count.version))
        numbered = replace(registration, number=number)
        if not registration.tail_certain:
            encoded = nodes.encode_tails(self._tails)
            operations.append(Create(nodes.tails_path(identity), encoded, ephemeral=True))
        operations.append(Create(path, nodes.encode_registration(numbered), ephemeral=True))
        try:
            await session.multi(operations)
        except ConflictError:
            return False
        self._wanted, self._registered_session = numbered, session_id
        return True
